"""A `JsonSchema` is read as far as a judge's answer needs it: where an enum lies, and the least that the rest of it allows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from ipr_engine.server.refused import RefusedError

MOST_DEPTH = 16
MOST_PARTS = 50_000
"""So many parts and keywords of a schema are looked at; references may lead to one again and again."""
MOST_LONG = 4096
"""The longest text, or list, that is made up."""
MOST_NUMBER = 2**53
UNREAD = ("pattern", "format", "not", "if", "contains", "dependentRequired", "dependentSchemas", "minProperties")
"""What a field may ask for and is not made up."""
_ANY = ("anyOf", "oneOf")
_ENUM, _ITEMS, _NAMED = "enum", "items", "properties"

Schema = Mapping[str, Any]
Path = tuple[tuple[str, Any], ...]
"""How a part is reached: keyword, and name or position, one after the other."""


class JsonSchema:
    """A `JsonSchema` is one schema, whose references lead to parts of itself."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._parts = 0
        self._chosen = self._text = ""

    def enums(self, is_wanted: Callable[[Schema], bool]) -> list[tuple[Path, Schema]]:
        """Return each enum that is wanted, and how it is reached.

        Of alternatives the first that holds one counts. An allOf is read as one schema, a reference as what it leads to.
        """
        self._parts = 0
        try:
            return list(self._enums(self._root, is_wanted, (), frozenset()))
        except RecursionError:
            raise _refused("is too deep") from None

    def _enums(
        self, part: object, is_wanted: Callable[[Schema], bool], path: Path, within: frozenset[str]
    ) -> Iterator[tuple[Path, Schema]]:
        if not isinstance(part, Mapping) or len(path) > MOST_DEPTH:
            return
        known = set(within)
        schema = self._read(part, known)
        if schema is None:  # it holds itself: nothing new lies deeper
            return
        inside = frozenset(known)
        if is_wanted(schema):
            yield path, schema
            return
        kind = next((one for one in _ANY if isinstance(schema.get(one), list)), None)
        if kind is not None:
            for position, one in enumerate(schema[kind]):
                found = list(self._enums(_chosen(schema, kind, one), is_wanted, (*path, (kind, position)), inside))
                if found:
                    yield from found
                    return
            return
        for name, one in _properties(schema).items():
            yield from self._enums(one, is_wanted, (*path, (_NAMED, name)), inside)
        yield from self._enums(schema.get(_ITEMS), is_wanted, (*path, (_ITEMS, None)), inside)

    def filled(self, path: Path, chosen: str, text: str) -> Any:
        """Return an instance with `chosen` at the end of the path; every other required field gets the least that it allows, a text `text`.

        Raises:
            RefusedError: a required field asks for what is not made up, or the schema is too deep or too large.
        """
        self._parts, self._chosen, self._text = 0, chosen, text
        try:
            return self._fill(self._root, path, ())
        except RecursionError:
            raise _refused("is too deep") from None

    def _fill(self, part: object, path: Path | None, at: tuple[str, ...], known: frozenset[str] = frozenset()) -> Any:
        """Fill a part.

        path: to the enum; None where it lies elsewhere. at: the part's own place in the instance. known: references that led to it there.
        """
        if len(at) > MOST_DEPTH:
            raise _refused(f"expected at most {MOST_DEPTH} levels of required fields")
        if path == ():
            return self._chosen
        if part is True:
            part = {}
        if not isinstance(part, Mapping):
            raise _unfillable(at, "allows nothing")
        seen = set(known)
        schema = self._read(part, seen)
        if schema is None:
            raise _unfillable(at, "refers to itself")
        if path is None:
            for keyword in ("const", "default"):
                if keyword in schema:
                    return schema[keyword]
            values = schema.get(_ENUM)
            if isinstance(values, list) and values:
                return values[0]
        kind = next((one for one in _ANY if isinstance(schema.get(one), list)), None)
        if kind is not None:
            return self._fill_any(schema, kind, path, at, frozenset(seen))
        for keyword in UNREAD:
            if path is None and keyword in schema:
                raise _unfillable(at, f"has {keyword}, which is not filled: let it be optional, or give a default")
        return self._fill_kind(schema, path, at)

    def _fill_any(
        self, schema: Schema, kind: str, path: Path | None, at: tuple[str, ...], known: frozenset[str]
    ) -> Any:
        """Fill the alternative that leads to the enum; elsewhere the first that can be filled."""
        alternatives: list[Any] = schema[kind]
        if path is not None:
            return self._fill(_chosen(schema, kind, alternatives[path[0][1]]), path[1:], at, known)
        problem = _unfillable(at, f"has no alternative in {kind}")
        for one in alternatives:
            try:
                return self._fill(_chosen(schema, kind, one), None, at, known)
            except RefusedError as refused:
                problem = refused
        raise problem

    def _fill_kind(self, schema: Schema, path: Path | None, at: tuple[str, ...]) -> Any:
        kind = _kind(schema)
        if path is not None and path[0][0] == _ITEMS:
            kind = "array"
        elif path is not None:
            kind = "object"
        if kind == "object":
            required = dict.fromkeys(name for name in _list(schema.get("required")) if isinstance(name, str))
            properties = _properties(schema)
            within = None if path is None else path[0][1]
            found = {}
            for name in dict.fromkeys([*properties, *required]):
                if name == within or name in required:
                    rest = path[1:] if path is not None and name == within else None
                    found[name] = self._fill(properties.get(name, True), rest, (*at, name))
            return found
        if kind == "array":
            return self._fill_array(schema, path, at)
        if kind == "string":
            return _text(schema, self._text, at)
        if kind in ("integer", "number"):
            return _number(schema, kind, at)
        return False if kind == "boolean" else None

    def _fill_array(self, schema: Schema, path: Path | None, at: tuple[str, ...]) -> list[Any]:
        least, most = _whole(schema, "minItems", 0), _whole(schema, "maxItems", MOST_LONG)
        first = [] if path is None else [self._fill(schema.get(_ITEMS), path[1:], (*at, "0"))]
        count = max(least, len(first))
        if count > most or count > MOST_LONG or (count > 1 and schema.get("uniqueItems") is True):
            raise _unfillable(at, "wants a list that is not made up")
        if first:
            return first * count
        before = _list(schema.get("prefixItems"))
        items = schema.get(_ITEMS, True)
        return [self._fill(before[n] if n < len(before) else items, None, (*at, str(n))) for n in range(count)]

    def _read(self, part: Schema, known: set[str]) -> Schema | None:
        """Return a part with its references followed and its allOf joined; None where it leads to one that is known, which grow."""
        self._count(part)
        found = dict(part)
        while True:
            place = found.pop("$ref", None)
            if place is not None:
                if place in known:
                    return None
                if not isinstance(place, str):
                    raise _refused("expected a text as $ref")
                known.add(place)
                meant = self._at(place)
                self._count(meant)
                found = _joined(meant, found)
                continue
            every = found.pop("allOf", None)
            if every is None:
                return found
            for one in _list(every):
                read = self._read(one, known) if isinstance(one, Mapping) else {}
                if read is None:
                    return None
                self._count(found)
                found = _joined(found, read)

    def _count(self, part: Schema) -> None:
        self._parts += 1 + len(part) + len(_properties(part)) + len(_list(part.get("required")))
        if self._parts > MOST_PARTS:
            raise _refused(f"expected at most {MOST_PARTS} parts")

    def _at(self, place: str) -> Schema:
        """Return the part that a reference names: `#`, or `#/` and a JSON pointer."""
        found: Any = self._root
        head, *names = unquote(place).split("/")
        if head == "#":
            for name in names:
                plain = name.replace("~1", "/").replace("~0", "~")
                if isinstance(found, list) and plain.isdecimal() and int(plain) < len(found):
                    found = found[int(plain)]
                else:
                    found = found.get(plain) if isinstance(found, Mapping) else None
            if isinstance(found, Mapping):
                return found
        raise _refused(f"expected a $ref to a part of the schema itself, such as #/$defs/Name, got {place[:64]!r}")


