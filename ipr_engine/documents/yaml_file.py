"""`read_yaml` reads one YAML file of plain values, in which no key may stand twice; what is wrong is told by its line."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from ipr_engine._extras import need
from ipr_engine._files import as_path
from ipr_engine.documents.typed_document import Mistake, item_place, key_place, told
from ipr_engine.errors import InvalidInputError

_WHY = {
    "\\t": "indent by blanks, not by a tab",
    "constructor for the tag": "tags such as !env have no meaning here; keys come from the environment, see api_key_env",
    "single document": "a second document begins here; take the line --- away",
    "undefined alias": "quote what begins with *",
    "recursive": "an alias holds itself",
    "mapping values are not allowed": "a colon too many, or wrong indentation; quote text that has a colon and a blank",
}
"""What PyYAML's problem has in it -> what it means here; its own words may hold a value."""

NO_PATHS: Mapping[str, tuple[str, ...]] = MappingProxyType({})


class _WrongKeyError(Exception):
    """A key stands twice, or cannot be one."""


class YamlKind(NamedTuple):
    """A `YamlKind` says what files of one kind are for.

    Attributes:
        name: what errors call such a file. extra: the one of this package that brings PyYAML for it.
        keys: such as stand at its top, for errors.
        paths: part of the file -> its keys that hold paths.
    """

    name: str
    extra: str
    keys: str
    paths: Mapping[str, tuple[str, ...]] = NO_PATHS


def read_yaml(path: str | os.PathLike[str], kind: YamlKind) -> dict[str, Any]:
    """Return the object that a file holds at its top; the paths in it are taken from the file's own folder.

    Raises:
        InvalidInputError: the file cannot be read, is not YAML, holds a key twice, or no object; the error names file and line, no value.
    """
    yaml = need("yaml", f"a {kind.name}", kind.extra)
    file = as_path(path, kind.name)
    try:
        text = file.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{file}: expected UTF-8, byte {error.start} is none; save it as UTF-8") from None
    except OSError as error:
        raise InvalidInputError(f"{file}: cannot be read: {error.strerror or error}") from error
    loader: Any = type("_Loader", (yaml.SafeLoader,), {})
    loader.add_constructor("tag:yaml.org,2002:map", _object)
    try:
        document = yaml.load(text, Loader=loader)
    except _WrongKeyError as error:
        raise InvalidInputError(f"{file}, {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = f"{getattr(error, 'context', None)} {getattr(error, 'problem', None)}"
        where = "" if mark is None else f", line {mark.line + 1}"
        why = next((why for part, why in _WHY.items() if part in problem), "check indentation, colons and quotes")
        raise InvalidInputError(f"{file}{where}: is not YAML as it is read here: {why}") from None
    except RecursionError:
        raise InvalidInputError(f"{file}: is nested too deeply") from None
    except (ValueError, LookupError, AttributeError, TypeError):  # of PyYAML, for a date or number that is none
        raise InvalidInputError(
            f"{file}: holds what looks like a date or a number to YAML and is none, such as 2026-02-30; quote it"
        ) from None
    if document is None:
        raise InvalidInputError(f"{file}: is empty; expected keys such as {kind.keys} at its top")
    if not isinstance(document, dict):
        raise InvalidInputError(f"{file}: expected keys such as {kind.keys} at its top")
    folder = str(file.absolute().parent)
    return {key: _from_folder(folder, value, kind.paths.get(key, ())) for key, value in document.items()}


def told_at_lines(path: str | os.PathLike[str], kind: YamlKind, mistakes: Sequence[Mistake], most: int) -> str:
    """Return an error's text: what is wrong with a file that `read_yaml` has read, a line each, with the line of the file it stands on.

    most: so many are told; the others are counted.
    """
    yaml = need("yaml", f"a {kind.name}", kind.extra)
    file = as_path(path, kind.name)
    lines: dict[str, int] = {}
    _note_lines(yaml.compose(file.read_text("utf-8"), Loader=yaml.SafeLoader), "", lines)
    told_ones = []
    for mistake in mistakes[:most]:
        at = [place for place in lines if _stands_at(mistake.text, place)]
        where = f", line {lines[max(at, key=len)]}" if at else ""
        told_ones.append(f"{file}{where}: {mistake.text}")
    more = len(mistakes) - most
    return "\n".join([*told_ones, *([f"and {more} more"] if more > 0 else [])])


def _stands_at(text: str, place: str) -> bool:
    """Return whether a mistake's text begins with a place: it ends there, or goes on below it."""
    return text.startswith(place) and text[len(place) : len(place) + 1] in (".", ":", "[", "")


def _note_lines(node: Any, place: str, lines: dict[str, int], around: tuple[Any, ...] = ()) -> None:
    """Note the line of every place below a node, as `read_typed` calls them. around: the nodes that hold it; an alias may be one."""
    if node in around:
        return
    around = (*around, node)
    if node.id == "mapping":
        for key, value in node.value:
            below = key_place(place, key.value)
            lines.setdefault(below, key.start_mark.line + 1)
            _note_lines(value, below, lines, around)
    elif node.id == "sequence":
        for number, item in enumerate(node.value):
            named = {key.value: value.value for key, value in item.value} if item.id == "mapping" else item
            below = item_place(place, number, named)
            lines.setdefault(below, item.start_mark.line + 1)
            lines.setdefault(f"{place}[{number}]", item.start_mark.line + 1)  # as checks of their own call it
            _note_lines(item, below, lines, around)


def _from_folder(folder: str, part: Any, names: Collection[str]) -> Any:
    """Return a part of a config, in which keys of these names hold paths."""
    if not names or not isinstance(part, dict):
        return part
    return {
        name: os.path.join(folder, value) if name in names and isinstance(value, str) and value else value
        for name, value in part.items()
    }


def _object(loader: Any, node: Any) -> dict[Any, Any]:
    """Return a mapping's value; what PyYAML makes of one keeps the last of two equal keys, silently."""
    lines: dict[tuple[str, str], int] = {}
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key.value, str):
            raise _WrongKeyError(
                f"line {line}: a list or an object stands where a key is expected; quote what has braces"
            )
        if key.tag == "tag:yaml.org,2002:merge":
            continue
        named = key.tag, key.value
        if named in lines:
            raise _WrongKeyError(f"line {line}: {told(key.value)} stands on line {lines[named]} too; give it once")
        lines[named] = line
    made: dict[Any, Any] = loader.construct_mapping(node, deep=True)
    return made
