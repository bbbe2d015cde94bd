"""`measure` runs one case: targets take turns, beside them the harness's own cost, the machine's noise, stages of a pass apart."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .arrivals import schedule
from .lengths import Mix
from .loads import Load, Run
from .noise import Noise
from .quantiles import Nanoseconds, Quantile, quantiles
from .runner import run
from .samples import SERVICE, Samples
from .targets import NullAsyncTarget, NullTarget, StagesTarget, Target, is_async
from .threads import Progress
from .window import Lost

ROUNDS = 20  # turns of each target when several are measured: enough pairs for a 99 % interval of their median ratio
SUBRUNS = 20  # parts of a run of one target, kept for later comparisons
FLOOR_S = 0.3  # of the harness alone
FLOOR_ARRIVALS, MOST_FLOOR_S = 20, 2.0  # of an open loop; where that takes longer it is left out
SPLIT_CALLS = 2_000
SPLIT_S = 2.0
LEAST_WARM_UP_S = 0.02


@dataclass(frozen=True, kw_only=True)
class LoadCase:
    """A `LoadCase` is the load, apart from who bears it.

    Attributes:
        mix: the prompts. mode: "closed" or "open". callers: see `loads.Load`.
        arrivals, rate, burst: of an open loop. seed: of the schedule.
        seconds, warm_up: of each target in all.
    """

    mix: Mix
    mode: str
    callers: int
    seconds: float
    warm_up: float
    seed: int
    arrivals: str = "poisson"
    rate: float | None = None
    burst: int = 32

    def load(self, seconds: float, warm_up: float, turn: int) -> Load:
        if self.mode == "closed":
            return Load(seconds=seconds, warm_up=warm_up, callers=self.callers)
        assert self.rate is not None
        seed = int(np.random.SeedSequence([self.seed, turn]).generate_state(1)[0])
        due = schedule(self.arrivals, rate=self.rate, seconds=seconds + warm_up, seed=seed, burst=self.burst)
        return Load(seconds=seconds, warm_up=warm_up, callers=self.callers, schedule=due)

    def to_dict(self) -> dict[str, Any]:
        document: dict[str, Any] = {"mode": self.mode, "callers": self.callers}
        if self.mode == "open":
            document |= {"arrivals": self.arrivals, "rate": self.rate}
            document |= {"burst": self.burst} if self.arrivals == "bursts" else {}
        digest = hashlib.sha256("\0".join(self.mix.prompts).encode()).hexdigest()[:16]
        tokens = sorted(self.mix.tokens)
        return document | {
            "mix": self.mix.label,
            "mix_sha256": digest,
            "mix_tokens": {"least": tokens[0], "median": tokens[len(tokens) // 2], "most": tokens[-1]},
            "seed": self.seed,
            "seconds": self.seconds,
            "warm_up_s": self.warm_up,
        }


@dataclass(frozen=True)
class Measured:
    """A `Measured` is a target's part of a measurement.

    Attributes:
        rounds: its turns, or one whole run. run: all of them together.
        floor: the harness under the same load with a target that answers at once: quantiles of its total.
        counted: stage -> latency histogram of the target's own counters, where it has some; warm-up included.
        split: stage -> ns of a pass of its own, for a target that reports no stages; empty where none can be told.
        settings: what the target is, for the record.
    """

    target: Target
    case: LoadCase
    run: Run
    rounds: tuple[Run, ...]
    noise: dict[str, Any]
    floor: tuple[Quantile, ...]
    split: dict[str, Nanoseconds] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    counted: Mapping[str, Any] = field(default_factory=dict)

    def counted_at(self, level: float) -> dict[str, float]:
        """Map each stage to us at a quantile, as far as the counters' buckets tell."""
        return {name: float(latency.quantile_us(level)) for name, latency in self.counted.items()}

    @property
    def stages(self) -> dict[str, Nanoseconds]:
        """Return every stage an objective may name: of the run itself, then of the pass apart."""
        return {**self.split, **self.run.measured.by_stage()}

    def parts(self) -> dict[str, Nanoseconds]:
        """Return the stages that add up to the total."""
        return self.run.measured.parts()

    def subruns(self) -> list[dict[str, float | None]]:
        """Return p50, p90, p99 and throughput of each turn, or of consecutive parts of one run."""
        if len(self.rounds) > 1:
            return [figures(turn.measured, turn.throughput) for turn in self.rounds]
        parts = [part for part in self.run.measured.blocks(SUBRUNS) if len(part)]
        return [figures(part, rate) for part, rate in zip(parts, self.run.rates(len(parts)), strict=False)]


LEAST_FOR = {"p50": 5, "p90": 50, "p99": 500}  # samples of a part, so that some lie above its quantile


def figures(samples: Samples, rate: float | None) -> dict[str, float | None]:
    """Return one part of a run in a few numbers: latencies of its requests, us, and answers a second; None where it is too short."""
    document: dict[str, float | None] = {}
    for name, level in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
        enough = len(samples) >= LEAST_FOR[name]
        document[f"{name}_us"] = round(float(np.quantile(samples.total, level)) / 1e3, 3) if enough else None
    document["throughput_rps"] = round(rate, 2) if rate else None
    return document


