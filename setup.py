"""setup.py builds ipr_engine._C and says where each package lies. Metadata lives in pyproject.toml.

A wheel holds kernels/ as `ipr_engine.kernels`, and of benchmarks/ what `ipr bench` needs as `ipr_engine.benchmarks`. A clone and
an editable installation have `ipr_engine.kernels` too, and benchmarks/ where it stands (ipr_engine/_clone.py).
"""

from __future__ import annotations

import importlib.util
import os
import platform
from contextlib import nullcontext
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.command.editable_wheel import editable_wheel

try:
    from pybind11.setup_helpers import ParallelCompile, Pybind11Extension
except ImportError:  # --no-build-isolation on a machine without it: PyTorch brings the headers
    ParallelCompile = Pybind11Extension = None

X86 = platform.machine() in {"x86_64", "AMD64"}

# csrc/src/simd has one file per instruction set, named after it; every other file is baseline code that runs anywhere.
ISA_FLAGS = {
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "avx512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx2", "-mfma", "-mf16c"],
}


BESIDE = {"ipr_engine.kernels": "kernels", "ipr_engine.benchmarks": "benchmarks"}
ROOMS = ("kernels.bert",)  # packages inside those
BENCHES = ("cli", "encoders", "harness", "load", "peers")  # of benchmarks/, what `ipr bench` runs
INSIDE = (*ROOMS, *(f"benchmarks.{name}" for name in BENCHES))
PACKAGES = [*find_packages(include=["ipr_engine*"]), *BESIDE, *(f"ipr_engine.{name}" for name in INSIDE)]


class BuildWhatIsServed(build_py):
    """A wheel gets the marker of benchmarks/ itself alone: its other modules are run from a clone."""

    def find_package_modules(self, package, package_dir):
        found = super().find_package_modules(package, package_dir)
        return [entry for entry in found if package != "ipr_engine.benchmarks" or entry[1] == "__init__"]


class EditableWithoutBenchmarks(editable_wheel):
    """An editable installation maps no part of benchmarks/ into the package: nothing is a module of two names."""

    def finalize_options(self):
        packages = self.distribution.packages
        self.distribution.packages = [name for name in packages if not name.startswith("ipr_engine.benchmarks")]
        del self.distribution.package_dir["ipr_engine.benchmarks"]
        super().finalize_options()


def isa_of(source: str) -> str | None:
    stem = Path(source).stem
    return stem if stem in ISA_FLAGS else None


class BuildWithIsaFlags(build_ext):
    def build_extensions(self) -> None:
        compile_one = self.compiler._compile

        def compile_with_isa(obj, src, ext, cc_args, extra_postargs, pp_opts):
            isa = isa_of(src)
            flags = [*extra_postargs, *ISA_FLAGS[isa]] if isa else extra_postargs
            compile_one(obj, src, ext, cc_args, flags, pp_opts)

        self.compiler._compile = compile_with_isa
        super().build_extensions()


def make_extension(include_dirs: list[str], flags: list[str], **arguments) -> Extension:
    if Pybind11Extension is not None:
        return Pybind11Extension(include_dirs=include_dirs, cxx_std=17, extra_compile_args=flags, **arguments)
    torch = importlib.util.find_spec("torch")
    headers = [Path(place) / "include" for place in (torch.submodule_search_locations if torch else [])]
    if not any((path / "pybind11" / "pybind11.h").exists() for path in headers):
        raise SystemExit("setup.py: pybind11 is missing, and no torch with its headers is here: pip install pybind11")
    include_dirs = [*include_dirs, *map(str, headers)]
    return Extension(include_dirs=include_dirs, language="c++", extra_compile_args=["-std=c++17", *flags], **arguments)


sources = sorted(str(path) for path in Path("csrc").rglob("*.cpp") if X86 or isa_of(path.name) is None)
extension = make_extension(
    ["csrc/include"],
    # -ffp-contract=off: the written order of docs/decide.md is a promise.
    [
        "-O3",
        "-g0",
        "-Wall",
        "-Wextra",
        "-ffp-contract=off",
        "-fno-math-errno",
        "-fvisibility=hidden",
    ],
    name="ipr_engine._C",
    sources=sources,
    define_macros=[("IPR_X86", "1" if X86 else "0")],
    depends=sorted(str(path) for pattern in ("*.h", "*.inc") for path in Path("csrc").rglob(pattern)),
)

with nullcontext() if ParallelCompile is None else ParallelCompile(default=os.cpu_count()):
    setup(
        packages=PACKAGES,
        package_dir=BESIDE,
        ext_modules=[extension],
        cmdclass={
            "build_ext": BuildWithIsaFlags,
            "build_py": BuildWhatIsServed,
            "editable_wheel": EditableWithoutBenchmarks,
        },
    )
