"""An attribution names the stage that a slow tail is owed to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .quantiles import Nanoseconds
from .samples import SERVICE
from .slo import Judgement, duration_text

WHOLES = ("total", "queued")  # counters that hold other stages


@dataclass(frozen=True)
class Attribution:
    """An `Attribution` is the stage that a missed objective is owed to.

    Attributes:
        stage: by name.
        why: "tail" (the median holds: the stage that grew most in the slow requests) or "all" (even the median
            misses: the stage that takes most time).
        tail_us, median_us: stage -> its median over the slow requests and over all.
    """

    stage: str
    why: str
    tail_us: Mapping[str, float]
    median_us: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        return {
            "stage": self.stage,
            "why": self.why,
            "tail_us": {name: round(value, 3) for name, value in self.tail_us.items()},
            "median_us": {name: round(value, 3) for name, value in self.median_us.items()},
        }

    def __str__(self) -> str:
        parts = ", ".join(
            f"{name} {duration_text(1e3 * self.tail_us[name])} (median {duration_text(1e3 * self.median_us[name])})"
            for name in self.tail_us
        )
        reason = "grew most in the slow requests" if self.why == "tail" else "takes most of a slow request"
        return f"to blame: {self.stage}, which {reason}: {parts}"


def attribute(
    judgement: Judgement,
    parts: Mapping[str, Nanoseconds],
    total: Nanoseconds,
    split: Mapping[str, Nanoseconds] | None = None,
    counted: Mapping[str, float] | None = None,
) -> Attribution:
    """Return the stage that most of a miss is owed to.

    Args:
        judgement: a missed objective with a measured quantile.
        parts: stage -> (n,) ns that add up to the total, request by request.
        total: (n,) ns, the stage the objective is about.
        split: stages of a pass apart, (m,) ns each: where the service is to blame, which of them.
        counted: stages by the target's own counters, us at the objective's quantile: the same, where there is no pass apart.
    """
    assert judgement.measured.value is not None
    why = "all" if float(np.median(total)) > judgement.slo.limit_ns else "tail"
    stage, tail, median = _heaviest(parts, total >= judgement.measured.value, why)
    if stage == SERVICE and split:
        whole = np.sum(list(split.values()), axis=0)
        stage, apart_tail, apart_median = _heaviest(split, whole >= np.quantile(whole, judgement.slo.level), why)
        tail |= {f"{name} (apart)": value for name, value in apart_tail.items()}
        median |= {f"{name} (apart)": value for name, value in apart_median.items()}
    elif stage == SERVICE and counted:
        own = {name: value for name, value in counted.items() if name not in WHOLES}
        if own:
            stage = max(own, key=lambda name: own[name])
    return Attribution(stage, why, tail, median)


def _heaviest(
    parts: Mapping[str, Nanoseconds], slow: npt.NDArray[np.bool_], why: str
) -> tuple[str, dict[str, float], dict[str, float]]:
    tail = {name: float(np.median(values[slow])) / 1e3 for name, values in parts.items()}
    median = {name: float(np.median(values)) / 1e3 for name, values in parts.items()}
    weight = {name: tail[name] - (median[name] if why == "tail" else 0.0) for name in tail}
    return max(weight, key=lambda name: weight[name]), tail, median
