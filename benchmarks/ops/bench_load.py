"""The code of `ipr bench` (docs/load-testing.md) puts load on targets and peers in turns: callers x tokens, shares of the most.

Every peer that is installed takes turns with `Engine.route` on the same prompts; what is absent is told on stderr.
`ipr bench load` and `soak` do the same for longer, with tables, plots and verdicts.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace

from ipr_engine import Engine
from ipr_engine.errors import BackendUnavailableError

from ..harness.results import Line
from ..harness.turns import FULL, Size
from ..load import compare, ladder
from ..load.lengths import fixed_lengths
from ..load.measure import LoadCase, Measured, measure
from ..load.noise import unsteady
from ..load.quantiles import Quantile, quantiles
from ..load.samples import Samples
from ..load.targets import Target
from ..load.targets_registry import TARGETS, make_target
from ..load.threads import Progress
from ..peers.registry import PEERS, Setup, open_peers

TAU = 0.2
TURNS_S = 4.0  # of each target that takes turns
STEP_S = 0.7  # of each step of a ladder


def run(size: Size = FULL) -> Iterator[Line]:
    engine = Engine.load()
    policy = engine.policy(tau=TAU)
    count = engine.encoder.count_tokens
    mixes = {tokens: fixed_lengths([tokens], count, seed=0) for tokens in ladder.LENGTHS}
    targets = {name: target for name in TARGETS if (target := _target(name, engine)) is not None}
    without_torch = [peer.name for peer in PEERS if not peer.missing and "torch" not in peer.modules]
    peers, absent = open_peers(size.of(["all"], without_torch), Setup(engine, policy, mixes[64].prompts))
    for name, why in absent.items():
        print(f"load: peer {name} not run: {why}", file=sys.stderr)

    seconds, warm_up = size.of((TURNS_S, 1.0), (0.2, 0.02))
    case = LoadCase(mix=mixes[64], mode="closed", callers=1, seconds=seconds, warm_up=warm_up, seed=0)
    measured = measure([*targets.values(), *peers], case, rounds=size.of(None, 2), progress=_silent)
    for reason in unsteady(measured[0].noise):
        print(f"load: NOISY: {reason}", file=sys.stderr)
    for one in measured:
        yield _turns(one, measured[0])

    asynchronous = targets.get("async", targets["inline"])
    steps = replace(case, seconds=size.of(STEP_S, 0.05), warm_up=size.of(0.2, 0.02))
    for step in ladder.concurrency(asynchronous, list(mixes.items()), steps, _silent):
        yield _step("callers x tokens", step)
    engine_target = targets["engine"]
    top = ladder.best(ladder.most(engine_target, steps, _silent))
    yield _step("closed", top)
    most = ladder.sustained_rate(ladder.sustained(engine_target, steps, top, _silent))
    for step in ladder.shares(engine_target, steps, most, ladder.at_once(engine_target, top), _silent):
        yield _step("poisson", step) | {"most_rps": round(most, 1), "kept_up": step.run.kept_up}


def _target(name: str, engine: Engine) -> Target | None:
    try:
        return make_target(name, engine, engine.policy(tau=TAU))
    except BackendUnavailableError as error:
        print(f"load: {name} not run: {error}", file=sys.stderr)
        return None


def _silent(label: str) -> Progress:
    return lambda seconds, answered: None


def _turns(one: Measured, base: Measured) -> Line:
    line: Line = {
        "op": "load",
        "impl": one.target.name,
        "case": "turns, 1 caller x 64 tokens",
        "base": base.target.name,
    }
    line |= _times(one.run.measured) | {"throughput_rps": round(one.run.throughput, 1)}
    changes = {change.figure: change for change in compare.paired(one.subruns(), base.subruns(), "base").changes}
    for figure, name in (("p50_us", "vs_base"), ("throughput_rps", "throughput_vs_base")):
        if figure in changes:
            found = changes[figure]  # how many times as slow as the base
            line[name], line[f"{name}_interval"] = round(found.ratio, 3), [round(found.low, 3), round(found.high, 3)]
    return line


def _step(kind: str, step: ladder.Step) -> Line:
    line: Line = {"op": "load", "impl": step.run.target, "case": f"{kind}: {step.label}", "callers": step.callers}
    if step.offered is not None:
        line["offered_rps"] = round(step.offered, 1)
    return line | _times(step.run.measured) | {"throughput_rps": round(step.run.throughput, 1)}


def _times(samples: Samples) -> Line:
    """Return total from the intended send time, with its intervals, and service of the call alone."""
    found = {name: q for q in quantiles(samples.total) if (name := q.name) in ("p50", "p99")}
    service = quantiles(samples.service, (0.5,))[0]
    times = {f"{name}_us": _us(q) for name, q in found.items()} | {"service_p50_us": _us(service)}
    spans = {f"{name}_interval_us": [round(q.low / 1e3, 3), round(q.high / 1e3, 3)]
             for name, q in found.items() if q.low is not None and q.high is not None}  # fmt: skip
    return times | spans | {"requests": len(samples)}


def _us(q: Quantile) -> float | None:
    return None if q.value is None else round(q.value / 1e3, 3)