def _refused(wrong: str) -> RefusedError:
    return RefusedError(
        400, f"response_format: {wrong}", "response_format", why="response_format: the schema is not filled"
    )


def _unfillable(at: Sequence[str], why: str) -> RefusedError:
    return _refused(f"the required field {'.'.join(at)[:128] or 'at the top'} {why}")


def _chosen(schema: Schema, kind: str, one: object) -> Schema:
    """Return a schema with one of its alternatives."""
    rest = {name: value for name, value in schema.items() if name != kind}
    return {**rest, "allOf": [one]} if isinstance(one, Mapping) else rest


def _joined(one: Schema, other: Schema) -> dict[str, Any]:
    """Return what holds of both; where they say a keyword otherwise, what the other says."""
    found = {**one, **other}
    if _NAMED in one and _NAMED in other:
        mine, theirs = _properties(one), _properties(other)
        found[_NAMED] = {
            name: {"allOf": [mine[name], theirs[name]]} if name in mine and name in theirs else {**mine, **theirs}[name]
            for name in {**mine, **theirs}
        }
    if "required" in one and "required" in other:
        found["required"] = [*_list(one["required"]), *_list(other["required"])]
    return found


def _properties(schema: Schema) -> Mapping[str, Any]:
    found = schema.get(_NAMED)
    return found if isinstance(found, Mapping) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _kind(schema: Schema) -> str:
    """Return the type of a part, told or not."""
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((one for one in kind if isinstance(one, str)), None)
    if isinstance(kind, str):
        return kind
    if _NAMED in schema or "required" in schema:
        return "object"
    return "array" if _ITEMS in schema else "null"


