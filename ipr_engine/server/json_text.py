"""`json_text` writes what came in a request as JSON again: reading it allowed more depth than writing it does."""

from __future__ import annotations

from typing import Any

import orjson

from ipr_engine.server.refused import RefusedError


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
