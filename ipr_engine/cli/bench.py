"""`ipr bench` measures latency under load.

The benchmarks are the folder benchmarks/ of a clone; in a wheel, its part `ipr_engine.benchmarks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from ipr_engine._clone import import_beside

BENCHES = ("load", "soak", "encoder", "compare")
DEFAULT = "load"


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "bench",
        help="latency and throughput under load, with verdicts (docs/load-testing.md)",
        description="Put load on an engine in this process and tell what its latency is, whether it keeps an objective, and whether it "
        f"changed. `ipr bench OPTIONS` is `ipr bench {DEFAULT} OPTIONS`.",
    )
    benches = parser.add_subparsers(dest="bench", required=True, metavar="BENCH")
    benchmarks = "benchmarks" if import_beside("benchmarks") else "ipr_engine.benchmarks"
    for name in BENCHES:
        import_module(f"{benchmarks}.cli.{name}_command").add_parser(benches)


def spelled_out(argv: Sequence[str]) -> list[str]:
    """Return the arguments with the benchmark spelled out: `ipr bench --slo p99=5ms` is `ipr bench load --slo p99=5ms`."""
    arguments = list(argv)
    bare = arguments[:1] == ["bench"] and (
        len(arguments) == 1 or (arguments[1].startswith("-") and arguments[1] not in ("-h", "--help"))
    )
    return [*arguments[:1], DEFAULT, *arguments[1:]] if bare else arguments
