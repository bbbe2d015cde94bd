"""A `JsonSchema` is read as far as a judge's answer needs it: where an enum lies, and the least that the rest of it allows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from ipr_engine.server.json_text import json_text
from ipr_engine.server.least_values import MOST_LONG, Schema, least_number, least_text, whole_number
from ipr_engine.server.refused import RefusedError

MOST_DEPTH = 16
MOST_PARTS = 50_000
"""So many parts and keywords of a schema are looked at; references may lead to one again and again."""
MOST_MADE = 2**20
"""Bytes of JSON that an answer has at most."""
MOST_PLACE = 4096
"""Characters of a $ref."""
_MOST_DIGITS = 9
_LONG_NAME = 1024
"""Characters of a name that count as one more part: to compare long names takes time."""
UNREAD = ("pattern", "format", "not", "if", "contains", "dependentRequired", "dependentSchemas", "minProperties")
"""What a field may ask for and is not made up."""
_ANY = ("anyOf", "oneOf")
_NOT_FILLED = "response_format: the schema is not filled"
_ENUM, _ITEMS, _NAMED = "enum", "items", "properties"

Path = tuple[tuple[str, Any], ...]
"""How a part is reached: keyword, and name or position, one after the other."""


class JsonSchema:
    """A `JsonSchema` is one schema, whose references lead to parts of itself."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._parts = self._made = 0
        self._places: dict[str, Schema] = {}
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
                found = list(self._enums(self._with(schema, kind, one), is_wanted, (*path, (kind, position)), inside))
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
            RefusedError: a required field asks for what is not made up, or the schema or the instance is too deep or too large.
        """
        self._parts, self._made, self._chosen, self._text = 0, 0, chosen, text
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
            return self._said(self._chosen)
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
                    return self._said(schema[keyword])
            values = schema.get(_ENUM)
            if isinstance(values, list) and values:
                return self._said(values[0])
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
            return self._fill(self._with(schema, kind, alternatives[path[0][1]]), path[1:], at, known)
        problem = _unfillable(at, f"has no alternative in {kind}")
        for one in alternatives:
            try:
                return self._fill(self._with(schema, kind, one), None, at, known)
            except _TooMuchError:  # whatever else is tried is too much, too
                raise
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
            self._charge(3)
            found = {}
            for name in dict.fromkeys([*properties, *required]):
                if name == within or name in required:
                    rest = path[1:] if path is not None and name == within else None
                    self._said(name)
                    found[name] = self._fill(properties.get(name, True), rest, (*at, name))
            return found
        if kind == "array":
            return self._fill_array(schema, path, at)
        if kind == "string":
            made = least_text(schema, self._text)
            if made is None:
                raise _unfillable(at, "wants a text that is not made up")
            return self._said(made)
        if kind in ("integer", "number"):
            number = least_number(schema, kind)
            if number is None:
                raise _unfillable(at, "wants a number that is not made up")
            return self._said(number)
        return self._said(False if kind == "boolean" else None)

    def _fill_array(self, schema: Schema, path: Path | None, at: tuple[str, ...]) -> list[Any]:
        least, most = whole_number(schema, "minItems", 0), whole_number(schema, "maxItems", MOST_LONG)
        before = _list(schema.get("prefixItems")) if path is None else []
        count = max(least, 0 if path is None else 1)
        if count > most or count > MOST_LONG or (count > 1 and schema.get("uniqueItems") is True):
            raise _unfillable(at, "wants a list that is not made up")
        self._charge(3)
        found = [self._fill(one, None, (*at, str(n))) for n, one in enumerate(before[:count])]
        more = count - len(found)
        if more:  # they are all the same
            charged = self._made
            rest = None if path is None else path[1:]
            made = self._fill(schema.get(_ITEMS, True), rest, (*at, str(len(found))))
            self._charge((self._made - charged) * (more - 1))
            found += [made] * more
        return found

    def _read(self, part: Schema, known: set[str]) -> Schema | None:
        """Return a part with its references followed and its allOf joined; None where it leads to one that is known, which grow."""
        self._count(part, known)
        found = dict(part)
        while True:
            place = found.pop("$ref", None)
            if place is not None:
                if not isinstance(place, str):
                    raise _refused("expected a text as $ref")
                if place in known:
                    return None
                known.add(place)
                meant = self._places.get(place)
                if meant is None:
                    meant = self._places[place] = self._at(place)
                self._count(meant)
                self._count(found)
                found = _joined(meant, found)
                continue
            every = found.pop("allOf", None)
            if every is None:
                return found
            for one in _list(every):
                read = self._read(one, known) if isinstance(one, Mapping) else _of_truth(one)
                if read is None:
                    return None
                self._count(found)
                found = _joined(found, read)

    def _with(self, schema: Schema, kind: str, one: object) -> Schema:
        """Return a schema with one of its alternatives."""
        self._count(schema)
        return {**{name: value for name, value in schema.items() if name != kind}, "allOf": [one]}

    def _count(self, part: Schema, known: Collection[str] = ()) -> None:
        """Count what is looked at. known: the references that led to it, which are copied on the way."""
        names = [*part, *_properties(part), *_list(part.get("required"))]
        self._parts += 1 + len(names) + len(known)
        self._parts += sum(len(name) // _LONG_NAME for name in names if isinstance(name, str))
        if self._parts > MOST_PARTS:
            raise _TooMuchError(f"expected at most {MOST_PARTS} parts")

    def _said(self, value: Any) -> Any:
        """Return a value of the instance, or a name in it, once it is charged."""
        try:
            size = len(json_text(value))
        except RefusedError:
            raise _refused("is too deep") from None
        self._charge(size + 1)
        return value

    def _charge(self, size: int) -> None:
        """Count the bytes of JSON that come next, also of alternatives that fail."""
        self._made += size
        if self._made > MOST_MADE:
            raise _TooMuchError(f"expected an answer of at most {MOST_MADE} bytes of JSON")

    def _at(self, place: str) -> Schema:
        """Return the part that a reference names: `#`, or `#/` and a JSON pointer."""
        if len(place) > MOST_PLACE:
            raise _refused(f"expected a $ref of at most {MOST_PLACE} characters, got {len(place)}")
        found: Any = self._root
        head, *names = unquote(place).split("/")
        if head == "#":
            for name in names:
                plain = name.replace("~1", "/").replace("~0", "~")
                if isinstance(found, list):
                    is_number = plain.isdecimal() and len(plain) <= _MOST_DIGITS
                    found = found[int(plain)] if is_number and int(plain) < len(found) else None
                else:
                    found = found.get(plain) if isinstance(found, Mapping) else None
            if isinstance(found, Mapping):
                return found
        raise _refused(f"expected a $ref to a part of the schema itself, such as #/$defs/Name, got {place[:64]!r}")


class _TooMuchError(RefusedError):
    """A schema takes more than is done for one."""

    def __init__(self, wrong: str) -> None:
        super().__init__(400, f"response_format: {wrong}", "response_format", why=_NOT_FILLED)


def _refused(wrong: str) -> RefusedError:
    return RefusedError(400, f"response_format: {wrong}", "response_format", why=_NOT_FILLED)


def _unfillable(at: Sequence[str], why: str) -> RefusedError:
    place = ".".join(name[:128] for name in at)[:128]
    return _refused(f"the required field {place or 'at the top'} {why}")


def _of_truth(part: object) -> Schema:
    """Return a part that is no object: false allows nothing."""
    return {"not": {}} if part is False else {}


def _joined(one: Schema, other: Schema) -> dict[str, Any]:
    """Return what holds of both; where they say a keyword otherwise, what the other says."""
    found = {**one, **other}
    if _NAMED in one and _NAMED in other:
        mine, theirs = _properties(one), _properties(other)
        found[_NAMED] = {
            name: {"allOf": [mine[name], theirs[name]]} if name in mine and name in theirs else value
            for name, value in {**mine, **theirs}.items()
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
