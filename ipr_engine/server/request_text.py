"""A `RequestText` is the JSON of a request as it came: its fields go upstream as they are written, but for those that are the router's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ipr_engine.server.json_text import json_of, json_text

_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_NAME = re.compile(rb"[\s,{]*+(" + _STRING + rb")\s*+:\s*+", re.DOTALL)
_PLAIN = re.compile(_STRING + rb'|[^\s,\]}"\[{]++', re.DOTALL)
# up to the next bracket: texts, which may hold any, are gone over by the regular expression itself
_BRACKET = re.compile(rb'(?:[^"\[\]{}]++|' + _STRING + rb")*+([\[\]{}])", re.DOTALL)


def field_text(name: str, value: Any) -> bytes:
    """Return a field of an object of JSON: its name and its value."""
    return json_text(name) + b":" + json_text(value)


class RequestText:
    """A `RequestText` holds the fields of an object of JSON, each as its text."""

    __slots__ = ("_fields",)

    def __init__(self, text: bytes) -> None:
        """Take apart what is known to be an object of JSON. A field that is written twice has its last value, as for who read it."""
        self._fields = _fields(text)
        self._fields.pop("ipr", None)
        metadata = self._fields.get("metadata", b"")
        own = _fields(metadata[metadata.index(b":") + 1 :]) if b'"ipr' in metadata or b"\\" in metadata else {}
        if own.pop("ipr", None) is not None:
            self._fields["metadata"] = b'"metadata":{' + b",".join(own.values()) + b"}"
            if not own:
                del self._fields["metadata"]

    def with_fields(self, fields: Mapping[str, bytes]) -> bytes:
        """Return the JSON with these fields, as `field_text` writes them, in place of those that have their names, or after all."""
        return b"{" + b",".join({**self._fields, **fields}.values()) + b"}"


def _fields(text: bytes) -> dict[str, bytes]:
    """Return name -> name and value of the fields of an object of JSON, as they are written."""
    found: dict[str, bytes] = {}
    at = 0
    while (name := _NAME.match(text, at)) is not None:
        at = _end_of_value(text, name.end())
        found[json_of(name[1])] = text[name.start(1) : at]
    return found


def _end_of_value(text: bytes, at: int) -> int:
    plain = _PLAIN.match(text, at)
    if plain is not None:
        return plain.end()
    depth = 0
    while (bracket := _BRACKET.match(text, at)) is not None:
        at = bracket.end()
        depth += 1 if bracket[1] in b"[{" else -1
        if depth == 0:
            break
    return at
