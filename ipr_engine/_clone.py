"""Folders that stand beside the package in a clone: kernels/, which is `ipr_engine.kernels`, benchmarks/ and studies/.

A wheel holds kernels/ and a part of benchmarks/ inside the package, and no studies.
"""

from __future__ import annotations

import os.path
import sys
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec, spec_from_file_location

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class KernelsBeside:
    """The finder of the one name `ipr_engine.kernels`: nothing else at the root of a clone is a part of the package."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        return _spec(name, "kernels") if name == "ipr_engine.kernels" else None


def import_beside(folder: str) -> bool:
    """Import a folder of the clone under its own name; return False where the package is installed, and nothing beside it ours.

    By its place: another package of that name may be installed, and sys.path need not name the clone.
    """
    if not os.path.isfile(os.path.join(ROOT, "pyproject.toml")):
        return False
    if folder not in sys.modules:
        spec = _spec(folder, folder)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[folder] = module_from_spec(spec)
        spec.loader.exec_module(sys.modules[folder])
    return True


def _spec(name: str, folder: str) -> ModuleSpec | None:
    place = os.path.join(ROOT, folder)
    return spec_from_file_location(name, os.path.join(place, "__init__.py"), submodule_search_locations=[place])