def _whole(schema: Schema, name: str, otherwise: int) -> int:
    value = schema.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else otherwise


def _text(schema: Schema, text: str, at: Sequence[str]) -> str:
    least, most = _whole(schema, "minLength", 0), _whole(schema, "maxLength", MOST_LONG)
    if least > most or least > MOST_LONG:
        raise _unfillable(at, "wants a text that is not made up")
    return text[: max(most, 0)].ljust(least, ".")


def _number(schema: Schema, kind: str, at: Sequence[str]) -> float:
    """Return the number that is nearest to 0 within the bounds, a multiple where one is asked for."""
    bounds = {name: _bound(schema, name) for name in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")}
    multiple = _bound(schema, "multipleOf")
    step = multiple if multiple is not None and multiple > 0 else 1
    least = max(
        (value for value in (bounds["minimum"], bounds["exclusiveMinimum"]) if value is not None), default=-math.inf
    )
    most = min(
        (value for value in (bounds["maximum"], bounds["exclusiveMaximum"]) if value is not None), default=math.inf
    )

    def fits(number: float) -> bool:
        inside = least <= number <= most and number not in (bounds["exclusiveMinimum"], bounds["exclusiveMaximum"])
        return inside and (kind == "number" or number == int(number))

    tried: list[float] = [0]
    for edge, round_to in ((least, math.ceil), (most, math.floor)):
        if abs(edge / step) < MOST_NUMBER:
            near = round_to(edge / step)
            tried += [near * step, (near + 1) * step, (near - 1) * step]
            if multiple is None:
                tried += [edge]
    if multiple is None and math.isfinite(least) and math.isfinite(most):
        tried.append((least + most) / 2)
    found = next((number for number in sorted(tried, key=abs) if abs(number) < MOST_NUMBER and fits(number)), None)
    if found is None:
        raise _unfillable(at, "wants a number that is not made up")
    return int(found) if found == int(found) else found


def _bound(schema: Schema, name: str) -> float | None:
    value = schema.get(name)
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None
