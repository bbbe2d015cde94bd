"""SDK objects are read as plain fields: pydantic models, dataclasses, whatever has to_dict, or attributes alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from ipr_engine.errors import InvalidInputError

_PLAIN = (str, bytes, bytearray, list, tuple, set, frozenset, int, float, bool, type(None), type)


def as_fields(value: object) -> Mapping[str, Any] | None:
    """Return the fields of a mapping or of an SDK's object, one level deep; None for anything else.

    An object without fields of its own that can be listed counts where it has a text `role` or `type`, or holds a
    conversation as `messages` or `input`.
    """
    if isinstance(value, dict):
        return value
    if isinstance(value, _PLAIN):
        return None
    try:
        return dict(value) if isinstance(value, Mapping) else _fields_of(value)
    except Exception:  # of anyone's property, mapping or to_dict: an object that cannot be read is none of ours
        return None


def _fields_of(value: Any) -> Mapping[str, Any] | None:
    if hasattr(
        type(value), "model_fields"
    ):  # pydantic: fields and extra ones, as they are, without a serialiser's warnings
        return dict(value)
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    for dump in ("model_dump", "to_dict"):
        if callable(getattr(value, dump, None)):
            found = getattr(value, dump)()
            return found if isinstance(found, Mapping) else None
    told = isinstance(getattr(value, "role", None), str) or isinstance(getattr(value, "type", None), str)
    if told or isinstance(getattr(value, "messages", None), (list, tuple)) or _has_input(value):
        return dict(_attributes(value))
    return None


def _has_input(value: object) -> bool:
    return isinstance(getattr(value, "input", None), (str, list, tuple))


def _attributes(value: object) -> Iterator[tuple[str, Any]]:
    for name in dir(value):
        if not name.startswith("_"):
            attribute = getattr(value, name, None)
            if not callable(attribute):
                yield name, attribute


def to_json(value: object, where: str) -> str:
    """Return a value as JSON text, SDK objects in it as their fields; a text as it is."""
    if isinstance(value, str):
        return value
    problem = ""
    try:
        return json.dumps(value, ensure_ascii=False, default=as_json)
    except (TypeError, ValueError) as error:
        problem = str(error) if isinstance(error, _NotJson) else type(error).__name__
    raise InvalidInputError(f"{where}: expected what JSON can hold, got {kind_of(value)} ({problem})")


class _NotJson(TypeError):
    pass


def as_json(value: object) -> Mapping[str, Any]:
    """Serve json.dumps as its `default`: an SDK's object becomes its fields."""
    found = as_fields(value)
    if found is None:
        raise _NotJson(f"{type(value).__name__} in it")
    return dict(found)


def kind_of(value: object) -> str:
    """Return what a value is, for a message: its type, never its content."""
    if isinstance(value, (list, tuple)):
        return (
            f"an empty {type(value).__name__}" if not value else f"{type(value).__name__} of {type(value[0]).__name__}"
        )
    return "None" if value is None else type(value).__name__
