"""AsyncEngine as a target."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ipr_engine.engine import Engine
from ipr_engine.errors import BackendUnavailableError
from ipr_engine.loadtest.targets import AsyncCall, Errors, Stages, chosen
from ipr_engine.policy import Policy


class AsyncEngineTarget:
    """`await AsyncEngine.route(prompt, policy)`: its own queue, batches and inline answers."""

    name = "async"
    stages: tuple[str, ...] = ()

    def __init__(self, engine: Engine, policy: Policy, path: str | None) -> None:
        try:
            self.serving = importlib.import_module("ipr_engine.serving")
        except ImportError as error:
            raise BackendUnavailableError(f"--target async: this installation has no AsyncEngine ({error})") from error
        self.engine, self.policy, self.path = engine, policy, path
        overloaded = getattr(self.serving, "OverloadError", None)
        self.rejections: Errors = () if overloaded is None else (overloaded,)

    @asynccontextmanager
    async def async_session(self) -> AsyncIterator[AsyncCall]:
        async with self.serving.AsyncEngine.load(self.path) as engine:
            route, policy = engine.route, self.policy

            async def call(prompt: str) -> Stages:
                await route(prompt, policy)
                return None

            yield call

    def choose(self, prompt: str) -> str:
        return chosen(self.engine.route(prompt, self.policy))
