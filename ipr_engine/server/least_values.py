"""`least_text` and `least_number` make the least that a part of a schema allows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

MOST_LONG = 4096
"""The longest text, or list, that is made up."""
MOST_NUMBER = 2**53
_NEAR = 10
"""So many multiples beside the nearest one are looked at."""

Schema = Mapping[str, Any]


def least_text(schema: Schema, text: str) -> str | None:
    """Return a text, cut and padded to the lengths that are asked for; None where none is made up."""
    least, most = whole_number(schema, "minLength", 0), whole_number(schema, "maxLength", MOST_LONG)
    if least > most or least > MOST_LONG:
        return None
    return text[: max(most, 0)].ljust(max(least, 0), ".")


def least_number(schema: Schema, kind: str) -> float | None:
    """Return the number that is nearest to 0 within the bounds, a multiple where one is asked for; None where none is made up.

    It is reckoned as it is written: 6 * 0.1 is 0.6. Of multiples one comes first that is one in floats too, since validators divide those.
    """
    least, above = _bound(schema, "minimum"), _bound(schema, "exclusiveMinimum")
    most, below = _bound(schema, "maximum"), _bound(schema, "exclusiveMaximum")
    multiple = _bound(schema, "multipleOf")
    if multiple is not None and multiple <= 0:
        multiple = None
    step = Fraction(1) if multiple is None else multiple
    if kind == "integer":
        step = Fraction(step.numerator)  # whole multiples of p/q are the multiples of p

    def fits(number: Fraction) -> bool:
        if (least is not None and number < least) or (above is not None and number <= above):
            return False
        if (most is not None and number > most) or (below is not None and number >= below):
            return False
        if abs(number) >= MOST_NUMBER:
            return False
        return (multiple is None and kind == "number") or number % step == 0

    lower = max((edge for edge in (least, above) if edge is not None), default=None)
    upper = min((edge for edge in (most, below) if edge is not None), default=None)
    tried = [Fraction(0)]
    for edge, nearest in ((lower, math.ceil), (upper, math.floor)):
        if edge is not None and abs(edge) < MOST_NUMBER:
            near = nearest(edge / step)
            tried += [(near + beside) * step for beside in range(-_NEAR, _NEAR + 1)] + [edge]
    if lower is not None and upper is not None:
        tried.append((lower + upper) / 2)
    written = (int(one) if one.denominator == 1 else float(one) for one in tried if abs(one) < MOST_NUMBER)
    found = [one for one in written if fits(_exact(one))]
    return min(found, key=lambda one: (not _divides(schema.get("multipleOf"), one), abs(one)), default=None)


def whole_number(schema: Schema, name: str, otherwise: int) -> int:
    """Return what a keyword says that is a whole number, and `otherwise` where it says none."""
    value = schema.get(name)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else otherwise


def _divides(multiple: object, number: float) -> bool:
    if isinstance(multiple, float) and multiple > 0:
        return (number / multiple).is_integer()
    return True


def _bound(schema: Schema, name: str) -> Fraction | None:
    value = schema.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return _exact(value) if isinstance(value, int) or math.isfinite(value) else None


def _exact(value: float) -> Fraction:
    """Return a number as its JSON says it."""
    return Fraction(value) if isinstance(value, int) else Fraction(repr(value))
