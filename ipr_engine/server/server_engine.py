"""What a server needs of an engine: `AsyncEngine` and the `Engine` it serves have it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Protocol, Unpack

from ipr_engine.audit.exploration import ExplorationDraw
from ipr_engine.bundle import Bundle
from ipr_engine.decision.decision import Decision
from ipr_engine.encoders.base import Encoder
from ipr_engine.policy.policy import Policy
from ipr_engine.policy.policy_spec import PolicyOptions
from ipr_engine.request.route_request import RouteOptions
from ipr_engine.serving.metrics import Counters
from ipr_engine.watch import Watch, WatchKeywords


class PolicyMaker(Protocol):
    """A `PolicyMaker` compiles policies for the bundle that serves now; an `Engine` is one."""

    @property
    def bundle(self) -> Bundle: ...

    @property
    def swaps(self) -> int: ...

    @property
    def encoder(self) -> Encoder: ...

    def policy(self, **options: Unpack[PolicyOptions]) -> Policy: ...

    def route_many(
        self, prompts: Sequence[Any], policy: Policy | None = None, **options: Unpack[RouteOptions]
    ) -> Any: ...


class DecisionRecorder(Protocol):
    """A `DecisionRecorder` decides one request of a task and records it; what `AsyncEngine.recorder` makes is one."""

    async def route(
        self,
        prompt: Any,
        policy: Policy | None = None,
        *,
        id: str | int | None = None,
        budget_us: float | None = None,
        draw: ExplorationDraw | None = None,
        **options: Unpack[RouteOptions],
    ) -> Decision: ...

    async def close(self) -> bool: ...


class ServerEngine(Protocol):
    """A `ServerEngine` decides for the tasks of a server; an `AsyncEngine` is one."""

    @property
    def bundle(self) -> Bundle: ...

    async def route(
        self,
        prompt: Any,
        policy: Policy | None = None,
        *,
        budget_us: float | None = None,
        **options: Unpack[RouteOptions],
    ) -> Decision: ...

    def policy(self, **options: Unpack[PolicyOptions]) -> Policy: ...

    def counters(self) -> Counters: ...

    async def watch(self, root: str | os.PathLike[str], **options: Unpack[WatchKeywords]) -> Watch: ...

    async def start(self) -> Any: ...

    async def close(self) -> bool: ...
