"""Importing and holding the library costs milliseconds over numpy, and megabytes over bare Python and numpy: both are measured.

Each figure is a fresh process; variants take turns, so that a noisy machine hits all of them alike. Modules come from
bytecode compiled in an uncounted round, as they do after an installation: compiling them takes as long again.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from ..harness.results import Line
from ..harness.turns import FULL, Size

ROUNDS = 15
IMPORT = "import time, numpy; start = time.perf_counter(); {statement}; print((time.perf_counter() - start) * 1e3)"
RESIDENT = """
import numpy
{work}
fields = open('/proc/self/status').read().split('VmRSS:')[1].split()
print(int(fields[0]) / 1024)
"""
VARIANTS = {
    "import ipr_engine, ms over bare Python": IMPORT.replace(", numpy", "").format(statement="import ipr_engine"),
    "import ipr_engine, ms over numpy": IMPORT.format(statement="import ipr_engine"),
    "from ipr_engine import Engine, ms over numpy": IMPORT.format(statement="from ipr_engine import Engine"),
    "bare Python and numpy, MB": RESIDENT.format(work=""),
    "with a loaded engine that has routed, MB": RESIDENT.format(
        work="import ipr_engine; engine = ipr_engine.Engine.load(); engine.route('What is 17 * 23?', tau=0.1)"
    ),
    "Engine.load of the default bundle, ms": (
        "import time; from ipr_engine import Engine; start = time.perf_counter(); Engine.load();"
        "print((time.perf_counter() - start) * 1e3)"
    ),
    "first line of a new process to its first decision, numpy included, ms": (
        "import time; start = time.perf_counter(); import ipr_engine;"
        "ipr_engine.Engine.load().route('What is 17 * 23?', tau=0.1); print((time.perf_counter() - start) * 1e3)"
    ),
}


def run(size: Size = FULL) -> Iterator[Line]:
    seen: dict[str, list[float]] = {name: [] for name in VARIANTS}
    with tempfile.TemporaryDirectory() as bytecode:
        for counted in (False, *[True] * size.of(ROUNDS, 1)):
            for name, code in VARIANTS.items():
                value = _in_a_process(code, bytecode)
                if counted:
                    seen[name].append(value)
    medians = {name: statistics.median(values) for name, values in seen.items()}
    for name, values in seen.items():
        yield {"op": "footprint", "impl": name, "p50": round(medians[name], 2), "max": round(max(values), 2)}
    over = medians["with a loaded engine that has routed, MB"] - medians["bare Python and numpy, MB"]
    yield {"op": "footprint", "impl": "a loaded engine, MB over bare Python and numpy", "p50": round(over, 2)}


def _in_a_process(code: str, bytecode: str) -> float:
    """Return what a new Python prints that runs `code` and keeps its bytecode in that folder."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = bytecode
    command = [sys.executable, "-c", code]
    return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
