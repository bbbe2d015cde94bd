"""An engine under many threads: the static tier answers in the caller, other tiers through a queue, forward by forward."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Unpack

import numpy.typing as npt

from ipr_engine._C import clock_ns
from ipr_engine._old_spellings import warn_on_error
from ipr_engine.bundle import Bundle, Performance
from ipr_engine.decision import Decision, Row
from ipr_engine.encoders.load_options import EncoderKeywords
from ipr_engine.engine import Engine
from ipr_engine.errors import InvalidInputError, IprError
from ipr_engine.policy.policy import Policy
from ipr_engine.prompts import Prompt
from ipr_engine.request.cached_tokens import CachedTokens
from ipr_engine.request.tokens_in import TokensIn
from ipr_engine.serving.admission import Admission
from ipr_engine.serving.cache import CacheCounts, DecisionCache
from ipr_engine.serving.counters import CounterBoard, Counters
from ipr_engine.serving.fallback import make_fallback
from ipr_engine.serving.limits import Limits
from ipr_engine.serving.many import Asked
from ipr_engine.serving.request import Outcome, Request
from ipr_engine.serving.scheduler import Scheduler


class BatchingEngine:
    """`Engine.route` for any number of threads at once; AsyncEngine is the same for asyncio tasks.

        >>> with BatchingEngine.load() as serving:
        ...     decision = serving.route("Explain quicksort", tau=0.1)

    A prompt of the static tier is decided in the calling thread. One of another tier waits in a bounded queue for the worker
    thread, which takes what is there, batch by batch; every batch is decided within one bundle, whatever is swapped meanwhile.

    Attributes:
        engine: what decides; swap bundles, make policies and mark drift on it as ever.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        fallback: Engine | str | Sequence[str] | None = None,
        cache_entries: int = 0,
        limits: Limits | Mapping[str, Any] | None = None,
    ) -> None:
        """
        Args:
            engine: may be shared with other callers.
            fallback: who answers when a request's budget_us is over: an engine of the static tier, or a candidate's name, or
                several (the first that the request's policy allows). None: a DeadlineError.
            cache_entries: decisions kept by exact prompt, policy and bundle; 0 for no cache.
            limits: of the queue and of a batch; see `Limits`.
        Raises:
            InvalidInputError: an argument is outside of the above.
        """
        if not isinstance(engine, Engine):
            raise InvalidInputError(f"engine: expected an Engine, got {type(engine).__name__}; load(path) makes one")
        if cache_entries != 0 or isinstance(cache_entries, bool):
            self._cache: DecisionCache | None = DecisionCache(cache_entries)
        else:
            self._cache = None
        self.engine = engine
        self.limits = _limits(limits)
        self._board = CounterBoard()
        answers_late = make_fallback(fallback, engine.bundle)
        self._admission = Admission(engine, self.limits, self._board, self._cache, answers_late)
        self._scheduler = Scheduler(engine, self.limits, self._board, self._cache, answers_late)
        self._ends = weakref.finalize(self, self._scheduler.close, drain=False, timeout_s=0.0)
        self._ends.atexit = False  # process_events waits for the worker then

    @classmethod
    def load(
        cls,
        path: str | Path | None = None,
        *,
        fallback: Engine | str | Sequence[str] | None = None,
        cache_entries: int = 0,
        limits: Limits | Mapping[str, Any] | None = None,
        **options: Unpack[EncoderKeywords],
    ) -> BatchingEngine:
        """`Engine.load` with its options (isa, tier, device ...), and those of the constructor. Reads the disk in the calling thread."""
        engine = Engine.load(path, **options)
        return cls(engine, fallback=fallback, cache_entries=cache_entries, limits=limits)

    def start(self) -> BatchingEngine:
        """Warm up and serve; returns when ready. May be called again. What the warm-up raises closes this engine.

        Raises:
            NotServingError: closed before, or meanwhile.
        """
        self._scheduler.start(self._admission)
        return self

    def close(self, *, drain: bool = True, timeout_s: float | None = None) -> bool:
        """Take no more requests, decide those that wait (drain) or refuse them with NotServingError. May be called again.

        Args:
            timeout_s: seconds to wait for the worker; None until it is done.
        Returns:
            Whether the worker has ended.
        """
        self._scheduler.take_no_more()
        self._admission.serving = False  # in this order: a start at the same time does not set it again
        return self._scheduler.close(drain=drain, timeout_s=timeout_s)

    def route(
        self,
        prompt: Prompt,
        policy: Policy | None = None,
        *,
        budget_us: float | None = None,
        billed_tokens: int | None = None,
        tokens_out: npt.ArrayLike | None = None,
        extra_usd: npt.ArrayLike | None = None,
        cached_tokens: CachedTokens | None = None,
        tokens_in: TokensIn | None = None,
        on_error: str | None = None,
        **terms: Any,
    ) -> Decision:
        """Decide who should answer one prompt; blocks the calling thread until it is decided.

        Args:
            prompt: a string, chat messages or a whole request.
            policy, billed_tokens, tokens_out, extra_usd, cached_tokens, tokens_in, terms: as of `Engine.route`.
            on_error: of an earlier release: `route_many` takes it.
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
        if on_error is not None:
            warn_on_error("BatchingEngine", stacklevel=4)
        on_error = "raise" if on_error is None else on_error
        given = (billed_tokens, tokens_out, extra_usd, cached_tokens, tokens_in)
        answer = self._admission.begin(prompt, policy, budget_us, *given, on_error, terms)
        return self._wait(answer) if isinstance(answer, Request) else answer

    def route_many(
        self,
        prompts: Sequence[Prompt],
        policy: Policy | None = None,
        *,
        budget_us: float | None = None,
        billed_tokens: int | Sequence[int | None] | npt.NDArray[Any] | None = None,
        tokens_out: npt.ArrayLike | None = None,
        extra_usd: npt.ArrayLike | None = None,
        cached_tokens: CachedTokens | None = None,
        tokens_in: TokensIn | None = None,
        on_error: str = "raise",
        **terms: Any,
    ) -> list[Row]:
        """Decide who should answer each of several prompts, which may share forwards; blocks until all are decided.

        Every prompt is a request of its own, to the queue, to its budget and to the counters.

        Args:
            prompts, billed_tokens, tokens_out, extra_usd, cached_tokens, tokens_in, on_error: as of `Engine.route_many`.
            budget_us: as of `route`, for each.
        Returns:
            A row a prompt: a list, since a swap meanwhile gives some of them another bundle.
        Raises:
            As `route`, the first that fails; the others are then withdrawn. RowError tells all rows that cannot be decided.
        """
        given = (billed_tokens, tokens_out, extra_usd, cached_tokens, tokens_in)
        asked = Asked.of(self.engine, prompts, policy, *given, on_error, terms)
        waiting: list[Request] = []
        rows: list[Row | Request] = []
        try:
            for row in range(len(asked)):
                answer = asked.begin(self._admission, row, budget_us)
                rows.append(answer)
                if isinstance(answer, Request):
                    answer.awaited_by_thread()
                    self.submit(answer)
                    waiting.append(answer)
            made = list(map(partial(self._await_row, asked), range(len(rows)), rows))
        except BaseException:
            for request in waiting:
                self.cancel(request)
            raise
        return asked.checked(made)

    def submit(self, request: Request) -> None:
        """Queue what `Admission.begin` gave; who waits for it must be set before."""
        try:
            self._scheduler.submit(request)
        except IprError as error:
            self._board.error(error)
            raise

    def settled(self, request: Request, outcome: Outcome) -> Row:
        """Count an outcome as it reaches its caller, and return or raise it."""
        result = self._scheduler.delivery.settled(request, outcome)
        if isinstance(result, Exception):
            raise result
        return result

    def cancel(self, request: Request) -> None:
        """The caller waits no longer: its place in the queue is free again."""
        if self._scheduler.withdraw(request):
            self._board.event("cancelled")

    def expire(self, request: Request) -> Outcome | None:
        """What the caller gets, its budget being over; None when it is answered already."""
        if not self._scheduler.withdraw(request):
            return None
        try:
            return self._scheduler.expired(request)
        except Exception as error:  # whatever it is, the caller waits for it
            return error

    def _wait(self, request: Request) -> Row:
        request.awaited_by_thread()
        self.submit(request)
        return self._await(request)

    def _await_row(self, asked: Asked, row: int, answer: Row | Request) -> Row:
        if not isinstance(answer, Request):
            return answer
        try:
            return self._await(answer)
        except InvalidInputError as error:
            return asked.bad(row, error)

    def _await(self, request: Request) -> Row:
        """Block until a queued request is answered."""
        ready = request.ready
        assert ready is not None
        try:
            if request.deadline_ns is None:
                ready.acquire()
            elif not ready.acquire(timeout=max(0.0, (request.deadline_ns - clock_ns()) / 1e9)):
                late = self.expire(request)
                if late is not None:
                    return self.settled(request, late)
                ready.acquire()  # the worker was faster by a hair
        except BaseException:  # KeyboardInterrupt, say: the caller is gone
            self.cancel(request)
            raise
        assert request.outcome is not None
        return self.settled(request, request.outcome)

    def policy(self, **terms: Any) -> Policy:
        """`Engine.policy`."""
        return self.engine.policy(**terms)

    def swap(self, bundle: Bundle | str | Path, **allow: bool) -> Bundle:
        """`Engine.swap`: requests in a forward finish on the bundle they began with, those that wait get the new one."""
        return self.engine.swap(bundle, **allow)

    def update_performance(self, figures: Mapping[str, Performance | Mapping[str, float] | None]) -> None:
        """`Engine.update_performance`: requests that wait are decided by the new figures."""
        self.engine.update_performance(figures)

    @property
    def performance(self) -> Mapping[str, Performance]:
        """`Engine.performance`."""
        return self.engine.performance

    @property
    def bundle(self) -> Bundle:
        return self.engine.bundle

    def counters(self) -> Counters:
        """A snapshot of all counts; cheap enough to be taken every second."""
        return self._board.snapshot(
            queue_depth=self._scheduler.depth,
            queue_limit=self.limits.max_queue,
            in_forward=self._scheduler.in_forward,
            cache=CacheCounts() if self._cache is None else self._cache.counts(),
            swaps=self.engine.swaps,
            bundle_hash=self.engine.bundle.hash,
        )

    def __enter__(self) -> BatchingEngine:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "serving" if self._admission.serving else "not serving"
        return f"BatchingEngine({self.engine!r}, {state}, {self._scheduler.depth} of {self.limits.max_queue} waiting)"


def _limits(limits: Limits | Mapping[str, Any] | None) -> Limits:
    if limits is None or isinstance(limits, Limits):
        return limits or Limits()
    known = Limits.__dataclass_fields__.keys()
    if not isinstance(limits, Mapping) or not limits.keys() <= known:
        raise InvalidInputError(f"limits: expected Limits, or a mapping of {', '.join(known)}, got {limits!r}")
    return Limits(**limits)
