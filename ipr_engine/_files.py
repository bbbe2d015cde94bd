"""Paths that a caller gives, and files that are written: a path that cannot be used is refused at once, not after an hour of work."""

from __future__ import annotations

import os
from pathlib import Path

from ipr_engine.errors import InvalidInputError


def as_path(value: object, name: str) -> Path:
    if not isinstance(value, (str, os.PathLike)):
        raise InvalidInputError(f"{name}: expected a str or os.PathLike, got {type(value).__name__}; pass a folder")
    text = os.fspath(value)
    if not isinstance(text, str) or not text or "\0" in text:
        raise InvalidInputError(f"{name}: expected a path, got {text!r}; pass a folder")
    return Path(text)


def writable_folder(path: str | os.PathLike[str], name: str) -> Path:
    """The path of a folder that is there and may be written to, or can be made. Nothing is made yet.

    Raises:
        InvalidInputError: names the argument, and which part of the path is in the way.
    """
    folder = _path(path, name, "a folder")
    place = folder
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise InvalidInputError(
            f"{name}: expected a folder to write to, got {folder}: {place} is no folder; name another"
        )
    if not os.access(place, os.W_OK | os.X_OK):
        raise InvalidInputError(
            f"{name}: expected a folder to write to, got {folder}: {place} cannot be written; name another"
        )
    return folder


def writable_file(path: str | os.PathLike[str], name: str) -> Path:
    """The path of a file that can be written, in a folder that is there. Nothing is made yet; what is there will be replaced.

    Raises:
        InvalidInputError: names the argument, and what is in the way.
    """
    file = _path(path, name, "a file")
    if file.is_dir():
        raise InvalidInputError(f"{name}: expected a file to write, got the folder {file}; name a file in it")
    if not file.parent.is_dir():
        raise InvalidInputError(
            f"{name}: expected a file to write, got {file}: its folder does not exist; make it, or name another"
        )
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise InvalidInputError(f"{name}: expected a file to write, got {file}, which cannot be written; name another")
    return file


def _path(path: str | os.PathLike[str], name: str, what: str) -> Path:
    text = os.fspath(path)
    if not text or "\0" in text:
        raise InvalidInputError(f"{name}: expected {what}, got {text!r}")
    return Path(text)
