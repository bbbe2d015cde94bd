"""Cubins are built in a process of its own, since a test's own process may run Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys


def run_build(*arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "ipr_engine.kernels.build", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
