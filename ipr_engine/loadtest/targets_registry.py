"""Targets by name, for the command line: a table of lazy factories."""

from __future__ import annotations

from collections.abc import Callable

from ipr_engine.engine import Engine
from ipr_engine.errors import InvalidInputError
from ipr_engine.loadtest.targets import EngineTarget, InlineTarget, StagesTarget, Target
from ipr_engine.policy import Policy

Factory = Callable[[Engine, Policy, str | None], Target]


def _async_engine(engine: Engine, policy: Policy, path: str | None) -> Target:
    from ipr_engine.loadtest.targets_serving import AsyncEngineTarget

    return AsyncEngineTarget(engine, policy, path)


TARGETS: dict[str, tuple[str, Factory]] = {
    "engine": ("Engine.route in the caller's thread", lambda engine, policy, path: EngineTarget(engine, policy)),
    "stages": (
        "the same, a call a stage, each timed",
        lambda engine, policy, path: StagesTarget(engine, policy),
    ),
    "inline": ("Engine.route on an event loop", lambda engine, policy, path: InlineTarget(engine, policy)),
    "async": ("AsyncEngine.route", _async_engine),
}


def make_target(name: str, engine: Engine, policy: Policy, path: str | None = None) -> Target:
    """The target of that name over this engine.

    Args:
        path: where the engine's bundle was loaded from, for a target that loads its own; None for the embedded one.
    """
    if name not in TARGETS:
        raise InvalidInputError(f"target: expected one of {', '.join(TARGETS)}, got {name!r}")
    return TARGETS[name][1](engine, policy, path)
