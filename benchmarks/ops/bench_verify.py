"""The targets of benchmarks/targets.toml are met, missed, or not to be told from this run, which takes under three minutes.

Single calls, one thread on one core, all implementations of a case in turns on the same inputs, an empty call among them.
Answers are checked before anything is timed. A peer that is not installed is told as not run, and misses nothing.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ipr_engine import Engine
from ipr_engine.decide.contract import available_isas

from ..harness.results import Line
from ..harness.turns import FULL, Size, in_turns
from . import bench_decide, bench_route, bounds
from .prompts import ASCII, OTHER

CALLS = 40  # of a round
ROUNDS = {"route": 10_000, "route ascii": 800, "route other": 600, "decide linear": 800, "decide trunk64_rank4": 800}
MOST_S = 30.0  # of a case, on a machine that is slow or busy
PROMPTS = {"route": ASCII, "route ascii": ASCII, "route other": OTHER}
PEER = "model2vec + numpy"
TENSORS = ("numpy", "torch")
IMPLS: dict[str, tuple[str, ...]] = {
    "route": ("engine",),
    "route ascii": ("engine", PEER),
    "route other": ("engine", PEER),
    "decide linear": ("engine", *TENSORS),
    "decide trunk64_rank4": ("engine", *TENSORS),
}
Calls = dict[str, Callable[[str], object]]


def run(size: Size = FULL, path: Path = bounds.PATH) -> Iterator[Line]:
    wanted = bounds.read(path, IMPLS)
    isa = Engine.load().plan.isa
    verdicts: Counter[str] = Counter()
    for case in ROUNDS:
        mine = [bound for bound in wanted if bound.case == case]
        if mine:
            print(f"verify: {case}", file=sys.stderr, flush=True)
            prompts = PROMPTS.get(case, ("",))
            calls = (
                route_calls(prompts, beside=PEER in IMPLS[case])
                if case in PROMPTS
                else decide_calls(case.removeprefix("decide "))
            )
            rounds, most_s = size.of((ROUNDS[case], MOST_S), (12, 2.0))
            times = in_turns(calls, prompts, rounds=rounds, calls=CALLS, most_s=most_s)
            for bound in mine:
                line = judged(bound, times, isa)
                verdicts[line["verdict"]] += 1
                yield line
    print(f"verify: {', '.join(f'{count} {verdict}' for verdict, count in verdicts.items())}", file=sys.stderr)


def judged(bound: bounds.Bound, times: Mapping[str, bounds.Rounds], isa: str) -> Line:
    line: Line = {"op": "verify", "figure": str(bound), "unit": "times" if bound.is_ratio else "us"}
    line |= {name: limit for name in ("at_most", "at_least") if (limit := getattr(bound, name)) is not None}
    absent = [name for name in (bound.impl, bound.over_impl) if name is not None and name not in times]
    if absent:
        return line | {"verdict": bounds.NOT_RUN, "why": f"{absent[0]} is not installed"}
    if bound.isas and isa not in bound.isas:
        return line | {
            "verdict": bounds.NOT_RUN,
            "why": f"meant for {', '.join(bound.isas)}, this machine runs {isa}",
        }
    found = bounds.figure(bound, times)
    line |= {
        "verdict": bounds.verdict(bound, found),
        "isa": isa,
        "confidence": bounds.CONFIDENCE,
        "samples": found.samples,
    }
    line |= {name: finite(getattr(found, name)) for name in ("value", "low", "high")}
    return line if found.needed is None else line | {"needs_samples": found.needed}


def finite(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None


def text(line: Line) -> str:
    """Return a line for a person."""
    bound = f"at most {line['at_most']:g}" if "at_most" in line else f"at least {line['at_least']:g}"
    unit = " us" if line["unit"] == "us" else ""
    if "why" in line:
        seen = line["why"]
    else:
        value, low, high = ("?" if line[name] is None else f"{line[name]:.3g}" for name in ("value", "low", "high"))
        seen = f"{value} [{low}, {high}]{unit}"
    return f"{line['verdict']:<12} {line['figure']:<60} {seen}; {bound}{unit}"


def route_calls(prompts: tuple[str, ...], *, beside: bool) -> Calls:
    engine = Engine.load()
    policy = engine.policy(tau=bench_route.TAU)
    calls: Calls = {bounds.FLOOR: lambda prompt: None, "engine": lambda prompt: engine.route(prompt, policy)}
    peer = bench_route.open_peer(bench_route.SAME, engine, policy, prompts) if beside else None
    if peer is None:
        return calls
    bench_route.check(engine, policy, peer, list(prompts))
    return calls | {PEER: peer}


def decide_calls(form: str) -> Calls:
    """Return calls of one embedding; their argument is no prompt, and is left alone."""
    request = bench_decide.make_request(form, 1)
    x = request.x[0]
    others, _ = bench_decide.peers(request, x)
    named = {"engine": bench_decide.caller(request, available_isas()[-1], x)}
    named |= {name: others[f"{name}_choice_only"] for name in TENSORS if f"{name}_choice_only" in others}
    calls: Calls = {name: ignoring(call) for name, call in {bounds.FLOOR: lambda: None, **named}.items()}
    return calls


def ignoring(call: Callable[[], object]) -> Callable[[str], object]:
    return lambda prompt: call()
