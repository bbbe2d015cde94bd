"""More and more load: callers x prompt length in closed loops, the most a target bears, shares of it in open loops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ipr_engine.loadtest.lengths import Mix
from ipr_engine.loadtest.measure import Case
from ipr_engine.loadtest.quantiles import Quantile, quantiles
from ipr_engine.loadtest.runner import Run, run
from ipr_engine.loadtest.targets import Target, is_async
from ipr_engine.loadtest.threads import Progress

CALLERS = (1, 8, 20, 32, 128)
LENGTHS = (64, 512)
SHARES = (0.3, 0.5, 0.7, 0.8, 0.9, 1.0)
SEARCH = (1, 2, 4, 8, 16, 32, 64)
GAIN = 1.05  # a doubling of the callers that brings less than 5 % has found the most
MOST_AT_ONCE = 10_000  # of an async target in an open loop

# What vLLM Semantic Router published of its classification, beside which the concurrency ladder is set.
PUBLISHED = (
    {"system": "vLLM Semantic Router", "machine": "AMD MI300X", "callers": 1, "tokens": 512, "latency": "19 ms"},
    {"system": "vLLM Semantic Router", "machine": "AMD MI300X", "callers": 20, "tokens": 512, "latency": "142 ms"},
    {
        "system": "vLLM Semantic Router",
        "machine": "NVIDIA RTX 4090",
        "callers": 1,
        "tokens": 500,
        "latency": "6 to 11 ms a classifier",
    },
    {
        "system": "vLLM Semantic Router",
        "machine": "NVIDIA RTX 4090",
        "callers": 32,
        "tokens": 500,
        "latency": "P50 399 ms",
    },
)

Told = Callable[[str], Progress]


@dataclass(frozen=True)
class Step:
    """One rung: a run, and what sets it apart from the others."""

    label: str
    run: Run
    callers: int
    tokens: int | None = None
    share: float | None = None
    offered: float | None = None

    @property
    def quantiles(self) -> tuple[Quantile, ...]:
        return quantiles(self.run.measured.total)

    def to_dict(self) -> dict[str, Any]:
        found = {q.name: q.to_dict() for q in self.quantiles}
        return {
            "label": self.label,
            "mark": str(self.callers) if self.share is None else f"{self.share:.0%}",
            "target": self.run.target,
            "callers": self.callers,
            "tokens": self.tokens,
            "share_of_most": self.share,
            "offered_rps": None if self.offered is None else round(self.offered, 2),
            "throughput_rps": round(self.run.throughput, 2),
            "p50_us": found["p50"]["us"],
            "p99_us": found["p99"]["us"],
            "total": found,
            "service": {q.name: q.to_dict() for q in quantiles(self.run.measured.service)},
            "requests": len(self.run.measured),
            "failed": self.run.failed,
            "rejected": self.run.rejected,
            "unsent": self.run.unsent,
            "stopped": self.run.stopped,
        }


def concurrency(
    target: Target, mixes: Sequence[tuple[int, Mix]], case: Case, told: Told, *, callers: Sequence[int] | None = None
) -> list[Step]:
    """Every number of callers with every prompt length, in closed loops; `case.seconds` each."""
    steps: list[Step] = []
    for tokens, mix in mixes:
        for count in callers or CALLERS:
            label = f"{count} x {tokens} tokens"
            rung = replace(case, mix=mix, callers=count, mode="closed")
            load = rung.load(rung.seconds, rung.warm_up, 0)
            steps.append(Step(label, run(target, mix.prompts, load, progress=told(label)), count, tokens))
            if steps[-1].run.stopped == "interrupted":
                return [step for step in steps if len(step.run.measured)]
    return steps


def most(target: Target, case: Case, told: Told) -> list[Step]:
    """Closed loops with ever more callers until the throughput grows no more; the best step is the target's most."""
    steps: list[Step] = []
    for count in SEARCH:
        label = f"{count} caller(s)"
        load = replace(case, callers=count, mode="closed").load(case.seconds, case.warm_up, 0)
        steps.append(Step(label, run(target, case.mix.prompts, load, progress=told(label)), count))
        rates = [step.run.throughput for step in steps]
        if steps[-1].run.stopped == "interrupted" or (len(rates) > 2 and max(rates[-2:]) < GAIN * max(rates[:-2])):
            break
    return [step for step in steps if len(step.run.measured)]


def best(steps: Sequence[Step]) -> Step:
    return max(steps, key=lambda step: step.run.throughput)


def shares(target: Target, case: Case, top: Step, told: Told, *, levels: Sequence[float] | None = None) -> list[Step]:
    """Open loops at shares of the most."""
    steps: list[Step] = []
    for share in levels or SHARES:
        rate = share * top.run.throughput
        label = f"{share:.0%}"
        at_once = MOST_AT_ONCE if is_async(target) else top.callers
        rung = replace(case, mode="open", rate=rate, callers=at_once)
        load = rung.load(rung.seconds, rung.warm_up, 0)
        done = run(target, case.mix.prompts, load, progress=told(f"{label} of {top.run.throughput:,.0f}/s"))
        steps.append(Step(label, done, at_once, share=share, offered=rate))
        if done.stopped == "interrupted":
            break
    return [step for step in steps if len(step.run.measured)]
