"""A read-only mapping can be pickled and copied: Python knows neither of its own `MappingProxyType`, and is taught both here."""

from __future__ import annotations

import copyreg
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

read_only = MappingProxyType
"""A view of items that nobody can change. Whoever must not keep the owner from changing them passes a copy."""


def _viewed(items: Mapping[Any, Any]) -> Mapping[Any, Any]:
    return MappingProxyType(items)


def _reduced(view: MappingProxyType[Any, Any]) -> tuple[Any, ...]:
    return _viewed, (dict(view),)  # the type itself has no name that a pickle could find


# For the whole process: policies, prices and bundles hold such views at every depth, inside tuples and other mappings too.
copyreg.pickle(MappingProxyType, _reduced)
