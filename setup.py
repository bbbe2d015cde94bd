"""Builds ipr_engine._C. Metadata lives in pyproject.toml; this file only says how each C++ file is compiled."""

from __future__ import annotations

import platform
from pathlib import Path

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension
from setuptools import setup
from setuptools.command.build_ext import build_ext

X86 = platform.machine() in {"x86_64", "AMD64"}

# One file per instruction set, told by its suffix; every other file is baseline code that runs anywhere.
ISA_FLAGS = {
    "_avx2": ["-mavx2", "-mfma", "-mf16c"],
    "_avx512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx2", "-mfma", "-mf16c"],
}


def isa_of(source: str) -> str | None:
    return next((suffix for suffix in ISA_FLAGS if Path(source).stem.endswith(suffix)), None)


class BuildWithIsaFlags(build_ext):
    def build_extensions(self) -> None:
        compile_one = self.compiler._compile

        def compile_with_isa(obj, src, ext, cc_args, extra_postargs, pp_opts):
            isa = isa_of(src)
            flags = [*extra_postargs, *ISA_FLAGS[isa]] if isa else extra_postargs
            compile_one(obj, src, ext, cc_args, flags, pp_opts)

        self.compiler._compile = compile_with_isa
        super().build_extensions()


sources = sorted(str(path) for path in Path("csrc").glob("*.cpp") if X86 or isa_of(path.name) is None)
extension = Pybind11Extension(
    "ipr_engine._C",
    sources,
    include_dirs=["csrc"],
    cxx_std=17,
    define_macros=[("IPR_X86", "1" if X86 else "0")],
    # -ffp-contract=off: the written order of docs/design.md section 3 is a promise.
    extra_compile_args=[
        "-O3",
        "-g0",
        "-Wall",
        "-Wextra",
        "-ffp-contract=off",
        "-fno-math-errno",
        "-fvisibility=hidden",
    ],
    depends=sorted(str(path) for pattern in ("*.h", "*.inc") for path in Path("csrc").glob(pattern)),
)

with ParallelCompile(default=2):
    setup(ext_modules=[extension], cmdclass={"build_ext": BuildWithIsaFlags})
