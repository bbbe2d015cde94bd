"""A package's face imports what its names stand for when one is first asked for: who never asks does not wait."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module


def lazy_names(face: str, homes: Mapping[str, str]) -> Callable[[str], object]:
    """Return the `__getattr__` of a face (PEP 562).

    Write it in the `else` of `if TYPE_CHECKING`, whose imports tell the same names to mypy and to readers: mypy accepts every
    name of a module that it sees a `__getattr__` of.

    Args:
        face: `__name__` of the face. homes: name -> the module that defines it.
    Raises (when the name is asked for):
        AttributeError: the face has no such name.
        ImportError: what the name stands for cannot be imported. An AttributeError in between becomes one: `from ... import`
            would take it for a name that is not there, and say so.
    """

    def __getattr__(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {face!r} has no attribute {name!r}")
        try:
            home = import_module(homes[name])
        except AttributeError as error:
            raise ImportError(f"{face}.{name}: importing {homes[name]} failed: {error}") from error
        found: object = getattr(home, name)
        setattr(sys.modules[face], name, found)  # asked for once
        return found

    return __getattr__
