"""A `PromptList` splits the prompts of one `route_many` into requests of their own, and collects their answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeAlias

from ipr_engine.decision.decision import Row
from ipr_engine.decision.decisions import invalid_row
from ipr_engine.errors import InvalidInputError, RowError
from ipr_engine.loaded.loaded_bundle import LoadedBundle
from ipr_engine.policy.policy import Policy
from ipr_engine.prompts import Prompt
from ipr_engine.request.arguments import given_tokens, held_tokens, one_a_row, per_model
from ipr_engine.request.intake import check_many, given_bills
from ipr_engine.request.route_request import RouteOptions, check_on_error, policy_options
from ipr_engine.serving.queueing import QueuedRequest

Begin: TypeAlias = Callable[[Prompt, Policy | None, float | None, RouteOptions, str], Row | QueuedRequest]


class ListedEngine(Protocol):
    """A `ListedEngine` has what a list needs of an engine: the bundle that serves now."""

    @property
    def loaded(self) -> LoadedBundle: ...


class AnsweringService(Protocol):
    """An `AnsweringService` is a service, as far as a list needs it."""

    async def answered(self, request: QueuedRequest) -> Row: ...

    def submit_in_thread(self, request: QueuedRequest) -> None: ...

    def await_in_thread(self, request: QueuedRequest) -> Row: ...

    def cancel(self, request: QueuedRequest) -> None: ...


class PromptList:
    """A `PromptList` holds the prompts of one `route_many`, with what its caller gave of each.

    Attributes:
        policy: for all of them, as resolved when the call came.
    """

    def __init__(self, engine: ListedEngine, prompts: Any, policy: Policy | None, options: RouteOptions) -> None:
        """Check the arguments of all prompts; each prompt is checked as its turn comes.

        Raises:
            InvalidInputError: an argument is not as `Engine.route_many` has it.
        """
        check_many(prompts)
        on_error = options.get("on_error", "raise")
        check_on_error(on_error)
        loaded, batch = engine.loaded, len(prompts)
        names, self.policy = loaded.bundle.names, loaded.resolve(policy, policy_options(options))
        cached_tokens, tokens_in = options.get("cached_tokens"), options.get("tokens_in")
        held = None if cached_tokens is None else held_tokens(cached_tokens, batch, names, self.policy.prices)
        counted = None if tokens_in is None else given_tokens(tokens_in, batch, names)
        self._engine = engine
        self._prompts = prompts
        self._on_error = on_error
        self._rows: dict[str, Any] = {"billed_tokens": given_bills(options.get("billed_tokens"), batch)}
        for name in ("tokens_out", "extra_usd"):
            values: Any = options.get(name)
            if values is not None:
                columns = per_model(name, values, batch, len(names))
                self._rows[name] = [columns] * batch if columns.ndim == 1 else columns
        if held is not None:
            self._rows["cached_tokens"] = one_a_row(cached_tokens, held)
        if counted is not None:
            self._rows["tokens_in"] = one_a_row(tokens_in, counted)

    def __len__(self) -> int:
        return len(self._prompts)

    async def route(self, service: AnsweringService, begins: Iterable[Begin], budget_us: float | None) -> list[Row]:
        """Route every prompt from a task, each begun by its own function; the first that fails withdraws the others."""
        begun = [self.begin(begin, row, budget_us) for row, begin in zip(range(len(self)), begins, strict=False)]
        waits = [asyncio.ensure_future(self._answered(service, row, one)) for row, one in enumerate(begun)]
        try:
            rows = await asyncio.gather(*waits)
        except BaseException:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
            raise
        return self.checked(rows)

    async def _answered(self, service: AnsweringService, row: int, answer: Row | QueuedRequest) -> Row:
        if not isinstance(answer, QueuedRequest):
            return answer
        try:
            return await service.answered(answer)
        except InvalidInputError as error:
            return self.bad(row, error)

    def route_in_thread(self, service: AnsweringService, begins: Iterable[Begin], budget_us: float | None) -> list[Row]:
        """Route every prompt from a thread, as `route` does from a task."""
        waiting: list[QueuedRequest] = []
        begun: list[Row | QueuedRequest] = []
        try:
            for row, begin in zip(range(len(self)), begins, strict=False):
                answer = self.begin(begin, row, budget_us)
                begun.append(answer)
                if isinstance(answer, QueuedRequest):
                    service.submit_in_thread(answer)
                    waiting.append(answer)
            return self.checked([self._await_in_thread(service, row, one) for row, one in enumerate(begun)])
        except BaseException:
            for request in waiting:
                service.cancel(request)
            raise

    def _await_in_thread(self, service: AnsweringService, row: int, answer: Row | QueuedRequest) -> Row:
        if not isinstance(answer, QueuedRequest):
            return answer
        try:
            return service.await_in_thread(answer)
        except InvalidInputError as error:
            return self.bad(row, error)

    def begin(self, begin: Begin, row: int, budget_us: float | None) -> Row | QueuedRequest:
        """Return what `Service.begin` makes of this prompt; a failed row where it is bad and rows are returned by status.

        Raises:
            InvalidInputError: the prompt is bad, its row named.
        """
        given = {name: values[row] for name, values in self._rows.items() if values[row] is not None}
        try:
            return begin(self._prompts[row], self.policy, budget_us, given, "status")  # type: ignore[arg-type]
        except InvalidInputError as error:
            return self.bad(row, error)

    def bad(self, row: int, error: InvalidInputError) -> Row:
        """Return the failed row of a bad prompt; raise where rows are not returned by status, or the fault is no prompt's."""
        message = str(error)
        name = next((name for name in ("prompts[0]", "prompt") if message.startswith(f"{name}:")), None)
        if name is None:
            raise error
        message = f"prompts[{row}]{message.removeprefix(name)}"
        if self._on_error == "raise":
            raise InvalidInputError(message) from None
        loaded = self._engine.loaded
        return invalid_row(loaded.resolve(self.policy), loaded.bundle, message)

    def checked(self, rows: list[Row]) -> list[Row]:
        """Return the rows; raise RowError for the failed ones unless they are returned by status."""
        failed = [at for at, row in enumerate(rows) if row.degraded is None and row.status != "ok"]
        if failed and self._on_error == "raise":
            raise RowError(failed, [rows[at].status for at in failed])
        return rows
