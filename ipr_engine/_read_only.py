"""A read-only mapping can be pickled and copied: Python knows neither of its own `MappingProxyType`, and is taught both here."""

from __future__ import annotations

import copyreg
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


def read_only(items: Mapping[Key, Value]) -> Mapping[Key, Value]:
    """Return a view of these items that nobody can change. Whoever must not keep the owner from changing them passes a copy."""
    return MappingProxyType(items)


def _reduced(view: MappingProxyType[Any, Any]) -> tuple[Any, ...]:
    return read_only, (dict(view),)


# For the whole process: policies, prices and bundles hold such views at every depth, inside tuples and other mappings too.
copyreg.pickle(MappingProxyType, _reduced)
