"""`make_target` finds targets by name, for the command line, in a table of lazy factories."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ipr_engine.engine import Engine
from ipr_engine.errors import InvalidInputError
from ipr_engine.policy.policy import Policy

from .targets import EngineTarget, InlineTarget, StagesTarget, Target

Limits = Mapping[str, float]
Factory = Callable[[Engine, Policy, Limits], Target]


def _async(engine: Engine, policy: Policy, limits: Limits) -> Target:
    from .targets_serving import AsyncEngineTarget

    return AsyncEngineTarget(engine, policy, limits)


def _batching(engine: Engine, policy: Policy, limits: Limits) -> Target:
    from .targets_serving import BatchingEngineTarget

    return BatchingEngineTarget(engine, policy, limits)


def _direct(target: Callable[[Engine, Policy], Target]) -> Factory:
    def make(engine: Engine, policy: Policy, limits: Limits) -> Target:
        if limits:
            raise InvalidInputError("--limit: it bounds the serving engines; pass --target async or batching")
        return target(engine, policy)

    return make


TARGETS: dict[str, tuple[str, Factory]] = {
    "engine": ("Engine.route in the caller's thread", _direct(EngineTarget)),
    "stages": ("the same, a call a stage, each timed", _direct(StagesTarget)),
    "inline": ("Engine.route on an event loop", _direct(InlineTarget)),
    "async": ("AsyncEngine.route", _async),
    "batching": ("BatchingEngine.route from threads", _batching),
}


def make_target(name: str, engine: Engine, policy: Policy, limits: Limits | None = None) -> Target:
    """Make the target of that name over this engine; limits: of a serving engine (`ipr_engine.serving.Limits`)."""
    if name not in TARGETS:
        raise InvalidInputError(f"target: expected one of {', '.join(TARGETS)}, got {name!r}")
    return TARGETS[name][1](engine, policy, limits or {})
