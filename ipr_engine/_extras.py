"""`need` imports an optional package where it is used, and says what to install where it is missing."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
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
        command = pip_extra(extra) if package is None else pip_package(package)
        raise BackendUnavailableError(f"{purpose} needs {module}: {command} ({error})") from error


def need_pyplot(extra: str = "eval") -> Any:
    """Import matplotlib's pyplot, which draws into files alone.

    Raises:
        BackendUnavailableError: matplotlib is missing; says what to install.
    """
    try:
        # Before pyplot is imported: it would choose a back end with windows.
        importlib.import_module("matplotlib").use("Agg")
        return importlib.import_module("matplotlib.pyplot")
    except ImportError as error:
        raise BackendUnavailableError(f"plots need matplotlib: {pip_extra(extra)} ({error})") from error


def pip_extra(extra: str) -> str:
    """Return the command that installs an extra for this Python.

    No index has this package. pip finds it by its name where it is installed, from a wheel or by `make`, and brings what the extra
    adds. Where it is not, it is installed from the clone that it runs in.
    """
    from importlib import metadata

    clone = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    # what a build left in the clone is no installation
    places = (os.path.realpath(str(found.locate_file(""))) for found in metadata.distributions(name="ipr_engine"))
    if any(place != clone for place in places) or not os.path.isfile(os.path.join(clone, "pyproject.toml")):
        return pip_package(f"ipr_engine[{extra}]")
    return f"{_pip()} install -e '{clone}[{extra}]'"


def pip_package(package: str) -> str:
    """Return the command that installs a package for this Python."""
    return f"{_pip()} install '{package}'"


def _pip() -> str:
    """Return `pip` where that is this Python's, as in an environment that is active; else this Python's own."""
    found, here = shutil.which("pip"), os.path.dirname(sys.executable)
    return "pip" if not here or (found and os.path.dirname(found) == here) else f"{sys.executable} -m pip"
