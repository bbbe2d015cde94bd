"""A run puts load on a target: always something in this process, behind one small protocol."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from typing import Any, Protocol

from ipr_engine.decision.decision import Decision
from ipr_engine.encoders.static import StaticEncoder
from ipr_engine.encoders.tokenizer import WordPieceTokenizer
from ipr_engine.encoders.transformer import TransformerEncoder
from ipr_engine.engine import Engine
from ipr_engine.policy.policy import Policy

Stages = Sequence[int] | None  # ns of each stage the target names, or None when it names none
Call = Callable[[str], Stages]
AsyncCall = Callable[[str], Awaitable[Stages]]
Errors = tuple[type[BaseException], ...]
Tokenize = Callable[[str], Any]  # what `Embed` takes; its first part is as long as there are tokens
Embed = Callable[[Any], Any]


class BlockingTarget(Protocol):
    """A `BlockingTarget` answers in the caller's thread.

    Attributes:
        name: what a report calls it.
        stages: names of what a call returns, in ns; empty when it returns None.
        rejections: errors that say "no room now", counted apart from failures.
    """

    name: str
    stages: tuple[str, ...]
    rejections: Errors

    def session(self) -> AbstractContextManager[Call]:
        """Make the target ready to be called inside; whatever it needs is freed at the end."""
        ...

    def choose(self, prompt: str) -> str:
        """Return the name of the chosen candidate: the same work, with the answer looked at."""
        ...


class AsyncTarget(Protocol):
    """An `AsyncTarget` answers on the event loop of the caller."""

    name: str
    stages: tuple[str, ...]
    rejections: Errors

    def async_session(self) -> AbstractAsyncContextManager[AsyncCall]: ...

    def choose(self, prompt: str) -> str: ...


Target = BlockingTarget | AsyncTarget


class EngineTarget:
    """An `EngineTarget` is `Engine.route`, as a caller in the same process makes it."""

    name = "engine"
    stages: tuple[str, ...] = ()
    rejections: Errors = ()

    def __init__(self, engine: Engine, policy: Policy) -> None:
        self.engine, self.policy = engine, policy

    @contextmanager
    def session(self) -> Iterator[Call]:
        route, policy = self.engine.route, self.policy

        def call(prompt: str) -> Stages:
            route(prompt, policy)
            return None

        yield call

    def choose(self, prompt: str) -> str:
        return chosen(self.engine.route(prompt, self.policy))


class StagesTarget:
    """A `StagesTarget` does `Engine.route` in one call a stage, with the clock read between them; slower by the calls' glue."""

    name = "stages"
    rejections: Errors = ()

    def __init__(self, engine: Engine, policy: Policy) -> None:
        self.engine, self.policy = engine, policy
        apart = _three_calls(engine)
        self._three = apart
        self.stages: tuple[str, ...] = ("encode", "decide") if apart is None else ("tokenize", "encode", "decide")

    @contextmanager
    def session(self) -> Iterator[Call]:
        yield self._apart if self._three is None else self._in_three(*self._three)

    def _apart(self, prompt: str) -> Stages:
        clock = time.perf_counter_ns
        start = clock()
        encoded = self.engine.encode([prompt])
        middle = clock()
        self.engine.decide(encoded, self.policy)
        return middle - start, clock() - middle

    def _in_three(self, tokenize: Tokenize, embed: Embed) -> Call:
        decide = self.engine.plan.run
        compiled, clock = self.policy.compiled, time.perf_counter_ns

        def call(prompt: str) -> Stages:
            start = clock()
            tokens = tokenize(prompt)
            tokenized = clock()
            x = embed(tokens)
            embedded = clock()
            decide(x, compiled, float(len(tokens[0])))
            return tokenized - start, embedded - tokenized, clock() - embedded

        return call

    def choose(self, prompt: str) -> str:
        return chosen(self.engine.route(prompt, self.policy))


def _three_calls(engine: Engine) -> tuple[Tokenize, Embed] | None:
    """Return ids of a prompt and embedding of ids, as the engine's encoder makes them; None where it does both in one."""
    encoder = engine.encoder
    if isinstance(encoder, StaticEncoder) and isinstance(encoder.tokenizer, WordPieceTokenizer) and encoder.native:
        of_ids = encoder.native.encode_ids
        return encoder.tokenizer.native.encode, lambda tokens: of_ids(*tokens)[0]
    if isinstance(encoder, TransformerEncoder):
        return lambda prompt: encoder.ids([prompt]), encoder.embed
    return None


class InlineTarget:
    """An `InlineTarget` is `Engine.route` inside a coroutine, on the event loop: what an async caller pays without an AsyncEngine."""

    name = "inline"
    stages: tuple[str, ...] = ()
    rejections: Errors = ()

    def __init__(self, engine: Engine, policy: Policy) -> None:
        self.engine, self.policy = engine, policy

    @asynccontextmanager
    async def async_session(self) -> AsyncIterator[AsyncCall]:
        route, policy = self.engine.route, self.policy

        async def call(prompt: str) -> Stages:
            route(prompt, policy)
            return None

        yield call

    def choose(self, prompt: str) -> str:
        return chosen(self.engine.route(prompt, self.policy))


class NullTarget:
    """A `NullTarget` answers at once: what the harness itself costs."""

    name = "nothing"
    stages: tuple[str, ...] = ()
    rejections: Errors = ()

    @contextmanager
    def session(self) -> Iterator[Call]:
        yield lambda prompt: None

    def choose(self, prompt: str) -> str:
        return "nothing"


class NullAsyncTarget:
    """A `NullAsyncTarget` answers at once, on an event loop."""

    name = "nothing"
    stages: tuple[str, ...] = ()
    rejections: Errors = ()

    @asynccontextmanager
    async def async_session(self) -> AsyncIterator[AsyncCall]:
        async def call(prompt: str) -> Stages:
            return None

        yield call

    def choose(self, prompt: str) -> str:
        return "nothing"


def chosen(decision: Decision) -> str:
    return decision.model or decision.status


def is_async(target: Target) -> bool:
    return hasattr(target, "async_session")
