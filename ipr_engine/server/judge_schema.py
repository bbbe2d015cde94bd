"""`filled` finds the enum of candidates in a judge's json_schema, and makes the answer that the schema asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ipr_engine.server.refused import RefusedError

JUDGE = "ipr-judge"
"""The model of a chat completion that is answered by a decision: one of the candidates in its json_schema's enum."""
MOST_DEPTH = 16
MOST_PARTS = 5000
"""Properties of a schema in all, as OpenAI bounds them."""
MOST_CHOICES = 255
_PLAIN: Mapping[str, Any] = {"string": "", "integer": 0, "number": 0, "boolean": False, "array": [], "null": None}


def filled(schema: Mapping[str, Any], names: Sequence[str]) -> tuple[list[str], Callable[[str, str], Any]]:
    """Return the choices of a schema's one enum of candidates, and what fills the schema from a choice and its cause.

    Every other required field gets the least that its type allows; a text gets the cause.

    Raises:
        RefusedError: no enum holds candidates alone, or several do; the schema, or that enum, is larger than any.
    """
    _check_size(schema)
    known = {name.casefold() for name in names}
    found: list[list[str]] = []
    _find(schema, known, found, 0)
    if len(found) != 1:
        what = "none" if not found else f"{len(found)} of them"
        raise RefusedError(
            400, f"response_format: expected one enum of candidates ({', '.join(names)}), got {what}", "response_format"
        )
    choices = found[0]
    if len(choices) > MOST_CHOICES:
        raise RefusedError(
            400,
            f"response_format: expected an enum of at most {MOST_CHOICES} candidates, got {len(choices)}",
            "response_format",
        )
    return choices, lambda chosen, cause: _fill(schema, choices, chosen, cause)


def _check_size(schema: object) -> None:
    parts, level = 0, [schema]
    for _ in range(MOST_DEPTH + 2):
        held = [part["properties"] for part in level if isinstance(part, Mapping) and "properties" in part]
        level = [part for properties in held if isinstance(properties, Mapping) for part in properties.values()]
        parts += len(level)
        if parts > MOST_PARTS:
            wrong = f"response_format: expected a schema of at most {MOST_PARTS} properties, got more"
            raise RefusedError(400, wrong, "response_format")


def _find(schema: object, known: set[str], found: list[list[str]], depth: int) -> None:
    if not isinstance(schema, Mapping) or depth > MOST_DEPTH:
        return
    values = schema.get("enum")
    if isinstance(values, list) and values and all(isinstance(one, str) and one.casefold() in known for one in values):
        found.append(values)
        return
    properties = schema.get("properties")
    if isinstance(properties, Mapping):
        for part in properties.values():
            _find(part, known, found, depth + 1)


def _fill(schema: Mapping[str, Any], choices: list[str], chosen: str, cause: str, depth: int = 0) -> Any:
    if depth > MOST_DEPTH:
        raise RefusedError(400, f"response_format: expected at most {MOST_DEPTH} levels", "response_format")
    values = schema.get("enum")
    if values is choices:
        return chosen
    if "const" in schema:
        return schema["const"]
    if isinstance(values, list) and values:
        return values[0]
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((one for one in kind if isinstance(one, str)), None)
    properties = schema.get("properties")
    if isinstance(properties, Mapping):
        required = schema.get("required")
        wanted = {name for name in required if isinstance(name, str)} if isinstance(required, list) else ()
        return {
            name: _fill(part, choices, chosen, cause, depth + 1)
            for name, part in properties.items()
            if isinstance(part, Mapping) and (name in wanted or _holds(part, choices))
        }
    if kind == "string":
        return cause
    return _PLAIN.get(str(kind))


def _holds(schema: Mapping[str, Any], choices: list[str], depth: int = 0) -> bool:
    """Return whether the enum of candidates lies in this part; `_find` found it, so no deeper than it looks."""
    if depth > MOST_DEPTH:
        return False
    if schema.get("enum") is choices:
        return True
    properties = schema.get("properties")
    return isinstance(properties, Mapping) and any(
        _holds(part, choices, depth + 1) for part in properties.values() if isinstance(part, Mapping)
    )
