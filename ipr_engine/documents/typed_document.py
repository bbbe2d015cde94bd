"""`read_typed` makes a dataclass of plain values as YAML or JSON gives them, and tells everything that is wrong by the key it stands at."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from datetime import date, time
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from ipr_engine._validate import shown
from ipr_engine.errors import InvalidInputError

Made = TypeVar("Made")
_KEY = re.compile(
    r"\s*((?i:bearer|basic|token)\s|[sp]k[-_]|(gsk_|xai-|hf_|gh[a-z]_|AIza|AKIA|eyJ)[A-Za-z0-9_]{12})"
)  # as keys of providers begin
_WORDS = {str: "text", bool: "true or false", int: "a whole number", float: "a number", NoneType: "null"}


class Mistake(NamedTuple):
    """A `Mistake` is what is wrong with a document. top: the key at its top under which it stands; "" where that is not known."""

    top: str
    text: str


def read_typed(kind: type[Made], document: Mapping[Any, Any]) -> tuple[Made | None, list[Mistake]]:
    """Return what a document means as a dataclass, or None and what is wrong; a value is never told.

    kind: its fields are text, numbers, lists (tuples), objects (mappings, dataclasses), choices (`Literal`) and unions of these.
        Of dataclasses in a union, each with a field `kind` that is a `Literal`, the object's own `kind` says which one it is.
    What a dataclass itself raises is an InvalidInputError that begins with the name of its field.
    """
    reader = _Reader()
    plain = reader.plain(document, "")
    made = None if reader.mistakes else reader.typed(kind, plain, "")
    return (None, reader.mistakes) if reader.mistakes else (made, [])


def take_plain(owner: Any) -> None:
    """Give a new dataclass the meaning of what its fields hold: lists and objects as a document has them, or what these mean already.

    Raises:
        InvalidInputError: names the field, and the key below it.
    """
    reader = _Reader(of_python=True)
    for name, (kind, _) in _fields(type(owner)).items():
        value = reader.plain(getattr(owner, name), name)
        if not reader.mistakes:
            object.__setattr__(owner, name, reader.typed(kind, value, name))
    if reader.mistakes:
        raise InvalidInputError("\n".join(mistake.text for mistake in reader.mistakes))


class _Reader:
    """A reading of one document, and what was found wrong so far."""

    def __init__(self, *, of_python: bool = False) -> None:
        """Begin. of_python: what is read may hold objects, too, as of a dataclass; they are left as they are."""
        self.mistakes: list[Mistake] = []
        self._of_python = of_python
        self._around: set[int] = set()  # ids of the lists and mappings that hold the one that is read

    def plain(self, value: Any, place: str) -> Any:
        """Return a copy of a value, which holds text, numbers, lists and objects alone."""
        if value is None or isinstance(value, (str, int, float)):
            return value
        if isinstance(value, (date, time)):
            return self._wrong(place, "is a date to YAML; quote it")
        if self._of_python and not isinstance(value, (Mapping, list, tuple)):
            return os.fspath(value) if isinstance(value, os.PathLike) else value
        if not isinstance(value, (Mapping, list, tuple)):
            return self._wrong(place, "expected text, numbers, lists and objects alone")
        if id(value) in self._around:
            return self._wrong(place, "holds itself")
        self._around.add(id(value))
        copy: Any
        if isinstance(value, Mapping):
            copy = {
                key: self.plain(item, key_place(place, key)) for key, item in value.items() if self._is_key(key, place)
            }
        else:
            copy = [self.plain(item, item_place(place, number, item)) for number, item in enumerate(value)]
        self._around.discard(id(value))
        return copy

    def typed(self, kind: Any, value: Any, place: str) -> Any:
        """Return a plain value as its type; where it is none, add the mistake and return None."""
        origin, arguments = get_origin(kind), get_args(kind)
        if origin in (Union, UnionType):
            of_kind = _by_kind(arguments)
            if of_kind and isinstance(value, dict):
                return self._of_kind(of_kind, value, place)
            fitting = next((one for one in arguments if _fits(one, value)), None)
            return self._unfit(kind, value, place) if fitting is None else self.typed(fitting, value, place)
        if not _fits(kind, value):
            return self._unfit(kind, value, place)
        if isinstance(kind, type) and is_dataclass(kind):
            return value if isinstance(value, kind) else self._dataclass(kind, value, place)
        if origin is tuple:
            items = enumerate(value)
            return tuple(self.typed(arguments[0], item, item_place(place, number, item)) for number, item in items)
        if origin is Mapping:
            return {key: self._entry(arguments, key, item, place) for key, item in value.items()}
        return value

    def _of_kind(self, known: Mapping[str, Any], value: Mapping[str, Any], place: str) -> Any:
        said = value.get("kind")
        if not isinstance(said, str) or said not in known:
            missing = "" if "kind" in value else "is missing; "
            return self._wrong(key_place(place, "kind"), f"{missing}expected one of {', '.join(known)}")
        return self._dataclass(known[said], value, place)

    def _entry(self, kinds: tuple[Any, ...], key: str, item: Any, place: str) -> Any:
        if not _fits(kinds[0], key):
            return self._wrong(key_place(place, key), f"expected {_expected(kinds[0])} as a key")
        return self.typed(kinds[1], item, key_place(place, key))

    def _dataclass(self, kind: Any, value: Mapping[str, Any], place: str) -> Any:
        known, before = _fields(kind), len(self.mistakes)
        for key in value:
            if key not in known:
                self._wrong(key_place(place, key), f"is no key here; known: {', '.join(known)}")
        given = {
            key: self.typed(known[key][0], item, key_place(place, key)) for key, item in value.items() if key in known
        }
        for name, (wanted, needed) in known.items():
            if needed and name not in value:
                self._wrong(key_place(place, name), f"is missing; expected {_expected(wanted)}")
        if len(self.mistakes) > before:
            return None
        try:
            return kind(**given)
        except InvalidInputError as error:
            return self._wrong(place, str(error), glue="." if place else "")

    def _is_key(self, key: object, place: str) -> bool:
        if isinstance(key, str):
            return True
        if isinstance(key, bool):
            self._wrong(place, "a key is true or false to YAML, as yes, no, on and off are; quote it")
        elif isinstance(key, (int, float)):
            self._wrong(place, f"the key {shown(key)} is a number to YAML; quote it")
        else:
            self._wrong(place, "a key is empty or a date to YAML; quote it")
        return False

    def _unfit(self, kind: Any, value: Any, place: str) -> None:
        expected = _expected(kind)
        if value is None:
            return self._wrong(place, f"has no value; expected {expected}, or leave it out")
        advice = ""
        if isinstance(value, (int, float)) and _fits(kind, ""):
            advice = "; quote it" + (", as every yes, no, on and off" if isinstance(value, bool) else "")
        elif isinstance(value, str) and _is_number(value) and _fits(kind, 1):
            advice = ", not text; write it without quotes and without an exponent"
        return self._wrong(place, f"expected {expected}{advice}")

    def _wrong(self, place: str, text: str, glue: str = ": ") -> None:
        whole = f"{place}{glue if place else ''}{text}"
        self.mistakes.append(Mistake(_top(whole), whole))


def _by_kind(kinds: tuple[Any, ...]) -> dict[str, Any]:
    """Return what `kind` says -> the dataclass; nothing where fewer than two of these have such a field."""
    found: dict[str, Any] = {}
    for one in kinds:
        if isinstance(one, type) and is_dataclass(one):
            wanted = get_type_hints(one).get("kind")
            if get_origin(wanted) is Literal:
                found |= dict.fromkeys(get_args(wanted), one)
    return found if len(set(found.values())) > 1 else {}


def mistake_of(kind: Any, value: object, place: str) -> str | None:
    """Return what is wrong with a value that stands at a place, as `read_typed` tells it; None where it has the form of the type.

    A value that no document has, as an object of a class in it, has any form: its own check is elsewhere.
    """
    reader = _Reader()
    plain = reader.plain(value, place)
    if reader.mistakes:
        return None
    reader.typed(kind, plain, place)
    return reader.mistakes[0].text if reader.mistakes else None


def looks_like_a_key(text: str) -> bool:
    return _KEY.match(text) is not None


def told(name: str) -> str:
    """Return a name for an error; one that looks like a pasted key is not told."""
    return "what looks like a key" if looks_like_a_key(name) else shown(name)


def _fits(kind: Any, value: Any) -> bool:
    """Return whether a value has the form of a type, whatever it holds."""
    origin = get_origin(kind)
    if kind is Any:
        return True
    if origin in (Union, UnionType):
        return any(_fits(one, value) for one in get_args(kind))
    if origin is Literal:
        return value in get_args(kind) and isinstance(value, str)
    if isinstance(kind, type) and is_dataclass(kind):
        return isinstance(value, (dict, kind))
    if origin is Mapping:
        return isinstance(value, dict)
    if origin is tuple:
        return isinstance(value, list)
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return type(value) is kind


def _expected(kind: Any) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType) and _by_kind(arguments):
        return "an object with a kind"
    if origin in (Union, UnionType):
        return ", or ".join(_expected(one) for one in arguments)
    if origin is Literal:
        return f"one of {', '.join(arguments)}"
    if isinstance(kind, type) and is_dataclass(kind):
        return f"an object of {', '.join(_fields(kind))}"
    if origin is Mapping:
        return "an object"
    if origin is not tuple:
        return _WORDS[kind]
    if isinstance(arguments[0], type) and is_dataclass(arguments[0]):
        return f"a list of objects, such as [{{{next(iter(_fields(arguments[0])))}: ...}}]"
    if arguments[0] is float:
        return "a list of numbers"
    choices = get_args(arguments[0])
    return f"a list, such as [{choices[0] if choices else 'one, another'}]"


def _fields(kind: Any) -> dict[str, tuple[Any, bool]]:
    """Return the fields of a dataclass: name -> its type, and whether it must be given."""
    hints = get_type_hints(kind)

    def needed(field: Field[Any]) -> bool:
        return field.default is MISSING and field.default_factory is MISSING

    return {field.name: (hints[field.name], needed(field)) for field in fields(kind)}


def key_place(place: str, key: object) -> str:
    """Return where a key of an object stands, as errors call it."""
    name = str(key)
    if not name.isprintable() or not 0 < len(name) <= 80 or looks_like_a_key(name):
        name = told(name)
    return f"{place}.{name}" if place else name


def item_place(place: str, number: int, item: object) -> str:
    """Return where an item of a list stands: by its name, where it has one."""
    name = item.get("name") if isinstance(item, dict) else None
    return key_place(place, name) if isinstance(name, str) and name else f"{place}[{number}]"


def _top(text: str) -> str:
    ends = [text.index(mark) for mark in ".[:" if mark in text]
    return text[: min(ends)] if ends else ""


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
