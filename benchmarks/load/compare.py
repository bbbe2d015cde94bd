"""A comparison says whether ours is slower than before, by turns that alternate (paired) or a recorded run (unpaired).

The paired interval is the order-statistic interval of the median ratio over turns. The unpaired one is Hodges and
Lehmann's shift of log latency between the sub-runs of two runs, with the Mann-Whitney interval; both distribution-free,
at 99 %, since several figures are compared at once.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .quantiles import binomial_ranks

CONFIDENCE = 0.99
Z = 2.5758  # of the normal distribution, two-sided 99 %
FIGURES = ("p50_us", "p90_us", "p99_us", "throughput_rps")
PAIRED_EFFECT = 0.05  # smaller changes are told, but are no regression
UNPAIRED_EFFECT = 0.10
LEAST_PAIRS = 8  # of which a 99 % interval of a median can be told
LEAST_RUNS = 3  # recorded runs of the base from which their spread is taken

SLOWER, FASTER, SAME, UNTOLD, INCOMPARABLE = "slower", "faster", "no change", "cannot tell", "not comparable"


@dataclass(frozen=True)
class Change:
    """A `Change` is one figure, ours over theirs.

    Attributes:
        figure: p50_us, p90_us, p99_us or throughput_rps.
        ratio, low, high: slowness: above 1 means that we are slower (for throughput: theirs over ours).
        verdict: "slower" (the whole interval above 1 and at least `effect` slower), "faster", "no change" (the whole
            interval within `effect` of 1, or a smaller change than that) or "cannot tell".
    """

    figure: str
    ratio: float
    low: float
    high: float
    effect: float
    verdict: str

    def to_dict(self) -> dict[str, Any]:
        return {
            "figure": self.figure,
            "slowness": round(self.ratio, 4),
            "low": round(self.low, 4) if math.isfinite(self.low) else None,
            "high": round(self.high, 4) if math.isfinite(self.high) else None,
            "effect": self.effect,
            "verdict": self.verdict,
        }

    def __str__(self) -> str:
        name = self.figure.removesuffix("_us").replace("throughput_rps", "throughput")
        if self.ratio <= 1:  # the text gives the ratio that is above 1: 1.2 times as fast, not 0.83 as slow
            what, values = (
                "fast",
                (1 / self.ratio, 1 / self.high if self.high else math.inf, 1 / self.low if self.low else math.inf),
            )
        else:
            what, values = "slow", (self.ratio, self.low, self.high)
        ratio, low, high = ("?" if not math.isfinite(value) else f"{value:.3g}" for value in values)
        return f"{name}: {self.verdict}: {ratio} times as {what} [{low}, {high}]"


@dataclass(frozen=True)
class Comparison:
    """A `Comparison` holds all figures against one other run.

    Attributes:
        against: what we were compared with. paired: whether in turns.
        caveats: what the comparison cannot exclude.
    """

    against: str
    paired: bool
    changes: tuple[Change, ...]
    caveats: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """Return slower if one figure is; else cannot tell if one cannot be told; else faster if one is; else no change."""
        verdicts = [change.verdict for change in self.changes]
        if not verdicts:
            return INCOMPARABLE
        if SLOWER in verdicts:
            return SLOWER
        return next((verdict for verdict in (UNTOLD, FASTER) if verdict in verdicts), SAME)

    def to_dict(self) -> dict[str, Any]:
        return {
            "against": self.against,
            "paired": self.paired,
            "verdict": self.verdict,
            "changes": [change.to_dict() for change in self.changes],
            "caveats": list(self.caveats),
            **self.details,
        }


def judged(figure: str, ratio: float, low: float, high: float, effect: float) -> Change:
    bar = 1 + effect
    if low > 1 and ratio >= bar:
        verdict = SLOWER
    elif high < 1 and ratio <= 1 / bar:
        verdict = FASTER
    elif (low >= 1 / bar and high <= bar) or ((low > 1 or high < 1) and 1 / bar < ratio < bar):
        verdict = SAME
    else:
        verdict = UNTOLD
    return Change(figure, ratio, low, high, effect, verdict)


def paired(
    ours: Sequence[Mapping[str, float | None]],
    theirs: Sequence[Mapping[str, float | None]],
    against: str,
    *,
    effect: float = PAIRED_EFFECT,
    fixed_rate: bool = False,
) -> Comparison:
    """Compare turn by turn, in one process.

    Args:
        ours, theirs: `Measured.subruns()` of two targets that took turns, equally many.
        fixed_rate: an open loop, whose throughput is its schedule's and says nothing.
    """
    changes = []
    for figure in FIGURES[: -1 if fixed_rate else None]:
        pairs = [(a[figure], b[figure]) for a, b in zip(ours, theirs, strict=True)]
        logs = sorted(_slowness(figure, a, b) for a, b in pairs if a and b)
        if len(logs) < LEAST_PAIRS:
            continue
        ranks = binomial_ranks(len(logs), 0.5, CONFIDENCE)
        assert ranks is not None
        ratio, low, high = (
            math.exp(value) for value in (statistics.median(logs), logs[ranks[0] - 1], logs[ranks[1] - 1])
        )
        changes.append(judged(figure, ratio, low, high, effect))
    caveats = () if changes else (f"fewer than {LEAST_PAIRS} turns with enough requests; widen the run (--seconds)",)
    return Comparison(against, True, tuple(changes), caveats)


def unpaired(
    ours: Mapping[str, Any], bases: Sequence[Mapping[str, Any]], *, effect: float = UNPAIRED_EFFECT
) -> Comparison:
    """Compare a run with recorded ones of the same case (documents of report.py), the latest of them first in weight.

    The interval is widened by the spread between the base's runs where there are three or more, and must hold both as
    measured and with the speed of the two machines' spin probes divided out.
    """
    base = bases[-1]
    against = f"{base.get('commit') or 'installed'}, {base['date']}"
    if base["machine"] != ours["machine"]:
        reason = f"the base was recorded on another machine ({base['machine']}), this one is {ours['machine']}"
        return Comparison(against, False, (), (reason,))
    caveats = _caveats(ours, base, bases)
    speed = math.log(ours["noise"]["before"]["spin_us"] / base["noise"]["before"]["spin_us"])
    changes = []
    for figure in FIGURES[: -1 if ours["case"]["mode"] == "open" else None]:
        mine = [row[figure] for row in ours["subruns"] if row[figure]]
        their_rows = [[row[figure] for row in one["subruns"] if row[figure]] for one in bases]
        their_rows = [rows for rows in their_rows if len(rows) >= LEAST_PAIRS]
        if len(mine) < LEAST_PAIRS or not their_rows:
            continue
        shift, low, high = _hodges_lehmann(figure, mine, [value for rows in their_rows for value in rows])
        if len(their_rows) >= LEAST_RUNS:
            medians = [math.log(statistics.median(rows)) for rows in their_rows]
            between = Z * statistics.stdev(medians) * math.sqrt(1 + 1 / len(medians))
            low, high = shift - math.hypot(shift - low, between), shift + math.hypot(high - shift, between)
        low, high = min(low, low - speed), max(high, high - speed)
        changes.append(judged(figure, math.exp(shift), math.exp(low), math.exp(high), effect))
    if not changes:
        caveats.append("too few requests in the parts of one of the runs; widen it (--seconds)")
    return Comparison(against, False, tuple(changes), tuple(caveats), {"base_runs": len(bases)})


def _caveats(ours: Mapping[str, Any], base: Mapping[str, Any], bases: Sequence[Mapping[str, Any]]) -> list[str]:
    caveats = [
        "not excluded: another load on the machine then or now, another placement in memory, another clock speed"
    ]
    if len(bases) < LEAST_RUNS:
        caveats.append(
            f"{len(bases)} recorded run(s) of this case: how much such runs differ from each other is not known; "
            f"record {LEAST_RUNS} or more, or compare in turns with --against"
        )
    change = ours["noise"]["before"]["spin_us"] / base["noise"]["before"]["spin_us"]
    if not 0.95 <= change <= 1.05:
        caveats.append(f"the spin probe took {change - 1:+.0%} against the base's: the interval is widened by as much")
    if ours["case"].get("mix_sha256") != base["case"].get("mix_sha256"):
        caveats.append("the prompts differ from the base's, though their mix is called the same")
    for name in ("bundle", "isa"):
        mine, theirs = ours["settings"].get(name), base["settings"].get(name)
        if mine != theirs:
            caveats.append(f"{name} differs: {mine} against {theirs}")
    return caveats


def _slowness(figure: str, mine: float, theirs: float) -> float:
    return math.log(theirs / mine) if figure == "throughput_rps" else math.log(mine / theirs)


def _hodges_lehmann(figure: str, mine: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Return the shift of log latency with its interval: the median of all differences, and Mann and Whitney's order statistics."""
    sign = -1.0 if figure == "throughput_rps" else 1.0
    differences = np.sort((sign * (np.log(mine)[:, None] - np.log(theirs)[None, :])).ravel())
    n, m = len(mine), len(theirs)
    rank = int(n * m / 2 - Z * math.sqrt(n * m * (n + m + 1) / 12))
    low, high = (differences[rank], differences[-rank - 1]) if rank >= 0 else (-math.inf, math.inf)
    return float(np.median(differences)), float(low), float(high)
