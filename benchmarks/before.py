"""python -m benchmarks.before CHECKOUT times text to decision of this checkout and of another one, in turns on one core.

CHECKOUT is a folder with another commit of this project, its extension built in place (`git worktree add`, then
`python setup.py build_ext --inplace` there). Each runs in a process of its own, with its own default bundle: what a user of
either release gets. A turn is the same prompts through one, then through the other; the ratio is the median over turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from ipr_engine.errors import InvalidInputError

from .harness.checkout import ROOT, head
from .harness.machine import recorded
from .harness.results import FOLDER, Line, append, as_json
from .ops.prompts import ASCII, OTHER

TAU = 0.2
TURNS, WARM_UP, CALLS = 120, 10, 400
SYSTEM = "You are a careful assistant. Answer briefly, name your sources, and say so when you do not know."

# Each entry names a call, its prompts, and the parts that a turn's calls are cut into where one call takes longer: `tokens_in` is
# route with that option, `chat` a chat of one message, `request` a body of a system message, a user's and a limit, `route_many` 16
# prompts.
KINDS = (
    ("route", "ascii", 1),
    ("route", "other", 1),
    ("decide", "ascii", 1),
    ("tokens_in", "ascii", 8),
    ("chat", "ascii", 4),
    ("request", "ascii", 4),
    ("route_many", "ascii", 8),
)

# This code runs in both checkouts, so it uses what every release has. A line on stdin is a turn: which kind, and how many calls.
WORKER = """
import json, os, sys, time
import ipr_engine
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
given = json.loads(sys.stdin.readline())
engine = ipr_engine.Engine.load(isa=given["isa"])
policy = engine.policy(tau=given["tau"], **given["options"])
encoded = {kind: [engine.encode([prompt]) for prompt in prompts] for kind, prompts in given["prompts"].items()}
texts, clock = given["prompts"], time.perf_counter_ns
system = {"role": "system", "content": given["system"]}
kinds = {
    "route": (engine.route, texts),
    "decide": (engine.decide, encoded),
    "tokens_in": (lambda text, policy: engine.route(text, policy, tokens_in=80.0), texts),
    "chat": (engine.route, {kind: [[{"role": "user", "content": text}] for text in of] for kind, of in texts.items()}),
    "request": (engine.route, {
        kind: [{"messages": [system, {"role": "user", "content": text}], "max_tokens": 200} for text in of]
        for kind, of in texts.items()
    }),
    "route_many": (engine.route_many, {kind: [of[:8] + of[:8]] for kind, of in texts.items()}),
}
print(json.dumps({"isa": engine.plan.isa, "bundle": engine.bundle.hash, "rule": policy.rule, "at": ipr_engine.__file__}), flush=True)
for line in sys.stdin:
    what, kind, calls = json.loads(line)
    call, items = kinds[what][0], kinds[what][1][kind]
    seen = []
    for k in range(calls + 8):
        item = items[k % len(items)]
        start = clock()
        call(item, policy)
        seen.append(clock() - start)
    print(json.dumps(seen[8:]), flush=True)
