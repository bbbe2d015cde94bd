"""`json_of` reads JSON that came in a request; `json_text` writes it again: reading it allowed more depth than writing it does."""

from __future__ import annotations

import re
from typing import Any

import orjson

from ipr_engine.server.refused import RefusedError

_HIGH, _LOW = rb"\\u[dD][89abAB][0-9a-fA-F]{2}", rb"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_ESCAPE = re.compile(rb"(" + _HIGH + _LOW + rb")|(" + _HIGH + rb"|" + _LOW + rb")|\\.", re.DOTALL)


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
        return orjson.loads(_ESCAPE.sub(lambda found: b"\\ufffd" if found[2] else found[0], text))


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
