"""python -m benchmarks [NAME ...] checks, times and prints; --record appends the lines to benchmarks/results/NAME.jsonl.

`verify` is run when it is named: the targets of benchmarks/targets.toml, each met, missed or not to be told; exit code 5
where one is missed (docs/load-testing.md).
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from ipr_engine.errors import InvalidInputError

from .harness.machine import recorded
from .harness.results import FOLDER, Line, append, as_json
from .harness.turns import FULL, SMALLEST
from .ops.bounds import PATH

NAMES = (
    "decide",
    "encoder",
    "surface",
    "route",
    "policy",
    "tau_path",
    "forest",
    "swap",
    "async",
    "footprint",
    "instructions",
    "training",
    "load",
    "kernel_resources",
    "server",
)
ASKED_FOR = ("verify",)  # run when named, not by default
MISSED = 5  # exit code, as of `ipr bench`


def main() -> int:
    """Run the benchmarks named; return the exit code: 0, or 5 where a target of `verify` or `server` is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    known = NAMES + ASKED_FOR
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"which, of {', '.join(known)} (default: all but verify)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line on stdout, nothing else there")
    parser.add_argument("--record", action="store_true", help="append the lines to benchmarks/results/NAME.jsonl")
    parser.add_argument("--smallest", action="store_true", help="every part once, in seconds: its lines are no figures")
    parser.add_argument(
        "--targets", type=Path, default=PATH, metavar="FILE", help="of verify (default benchmarks/targets.toml)"
    )
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(known))
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
    if arguments.smallest and arguments.record:
        parser.error("--record: lines of --smallest are no figures; leave out one of the two")
    command = f"python -m benchmarks {' '.join(sys.argv[1:])}".strip()
    size, missed = SMALLEST if arguments.smallest else FULL, False
    for name in arguments.names or NAMES:
        print(f"== {name}", file=sys.stderr)
        module = importlib.import_module(f"{__package__}.ops.bench_{name}")
        shown = getattr(module, "text", text)
        for line in module.run(size, arguments.targets) if name == "verify" else module.run(size):
            missed = missed or line.get("verdict") == "missed"
            whole = recorded(line, command)
            print(as_json(whole) if arguments.json else shown(line), flush=True)
            if arguments.record:
                append(FOLDER / f"{name}.jsonl", [whole])
    return MISSED if missed else 0


def text(line: Line) -> str:
    """Return a line for a person: its labels, then its figures."""
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
    try:
        sys.exit(main())
    except InvalidInputError as error:
        sys.exit(f"error: {error}")
