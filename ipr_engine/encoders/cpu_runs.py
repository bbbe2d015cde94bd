"""A tier on the CPU asks here how many threads it takes, how many ids one run should hold, and for ONNX Runtime."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Any

from ipr_engine._extras import need
from ipr_engine.encoders.load_options import check_threads

GROUP_TOKENS = 512  # on a CPU a matrix of so many rows runs at full speed; more in one run only takes memory

_NO_TELEMETRY = "ORT_DISABLE_TELEMETRY"  # read by ONNX Runtime when it is imported, and not later
_importing = threading.Lock()


def import_onnxruntime(purpose: str, extra: str) -> Any:
    """Import ONNX Runtime without its telemetry.

    As it comes, `import onnxruntime` (seen with 1.32) writes an id and a store of events for Microsoft into the user's home.

    Raises:
        BackendUnavailableError: it is missing; says what to install.
    """
    with _importing:
        if sys.modules.get("onnxruntime") is not None:  # threads of native code may read the environment by now
            return need("onnxruntime", purpose, extra)
        before = os.environ.get(_NO_TELEMETRY)
        os.environ[_NO_TELEMETRY] = "1"
        try:
            return need("onnxruntime", purpose, extra)
        finally:
            if before is None:
                del os.environ[_NO_TELEMETRY]
            else:
                os.environ[_NO_TELEMETRY] = before


def checked_threads(threads: int | None) -> int:
    """Return the number of threads: as given, or one a physical core. InvalidInputError for another value."""
    check_threads(threads)
    return physical_cores() if threads is None else threads


def physical_cores() -> int:
    """Count the cores that this process may run on; the hardware threads of one core share its arithmetic and count once."""
    allowed = os.sched_getaffinity(0)
    cores = set()
    for cpu in allowed:
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        cores.add(siblings.read_text().strip() if siblings.exists() else str(cpu))
    return len(cores)


def first_line(error: BaseException) -> str:
    """Return an error of a runtime as one line: its type, and the first line of what it says."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
