"""python -m benchmarks.collection.collecting [PART ...] [--record]: `collect` against a server whose answers depend on the request alone.

rate: 32 calls in flight to a server that answers in 200 ms, beside the most that allows. busy: a server that answers at once, the
collecting process on one core. kills: 100 kills at random moments after the first call of each process, what was paid twice, and
whether the tables are those of a run that was never killed. rows: peak memory with a quarter of a million and a million rows in the
ledger.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from ipr_engine.collection.collect import CollectOptions, collect
from ipr_engine.collection.collection_plan import CollectionPlan
from ipr_engine.collection.ledger import LEDGER
from ipr_engine.collection.provider import Provider, ProviderLimits
from ipr_engine.collection.question import LoggedAnswer, Question
from tests.support.collections import candidate, plan_for, questions
from tests.support.paid_server import PaidServer
from tests.support.places import ROOT

from ..harness.machine import recorded
from ..harness.results import FOLDER, Line, append, as_json

PARTS = ("rate", "busy", "kills", "rows")
IN_FLIGHT, ANSWER_S = 32, 0.2
CALLS = 3200
KILLS, KILLED_CALLS = 100, 8000
SEED = 16


def main() -> int:
    """Run the parts named, print a line each, and return 1 where a promise is broken."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.collection.collecting", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"which, of {', '.join(PARTS)} (default all)")
    parser.add_argument("--record", action="store_true", help="append the lines to benchmarks/results/collecting.jsonl")
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        _child(*arguments.child)
        return 0
    if set(arguments.parts) - set(PARTS):
        parser.error(f"known: {', '.join(PARTS)}")
    command, broken = f"python -m benchmarks.collection.collecting {' '.join(sys.argv[1:])}".strip(), False
    for part in arguments.parts or PARTS:
        with tempfile.TemporaryDirectory() as folder:
            line = {"rate": _rate, "busy": _busy, "kills": _kills, "rows": _rows}[part](Path(folder))
        broken |= not line["kept"]
        line = recorded(line, command)
        print(as_json(line), flush=True)
        if arguments.record:
            append(FOLDER / "collecting.jsonl", [line])
    return int(broken)


def _plan(folder: Path, base_url: str, model: str, in_flight: int) -> CollectionPlan:
    limits = ProviderLimits(concurrency=in_flight, timeout_s=30.0, retries=3)
    providers = {"paid": Provider(base_url=base_url, limits=limits)}
    return plan_for(folder, base_url, candidate(model), providers=providers, budget_usd=1000.0)


def _child(folder: str, base_url: str, model: str, calls: str, core: str) -> None:
    """Collect in this process, on one core where one is named; tell the seconds of the calls alone and of the processor."""
    if core != "any":
        os.sched_setaffinity(0, {int(core)})
    started: list[tuple[float, float]] = []

    def tell(done: object, budget: object) -> None:
        if not started:
            started.append((time.perf_counter(), time.process_time()))

    made = collect(_plan(Path(folder), base_url, model, IN_FLIGHT), questions(int(calls)), tell=tell)
    assert made.done is not None
    begun = started[0] if started else (time.perf_counter(), time.process_time())  # nothing was left to send
    wall, cpu = time.perf_counter() - begun[0], time.process_time() - begun[1]
    print(made.done.answered, wall, cpu, flush=True)


