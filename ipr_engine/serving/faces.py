"""A service has two faces: `AsyncEngine` for asyncio tasks, in any number of event loops, `BatchingEngine` for threads."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any, Self, Unpack

from ipr_engine._old_spellings import warn_on_error
from ipr_engine.audit.record_writer import RecordKeywords, RecordSink
from ipr_engine.bundle import Bundle, Performance
from ipr_engine.decision import Explanation, check_explainable, explained
from ipr_engine.decision.decision import Decision, Row
from ipr_engine.encoders.load_options import EncoderKeywords
from ipr_engine.engine import Engine
from ipr_engine.errors import InvalidInputError
from ipr_engine.policy.calibrated import DriftEvidence
from ipr_engine.policy.policy import Policy
from ipr_engine.policy.policy_spec import PolicyOptions
from ipr_engine.prompts import Prompt
from ipr_engine.request.route_request import RouteOptions
from ipr_engine.serving.metrics import Counters
from ipr_engine.serving.prompt_list import PromptList
from ipr_engine.serving.queueing import Limits, QueuedRequest
from ipr_engine.serving.recorders import AsyncRecorder, BatchingRecorder, record_log
from ipr_engine.serving.service import Service
from ipr_engine.watch import Watch, WatchKeywords


class ServingFace:
    """A `ServingFace` is an engine and the service that many callers share; both faces are one.

    Attributes:
        engine: what decides; bundles are swapped, policies made and drift marked on it.
        service: the queue, the worker and the counters.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        fallback: Engine | str | Sequence[str] | None = None,
        cache_entries: int = 0,
        limits: Limits | Mapping[str, Any] | None = None,
    ) -> None:
        """Wrap an engine, which may be shared with other callers.

        Args:
            fallback: who answers when a request's budget_us is over: an engine of the static tier, or a candidate's name, or
                several (the first that the request's policy allows). None: a DeadlineError.
            cache_entries: decisions kept by exact prompt, policy and bundle; 0 for no cache.
            limits: of the queue and of a batch; see `Limits`.
        Raises:
            InvalidInputError: an argument is outside of the above.
        """
        if not isinstance(engine, Engine):
            raise InvalidInputError(f"engine: expected an Engine, got {type(engine).__name__}; load(path) makes one")
        self.engine = engine
        self.service = Service(engine, fallback=fallback, cache_entries=cache_entries, limits=limits)

    @classmethod
    def beside(cls, other: ServingFace) -> Self:
        """Make a face of the same engine and service."""
        made = cls.__new__(cls)
        made.engine, made.service = other.engine, other.service
        return made

    @classmethod
    def load(
        cls,
        path: str | Path | None = None,
        *,
        fallback: Engine | str | Sequence[str] | None = None,
        cache_entries: int = 0,
        limits: Limits | Mapping[str, Any] | None = None,
        **options: Unpack[EncoderKeywords],
    ) -> Self:
        """Load an engine in the calling thread and wrap it; the options are those of `Engine.load` (isa, tier, device ...)."""
        return cls(Engine.load(path, **options), fallback=fallback, cache_entries=cache_entries, limits=limits)

    def policy(self, **options: Unpack[PolicyOptions]) -> Policy:
        """Make a policy, as `Engine.policy` does."""
        return self.engine.policy(**options)

    @property
    def performance(self) -> Mapping[str, Performance]:
        """Return the figures of candidates: `Engine.performance`."""
        return self.engine.performance

    @property
    def bundle(self) -> Bundle:
        """Return the bundle that serves."""
        return self.engine.bundle

    @property
    def limits(self) -> Limits:
        """Return the bounds of the queue and of a batch."""
        return self.service.limits

    def mark_stale(self, evidence: DriftEvidence | None) -> None:
        """Say that calibration maps and tau's paths no longer hold, as `Engine.mark_stale` does; kept decisions say so at once."""
        self.engine.mark_stale(evidence)

    def counters(self) -> Counters:
        """Take a snapshot of all counts, of tasks and threads alike; cheap enough for every second."""
        return self.service.counters()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.service.summary})"


