"""Kernels are compiled in a process of its own, since a test's own process may run Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys


def run_build(*arguments: object) -> subprocess.CompletedProcess[str]:
    return _run("-m", "ipr_engine.kernels.build", *map(str, arguments))


PTX = """
import sys
from ipr_engine.kernels.build import AOT_VARIANTS, compile_kernel
from ipr_engine.kernels.variant import launch_params
variant, models = AOT_VARIANTS[sys.argv[1]]
print(compile_kernel(variant.on(sys.argv[2]), launch_params(models, variant.dim, sys.argv[2]), sys.argv[2]).asm["ptx"])
"""


def ptx_of(name: str, arch: str) -> list[str]:
    """Return the lines of PTX, without indentation, that Triton compiles one of AOT_VARIANTS to."""
    done = _run("-c", PTX, name, arch)
    assert done.returncode == 0, done.stderr
    return [line.strip() for line in done.stdout.splitlines()]


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, check=False)
