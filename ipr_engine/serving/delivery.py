"""Outcomes back to who waits for them: one call into each event loop, one lock released for each thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeGuard

from ipr_engine.decision import Decision
from ipr_engine.serving.counter_board import CounterBoard
from ipr_engine.serving.decision_cache import DecisionCache
from ipr_engine.serving.forward import raised
from ipr_engine.serving.request import Outcome, Request

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop


class Delivery:
    """Hands outcomes over, counts them as they arrive, keeps decisions for the cache."""

    def __init__(self, board: CounterBoard, cache: DecisionCache | None) -> None:
        self._board = board
        self._cache = cache

    def deliver(self, outcomes: Sequence[tuple[Request, Outcome]]) -> None:
        """From the worker: every request is DONE and was not withdrawn."""
        by_loop: dict[AbstractEventLoop, list[tuple[Request, Outcome]]] = {}
        for request, outcome in outcomes:
            if self._cache is not None and request.key is not None and _is_kept(outcome):
                self._cache.put(request.key, outcome)
            if request.loop is not None:
                by_loop.setdefault(request.loop, []).append((request, outcome))
            elif request.ready is not None:
                request.outcome = outcome
                request.ready.release()
        for loop, answers in by_loop.items():
            try:
                loop.call_soon_threadsafe(self._arrive, answers)
            except RuntimeError:  # the loop is closed: nobody waits there any more
                self._board.event("undelivered", len(answers))

    def _arrive(self, answers: Sequence[tuple[Request, Outcome]]) -> None:
        for request, outcome in answers:
            self.resolve(request, outcome)

    def resolve(self, request: Request, outcome: Outcome) -> None:
        """In the caller's event loop: its future gets the outcome, unless it was cancelled meanwhile."""
        future = request.future
        if future is None:
            return
        if future.done():  # cancelled after it was decided, before it arrived
            self._board.event("cancelled")
            return
        result = self.settled(request, outcome)
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)

    def settled(self, request: Request, outcome: Outcome) -> Outcome:
        """Count an outcome as it reaches its caller, and turn a failed row into the RowError it asked for."""
        board = self._board
        if isinstance(outcome, Exception):
            board.error(outcome)
            return outcome
        board.answered(outcome)
        board.queued.since(request.begun_ns)
        return raised(outcome, request.on_error)


def _is_kept(outcome: Outcome) -> TypeGuard[Decision]:
    """A decision of the engine's own: what a fallback answered is not what the prompt deserves."""
    return isinstance(outcome, Decision) and outcome.degraded is None and outcome.status == "ok"
