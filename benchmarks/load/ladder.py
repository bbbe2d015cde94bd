"""A ladder puts on ever more load: callers x prompt length in closed loops, the most in either loop, shares in open loops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from .arrivals import MOST_REQUESTS
from .lengths import Mix
from .loads import Run
from .measure import LoadCase
from .quantiles import Quantile, quantiles
from .runner import run
from .targets import Target, is_async
from .threads import Progress

CALLERS = (1, 8, 20, 32, 128)
LENGTHS = (64, 512)
SHARES = (0.3, 0.5, 0.7, 0.8, 0.9, 1.0)
SEARCH = (1, 2, 4, 8, 16, 32, 64)
GAIN = 1.05  # a doubling of the callers that brings less than 5 % has found the most
MOST_AT_ONCE = 10_000  # of an async target in an open loop
TOO_MUCH = (
    1.5  # times the best closed loop: offered first, to see what an open loop answers when it has more than it bears
)
TRIES = 12  # rates offered, each 5 % below the one before, until one is kept up with
LEAST_ARRIVALS, MOST_TRY_S = 100, 10.0  # of a try at a low rate

# vLLM Semantic Router published these times of its classification; the concurrency ladder is set beside them.
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

ProgressOf = Callable[[str], Progress]


@dataclass(frozen=True)
class Step:
    """A `Step` is one rung: a run, and what sets it apart from the others."""

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
            "answers": self.run.answers,
            "seconds": round(self.run.seconds, 3),
            "kept_up": self.run.kept_up,
            **asdict(self.run.lost),
            "stopped": self.run.stopped,
        }


def concurrency(
    target: Target,
    mixes: Sequence[tuple[int, Mix]],
    case: LoadCase,
    progress: ProgressOf,
    *,
    callers: Sequence[int] | None = None,
) -> list[Step]:
    """Run every number of callers with every prompt length, in closed loops; `case.seconds` each."""
    steps: list[Step] = []
    for tokens, mix in mixes:
        for count in callers or CALLERS:
            label = f"{count} x {tokens} tokens"
            rung = replace(case, mix=mix, callers=count, mode="closed")
            load = rung.load(rung.seconds, rung.warm_up, 0)
            steps.append(Step(label, run(target, mix.prompts, load, progress=progress(label)), count, tokens))
            if steps[-1].run.stopped == "interrupted":
                return [step for step in steps if len(step.run.measured)]
    return steps


def most(target: Target, case: LoadCase, progress: ProgressOf) -> list[Step]:
    """Run closed loops with ever more callers until the throughput grows no more."""
    steps: list[Step] = []
    for count in SEARCH:
        label = f"{count} caller(s)"
        load = replace(case, callers=count, mode="closed").load(case.seconds, case.warm_up, 0)
        steps.append(Step(label, run(target, case.mix.prompts, load, progress=progress(label)), count))
        rates = [step.run.throughput for step in steps]
        if steps[-1].run.stopped == "interrupted" or (len(rates) > 2 and max(rates[-2:]) < GAIN * max(rates[:-2])):
            break
    return [step for step in steps if len(step.run.measured)]


def best(steps: Sequence[Step]) -> Step:
    return max(steps, key=lambda step: step.run.throughput)


def at_once(target: Target, top: Step) -> int:
    """Return how many requests an open loop serves at once: the best closed loop's callers, or any number where none waits."""
    return MOST_AT_ONCE if is_async(target) else top.callers


def sustained(
    target: Target, case: LoadCase, top: Step, progress: ProgressOf, *, callers: int | None = None
) -> list[Step]:
    """Run open loops with the case's arrivals at falling rates, until one of them is kept up with: see `sustained_rate`.

    A closed loop's throughput says only where to begin. An open loop has more to do for a request (it waits for an arrival
    and, of an async target, makes a task), so a share of the one is another share of the other.

    Args:
        top: the best closed loop.
        callers: requests served at once, by default `at_once`.
    """
    steps: list[Step] = []
    offered, tried = TOO_MUCH * top.run.throughput, 0
    while tried < TRIES:
        steps.append(
            _open(target, case, f"open loop, {offered:,.0f}/s", offered, callers or at_once(target, top), progress)
        )
        done = steps[-1].run
        if done.stopped == "interrupted":
            break
        if tried == 0:  # too much at first: what is answered of it is what an open loop answers at most
            tried = 0 if done.kept_up else 1
            offered = offered * TOO_MUCH if done.kept_up else done.throughput
        elif done.kept_up:
            break
        else:
            tried, offered = tried + 1, min(offered / GAIN, done.throughput)
    return [step for step in steps if len(step.run.measured)]


def sustained_rate(steps: Sequence[Step]) -> float:
    """Return the highest rate offered that was kept up with, else the lowest throughput seen, which `kept_up` of no step backs."""
    kept = [step.offered for step in steps if step.run.kept_up and step.offered is not None]
    return max(kept) if kept else min(step.run.throughput for step in steps)


def shares(
    target: Target,
    case: LoadCase,
    most_rps: float,
    callers: int,
    progress: ProgressOf,
    *,
    levels: Sequence[float] | None = None,
) -> list[Step]:
    """Run open loops at shares of the most that an open loop sustains.

    Args:
        most_rps: `sustained_rate`, requests a second. callers: requests served at once.
    """
    steps: list[Step] = []
    for share in levels or SHARES:
        steps.append(_open(target, case, f"{share:.0%}", share * most_rps, callers, progress, share=share))
        if steps[-1].run.stopped == "interrupted":
            break
    return [step for step in steps if len(step.run.measured)]


def _open(
    target: Target,
    case: LoadCase,
    label: str,
    rate: float,
    callers: int,
    progress: ProgressOf,
    *,
    share: float | None = None,
) -> Step:
    seconds, warm_up = case.seconds, case.warm_up
    if share is None:  # of a search: long enough for a low rate, short enough for the arrivals that a run may keep
        seconds = min(max(seconds, min(MOST_TRY_S, LEAST_ARRIVALS / rate)), MOST_REQUESTS / 2 / rate)
        warm_up = min(warm_up, MOST_REQUESTS / 4 / rate)
    rung = replace(case, mode="open", rate=rate, callers=callers)
    done = run(target, case.mix.prompts, rung.load(seconds, warm_up, 0), progress=progress(label))
    return Step(label, done, callers, share=share, offered=rate)
