"""The engine for asyncio: `await route(...)` from any number of tasks, in any number of event loops."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
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
from ipr_engine.errors import InvalidInputError
from ipr_engine.policy.policy import Policy
from ipr_engine.prompts import Prompt
from ipr_engine.request.cached_tokens import CachedTokens
from ipr_engine.request.tokens_in import TokensIn
from ipr_engine.serving.batching_engine import BatchingEngine
from ipr_engine.serving.counters import Counters
from ipr_engine.serving.limits import Limits
from ipr_engine.serving.many import Asked
from ipr_engine.serving.request import Request


class AsyncEngine:
    """`Engine.route` for asyncio tasks, and for threads beside them.

        >>> async with AsyncEngine.load() as engine:
        ...     decision = await engine.route("Explain quicksort", tau=0.1)

    The static tier answers within the call, without yielding to the loop: queueing would cost more than the work. Other tiers
    share forwards (docs/operations.md). A cancelled task gives its place in the queue free.

    Attributes:
        blocking: the same engine, queue and counters for threads, a BatchingEngine.
        engine: what decides.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        fallback: Engine | str | Sequence[str] | None = None,
        cache_entries: int = 0,
        limits: Limits | Mapping[str, Any] | None = None,
    ) -> None:
        """As of BatchingEngine."""
        self.blocking = BatchingEngine(engine, fallback=fallback, cache_entries=cache_entries, limits=limits)
        self.engine = engine
        self._begin = self.blocking._admission.begin

    @classmethod
    def load(
        cls,
        path: str | Path | None = None,
        *,
        fallback: Engine | str | Sequence[str] | None = None,
        cache_entries: int = 0,
        limits: Limits | Mapping[str, Any] | None = None,
        **options: Unpack[EncoderKeywords],
    ) -> AsyncEngine:
        """`Engine.load` with its options (isa, tier, device ...), and those of the constructor. Reads the disk in the calling thread."""
        engine = Engine.load(path, **options)
        return cls(engine, fallback=fallback, cache_entries=cache_entries, limits=limits)

    async def start(self) -> AsyncEngine:
        """Warm up in a thread, then serve; see `BatchingEngine.start`."""
        await asyncio.to_thread(self.blocking.start)
        return self

    async def close(self, *, drain: bool = True, timeout_s: float | None = None) -> bool:
        """`BatchingEngine.close`; the loop goes on meanwhile, so that tasks get their answers."""
        return await asyncio.to_thread(self.blocking.close, drain=drain, timeout_s=timeout_s)

    async def route(
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
        """Decide who should answer one prompt; arguments and errors as of `BatchingEngine.route`."""
        if on_error is not None:
            warn_on_error("AsyncEngine")
        on_error = "raise" if on_error is None else on_error
        given = (billed_tokens, tokens_out, extra_usd, cached_tokens, tokens_in)
        answer = self._begin(prompt, policy, budget_us, *given, on_error, terms)
        return await self._wait(answer) if isinstance(answer, Request) else answer

    async def route_many(
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
        """Decide who should answer each of several prompts; arguments, rows and errors as of `BatchingEngine.route_many`."""
        given = (billed_tokens, tokens_out, extra_usd, cached_tokens, tokens_in)
        asked = Asked.of(self.engine, prompts, policy, *given, on_error, terms)
        begun = [asked.begin(self.blocking._admission, row, budget_us) for row in range(len(asked))]
        waits = [asyncio.ensure_future(self._await_row(asked, row, one)) for row, one in enumerate(begun)]
        try:
            rows = await asyncio.gather(*waits)
        except BaseException:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
            raise
        return asked.checked(rows)

    async def _await_row(self, asked: Asked, row: int, answer: Row | Request) -> Row:
        if not isinstance(answer, Request):
            return answer
        try:
            return await self._wait(answer)
        except InvalidInputError as error:
            return asked.bad(row, error)

    async def _wait(self, request: Request) -> Row:
        loop = asyncio.get_running_loop()
        future = request.awaited_in(loop)
        self.blocking.submit(request)
        timer = None
        if request.deadline_ns is not None:
            timer = loop.call_later(max(0.0, (request.deadline_ns - clock_ns()) / 1e9), self._expire, request)
        try:
            return await future
        except BaseException:
            self.blocking.cancel(request)  # nothing where the request itself failed: it is answered then
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def _expire(self, request: Request) -> None:
        late = self.blocking.expire(request)
        if late is not None:
            self.blocking._scheduler.delivery.resolve(request, late)

    def route_blocking(self, prompt: Prompt, policy: Policy | None = None, **options: Any) -> Decision:
        """`BatchingEngine.route`, from a thread; in an event loop's own it would hold up the loop. Of a list: `blocking.route_many`."""
        return self.blocking.route(prompt, policy, **options)

    def policy(self, **terms: Any) -> Policy:
        """`Engine.policy`."""
        return self.engine.policy(**terms)

    async def swap(self, bundle: Bundle | str | Path, **allow: bool) -> Bundle:
        """`Engine.swap`, read and planned in a thread."""
        return await asyncio.to_thread(self.engine.swap, bundle, **allow)

    async def update_performance(self, figures: Mapping[str, Performance | Mapping[str, float] | None]) -> None:
        """`Engine.update_performance`; policies in use are compiled anew in a thread."""
        await asyncio.to_thread(self.engine.update_performance, figures)

    @property
    def performance(self) -> Mapping[str, Performance]:
        """`Engine.performance`."""
        return self.engine.performance

    @property
    def bundle(self) -> Bundle:
        return self.engine.bundle

    def counters(self) -> Counters:
        """A snapshot of all counts, of tasks and threads alike."""
        return self.blocking.counters()

    async def __aenter__(self) -> AsyncEngine:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"Async{self.blocking!r}"
