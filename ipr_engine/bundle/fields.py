"""A `Field` reads a value of a JSON document; a failed check names the file and the field, what was expected and what came."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from datetime import date
from typing import Any, NoReturn

import numpy as np

from ipr_engine.errors import BundleError, BundleFormatError, BundleValueError, InvalidInputError

_HEX64 = re.compile(r"[0-9a-f]{64}")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # an id becomes a file name
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
REWRITE = "correct it, or write the bundle again with write_bundle"


def fail(error: type[BundleError], where: str, expected: str, got: object, todo: str = REWRITE) -> NoReturn:
    """Raise `error` in the one wording all bundle errors share."""
    shown = got if isinstance(got, str) else repr(got)
    raise error(f"{where}: expected {expected}, got {shown[:100]}{'...' if len(shown) > 100 else ''}; {todo}")


def is_hex64(text: str) -> bool:
    """Return whether a text is a sha256: 64 lower-case hex digits."""
    return _HEX64.fullmatch(text) is not None


def parse_json(data: bytes, file: str) -> Field:
    """Return the document in `data`; a key that stands twice is refused, since JSON would silently keep the last."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        # The last of two equal keys would win: fewer keys than pairs tell that there were two.
        found = dict(pairs)
        if len(found) != len(pairs):
            keys = [key for key, _ in pairs]
            fail(BundleFormatError, file, "unique keys", f"{next(k for k in keys if keys.count(k) > 1)!r} twice")
        return found

    try:
        return Field(json.loads(data.decode("utf-8"), object_pairs_hook=unique), f"{file}: ", "")
    except (ValueError, RecursionError) as error:
        fail(BundleFormatError, file, "a JSON document in UTF-8", f"{len(data)} bytes that are not ({error})")


