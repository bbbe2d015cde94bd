"""`json_of` reads JSON that came in a request; `json_text` writes it again: reading it allowed more depth than writing it does."""

from __future__ import annotations

import re
from typing import Any

import orjson

from ipr_engine.server.refused import RefusedError

# an escape of half a pair, with the backslashes before it: behind an even number of them it is text
_HALF = re.compile(rb"(?<!\\)\\+u[dD][89a-fA-F][0-9a-fA-F]{2}")
_LOW = frozenset(b"cdefCDEF")
_ESCAPE, _UNKNOWN = 6, b"\\ufffd"


def json_of(text: bytes) -> Any:
    """Return what the JSON says. Half a surrogate pair, as of a text that was cut inside of a character, is read as U+FFFD.

    Raises:
        orjson.JSONDecodeError: it is no JSON.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if "surrogate" not in error.msg or b"\\u" not in text:
            raise
        return orjson.loads(_without_halves(text))


def _without_halves(text: bytes) -> bytearray:
    """Return JSON with U+FFFD for each half of a pair that has no other half."""
    whole = bytearray(text)
    high = -1  # where one begins that may have its other half behind it
    for found in _HALF.finditer(text):
        at = found.end() - _ESCAPE
        if (at - found.start()) % 2:
            continue
        is_low = text[at + 3] in _LOW
        if is_low and 0 <= high == at - _ESCAPE:
            high = -1
            continue
        for half in (high, at if is_low else -1):
            if half >= 0:
                whole[half : half + _ESCAPE] = _UNKNOWN
        high = -1 if is_low else at
    if high >= 0:
        whole[high : high + _ESCAPE] = _UNKNOWN
    return whole


def json_text(value: Any, *, sort_keys: bool = False) -> bytes:
    """Return the JSON of a value that holds parts of a request.

    Raises:
        RefusedError: it is nested more deeply than can be written, some 250 levels.
    """
    try:
        made: bytes = orjson.dumps(value, option=orjson.OPT_SORT_KEYS if sort_keys else None)
        return made
    except TypeError:  # orjson's only word for it; what it read it can write otherwise
        raise RefusedError(400, "body: expected parts nested less than 250 deep") from None
