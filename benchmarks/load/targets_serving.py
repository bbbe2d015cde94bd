"""The serving engines are targets too: their queue, batches and inline answers are part of what is measured."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import ipr_engine.errors
from ipr_engine.engine import Engine
from ipr_engine.errors import BackendUnavailableError
from ipr_engine.policy.policy import Policy

from .targets import AsyncCall, Call, Errors, Stages, chosen


class _Serving:
    """A `_Serving` is what the two have in common: the module, the refusals, the engine's own stage counters after a session."""

    stages: tuple[str, ...] = ()

    def __init__(self, engine: Engine, policy: Policy, limits: Mapping[str, float]) -> None:
        self.engine, self.policy, self.limits = engine, policy, dict(limits)
        try:
            self.serving: Any = importlib.import_module("ipr_engine.serving")
        except ImportError as error:
            raise BackendUnavailableError(f"target: this installation has no ipr_engine.serving ({error})") from error
        self.rejections: Errors = tuple(
            found for name in ("OverloadError",) if (found := getattr(ipr_engine.errors, name, None)) is not None
        )
        self.counted: dict[str, Any] = {}

    def choose(self, prompt: str) -> str:
        return chosen(self.engine.route(prompt, self.policy))

    def count(self, serving: Any) -> None:
        """Keep the latency histogram of each stage that was passed through; warm-up included."""
        self.counted = {name: latency for name, latency in serving.counters().stages.items() if latency.count}


class AsyncEngineTarget(_Serving):
    """An `AsyncEngineTarget` awaits `AsyncEngine.route(prompt, policy)`."""

    name = "async"

    @asynccontextmanager
    async def async_session(self) -> AsyncIterator[AsyncCall]:
        async with self.serving.AsyncEngine(self.engine, limits=self.limits) as serving:
            route, policy = serving.route, self.policy

            async def call(prompt: str) -> Stages:
                await route(prompt, policy)
                return None

            yield call
            self.count(serving)


class BatchingEngineTarget(_Serving):
    """A `BatchingEngineTarget` calls `BatchingEngine.route(prompt, policy)` from threads."""

    name = "batching"

    @contextmanager
    def session(self) -> Iterator[Call]:
        with self.serving.BatchingEngine(self.engine, limits=self.limits) as serving:
            route, policy = serving.route, self.policy

            def call(prompt: str) -> Stages:
                route(prompt, policy)
                return None

            yield call
            self.count(serving)