def measure(
    targets: Sequence[Target],
    case: LoadCase,
    *,
    settings: Sequence[Mapping[str, Any]] = (),
    rounds: int | None = None,
    splits: Mapping[str, StagesTarget] | None = None,
    progress: Callable[[str], Progress] | None = None,
) -> list[Measured]:
    """Measure the targets under one load: one alone in one run, several in turns whose order alternates.

    Args:
        settings: of each target.
        rounds: turns of each; by default 1 for one target, 20 for several.
        splits: target name -> who tells its stages in a pass apart.
        progress: called with a label, gives what is told of a run that goes on.
    Returns:
        One Measured a target. Ctrl-C ends the measurement after the turn it falls in; what is complete is returned.
    """
    turns = rounds or (1 if len(targets) == 1 else ROUNDS)
    seconds = case.seconds / turns
    floors = [_floor(target, case) for target in targets]
    done: list[list[Run]] = [[] for _ in targets]
    with Noise() as noise:
        for turn in range(turns):
            warm_up = case.warm_up if turn == 0 else max(LEAST_WARM_UP_S, case.warm_up / turns)
            load = case.load(seconds, warm_up, turn)
            order = range(len(targets)) if turn % 2 == 0 else reversed(range(len(targets)))
            for which in order:
                label = targets[which].name + (f", turn {turn + 1} of {turns}" if turns > 1 else "")
                report = None if progress is None else progress(label)
                done[which].append(run(targets[which], case.mix.prompts, load, progress=report))
                if done[which][-1].stopped == "interrupted":
                    break
            if any(runs and runs[-1].stopped == "interrupted" for runs in done):
                break
    found = noise.to_dict()
    complete = min(len(runs) for runs in done) or 1
    given = settings or [{} for _ in targets]
    results = []
    for target, runs, floor, setting in zip(targets, done, floors, given, strict=True):
        kept = runs[:complete]
        if not kept or not len(kept[0].measured):
            continue
        split = _split(splits[target.name], case.mix.prompts) if splits and target.name in splits else {}
        results.append(
            Measured(
                target,
                case,
                merged(kept),
                tuple(kept),
                found,
                floor,
                split,
                setting,
                dict(getattr(target, "counted", {})),
            )
        )
    return results


def merged(runs: Sequence[Run]) -> Run:
    """Join the turns of one target to one run: their requests one after the other."""
    if len(runs) == 1:
        return runs[0]
    return replace(
        runs[0],
        measured=_joined([one.measured for one in runs]),
        warm_up=_joined([one.warm_up for one in runs]),
        answers=sum(one.answers for one in runs),
        seconds=sum(one.seconds for one in runs),
        lost=sum((one.lost for one in runs), Lost()),
        lost_in_warm_up=sum((one.lost_in_warm_up for one in runs), Lost()),
        due=None if runs[0].due is None else sum(one.due or 0 for one in runs),
        errors=sum((one.errors for one in runs[1:]), runs[0].errors),
        stopped=next((one.stopped for one in runs if one.stopped), None),
    )


def _joined(parts: Sequence[Samples]) -> Samples:
    shifts = np.cumsum([0] + [int(part.ended.max()) if len(part) else 0 for part in parts[:-1]])
    intended, started, ended = (
        np.concatenate([getattr(part, name) + shift for part, shift in zip(parts, shifts, strict=True)])
        for name in ("intended", "started", "ended")
    )
    stages = {name: np.concatenate([part.stages[name] for part in parts]) for name in parts[0].stages}
    return Samples(intended, started, ended, stages)


def _floor(target: Target, case: LoadCase) -> tuple[Quantile, ...]:
    seconds = FLOOR_S
    if case.rate is not None:  # enough arrivals, but not for ever at a low rate
        seconds = max(FLOOR_S, FLOOR_ARRIVALS * (case.burst if case.arrivals == "bursts" else 1) / case.rate)
        if seconds > MOST_FLOOR_S:
            return quantiles(np.empty(0, np.int64))
    nothing: Target = NullAsyncTarget() if is_async(target) else NullTarget()
    own = run(nothing, case.mix.prompts, case.load(seconds, 0.0, 0))
    return quantiles(own.measured.total)


def _split(target: StagesTarget, prompts: Sequence[str]) -> dict[str, Nanoseconds]:
    """Map each stage to ns over the same prompts, one caller, in a pass of its own."""
    rows = []
    with target.session() as call:
        for prompt in prompts[:50]:
            call(prompt)
        end = time.perf_counter() + SPLIT_S
        for turn in range(SPLIT_CALLS):
            parts = call(prompts[turn % len(prompts)])
            assert parts is not None
            rows.append(parts)
            if time.perf_counter() > end:
                break
    columns = np.array(rows, np.int64).T
    return {name: column for name, column in zip(target.stages, columns, strict=True) if name != SERVICE}
