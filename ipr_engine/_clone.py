"""This file finds the folders beside the package in a clone: kernels/, which is `ipr_engine.kernels`, benchmarks/ and studies/.

A wheel holds kernels/ and a part of benchmarks/ inside the package, and no studies.
"""

from __future__ import annotations

import os.path
import sys
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec, spec_from_file_location

from ipr_engine.errors import BackendUnavailableError

# Links are followed: a strict editable installation is a folder of links to the clone's files.
ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
OURS = os.path.join("csrc", "include", "ipr", "decide.h")  # no other project has it; any may have a pyproject.toml


class KernelsBeside:
    """`KernelsBeside` finds the one name `ipr_engine.kernels`: nothing else at the root of a clone is a part of the package."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        return _spec(name, "kernels") if name == "ipr_engine.kernels" else None


def import_beside(folder: str) -> bool:
    """Import a folder of the clone under its own name; return False where the package is installed, so that no folder beside it is ours.

    By its place: another package of that name may be installed, and sys.path need not name the clone.

    Raises:
        BackendUnavailableError: this process has imported another package of that name.
    """
    spec = _spec(folder, folder)
    if spec is None or spec.origin is None or spec.loader is None:
        return False
    loaded = sys.modules.get(folder)
    if loaded is None:
        module = sys.modules[folder] = module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[folder]
            raise
    elif os.path.realpath(getattr(loaded, "__file__", None) or "") != spec.origin:
        raise BackendUnavailableError(
            f"{folder}: this process has imported another package of that name; run `ipr` in a process of its own"
        )
    return True


def _spec(name: str, folder: str) -> ModuleSpec | None:
    place = os.path.join(ROOT, folder)
    start = os.path.join(place, "__init__.py")
    if not (os.path.isfile(os.path.join(ROOT, OURS)) and os.path.isfile(start)):
        return None
    return spec_from_file_location(name, start, submodule_search_locations=[place])
