"""Targets by name, for the command line: a table of lazy factories."""

from __future__ import annotations

from collections.abc import Callable

from ipr_engine.engine import Engine
from ipr_engine.errors import InvalidInputError
from ipr_engine.loadtest.targets import EngineTarget, InlineTarget, StagesTarget, Target
from ipr_engine.policy import Policy

Factory = Callable[[Engine, Policy], Target]


def _async(engine: Engine, policy: Policy) -> Target:
    from ipr_engine.loadtest.targets_serving import AsyncEngineTarget

    return AsyncEngineTarget(engine, policy)


def _batching(engine: Engine, policy: Policy) -> Target:
    from ipr_engine.loadtest.targets_serving import BatchingEngineTarget

    return BatchingEngineTarget(engine, policy)


TARGETS: dict[str, tuple[str, Factory]] = {
    "engine": ("Engine.route in the caller's thread", EngineTarget),
    "stages": ("the same, a call a stage, each timed", StagesTarget),
    "inline": ("Engine.route on an event loop", InlineTarget),
    "async": ("AsyncEngine.route", _async),
    "batching": ("BatchingEngine.route from threads", _batching),
}


def make_target(name: str, engine: Engine, policy: Policy) -> Target:
    """The target of that name over this engine."""
    if name not in TARGETS:
        raise InvalidInputError(f"target: expected one of {', '.join(TARGETS)}, got {name!r}")
    return TARGETS[name][1](engine, policy)
