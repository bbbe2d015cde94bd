"""What another process does in the tests: a spawned one imports this file and shares nothing with the test."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from ipr_engine import Decision, Engine, Policy
from tests.support.told import OF_A_BATCH, told

_ENGINES: list[Engine] = []


def read(pickled: bytes) -> tuple[Any, bool]:
    """Return what a decision tells in this process, and whether a bundle was loaded here."""
    value = pickle.loads(pickled)
    without = frozenset(OF_A_BATCH) if isinstance(value, Decision) else frozenset()
    return (told(value, without), value.to_dict() if isinstance(value, Decision) else None), bool(_ENGINES)


def load(path: Path, options: dict[str, Any]) -> None:
    """Begin a worker: an engine of its own, from where the bundle lies and how it was loaded."""
    _ENGINES.append(Engine.load(path, **options))


def route(prompts: list[str], policy: Policy) -> tuple[list[Decision], int]:
    """Decide in a worker under a policy that came to it; return the rows, and how many policies the engine compiled for that."""
    engine = _ENGINES[0]
    made = list(engine.route_many(prompts, policy))
    assert engine.route_many(prompts, policy).policy is made[0].policy  # compiled once as long as it is held
    return made, len(engine.loaded.policies.followed)
