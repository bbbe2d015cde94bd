"""A schedule says when requests of an open loop are to be sent; it is made from a seed before the run starts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ipr_engine._validate import number
from ipr_engine.errors import InvalidInputError

KINDS = ("poisson", "bursts", "constant")
MOST_REQUESTS = 5_000_000  # of one run: 24 bytes each are kept
MOST_SECONDS = 3600.0


@dataclass(frozen=True)
class Schedule:
    """A `Schedule` holds send times that do not depend on what the target does.

    Attributes:
        due_ns: (requests,) int64, since the start of the run, never falling.
        kind, rate, seconds, seed, burst: what it was made from; rate in requests a second.
    """

    due_ns: npt.NDArray[np.int64]
    kind: str
    rate: float
    seconds: float
    seed: int
    burst: int

    def __len__(self) -> int:
        return len(self.due_ns)


def schedule(kind: str, *, rate: float, seconds: float, seed: int, burst: int = 32) -> Schedule:
    """Draw arrivals over `seconds`: equal arguments give equal times.

    Args:
        kind: "poisson" (independent callers), "bursts" (`burst` requests at one instant, bursts Poisson, same mean rate)
            or "constant" (equal gaps).
        rate: requests a second, > 0.
        seconds: in (0, 3600].
        seed: >= 0.
        burst: requests of a burst, >= 1.
    Raises:
        InvalidInputError: a value out of range, or more requests than a run may keep.
    """
    if kind not in KINDS:
        raise InvalidInputError(f"arrivals: expected one of {', '.join(KINDS)}, got {kind!r}")
    rate, seconds = positive("rate", rate), duration("seconds", seconds)
    at_least_one("burst", burst)
    if rate * seconds > MOST_REQUESTS:
        raise InvalidInputError(
            f"rate: {rate:g} a second over {seconds:g} s are {rate * seconds:,.0f} requests, and a run keeps at most "
            f"{MOST_REQUESTS:,}; ask for fewer seconds or a lower rate"
        )
    rng = np.random.default_rng(seed)
    if kind == "constant":
        times = np.arange(math.floor(rate * seconds)) / rate
    elif kind == "poisson":
        times = _poisson(rng, rate, seconds)
    else:
        times = np.repeat(_poisson(rng, rate / burst, seconds), burst)[:MOST_REQUESTS]
    if not len(times):
        raise InvalidInputError(f"rate: no request falls into {seconds:g} s at {rate:g} a second; raise one of them")
    return Schedule((times * 1e9).astype(np.int64), kind, rate, seconds, seed, burst if kind == "bursts" else 1)


def _poisson(rng: np.random.Generator, rate: float, seconds: float) -> npt.NDArray[np.float64]:
    """Draw the number of points, then their times: given the number, points of a Poisson process are uniform."""
    return np.sort(rng.uniform(0.0, seconds, rng.poisson(rate * seconds)))


def positive(name: str, value: object) -> float:
    result = number(name, value)
    if result <= 0:
        raise InvalidInputError(f"{name}: expected a number > 0, got {result:g}")
    return result


def duration(name: str, value: object) -> float:
    """Return `seconds` if they lie in (0, 3600]."""
    result = positive(name, value)
    if result > MOST_SECONDS:
        raise InvalidInputError(f"{name}: expected at most {MOST_SECONDS:g} s, got {result:g}; split the run")
    return result


def at_least_one(name: str, value: object) -> int:
    if type(value) is not int or value < 1:
        raise InvalidInputError(f"{name}: expected a whole number >= 1, got {value!r}")
    return value
