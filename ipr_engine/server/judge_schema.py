"""`filled` finds the enum of candidates in a judge's json_schema, and makes the answer that the schema asks for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from ipr_engine.server.json_schema import JsonSchema
from ipr_engine.server.refused import RefusedError

MOST_CHOICES = 255
JUDGE = "ipr-judge"
"""The model of a chat completion that is answered by a decision: one of the candidates in its json_schema's enum."""


def filled(schema: Mapping[str, Any], names: Sequence[str]) -> tuple[list[str], Callable[[str, str], Any]]:
    """Return the choices of a schema's one enum of candidates, and what fills the schema from a choice and its cause.

    Every other required field gets the least that its type allows; a text gets the cause.

    Raises:
        RefusedError: no enum holds candidates alone, or several do; a reference leads out of the schema, or it, or that enum, is too large.
    """
    known = {name.casefold() for name in names}
    longest = max(map(len, known), default=0)
    read = JsonSchema(schema)
    seen: dict[int, list[str]] = {}  # by identity: references may lead to one list again and again

    def choices(part: Mapping[str, Any]) -> list[str]:
        values = part.get("enum")
        if not isinstance(values, list):
            return []
        if id(values) not in seen:
            seen[id(values)] = _choices(values, known, longest)
        return seen[id(values)]

    found = read.enums(lambda part: bool(choices(part)))
    if len(found) != 1:
        what = "none" if not found else f"{len(found)} of them"
        raise RefusedError(
            400, f"response_format: expected one enum of candidates ({', '.join(names)}), got {what}", "response_format"
        )
    ((path, enum),) = found
    return choices(enum), lambda chosen, cause: read.filled(path, chosen, cause)


def _choices(values: list[Any], known: Collection[str], longest: int) -> list[str]:
    """Return the candidates of an enum; none where it is no enum of them alone. null may stand beside them.

    longest: the length of the longest that is known; folding a text makes it no shorter.
    """
    most = MOST_CHOICES + 1  # null beside them
    said = [one for one in values[: most + 1] if one is not None]
    if not all(isinstance(one, str) and len(one) <= longest and one.casefold() in known for one in said):
        return []
    if len(values) > most:
        wrong = f"response_format: expected an enum of at most {MOST_CHOICES} candidates, got {len(values)}"
        raise RefusedError(400, wrong, "response_format")
    return said
