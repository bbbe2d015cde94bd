"""python -m benchmarks.scale make|run|parts: the commands from outcome data to a report, on a source of any size.

make: a source of N prompts, made of the prompts of a real one (edited_source.py). run: make one, then `ipr data check`, `ipr data split`,
`ipr train`, `ipr calibrate` and `ipr eval` on it, each a process of its own with one thread for linear algebra: seconds, and the most
memory it held. parts: what is lost where a step is taken on a part of the prompts (parts.py). On a machine that others use, seconds
of processors say more than those of a clock.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from ..harness.machine import recorded
from ..harness.results import FOLDER, Line, append, as_json
from .edited_source import CANDIDATES, make_source

SHARES = "train=0.7,calibration=0.15,test=0.15"
MOST_MIB = 4096.0
MOST_SECONDS = 3600.0  # of all commands together
NAMES = ("check", "split", "train", "calibrate", "eval")
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def main() -> int:
    """Make a source, or measure the commands on one and print a line; return 1 where a command fails or a bound is broken."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("action", choices=("make", "run", "parts"))
    parser.add_argument("--rows", type=int, required=True, help="prompts")
    parser.add_argument("--real", type=Path, required=True, metavar="DIR", help="outcome data whose prompts are drawn")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the source (make), or of all work (run)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", choices=NAMES, help="run: only this command; repeatable")
    parser.add_argument(
        "--record", action="store_true", help="run, parts: append the line to benchmarks/results/scale.jsonl"
    )
    arguments = parser.parse_args()
    if arguments.action == "make":
        if arguments.out is None:
            parser.error("--out: name the folder to write")
        print(make_source(arguments.real, arguments.rows, arguments.out, seed=arguments.seed))
        return 0
    if arguments.record and arguments.only:
        parser.error("--record: a line has every command; leave out --only")
    with tempfile.TemporaryDirectory() as temporary:
        take = _measured if arguments.action == "run" else _parts
        line = take(arguments, arguments.out or Path(temporary))
    places = f"python -m benchmarks.scale {arguments.action} --rows {arguments.rows} --real {arguments.real.name}"
    line = recorded(line, f"{places} --seed {arguments.seed}")
    print(as_json(line), flush=True)
    if arguments.record:
        append(FOLDER / "scale.jsonl", [line])
    return 0 if line.get("kept", True) else 1


def _made(arguments: argparse.Namespace, folder: Path) -> Path:
    made = folder / "made"
    if not (made / CANDIDATES).is_file():
        make_source(arguments.real, arguments.rows, made, seed=arguments.seed)
    return made


def _parts(arguments: argparse.Namespace, folder: Path) -> Line:
    from .parts import measured_parts

    found = measured_parts(_made(arguments, folder), lambda message: print(message, file=sys.stderr, flush=True))
    return {
        "op": "scale_parts",
        "prompts": arguments.rows,
        "source": arguments.real.name,
        "seed": arguments.seed,
        **found,
    }


def _measured(arguments: argparse.Namespace, folder: Path) -> Line:
    made, divided, bundles = _made(arguments, folder), folder / "split", folder / "bundles"
    source, bundle = ["--outcomes", str(divided)], ["--bundle", str(bundles)]
    commands = {
        "check": ["data", "check", str(made)],
        "split": ["data", "split", str(made), str(divided), "--shares", SHARES],
        "train": ["train", *source, "--candidates", str(made / CANDIDATES), "--out", str(bundles)],
        "calibrate": ["calibrate", *bundle, *source, "--split", "calibration", "--out", str(bundles)],
        "eval": ["eval", *bundle, *source],
    }
    seconds, cpu, mib = {}, {}, {}
    for name in arguments.only or NAMES:
        seconds[name], cpu[name], mib[name] = _run([*commands[name], "--json"], folder / f"{name}.json")
        print(f"{name}: {seconds[name]:.1f} s, {cpu[name]:.1f} s CPU, {mib[name]:.0f} MiB", file=sys.stderr, flush=True)
    return {
        "op": "scale",
        "prompts": arguments.rows,
        "models": 11,
        "source": arguments.real.name,
        "seed": arguments.seed,
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "seconds_all": round(sum(seconds.values()), 1),
        "cpu_seconds": {name: round(value, 1) for name, value in cpu.items()},
        "peak_mib": {name: round(value) for name, value in mib.items()},
        "kept": max(mib.values()) <= MOST_MIB and sum(seconds.values()) <= MOST_SECONDS,
    }


def _run(arguments: list[str], answer: Path) -> tuple[float, float, float]:
    """Run `ipr` with these arguments, its answer in a file; return wall seconds, those of processors, and peak MiB."""
    begin = time.perf_counter()
    with answer.open("wb") as file:
        child = os.posix_spawn(
            sys.executable,
            [sys.executable, "-m", "ipr_engine", *arguments],
            os.environ | ONE_THREAD,
            file_actions=[(os.POSIX_SPAWN_DUP2, file.fileno(), 1)],
        )
        _, status, used = os.wait4(child, 0)
    if status:
        raise SystemExit(f"ipr {' '.join(arguments[:2])} failed with {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - begin, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
