"""Spellings of earlier releases that go on working: each warns once a process."""

from __future__ import annotations

import warnings

_warned: set[str] = set()


def warn_once(old: str, new: str, *, stacklevel: int = 3) -> None:
    """Emit a DeprecationWarning of an old spelling, the first time that this process meets it.

    stacklevel: by default the caller of the function that calls this one.
    """
    if old not in _warned:
        warnings.warn(f"{old}: write {new} instead", DeprecationWarning, stacklevel=stacklevel)
        _warned.add(old)  # not where the warning is an error: then every use raises


def warn_on_error(face: str, *, stacklevel: int = 4) -> None:
    """Warn of `route(..., on_error=)` of this class."""
    warn_once(
        f"{face}.route(..., on_error=...)",
        f"{face}.route_many([prompt], on_error=...), which returns a row for each prompt, failed or not",
        stacklevel=stacklevel,
    )


def warn_list(face: str, *, stacklevel: int = 4) -> None:
    """Warn of `route(prompts)` of this class."""
    warn_once(f"{face}.route(a list of prompts)", f"{face}.route_many(prompts)", stacklevel=stacklevel)
