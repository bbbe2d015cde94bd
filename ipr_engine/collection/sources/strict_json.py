"""`parse_json` reads JSON as RFC 8259 has it, and tells what is wrong without a character of what was read."""

from __future__ import annotations

import json
from typing import Any

from ipr_engine.collection.sources.asked_row import UnaskableError


def parse_json(text: str | bytes, what: str = "JSON") -> Any:
    """Return the value of a JSON text.

    Args:
        what: the text is expected to be, for the error.
    Raises:
        UnaskableError: it is none; NaN and Infinity, which Python's `json` takes, are none either.
    """
    problem = ""
    try:
        return _DECODER.decode(text.decode() if isinstance(text, bytes) else text)
    except UnicodeDecodeError as error:
        problem = f"byte {error.start} is not UTF-8"
    except json.JSONDecodeError as error:
        problem = f"{error.msg.removesuffix(' at')}, character {error.pos}"
    except RecursionError:
        problem = "it is nested too deeply"
    except ValueError as error:
        # also of Python: a whole number of more digits than it reads
        problem = str(error) if isinstance(error, _NoJsonError) else "a number has too many digits"
    raise UnaskableError(f"expected {what}: {problem}")


def maybe_json(value: Any, what: str = "JSON") -> Any:
    """Return a cell that holds an object or a list as JSON text as that; any other value as it is.

    Raises:
        UnaskableError: it begins as an object or a list and is none: a line that was cut, mostly.
    """
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        return parse_json(value, what)
    return value


def json_or_text(value: Any) -> Any:
    """Return a cell as `maybe_json` does, but as the text it is where it is no JSON: a prompt may begin with a brace."""
    try:
        return maybe_json(value)
    except UnaskableError:
        return value


class _NoJsonError(ValueError):
    """NaN or Infinity was read."""


def _refuse(name: str) -> None:
    raise _NoJsonError(f"{name} is no number of JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse)