class Field:
    """A `Field` is one value of a document, and the name it goes by in messages."""

    def __init__(self, value: Any, file: str, name: str) -> None:
        self.value, self._file, self._name = value, file, name

    @property
    def where(self) -> str:
        """The file and the field, as messages name them."""
        return f"{self._file}{self._name}" if self._name else self._file.removesuffix(": ")

    def fail(self, expected: str, error: type[BundleError] = BundleFormatError) -> NoReturn:
        """Raise `error`: this value is not what was expected."""
        fail(error, self.where, expected, repr(self.value))

    def object(self, keys: Sequence[str]) -> dict[str, Field]:
        """Return the fields of an object that has exactly these keys, in this order."""
        found = self.mapping()
        for key in keys:
            if key not in found:
                fail(BundleFormatError, self._child(key).where, "this key", "nothing (it is missing)")
        for key, field in found.items():
            if key not in keys:
                fail(BundleFormatError, field.where, f"no key but {', '.join(keys)}", f"unknown key {key!r}")
        return {key: found[key] for key in keys}

    def mapping(self) -> dict[str, Field]:
        """Return the fields of an object, whatever its keys."""
        if not isinstance(self.value, dict):
            self.fail("an object")
        return {key: self._child(key) for key in self.value}

    def list(self, *, at_least: int = 0) -> list[Field]:
        """Return the fields of a list."""
        if not isinstance(self.value, list):
            self.fail("a list")
        if len(self.value) < at_least:
            self.fail(f"at least {at_least} entries")
        return [Field(item, self._file, f"{self._name}[{i}]") for i, item in enumerate(self.value)]

    def names(self, *, at_least: int = 0, known: Sequence[str] | None = None) -> tuple[str, ...]:
        """Return distinct texts, each one of `known` when that is given."""
        fields = self.list(at_least=at_least)
        names = tuple(field.text() if known is None else field.one_of(known) for field in fields)
        require_distinct(names, fields)
        return names

    def text(self) -> str:
        """Return a text that is not blank and that UTF-8 can hold."""
        if not isinstance(self.value, str) or not self.value.strip():
            self.fail("a text that is not empty")
        try:
            # A lone surrogate is JSON ("\ud800") and no text.
            self.value.encode()
        except UnicodeEncodeError:
            fail(BundleFormatError, self.where, "Unicode text", f"{self.value!a}, which holds a lone surrogate")
        return self.value

    def id(self) -> str:
        """Return an id, which may become a file's name."""
        if not _ID.fullmatch(self.text()):
            self.fail("an id of letters, digits, '.', '_' and '-'")
        return self.text()

    def day(self) -> str:
        """Return a date that the calendar has, YYYY-MM-DD."""
        try:
            date.fromisoformat(self.text())
        except ValueError:
            self.fail("a date YYYY-MM-DD")
        if not _DATE.fullmatch(self.text()):  # Python 3.11 also parses 20261124 and 2026-W48-2
            self.fail("a date YYYY-MM-DD")
        return self.text()

    def sha256(self) -> str:
        """Return a sha256 in hex."""
        if not is_hex64(self.text()):
            self.fail("a sha256 as 64 lower-case hex digits")
        return self.text()

    def one_of(self, known: Sequence[str]) -> str:
        """Return a text that is one of `known`."""
        if self.value not in known:
            self.fail(f"one of {', '.join(map(repr, known))}")
        return self.text()

    def boolean(self) -> bool:
        """Return true or false."""
        if not isinstance(self.value, bool):
            self.fail("true or false")
        return self.value

    def integer(self, *, at_least: int, at_most: int = 2**63 - 1) -> int:
        """Return a whole number in this range; JSON's true and 1.0 are none."""
        # bool is an int in Python, and true is no number in JSON.
        if isinstance(self.value, bool) or not isinstance(self.value, int):
            self.fail("an integer")
        if not at_least <= self.value <= at_most:
            self.fail(f"an integer from {at_least} to {at_most}", BundleValueError)
        return self.value

    def number(self, *, above: float = -math.inf, at_least: float = -math.inf, at_most: float = math.inf) -> float:
        """Return a finite number in this range as a float."""
        if isinstance(self.value, bool) or not isinstance(self.value, (int, float)):
            self.fail("a number")
        try:
            value = float(self.value)
        except OverflowError:
            value = math.inf  # an integer beyond float64
        if not math.isfinite(value):
            self.fail("a finite number", BundleValueError)
        if not above < value:
            self.fail(f"a number > {above:g}", BundleValueError)
        if not at_least <= value <= at_most:
            top = "" if at_most == math.inf else f" and <= {at_most:g}"
            self.fail(f"a number >= {at_least:g}{top}", BundleValueError)
        return value

    def require_finite_tree(self) -> None:
        """Refuse NaN and infinity anywhere below: they are not JSON, and other readers would stop at them."""
        if isinstance(self.value, dict):
            for field in self.mapping().values():
                field.require_finite_tree()
        elif isinstance(self.value, list):
            for field in self.list():
                field.require_finite_tree()
        elif isinstance(self.value, float):
            self.number()

    def _child(self, key: str) -> Field:
        """Return the field of a key; its value is None where the key is missing."""
        return Field(self.value.get(key), self._file, f"{self._name}.{key}".lstrip("."))


def require_distinct(names: Sequence[str], fields: Sequence[Field]) -> None:
    """Raise BundleFormatError at the field of the first name that stands twice."""
    seen: set[str] = set()
    for name, field in zip(names, fields, strict=True):
        if name in seen:
            fail(BundleFormatError, field.where, "distinct names", f"{name!r} a second time")
        seen.add(name)


def canonical_json(document: Any, *, compact: bool = False) -> bytes:
    """Return UTF-8 bytes that depend on the content alone.

    Keys are sorted. There is a 2-space indent and a final newline, unless `compact`.
    """
    # The compact form is hashed and stays ASCII; the other one is read by people, in their own letters.
    if compact:
        return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    return (json.dumps(document, sort_keys=True, indent=2, ensure_ascii=False, default=_plain) + "\n").encode()


def _plain(value: object) -> object:
    """Return a numpy scalar as a Python number, for json."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is no JSON type")


def json_bytes(document: Any, where: str) -> bytes:
    """Return the canonical bytes of what a caller gives; InvalidInputError where JSON cannot hold it."""
    try:
        return canonical_json(document)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInputError(f"{where}: expected values that JSON can hold, got others ({error})") from error


def with_floats(row: dict[str, Any], *keys: str) -> dict[str, Any]:
    """Return the row with floats under these keys: 1 and 1.0 are the same number and shall be the same bytes."""
    return row | {key: float(row[key]) for key in keys if type(row.get(key)) is int}
