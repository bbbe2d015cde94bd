"""Spellings of earlier releases go on working; each warns once a process."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from ipr_engine.prompts import is_one_prompt

_warned: set[str] = set()


def on_error_of_route(face: str, prompt: Any, options: Mapping[str, object], *, stacklevel: int = 4) -> Any:
    """Return the on_error of a call of `route`, which takes one prompt and raises; warn where it is given one, or a list of prompts.

    Args:
        face: the class whose `route` was called.
        stacklevel: of the caller who is warned; by default the caller of the function that calls this one.
    """
    on_error: Any = options.get("on_error")
    if on_error is not None:
        warn_on_error(face, stacklevel=stacklevel + 1)
        return on_error
    if isinstance(prompt, (list, tuple)) and not is_one_prompt(prompt):
        _warn_once(f"{face}.route(a list of prompts)", f"{face}.route_many(prompts)", stacklevel=stacklevel)
    return "raise"


def warn_on_error(face: str, *, stacklevel: int = 4) -> None:
    """Warn of `route(..., on_error=)` of this class."""
    _warn_once(
        f"{face}.route(..., on_error=...)",
        f"{face}.route_many([prompt], on_error=...), which returns a row for each prompt, failed or not",
        stacklevel=stacklevel,
    )


def _warn_once(old: str, new: str, *, stacklevel: int) -> None:
    if old not in _warned:
        warnings.warn(f"{old}: write {new} instead", DeprecationWarning, stacklevel=stacklevel)
        _warned.add(old)  # not where the warning is an error: then every use raises
