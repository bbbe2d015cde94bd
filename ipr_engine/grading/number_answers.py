"""`answered_numbers` finds the number that an answer ends up with, in the ways that people and models write numbers."""

from __future__ import annotations

import re
import sys
import unicodedata
from fractions import Fraction
from typing import NamedTuple

LONGEST = 400  # characters of a number: no float64 needs more

_GAPS = "\u00a0\u2009\u202f'_"
_WHOLE = rf"\d{{1,3}}(?:[,{_GAPS}]\d{{3}}){{1,9}}(?!\d)|\d{{1,2}}(?:,\d{{2}}){{1,9}},\d{{3}}(?!\d)|\d+"
_NUMBER = re.compile(
    rf"(?P<sign>(?<![\w)\]}}.])[-+]\s?[$€£¥]?)?"
    rf"(?:\\[dt]?frac\{{(?P<above>-?\d+)\}}\{{(?P<below>\d+)\}}"
    rf"|(?:(?P<mixed>\d+)[ ](?=\d+/\d))?(?<![\d/])(?P<over>\d+)/(?P<under>\d+)(?![\d/])"
    rf"|(?P<plain>(?:{_WHOLE})(?:\.\d+)?|(?<!\d)\.\d+)(?P<power>[eE][-+]?\d+(?!\w)|\s?(?:\\times|[x×*])\s?10\^\{{?[-+]?\d+\}}?)?)"
    r"(?P<vulgar>[½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅐⅛⅜⅝⅞⅑⅒])?"
    r"(?:[ ](?P<scale>thousand|million|billion|trillion)\b)?(?P<percent>\s?\\?%|\s?percent\b)?",
    re.IGNORECASE,
)
_MARKED = (
    re.compile(r"####\s*(?P<said>[^\n]*)"),
    re.compile(r"(?:final answer|answer)\s*(?:is|:|=)[\s*:]*(?P<said>[^\n]*)", re.IGNORECASE),
)
_SENTENCE_END = re.compile(r"(?<!\\)[.;!?]\s")
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_ASCII = {
    "\u2212": "-",
    "\uff0d": "-",
    "\u2013": "-",
    "\uff0b": "+",
    "\uff0e": ".",
    "\uff0c": ",",
    "\uff05": "%",
    "\uff0f": "/",
    "\u2044": "/",
}

CLOSE = Fraction(1, 10**6)  # relative
LARGEST = int(sys.float_info.max)


class Number(NamedTuple):
    """A `Number` is a value exactly as written, and whether a percent sign follows it."""

    value: Fraction
    percent: bool


def final_part(answer: str) -> str:
    """Return what follows the thoughts of an answer that has them in it, up to `</think>`; else the whole."""
    return answer.rpartition("</think>")[2]


def boxed(text: str) -> str | None:
    r"""Return what the last `\boxed{...}` of a text holds; None where there is none, or where it is not closed."""
    start = max(text.rfind("\\boxed{"), text.rfind("\\fbox{"))
    if start < 0:
        return None
    begin = text.index("{", start) + 1
    depth = 1
    for at in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return text[begin:at]
    return None


def numbers_in(text: str, *, decimal_comma: bool = False) -> list[Number]:
    """Return the numbers of a text that float64 has room for, in order; digits of every script are read."""
    plain = "".join(map(_plain, text)) if not text.isascii() else text
    plain = plain.replace("{,}", ",").replace("\\,", "\u2009")  # LaTeX's thousands
    if decimal_comma:
        plain = plain.translate(str.maketrans(",.", ".,"))
    found = []
    for match in _NUMBER.finditer(plain):
        value = _value(match) if match.end() - match.start() <= LONGEST else None
        if value is not None and abs(value) <= LARGEST:
            found.append(Number(value, match["percent"] is not None))
    return found


def answered_number(answer: str, *, decimal_comma: bool = False) -> Number | None:
    r"""Return the number that an answer ends up with; None where it has none.

    It is the last number in the last `\boxed{}`; else the first one after the last `####`, or after the last "answer is" or
    "answer:", and after the last "=" of the first sentence there; else the last one of all.
    """
    text = final_part(answer)
    held = boxed(text)
    if held is not None and (found := numbers_in(held, decimal_comma=decimal_comma)):
        return found[-1]
    for pattern in _MARKED:
        marked = [match["said"] for match in pattern.finditer(text)]
        for part in _results(marked[-1]) if marked else ():
            if found := numbers_in(part, decimal_comma=decimal_comma):
                return found[0]
    found = numbers_in(text, decimal_comma=decimal_comma)
    return found[-1] if found else None


def _results(line: str) -> tuple[str, str]:
    """Return where the number of a marked line may stand: what a calculation in its first sentence comes to, then all of it."""
    return _SENTENCE_END.split(line, maxsplit=1)[0].rpartition("=")[2], line


def same_number(answer: Number, reference: Number, tolerance: float | None) -> bool:
    """Return whether two numbers agree; where one of them alone is a percentage, 50 % is both 50 and 0.5.

    tolerance: relative above 1; None: whole numbers are compared as such, others within `CLOSE`.
    """
    readings = [(answer.value, reference.value)]
    if answer.percent and not reference.percent:
        readings.append((answer.value / 100, reference.value))
    elif reference.percent and not answer.percent:
        readings.append((answer.value, reference.value / 100))
    return any(abs(one - other) <= _allowed(other, tolerance) for one, other in readings)


def _allowed(reference: Fraction, tolerance: float | None) -> Fraction:
    if tolerance is None:
        share = Fraction(0) if reference.denominator == 1 else CLOSE
    else:
        share = Fraction(repr(float(tolerance)))  # 0.01 as it is written, not as float64 has it
    return share * max(Fraction(1), abs(reference))


def _plain(character: str) -> str:
    digit = unicodedata.decimal(character, None)
    return str(digit) if digit is not None else _ASCII.get(character, character)


def _value(match: re.Match[str]) -> Fraction | None:
    if match["above"] is not None:
        value = _ratio(match["above"], match["below"])
    elif match["over"] is not None:
        value = _ratio(match["over"], match["under"])
        if value is not None:
            value += int(match["mixed"] or 0)
    else:
        value = Fraction(re.sub(rf"[,{_GAPS}]", "", match["plain"]))
        if match["power"] is not None:
            value = _raised(value, int(re.sub(r".*?([-+]?\d+)\}?$", r"\1", match["power"])))
    if value is None:
        return None
    if match["vulgar"] is not None:
        value += Fraction(unicodedata.numeric(match["vulgar"])).limit_denominator(10)
    value *= _SCALES.get((match["scale"] or "").lower(), 1)
    return -value if (match["sign"] or "").startswith("-") else value


def _ratio(above: str, below: str) -> Fraction | None:
    return Fraction(int(above), int(below)) if int(below) else None


def _raised(value: Fraction, power: int) -> Fraction | None:
    return None if power > LONGEST else value * Fraction(10) ** max(power, -LONGEST)
