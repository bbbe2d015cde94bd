"""The recorders of a service's two faces: `AsyncRecorder` for asyncio tasks, `BatchingRecorder` for threads."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Protocol, Unpack

from ipr_engine.audit.exploration import ExplorationDraw
from ipr_engine.audit.record import RecordId
from ipr_engine.audit.record_writer import RecordKeywords, RecordSink, RecordWriter, record_ids
from ipr_engine.decision.decision import Decision, Row
from ipr_engine.errors import InvalidInputError
from ipr_engine.policy.policy import Policy
from ipr_engine.prompts import Prompt
from ipr_engine.request.route_request import RouteOptions
from ipr_engine.serving.prompt_list import AnsweringService, Begin, ListedEngine, PromptList
from ipr_engine.serving.queueing import QueuedRequest, RecordWish
from ipr_engine.serving.record_log import RecordLog, RecordMaking
from ipr_engine.serving.record_maker import RecordMaker


class RecordingService(AnsweringService, Protocol):
    """A `RecordingService` is a service, as far as a recorder needs it."""

    @property
    def engine(self) -> ListedEngine: ...

    @property
    def summary(self) -> str: ...

    def record_log(self, maker: RecordMaking) -> RecordLog: ...

    def begin_recorded(
        self,
        log: RecordLog,
        wish: RecordWish,
        prompt: Prompt,
        policy: Policy | None,
        budget_us: float | None,
        options: RouteOptions,
        on_error: str = ...,
    ) -> QueuedRequest: ...


class RecorderFace:
    """A `RecorderFace` is a service, and the log that its decisions are recorded in; the recorders of both faces share one.

    Attributes:
        service: the queue, the worker and the counters. log: what writes.
    """

    def __init__(self, service: RecordingService, log: RecordLog) -> None:
        self.service = service
        self.log = log

    def _begin(
        self, wish: RecordWish, prompt: Prompt, policy: Policy | None, budget_us: float | None, options: RouteOptions
    ) -> QueuedRequest:
        if "on_error" in options:
            raise InvalidInputError(
                "on_error: route raises; write route_many([prompt], on_error=...) for a row with its status"
            )
        return self.service.begin_recorded(self.log, wish, prompt, policy, budget_us, options)

    def _listed(
        self,
        prompts: Sequence[Prompt],
        policy: Policy | None,
        ids: Sequence[RecordId] | None,
        options: RouteOptions,
    ) -> tuple[PromptList, Iterable[Begin]]:
        """Return the prompts, and what begins each of them, with its record's id."""
        listed = PromptList(self.service.engine, prompts, policy, options)
        names = record_ids(ids, len(listed))
        return listed, [partial(self.service.begin_recorded, self.log, RecordWish(self.log, name)) for name in names]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.service.summary}, {self.log.waiting} records to write)"


class BatchingRecorder(RecorderFace):
    """A `BatchingRecorder` routes as its `BatchingEngine` does, and writes a record of each decision; made by its `recorder`.

        >>> with BatchingEngine.load() as serving, serving.recorder("log.jsonl") as recorder:
        ...     decision = recorder.route("Explain quicksort", tau=0.1, id="request 1")

    A call returns once its record is written. Safe to share between threads.
    """

    def route(
        self,
        prompt: Prompt,
        policy: Policy | None = None,
        *,
        id: RecordId = None,
        budget_us: float | None = None,
        draw: ExplorationDraw | None = None,
        **options: Unpack[RouteOptions],
    ) -> Decision:
        """Decide as `BatchingEngine.route` does, and record it.

        Args:
            id: what the record is called, a string or a whole number.
            draw: of an `Explorer`, whose `of(decision)` says who is to be asked; the record says so too.
            budget_us: for the decision; the write of its record is waited for whatever it takes.
        Raises:
            As `BatchingEngine.route`; RowError once the record is written. What is not decided has no record.
            RecordError: the record could not be written, or the recorder is closed.
            OverloadError: too many decisions wait for their records, or the queue is full.
        """
        begun = self._begin(RecordWish(self.log, id, draw=draw), prompt, policy, budget_us, options)
        self.service.submit_in_thread(begun)
        return self.service.await_in_thread(begun)

    def route_many(
        self,
        prompts: Sequence[Prompt],
        policy: Policy | None = None,
        *,
        id: Sequence[RecordId] | None = None,
        budget_us: float | None = None,
        **options: Unpack[RouteOptions],
    ) -> list[Row]:
        """Decide as `BatchingEngine.route_many` does, and record each; `id` is one a prompt. RowError comes once all are written."""
        listed, begins = self._listed(prompts, policy, id, options)
        return listed.route_in_thread(self.service, begins, budget_us)

    def close(self, timeout_s: float | None = None) -> bool:
        """Write the records that wait, then close the file; what is decided later gets a RecordError. May be called again.

        Returns:
            Whether that was done within timeout_s.
        """
        return self.log.close(timeout_s)

    def __enter__(self) -> BatchingRecorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncRecorder(RecorderFace):
    """An `AsyncRecorder` routes as its `AsyncEngine` does, and writes a record of each decision; made by its `recorder`.

        >>> async with AsyncEngine.load() as engine, engine.recorder("log.jsonl") as recorder:
        ...     decision = await recorder.route("Explain quicksort", tau=0.1, id="request 1")

    A call returns once its record is written, by a thread of the recorder's own; the event loop goes on meanwhile.

    Attributes:
        blocking: the same recorder for threads, a BatchingRecorder.
    """

    def __init__(self, service: RecordingService, log: RecordLog) -> None:
        super().__init__(service, log)
        self.blocking = BatchingRecorder(service, log)

    async def route(
        self,
        prompt: Prompt,
        policy: Policy | None = None,
        *,
        id: RecordId = None,
        budget_us: float | None = None,
        draw: ExplorationDraw | None = None,
        **options: Unpack[RouteOptions],
    ) -> Decision:
        """Decide as `AsyncEngine.route` does, and record it; the arguments and errors are those of `BatchingRecorder.route`."""
        wish = RecordWish(self.log, id, draw=draw)
        return await self.service.answered(self._begin(wish, prompt, policy, budget_us, options))

    async def route_many(
        self,
        prompts: Sequence[Prompt],
        policy: Policy | None = None,
        *,
        id: Sequence[RecordId] | None = None,
        budget_us: float | None = None,
        **options: Unpack[RouteOptions],
    ) -> list[Row]:
        """Decide as `AsyncEngine.route_many` does, and record each; `id` is one a prompt. RowError comes once all are written."""
        listed, begins = self._listed(prompts, policy, id, options)
        return await listed.route(self.service, begins, budget_us)

    async def close(self, timeout_s: float | None = None) -> bool:
        """Close the recorder, as `BatchingRecorder.close` does; the loop goes on meanwhile, so that tasks get their answers."""
        return await asyncio.to_thread(self.log.close, timeout_s)

    async def __aenter__(self) -> AsyncRecorder:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def record_log(service: RecordingService, to: RecordSink, options: RecordKeywords) -> RecordLog:
    """Open what a recorder writes to. options: those of `Engine.recorder`."""
    return service.record_log(RecordMaker(RecordWriter(to, **options)))