def _collecting(folder: Path, server: PaidServer, model: str, calls: int, core: str = "any") -> subprocess.Popen[str]:
    name = ["-m", "benchmarks.collection.collecting", "--child", str(folder), server.base_url, model, str(calls), core]
    return subprocess.Popen([sys.executable, *name], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def _timed(folder: Path, model: str, calls: int, core: str = "any") -> tuple[int, float, float]:
    with PaidServer(folder / "taken") as server:
        printed, _ = _collecting(folder, server, model, calls, core).communicate(timeout=600)
    answered, wall, cpu = printed.split()
    return int(answered), float(wall), float(cpu)


def _rate(folder: Path) -> Line:
    answered, wall, cpu = _timed(folder, f"slow-{ANSWER_S}", CALLS)
    possible = IN_FLIGHT / ANSWER_S
    rate = (answered - 1) / wall
    return {
        "op": "collect_rate",
        "calls": answered,
        "in_flight": IN_FLIGHT,
        "answer_s": ANSWER_S,
        "calls_per_s": round(rate, 1),
        "of_possible": round(rate / possible, 3),
        "cpu_ms_per_call": round(1e3 * cpu / answered, 2),
        "kept": rate >= 0.9 * possible,
    }


def _busy(folder: Path) -> Line:
    """Time calls that wait for nothing, the collecting process on one core and the server on another."""
    core = sorted(os.sched_getaffinity(0))[0]
    answered, wall, cpu = _timed(folder, "plain", CALLS, str(core))
    rate = (answered - 1) / wall
    return {
        "op": "collect_busy",
        "calls": answered,
        "in_flight": IN_FLIGHT,
        "cores": 1,
        "calls_per_s": round(rate, 1),
        "cpu_ms_per_call": round(1e3 * cpu / answered, 2),
        "calls_per_cpu_s": round(answered / cpu, 1),
        "kept": answered / cpu >= 300.0,
    }


def _kills(folder: Path) -> Line:
    draw = random.Random(SEED)
    kills, model, ends = 0, "slow-0.05", False
    with PaidServer(folder / "taken") as server:
        while not ends:
            process = _collecting(folder, server, model, KILLED_CALLS)
            if kills < KILLS:
                before = server.taken.stat().st_size if server.taken.exists() else 0
                while process.poll() is None and (not server.taken.exists() or server.taken.stat().st_size == before):
                    time.sleep(0.01)
                time.sleep(draw.uniform(0.0, 0.4))
                process.kill()
                kills += process.wait() == -signal.SIGKILL
            ends = process.wait() == 0
            print(f"{kills} kills, {sum(server.calls().values())} calls taken", file=sys.stderr)
        taken = server.calls()
        whole = folder / "whole"
        assert _collecting(whole, server, model, KILLED_CALLS).wait() == 0
    with sqlite3.connect(folder / "collected" / LEDGER) as ledger:
        (lost,) = ledger.execute("SELECT count(*) FROM attempt WHERE state = 'lost'").fetchone()
    equal = all(
        (folder / "collected" / name).read_bytes() == (whole / "collected" / name).read_bytes()
        for name in ("prompts.jsonl", "outcomes.jsonl", "candidates.json")
    )
    twice = sum(taken.values()) - len(taken)
    return {
        "op": "collect_kills",
        "calls": len(taken),
        "kills": kills,
        "seed": SEED,
        "in_flight": IN_FLIGHT,
        "lost_in_flight": lost,
        "paid_twice": twice,
        "tables_equal": equal,
        "kept": len(taken) == KILLED_CALLS and twice <= lost <= kills * IN_FLIGHT and equal,
    }


def _logged(count: int) -> Iterator[Question]:
    answer = LoggedAnswer(
        text="The answer is 4.", finish_reason="stop", input_tokens=20, output_tokens=6, cost_usd=1e-5
    )
    for n in range(count):
        text = f"What is {n} + {n % 7}? Say it in words, and why, for somebody who has never added."
        body = {"messages": [{"role": "user", "content": text}]}
        yield Question(prompt_id=f"q{n:07d}", prompt=text, body=body, answers={"plain": answer, "slow-1": answer})


def _rows(folder: Path) -> Line:
    """Take in answers of a log, plan, and write the tables, each size in a process of its own."""
    peaks = {}
    for rows in (250_000, 1_000_000):
        child = os.fork()
        if child == 0:
            plan = plan_for(folder / str(rows), "http://127.0.0.1:9/v1", candidate("plain"), candidate("slow-1"))
            collect(plan, _logged(rows // 2), CollectOptions(ask=False))
            os._exit(0)
        _, status, used = os.wait4(child, 0)
        assert status == 0
        peaks[rows] = used.ru_maxrss / 1024
    few, many = peaks.values()
    return {
        "op": "collect_rows",
        "answers": list(peaks),
        "peak_mib": [round(few, 1), round(many, 1)],
        "own_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "kept": many <= 1.1 * few,
    }


if __name__ == "__main__":
    sys.exit(main())
