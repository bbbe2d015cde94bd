"""`filled` finds the enum of candidates in a judge's json_schema, and makes the answer that the schema asks for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from ipr_engine.server.json_schema import JsonSchema
from ipr_engine.server.refused import RefusedError

JUDGE = "ipr-judge"
"""The model of a chat completion that is answered by a decision: one of the candidates in its json_schema's enum."""


def filled(schema: Mapping[str, Any], names: Sequence[str]) -> tuple[list[str], Callable[[str, str], Any]]:
    """Return the choices of a schema's one enum of candidates, and what fills the schema from a choice and its cause.

    Every other required field gets the least that its type allows; a text gets the cause.

    Raises:
        RefusedError: no enum holds candidates alone, or several do; a reference leads out of the schema, or it is too large.
    """
    known = {name.casefold() for name in names}
    read = JsonSchema(schema)
    found = read.enums(lambda part: bool(_choices(part, known)))
    if len(found) != 1:
        what = "none" if not found else f"{len(found)} of them"
        raise RefusedError(
            400, f"response_format: expected one enum of candidates ({', '.join(names)}), got {what}", "response_format"
        )
    ((path, enum),) = found
    return _choices(enum, known), lambda chosen, cause: read.filled(path, chosen, cause)


def _choices(part: Mapping[str, Any], known: Collection[str]) -> list[str]:
    """Return the candidates of an enum; none where it is no enum of them alone. null may stand beside them."""
    values = part.get("enum")
    if not isinstance(values, list):
        return []
    said = [one for one in values if one is not None]
    return said if all(isinstance(one, str) and one.casefold() in known for one in said) else []
