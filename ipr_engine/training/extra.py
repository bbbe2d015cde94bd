"""The optional packages of the extra `[train]`, asked for by name, and the one thread that makes sums repeatable."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ipr_engine.errors import BackendUnavailableError


def need(module: str, purpose: str) -> Any:
    """Import an optional package, or say which extra brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise BackendUnavailableError(f"{purpose} needs {module}: pip install 'ipr_engine[train]' ({error})") from error


@contextmanager
def one_thread() -> Iterator[None]:
    """Run numpy's and torch's sums in one thread: their order, hence every last bit, then repeats on one machine."""
    with need("threadpoolctl", "a repeatable fit").threadpool_limits(limits=1):
        yield
