"""Callgrind counts the instructions of a call: repeatable where times are not, so that a regression shows.

Each case runs twice in valgrind with different numbers of calls; the difference cancels start-up. valgrind knows no
AVX-512, so the AVX2 path is counted.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from ..harness.results import Line
from ..harness.turns import FULL, Size

CALLS = (500, 2500)
SETUP = """
import sys
import numpy as np
import ipr_engine
from benchmarks.ops.prompts import ASCII, OTHER
engine = ipr_engine.Engine.load(isa="avx2")
policy = engine.policy(tau=0.2)
encoded = engine.encode([ASCII[0]])
x = encoded.x
calls = int(sys.argv[1])
"""
CASES = {
    "decide: plan.run, batch 1, 11 x 256": "engine.plan.run(x, policy.compiled, 60.0)",
    "decide: Engine.decide, batch 1": "engine.decide(encoded, policy)",
    "tokenize: one ASCII prompt": "engine.encoder.count_tokens(ASCII[0])",
    "route: one ASCII prompt": "engine.route(ASCII[0], policy)",
    "route: one non-ASCII prompt": "engine.route(OTHER[0], policy)",
}


def run(size: Size = FULL) -> Iterator[Line]:
    if shutil.which("valgrind") is None:
        print("instructions: not run: valgrind is not installed", file=sys.stderr)
        return
    if size.smallest:
        yield from _smallest()
        return
    for name, call in CASES.items():
        few, many = (count(code(call), calls) for calls in CALLS)
        per_call = (many - few) / (CALLS[1] - CALLS[0])
        yield {"op": "instructions", "impl": name, "isa": "avx2", "instructions_per_call": round(per_call)}


def _smallest() -> Iterator[Line]:
    """Run every case once without valgrind, in which NumPy alone takes half a minute to import; then an empty process in it."""
    for name, call in CASES.items():
        start = time.perf_counter()
        python([], code(call), 1)
        yield {"op": "instructions", "impl": name, "seconds_without_valgrind": round(time.perf_counter() - start, 2)}
    yield {"op": "instructions", "impl": "an empty process", "instructions_per_call": count("", 0)}


def code(call: str) -> str:
    return SETUP + f"for _ in range(calls):\n    {call}\n"


def python(before: list[str], script: str, calls: int) -> str:
    """Return what a process that runs the script says on stderr; `before` stands before Python in the command."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "case.py"
        path.write_text(script)
        command = [*before, sys.executable, str(path), str(calls)]
        environment = {"PYTHONPATH": ".", "PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
        return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stderr


def count(script: str, calls: int) -> int:
    """Count the instructions of one whole process."""
    with tempfile.TemporaryDirectory() as folder:
        output = python(["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out"], script, calls)
    found = re.search(r"Collected : (\d+)", output)
    if found is None:
        raise RuntimeError(f"callgrind printed no count: {output[-500:]}")
    return int(found.group(1))
