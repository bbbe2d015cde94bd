"""`told` turns an object of the package into plain values: every public attribute, floats and arrays to the bit."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

import numpy as np

from ipr_engine.bundle import BundleSpec, HeadsSpec
from ipr_engine.decide.contract import PARTS, DecidePolicy, DecideResult

OF_A_BATCH = {"result", "row"}  # a decision that crossed is the only row of its result
OF_A_BUNDLE = ("hash", "path", "name", "created", "names", "candidates", "encoders", "prices", "prices_sha256", "tie_rank",
               "escalation", "calibrations", "extra_files", "provenance")  # fmt: skip


def told(value: Any, without: Set[str] = frozenset()) -> Any:
    """Return all that a value tells. without: attributes of the value itself that are left out."""
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, value.tobytes()
    if isinstance(value, DecideResult):
        return {part: told(getattr(value, part)) for part in PARTS}
    if isinstance(value, DecidePolicy):
        return value.__getstate__()
    if isinstance(value, BundleSpec):
        return {name: told(getattr(value, name)) for name in OF_A_BUNDLE}
    if isinstance(value, Mapping):
        return {str(key): told(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [told(item) for item in value]
    if isinstance(value, float):
        return value.hex()
    if not type(value).__module__.startswith("ipr_engine"):
        return value
    if isinstance(value, HeadsSpec):
        without = frozenset({"tensors"})  # they stay where the bundle is
    names = [name for name in dir(value) if not name.startswith("_") and name not in without]
    return {name: told(one) for name in names if not callable(one := getattr(value, name))}
