"""Optional packages, asked for by name where they are needed."""

from __future__ import annotations

import importlib
from typing import Any

from ipr_engine.errors import BackendUnavailableError


def need(module: str, purpose: str, extra: str = "train") -> Any:
    """Import an optional package, or say which extra of this one brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise BackendUnavailableError(
            f"{purpose} needs {module}: pip install 'ipr_engine[{extra}]' ({error})"
        ) from error
