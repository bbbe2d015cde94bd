"""Values of a bundle that a caller gives, judged by the rules of `Bundle.load` before any work is put into it."""

from __future__ import annotations

import os
import re
from datetime import date
from pathlib import Path
from typing import Any

from ipr_engine._files import writable_folder
from ipr_engine._validate import lone_surrogate, shown
from ipr_engine.bundle.spec import MANIFEST
from ipr_engine.errors import InvalidInputError

MOST_RATIO = 1e6
MOST_WHOLE = 2**63 - 1
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


def is_text(value: object) -> bool:
    """A text that is not blank and that UTF-8 can hold."""
    return isinstance(value, str) and bool(value.strip()) and lone_surrogate(value) is None


def is_amount(value: Any) -> bool:
    """A finite number >= 0 that float64 can hold."""
    if type(value) not in (int, float):
        return False
    try:
        return 0 <= float(value) < float("inf")
    except OverflowError:
        return False


def is_day(value: object) -> bool:
    """A date as YYYY-MM-DD that the calendar has."""
    if not isinstance(value, str) or not _DATE.fullmatch(value):
        return False
    try:
        date.fromisoformat(value)
    except ValueError:
        return False
    return True


def require_text(name: str, value: object) -> None:
    """Raise InvalidInputError, naming the argument, for what is no text of a bundle."""
    if not is_text(value):
        raise InvalidInputError(f"{name}: expected a text that is not blank and is Unicode, got {shown(value)}")


def require_day(name: str, value: object) -> None:
    """Raise InvalidInputError, naming the argument, for what is no date of a bundle."""
    if not is_day(value):
        raise InvalidInputError(f"{name}: expected a date YYYY-MM-DD, got {shown(value)}")


def require_root(name: str, path: str | os.PathLike[str]) -> Path:
    """The path, once it is certain that bundles can be written below it; InvalidInputError names the argument."""
    root = writable_folder(path, name)
    if (root / MANIFEST).exists():
        raise InvalidInputError(
            f"{name}: expected a folder of bundles, got {root}, which is a bundle; name the folder above it"
        )
    return root
