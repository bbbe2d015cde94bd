"""Instructions per call, counted by callgrind: repeatable where times are not, so that a regression shows.

Each case runs twice in valgrind with different numbers of calls; the difference cancels start-up. valgrind knows no
AVX-512, so the AVX2 path is counted.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.harness import Line

CALLS = (500, 2500)
SETUP = """
import sys
import numpy as np
import ipr_engine
from benchmarks.prompts import ASCII, OTHER
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


def run() -> Iterator[Line]:
    if shutil.which("valgrind") is None:
        print("instructions: not run: valgrind is not installed", file=sys.stderr)
        return
    for name, call in CASES.items():
        few, many = (count(SETUP + f"for _ in range(calls):\n    {call}\n", calls) for calls in CALLS)
        per_call = (many - few) / (CALLS[1] - CALLS[0])
        yield {"op": "instructions", "impl": name, "isa": "avx2", "instructions_per_call": round(per_call)}


def count(code: str, calls: int) -> int:
    """Instructions of one whole process."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "case.py"
        script.write_text(code)
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out", sys.executable, str(script)]
        environment = {"PYTHONPATH": ".", "PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
        done = subprocess.run([*command, str(calls)], capture_output=True, text=True, check=True, env=environment)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if found is None:
        raise RuntimeError(f"callgrind printed no count: {done.stderr[-500:]}")
    return int(found.group(1))
