"""Numbers of a caller, checked: each function returns a float or raises an error that names the argument."""

from __future__ import annotations

import math

import numpy as np

from ipr_engine.errors import InvalidInputError
from ipr_engine.text import shown, told

MOST_TOKENS = 2**53  # counts are exact as floats up to here
MOST = 1e12  # of any price, worth or latency: far beyond use, and safe in float32


def number(name: str, value: object) -> float:
    """A finite real number as a float. bool and str are not numbers."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        sentence = isinstance(value, str) and len(value.split()) > 1  # it may be of a prompt
        raise InvalidInputError(
            f"{name}: expected a number, got {told(value) if sentence else f'{type(value).__name__} {shown(value)}'}"
        )
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    if not math.isfinite(result):
        raise InvalidInputError(f"{name}: expected a finite number, got {result}")
    return result


def unit_interval(name: str, value: object) -> float:
    result = number(name, value)
    if not 0.0 <= result <= 1.0:
        raise InvalidInputError(f"{name}: expected a value in [0, 1], got {result}")
    return result


def nonnegative(name: str, value: object) -> float:
    result = number(name, value)
    if not 0.0 <= result <= MOST:
        raise InvalidInputError(f"{name}: expected a value from 0 to {MOST:g}, got {result}")
    return result


def random_seed(name: str, value: object) -> int:
    """A whole number >= 0, which numpy's generators take."""
    if type(value) is not int or value < 0:
        raise InvalidInputError(f"{name}: expected an int >= 0, got {value!r}")
    return value


def nonnegative_or_infinite(name: str, value: object) -> float:
    if isinstance(value, (float, np.floating)) and value == math.inf:
        return math.inf
    return nonnegative(name, value)
