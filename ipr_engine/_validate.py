"""This file checks a caller's numbers and names, and writes values into errors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from ipr_engine.errors import InvalidInputError

MOST_TOKENS = 2**53  # counts are exact as floats up to here
MOST_SHOWN, MOST_NAMED = 80, 16  # characters of a value, and values, that an error repeats
MOST = 1e12  # of any price, worth or latency: far beyond use, and safe in float32


def lone_surrogate(text: str) -> int | None:
    """Return where a text holds a lone surrogate, so that it has no UTF-8 form; None where it has one.

    Told by a value, since the error of `str.encode` holds the whole text: raised from it, or while it is handled, an error of
    ours would carry a prompt away as its cause or context.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return error.start
    return None


def shown(value: object) -> str:
    """Return a value for an error: short, and printable whatever it holds."""
    try:
        text = ascii(value[:MOST_SHOWN] if isinstance(value, (str, bytes)) else value)
    except (ValueError, RecursionError):  # a whole number of more digits than Python writes, or lists in lists
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= MOST_SHOWN else f"{text[: MOST_SHOWN - 3]}..."


def shown_each(values: Sequence[object]) -> str:
    """Return values for an error, each as `shown`; of many the first ones, and how many more there are."""
    more = len(values) - MOST_NAMED
    named = ", ".join(map(shown, values[:MOST_NAMED]))
    return f"{named} and {more} more" if more > 0 else named


def shown_safely(value: object) -> str:
    """Return a caller's value for an error: as `shown`, but of a text its length alone, since it may be of a prompt."""
    return f"a text of {len(value)} characters" if isinstance(value, str) else shown(value)


def matched(argument: str, wanted: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """Return each wanted name -> the known one that it means: the same, or the only one that differs by case alone.

    Raises:
        InvalidInputError: a name is unknown, or several that differ by case alone match it and none exactly.
    """
    names = sorted(set(known))
    # folded name -> the known ones that are written so but for case
    by_case: dict[str, list[str]] = {}
    for name in names:
        by_case.setdefault(name.casefold(), []).append(name)
    found: dict[str, Sequence[str]] = {
        name: [name] if name in names else by_case.get(name.casefold(), []) for name in wanted
    }
    unknown = sorted(name for name, matches in found.items() if not matches)
    if unknown:
        raise InvalidInputError(f"{argument}: unknown {shown_each(unknown)}; known: {', '.join(names)}")
    for name, matches in found.items():
        if len(matches) > 1:
            raise InvalidInputError(
                f"{argument}: {shown(name)} matches several that differ by case alone, {', '.join(matches)}; write the one meant exactly"
            )
    return {name: matches[0] for name, matches in found.items()}


def matched_once(argument: str, wanted: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """Return `matched`, for names that each state something: two that mean the same one are an error."""
    meant = matched(argument, wanted, known)
    for one in dict.fromkeys(meant.values()):  # in the caller's order: of several, the error names the same one always
        twice = [name for name in meant if meant[name] == one]
        if len(twice) > 1:
            raise InvalidInputError(f"{argument}: {' and '.join(map(shown, twice[:2]))} both mean {one}; give it once")
    return meant


def list_of_names(argument: str, values: object) -> list[str]:
    """Return names given as a collection of texts, or as one text, as a list.

    Raises:
        InvalidInputError: it is something else.
    """
    if isinstance(values, str):
        return [values]
    if not isinstance(values, (list, tuple, set, frozenset)) or not all(isinstance(value, str) for value in values):
        raise InvalidInputError(f"{argument}: expected a list of names, got {shown(values)}")
    return list(values)


def number(name: str, value: object) -> float:
    """Return a finite real number as a float. bool and str are not numbers."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        sentence = isinstance(value, str) and len(value.split()) > 1  # it may be of a prompt
        raise InvalidInputError(
            f"{name}: expected a number, got {shown_safely(value) if sentence else f'{type(value).__name__} {shown(value)}'}"
        )
    try:
        result = float(value)
    except OverflowError:  # an int beyond float64
        result = math.inf
    if not math.isfinite(result):
        raise InvalidInputError(f"{name}: expected a finite number, got {result}")
    return result


def unit_interval(name: str, value: object) -> float:
    """Return a number in [0, 1] as a float; InvalidInputError names the argument."""
    result = number(name, value)
    if not 0.0 <= result <= 1.0:
        raise InvalidInputError(f"{name}: expected a value in [0, 1], got {result}")
    return result


def nonnegative(name: str, value: object) -> float:
    """Return a number from 0 to MOST as a float; InvalidInputError names the argument."""
    result = number(name, value)
    if not 0.0 <= result <= MOST:
        raise InvalidInputError(f"{name}: expected a value from 0 to {MOST:g}, got {result}")
    return result


def random_seed(name: str, value: object) -> int:
    """Return a whole number >= 0, which numpy's generators take."""
    if type(value) is not int or value < 0:
        raise InvalidInputError(f"{name}: expected an int >= 0, got {shown(value)}")
    return value


def nonnegative_or_infinite(name: str, value: object) -> float:
    """Return a number from 0 to MOST, or infinity."""
    if isinstance(value, (float, np.floating)) and value == math.inf:
        return math.inf
    return nonnegative(name, value)
