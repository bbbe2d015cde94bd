"""What every benchmark shares: interleaved timing, measured bandwidth, a JSON line per case naming the machine."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
import timeit
from collections.abc import Callable, Iterable
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))  # benchmarks draw their inputs from tests/generators.py

BLOCK_SECONDS = 2e-4  # long enough to hide the clock, short enough that a disturbance spoils one block only


class Timings:
    """Times of several variants, measured block by block in turn, so that a slow moment hits all of them."""

    def __init__(self, variants: dict[str, Callable[[], Any]], seconds: float) -> None:
        timers = {name: timeit.Timer("call()", globals={"call": call}) for name, call in variants.items()}
        calls = {}
        for name, timer in timers.items():
            timer.timeit(10)
            calls[name] = max(1, round(BLOCK_SECONDS * 20 / max(timer.timeit(20), 1e-9)))
        self.blocks: dict[str, list[float]] = {name: [] for name in variants}
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(next(iter(self.blocks.values()))) < 20:
            for name, timer in timers.items():
                self.blocks[name].append(timer.timeit(calls[name]) / calls[name])

    def us(self, name: str, quantile: float = 0.5) -> float:
        """Microseconds per call at a quantile over blocks."""
        return float(np.quantile(self.blocks[name], quantile)) * 1e6

    def ratio(self, slow: str, fast: str) -> float:
        """How many times longer `slow` takes: the median over pairs of neighbouring blocks."""
        pairs = zip(self.blocks[slow], self.blocks[fast], strict=True)
        return statistics.median(a / b for a, b in pairs)


def copy_gb_per_s(bytes_each: int) -> float:
    """Measured copy bandwidth, read plus write, of two buffers of this size: small ones sit in L2, large in memory."""
    source, target = np.ones(bytes_each // 4, np.float32), np.empty(bytes_each // 4, np.float32)
    timer = timeit.Timer(lambda: np.copyto(target, source))
    number = max(1, 2_000_000 // bytes_each)
    return 2 * bytes_each * number / min(timer.repeat(20, number)) / 1e9


def machine() -> dict[str, Any]:
    """Enough to know what a number was measured on."""
    model = next((line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "")
    packages = {}
    for package in ("numpy", "torch"):
        try:
            packages[package] = version(package)
        except PackageNotFoundError:
            packages[package] = None
    return {
        "cpu": model or platform.processor(),
        "cores": os.cpu_count(),
        "load_1m": os.getloadavg()[0],  # above 1 someone else was at work, and the figures are worth less
        "os": platform.platform(),
        "python": platform.python_version(),
        **packages,
    }


def commit() -> str:
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=HERE, capture_output=True, text=True, check=True).stdout.strip()

    return git("rev-parse", "--short", "HEAD") + ("+changes" if git("status", "--porcelain", "-uno") else "")


def parser(description: str | None) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--seconds", type=float, default=2.0, help="time per case (default: %(default)s)")
    made.add_argument("--json", action="store_true", help="print JSON lines instead of a table")
    made.add_argument("--record", metavar="NAME", help="append the JSON lines to benchmarks/results/NAME.jsonl")
    return made


def report(rows: Iterable[dict[str, Any]], arguments: argparse.Namespace) -> None:
    """Prints each row as it comes, and appends it to the record when asked to."""
    where = {"machine": machine(), "commit": commit(), "date": date.today().isoformat()}
    command = shlex.join(["python", str(Path(sys.argv[0]).resolve().relative_to(HERE.parent)), *sys.argv[1:]])
    for row in rows:
        line = json.dumps({**row, **where, "command": command})
        print(line if arguments.json else "  ".join(f"{k} {_short(v)}" for k, v in row.items()), flush=True)
        if arguments.record:
            with (HERE / "results" / f"{arguments.record}.jsonl").open("a") as record:
                record.write(line + "\n")


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {_short(v)}" for k, v in value.items()) + "}"
    return str(value)


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
