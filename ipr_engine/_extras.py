"""`need` imports an optional package where it is used, and says what to install where it is missing."""

from __future__ import annotations

import importlib
from typing import Any

from ipr_engine.errors import BackendUnavailableError


def need(module: str, purpose: str, extra: str = "train", *, package: str | None = None) -> Any:
    """Import an optional package.

    Args:
        extra: which one of this package brings it. package: what does, where none of them does.
    Raises:
        BackendUnavailableError: it is missing; says what it is for, and what to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        wanted = f"ipr_engine[{extra}]" if package is None else package
        raise BackendUnavailableError(f"{purpose} needs {module}: pip install '{wanted}' ({error})") from error


def need_pyplot() -> Any:
    """Import matplotlib's pyplot, which draws into files alone.

    Raises:
        BackendUnavailableError: matplotlib is missing; says what to install.
    """
    try:
        # Before pyplot is imported: it would choose a back end with windows.
        importlib.import_module("matplotlib").use("Agg")
        return importlib.import_module("matplotlib.pyplot")
    except ImportError as error:
        raise BackendUnavailableError(f"plots need matplotlib: pip install 'ipr_engine[eval]' ({error})") from error
