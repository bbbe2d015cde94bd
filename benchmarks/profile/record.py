"""record.py records a timeline of routes with the ranges tokenize, copy, encode, decide, by nsys or else by torch.profiler.

    python benchmarks/profile/record.py ENCODER_DIR --out FOLDER [arguments of route.py]

nsys writes FOLDER/route.nsys-rep and, where it can, its tables. torch.profiler (Kineto, with CUPTI on a GPU) writes
FOLDER/route.json, for Perfetto. Which of the two it was, and why, is told.
"""

from __future__ import annotations

import argparse
import glob
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROUTE = Path(__file__).with_name("route.py")
# The CUDA toolkit and Nsight Systems install nsys in these places without putting it on PATH.
PLACES = (
    "/usr/local/cuda*/bin/nsys",
    "/opt/nvidia/nsight-systems*/*/bin/nsys",
    "/opt/nvidia/nsight-systems*/bin/nsys",
    "/usr/lib/nsight-systems/bin/nsys",
)
NSYS = (
    "--trace=cuda,nvtx,osrt",
    "--cuda-graph-trace=node",
    "--capture-range=cudaProfilerApi",
    "--force-overwrite=true",
)
TABLES = "nvtx_sum,cuda_gpu_kern_sum,cuda_gpu_mem_time_sum"


def find_nsys() -> str | None:
    """Return the first on PATH, else the newest where it is usually installed."""
    found = sorted(path for place in PLACES for path in glob.glob(place) if os.access(path, os.X_OK))
    return shutil.which("nsys") or (found[-1] if found else None)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("encoder", type=Path, metavar="ENCODER_DIR")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    arguments, rest = parser.parse_known_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    work = [sys.executable, str(ROUTE), str(arguments.encoder), *rest]
    nsys = find_nsys()
    if nsys is None:
        print(f"nsys: not found on PATH, nor at {', '.join(PLACES)}", flush=True)
    elif record_with_nsys(nsys, work, arguments.out):
        return 0
    trace = arguments.out / "route.json"
    print(f"torch.profiler: recording {trace}", flush=True)
    code = subprocess.run([*work, "--trace", str(trace)], check=False, env={**os.environ, "IPR_NVTX": "0"}).returncode
    return code or (0 if trace.is_file() else 1)


def record_with_nsys(nsys: str, work: list[str], out: Path) -> bool:
    """Return whether nsys recorded: it may be there and not be allowed to, which is told."""
    report = out / "route.nsys-rep"
    report.unlink(missing_ok=True)
    print(f"nsys: {nsys}, recording {report}", flush=True)
    command = [nsys, "profile", *NSYS, "--output", str(out / "route"), *work]
    code = subprocess.run(command, check=False, env={**os.environ, "IPR_NVTX": "1"}).returncode
    if code or not report.is_file():
        print(
            f"nsys: ended with {code} and {'a' if report.is_file() else 'no'} report; torch.profiler instead",
            flush=True,
        )
        return False
    subprocess.run([nsys, "stats", "--report", TABLES, str(report)], check=False)
    return True


if __name__ == "__main__":
    sys.exit(main())
