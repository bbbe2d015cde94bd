"""`read_yaml` reads one YAML file of plain values, in which no key may stand twice; what is wrong is told by its line."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any

from ipr_engine._extras import need
from ipr_engine._files import as_path
from ipr_engine.errors import InvalidInputError
from ipr_engine.server.typed_document import told

_WHY = {
    "\\t": "indent by blanks, not by a tab",
    "constructor for the tag": "tags such as !env have no meaning here; keys come from the environment, see api_key_env",
    "single document": "a second document begins here; take the line --- away",
    "undefined alias": "quote what begins with *",
    "recursive": "an alias holds itself",
    "mapping values are not allowed": "a colon too many, or wrong indentation; quote text that has a colon and a blank",
}
"""What PyYAML's problem has in it -> what it means here; its own words may hold a value."""

PATHS: Mapping[str, tuple[str, ...]] = MappingProxyType({"records": ("path", "key"), "shadow": ("bundle",)})
"""Part of a config -> its keys that hold paths."""


class _WrongKeyError(Exception):
    """A key stands twice, or cannot be one."""


def read_yaml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the object that a file holds at its top; the paths in it are taken from the file's own folder.

    Raises:
        InvalidInputError: the file cannot be read, is not YAML, holds a key twice, or no object; the error names file and line, no value.
    """
    yaml = need("yaml", "a server's config", "serve")
    file = as_path(path, "config")
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
        raise InvalidInputError(f"{file}: is empty; expected keys such as endpoints and upstreams at its top")
    if not isinstance(document, dict):
        raise InvalidInputError(f"{file}: expected keys such as endpoints and upstreams at its top")
    folder = str(file.absolute().parent)
    return {key: _from_folder(folder, value, PATHS.get(key, ())) for key, value in document.items()}


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