class BatchingEngine(ServingFace):
    """A `BatchingEngine` routes for any number of threads at once; `AsyncEngine` is the same for asyncio tasks.

        >>> with BatchingEngine.load() as serving:
        ...     decision = serving.route("Explain quicksort", tau=0.1)

    A prompt of the static tier is decided in the calling thread. One of another tier waits in a bounded queue for the worker
    thread, which takes what is there, batch by batch; every batch is decided within one bundle, whatever is swapped meanwhile.
    """

    def start(self) -> BatchingEngine:
        """Warm up and serve; returns when ready. May be called again. What the warm-up raises closes this engine.

        Raises:
            NotServingError: closed before, or meanwhile.
        """
        self.service.start()
        return self

    def close(self, *, drain: bool = True, timeout_s: float | None = None) -> bool:
        """Take no more requests, decide those that wait (drain) or refuse them with NotServingError. May be called again.

        Args:
            timeout_s: seconds to wait for the worker; None until it is done.
        Returns:
            Whether the worker has ended.
        """
        return self.service.close(drain=drain, timeout_s=timeout_s)

    def route(
        self,
        prompt: Prompt,
        policy: Policy | None = None,
        *,
        budget_us: float | None = None,
        **options: Unpack[RouteOptions],
    ) -> Decision:
        """Decide who should answer one prompt; blocks the calling thread until it is decided.

        Args:
            prompt: a string, chat messages or a whole request.
            policy, options: those of `Engine.route`; on_error, of an earlier release, is `route_many`'s.
            budget_us: microseconds from now after which the fallback answers (cause "deadline"), > 0; None for no limit.
                What is decided in the caller's thread is not cut short.
        Raises:
            InvalidInputError: a bad prompt or argument, named; this request alone fails.
            OverloadError: the queue is full.
            DeadlineError: the budget is over, and no fallback could answer.
            EncoderFailedError: the encoder failed on the batch this request was in.
            RowError: the prompt cannot be decided.
            NotServingError: not started, closed, or forked after load.
        """
        on_error = options.pop("on_error", None)
        if on_error is not None:
            warn_on_error("BatchingEngine", stacklevel=4)
        answer = self.service.begin(prompt, policy, budget_us, options, "raise" if on_error is None else on_error)
        return self._answered(answer)

    def route_many(
        self,
        prompts: Sequence[Prompt],
        policy: Policy | None = None,
        *,
        budget_us: float | None = None,
        **options: Unpack[RouteOptions],
    ) -> list[Row]:
        """Decide who should answer each of several prompts, which may share forwards; blocks until all are decided.

        Every prompt is a request of its own, to the queue, to its budget and to the counters.

        Args:
            prompts, policy, options: those of `Engine.route_many`.
            budget_us: that of `route`, for each prompt.
        Returns:
            A row a prompt: a list, since a swap meanwhile gives some of them another bundle.
        Raises:
            As `route`, the first that fails; the others are then withdrawn. RowError names all rows that cannot be decided.
        """
        listed = PromptList(self.engine, prompts, policy, options)
        return listed.route_in_thread(self.service, repeat(self.service.begin), budget_us)

    def _answered(self, answer: Row | QueuedRequest) -> Row:
        if not isinstance(answer, QueuedRequest):
            return answer
        self.service.submit_in_thread(answer)
        return self.service.await_in_thread(answer)

    def explain(
        self, prompt: Prompt | Decision, policy: Policy | None = None, **options: Unpack[RouteOptions]
    ) -> Explanation:
        """Explain the choice for a prompt, as `Engine.explain` does. The prompt is a request like any other: queued and counted."""
        if isinstance(prompt, Decision):
            return explained(prompt, policy, options)
        check_explainable(prompt, options)
        return Explanation(self._answered(self.service.begin(prompt, policy, None, options, "status")))

    def recorder(self, to: RecordSink, **options: Unpack[RecordKeywords]) -> BatchingRecorder:
        """Route as this engine does, and write a record of each decision; the arguments are those of `Engine.recorder`."""
        return BatchingRecorder(self.service, record_log(self.service, to, options))

    def watch(self, root: str | os.PathLike[str], **options: Unpack[WatchKeywords]) -> Watch:
        """Follow a bundle root, as `Engine.watch` does."""
        return self.engine.watch(root, **options)

    def swap(self, bundle: Bundle | str | Path, **allow: bool) -> Bundle:
        """Swap the engine's bundle: requests in a forward finish on the bundle they began with, those that wait get the new one."""
        return self.engine.swap(bundle, **allow)

    def update_performance(self, figures: Mapping[str, Performance | Mapping[str, float] | None]) -> None:
        """Update figures of candidates, as `Engine.update_performance` does: requests that wait are decided by the new ones."""
        self.engine.update_performance(figures)

    def __enter__(self) -> BatchingEngine:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncEngine(ServingFace):
    """An `AsyncEngine` routes for asyncio tasks, and for threads beside them.

        >>> async with AsyncEngine.load() as engine:
        ...     decision = await engine.route("Explain quicksort", tau=0.1)

    The static tier answers within the call, without yielding to the loop: queueing would cost more than the work. Other tiers
    share forwards (docs/operations.md). A cancelled task gives its place in the queue free.

    Attributes:
        blocking: the same engine, queue and counters for threads, a BatchingEngine.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        fallback: Engine | str | Sequence[str] | None = None,
        cache_entries: int = 0,
        limits: Limits | Mapping[str, Any] | None = None,
    ) -> None:
        """Wrap an engine; the arguments are those of `BatchingEngine`."""
        super().__init__(engine, fallback=fallback, cache_entries=cache_entries, limits=limits)
        self.blocking = BatchingEngine.beside(self)
        self._begin = self.service.begin

    async def start(self) -> AsyncEngine:
        """Warm up in a thread, then serve; see `BatchingEngine.start`."""
        await asyncio.to_thread(self.service.start)
        return self

    async def close(self, *, drain: bool = True, timeout_s: float | None = None) -> bool:
        """Close the service, as `BatchingEngine.close` does; the loop goes on meanwhile, so that tasks get their answers."""
        return await asyncio.to_thread(self.service.close, drain=drain, timeout_s=timeout_s)

    async def route(
        self,
        prompt: Prompt,
        policy: Policy | None = None,
        *,
        budget_us: float | None = None,
        **options: Unpack[RouteOptions],
    ) -> Decision:
        """Decide who should answer one prompt; the arguments and errors are those of `BatchingEngine.route`."""
        on_error = options.pop("on_error", None)
        if on_error is not None:
            warn_on_error("AsyncEngine")
        answer = self._begin(prompt, policy, budget_us, options, "raise" if on_error is None else on_error)
        return await self.service.answered(answer) if isinstance(answer, QueuedRequest) else answer

    async def route_many(
        self,
        prompts: Sequence[Prompt],
        policy: Policy | None = None,
        *,
        budget_us: float | None = None,
        **options: Unpack[RouteOptions],
    ) -> list[Row]:
        """Decide who should answer each of several prompts; arguments, rows and errors are those of `BatchingEngine.route_many`."""
        listed = PromptList(self.engine, prompts, policy, options)
        return await listed.route(self.service, repeat(self._begin), budget_us)

    async def explain(
        self, prompt: Prompt | Decision, policy: Policy | None = None, **options: Unpack[RouteOptions]
    ) -> Explanation:
        """Explain the choice for a prompt, as `Engine.explain` does. The prompt is a request like any other: queued and counted."""
        if isinstance(prompt, Decision):
            return explained(prompt, policy, options)
        check_explainable(prompt, options)
        answer = self._begin(prompt, policy, None, options, "status")
        return Explanation(await self.service.answered(answer) if isinstance(answer, QueuedRequest) else answer)

    def recorder(self, to: RecordSink, **options: Unpack[RecordKeywords]) -> AsyncRecorder:
        """Route as this engine does, and write a record of each decision; the arguments are those of `Engine.recorder`."""
        return AsyncRecorder(self.service, record_log(self.service, to, options))

    def route_blocking(self, prompt: Prompt, policy: Policy | None = None, **options: Any) -> Decision:
        """Route from a thread, as `BatchingEngine.route` does; an event loop's own thread would hold up the loop.

        A list of prompts goes to `blocking.route_many`.
        """
        return self.blocking.route(prompt, policy, **options)

    async def swap(self, bundle: Bundle | str | Path, **allow: bool) -> Bundle:
        """Swap the engine's bundle, which is read and planned in a thread."""
        return await asyncio.to_thread(self.engine.swap, bundle, **allow)

    async def watch(self, root: str | os.PathLike[str], **options: Unpack[WatchKeywords]) -> Watch:
        """Follow a bundle root, as `Engine.watch` does; the first look, which may load a bundle, is in a thread as all others are."""
        return await asyncio.to_thread(self.engine.watch, root, **options)

    async def update_performance(self, figures: Mapping[str, Performance | Mapping[str, float] | None]) -> None:
        """Update figures of candidates, as `Engine.update_performance` does; policies in use are compiled anew in a thread."""
        await asyncio.to_thread(self.engine.update_performance, figures)

    async def __aenter__(self) -> AsyncEngine:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"Async{self.blocking!r}"