"""


class CheckoutProcess:
    """A `CheckoutProcess` answers with one checkout's engine, turn by turn."""

    def __init__(self, checkout: Path, isa: str, options: dict[str, Any]) -> None:
        environment = {"PYTHONPATH": str(checkout), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=checkout,
            env=environment,
        )
        self.started = self._ask(
            {
                "isa": isa,
                "tau": TAU,
                "options": options,
                "system": SYSTEM,
                "prompts": {"ascii": ASCII, "other": OTHER},
            }
        )
        if not Path(self.started["at"]).is_relative_to(checkout):
            raise InvalidInputError(f"CHECKOUT: expected ipr_engine of {checkout}, got {self.started['at']}")

    def turn(self, what: str, kind: str, calls: int) -> list[int]:
        """Return the nanoseconds of single calls."""
        seen: list[int] = self._ask([what, kind, calls])
        return seen

    def _ask(self, message: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise InvalidInputError(
                f"CHECKOUT: its process ended with exit code {self._process.wait()}; is its extension built?"
            )
        return json.loads(line)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def compare(checkout: Path, isa: str, options: dict[str, Any], turns: int, calls: int) -> list[Line]:
    """Return one line a kind of call: medians of both, and their median ratio with the interval of 95 % of resampled medians."""
    ours, theirs = CheckoutProcess(ROOT, isa, options), CheckoutProcess(checkout, isa, options)
    made = []
    try:
        for what, kind, share in KINDS:
            both: tuple[list[list[int]], list[list[int]]] = ([], [])
            for turn in range(WARM_UP + turns):
                for n in (0, 1) if turn % 2 else (1, 0):
                    both[n].append((ours, theirs)[n].turn(what, kind, max(1, calls // share)))
            now, before = (rows[WARM_UP:] for rows in both)
            ratios = np.array([statistics.median(a) / statistics.median(b) for a, b in zip(now, before, strict=True)])
            rng = np.random.default_rng(0)
            medians = np.median(ratios[rng.integers(0, len(ratios), (2000, len(ratios)))], axis=1)
            made.append(
                {
                    "op": "before",
                    "call": what,
                    "prompts": kind,
                    "rule": ours.started["rule"],
                    "rule_before": theirs.started["rule"],
                    "isa": ours.started["isa"],
                    "p50_us": round(float(np.percentile(np.concatenate(now), 50)) / 1e3, 3),
                    "p50_us_before": round(float(np.percentile(np.concatenate(before), 50)) / 1e3, 3),
                    "ratio": round(float(np.median(ratios)), 3),
                    "ratio_low": round(float(np.quantile(medians, 0.025)), 3),
                    "ratio_high": round(float(np.quantile(medians, 0.975)), 3),
                    "turns": turns,
                    "calls": max(1, calls // share),
                    "commit_before": head(checkout),
                    "bundle": ours.started["bundle"][:12],
                    "bundle_before": theirs.started["bundle"][:12],
                }
            )
    finally:
        ours.close()
        theirs.close()
    return made


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.before", description=__doc__)
    parser.add_argument(
        "checkout", type=Path, metavar="CHECKOUT", help="a folder with the other commit, built in place"
    )
    parser.add_argument("--isa", default="auto", choices=("auto", "scalar", "avx2", "avx512"))
    parser.add_argument("--rule", help="of both, minmax say (default: what a bare tau runs in each)")
    parser.add_argument("--turns", type=int, default=TURNS, help=f"default {TURNS}")
    parser.add_argument("--calls", type=int, default=CALLS, help=f"of a turn, default {CALLS}")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--record", action="store_true", help="append the lines to benchmarks/results/before.jsonl")
    arguments = parser.parse_args()
    if not (arguments.checkout / "ipr_engine").is_dir():
        raise InvalidInputError(f"CHECKOUT: expected a folder with ipr_engine, got {arguments.checkout.name}")
    options = {} if arguments.rule is None else {"rule": arguments.rule}
    for line in compare(arguments.checkout.resolve(), arguments.isa, options, arguments.turns, arguments.calls):
        whole = recorded(line, "python -m benchmarks.before CHECKOUT" + _options(arguments))
        if arguments.json:
            print(as_json(whole))
        else:
            print(
                f"{line['call']:<11}{line['prompts']:<6}{line['p50_us']:8.2f} us, before {line['p50_us_before']:8.2f} us: "
                f"{line['ratio']:.3f} [{line['ratio_low']:.3f}, {line['ratio_high']:.3f}] times as long"
            )
        if arguments.record:
            append(FOLDER / "before.jsonl", [whole])
    return 0


def _options(arguments: argparse.Namespace) -> str:
    given = [f"--isa {arguments.isa}"] if arguments.isa != "auto" else []
    given += [f"--rule {arguments.rule}"] if arguments.rule is not None else []
    given += ["--record"] if arguments.record else []
    return "".join(f" {part}" for part in given)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InvalidInputError as error:
        sys.exit(f"error: {error}")
