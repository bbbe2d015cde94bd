"""python -m benchmarks [NAME ...]: check, time, print; --record appends the lines to benchmarks/results/NAME.jsonl."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path

from benchmarks.harness import FULL, SMALLEST, Line, machine

NAMES = (
    "decide",
    "encoder",
    "route",
    "policy",
    "swap",
    "async",
    "footprint",
    "instructions",
    "training",
    "load",
    "kernel_resources",
)
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which, of {', '.join(NAMES)} (default: all)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line on stdout, nothing else there")
    parser.add_argument("--record", action="store_true", help="append the lines to benchmarks/results/NAME.jsonl")
    parser.add_argument("--smallest", action="store_true", help="every part once, in seconds: its lines are no figures")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(NAMES))
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(NAMES)}")
    if arguments.smallest and arguments.record:
        parser.error("--record: lines of --smallest are no figures; leave out one of the two")
    for name in arguments.names or NAMES:
        print(f"== {name}", file=sys.stderr)
        module = importlib.import_module(f"benchmarks.bench_{name}")
        for line in module.run(SMALLEST if arguments.smallest else FULL):
            print(json.dumps(line | machine(), allow_nan=False) if arguments.json else text(line), flush=True)
            if arguments.record:
                RESULTS.mkdir(exist_ok=True)
                with (RESULTS / f"{name}.jsonl").open("a") as file:
                    file.write(json.dumps(line | machine(), allow_nan=False) + "\n")


def text(line: Line) -> str:
    """A line for a person: its labels, then its figures."""
    labels = [str(value) for key, value in line.items() if isinstance(value, str) and key not in ("base", "op")]
    figures = [f"{key} {value:.4g}" for key, value in line.items() if isinstance(value, (int, float))]
    figures += [
        f"{key} {name} {value:.3g}" if isinstance(value, float) else f"{key} {name} {value}"
        for key, values in line.items()
        if isinstance(values, dict)
        for name, value in values.items()
    ]
    return f"{line['op']:<12} {' · '.join(labels):<60} {'  '.join(figures)}"


if __name__ == "__main__":
    main()
