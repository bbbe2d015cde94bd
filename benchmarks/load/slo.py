"""Service-level objectives are written `p99=5ms`, `encode.p99=2ms`; each is met, missed, or not to be told from this run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ipr_engine.errors import InvalidInputError

from .quantiles import Nanoseconds, Quantile, quantile

UNITS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
MET, MISSED, UNTOLD = "met", "missed", "cannot tell"
EXAMPLE = "such as p99=5ms or encode.p99=2ms"


@dataclass(frozen=True)
class Slo:
    """An `Slo` asks for at most `limit_ns` at quantile `level` of a stage ("total": from the intended send time to the answer)."""

    stage: str
    level: float
    limit_ns: float

    def __str__(self) -> str:
        stage = "" if self.stage == "total" else f"{self.stage}."
        return f"{stage}p{100 * self.level:.10g}={duration_text(self.limit_ns)}"


@dataclass(frozen=True)
class Judgement:
    """A `Judgement` holds an objective against a run: the whole interval decides, never the point estimate."""

    slo: Slo
    measured: Quantile
    verdict: str

    def to_dict(self) -> dict[str, Any]:
        return {"slo": str(self.slo), "verdict": self.verdict, "measured": self.measured.to_dict()}

    def __str__(self) -> str:
        found = self.measured
        if found.value is None or found.low is None or found.high is None:
            seen = f"{found.samples:,} requests, and an interval of {found.name} needs about {found.needed:,}"
        else:
            seen = f"{duration_text(found.value)} [{duration_text(found.low)}, {duration_text(found.high)}]"
        hint = "; widen the run (--seconds, or a steadier machine)" if self.verdict == UNTOLD else ""
        return f"SLO {self.slo}: {self.verdict}: {seen}{hint}"


def parse_slos(items: Sequence[str]) -> tuple[Slo, ...]:
    """Read objectives of the command line, several separated by commas.

    Raises:
        InvalidInputError: one that is none, or the same stage and quantile twice.
    """
    slos = [_parse(item.strip()) for text in items for item in text.split(",")]
    keys = [(slo.stage, slo.level) for slo in slos]
    for slo, key in zip(slos, keys, strict=True):
        if keys.count(key) > 1:
            raise InvalidInputError(f"--slo: {slo.stage} p{100 * slo.level:.10g} is given twice; keep one limit")
    return tuple(slos)


def _parse(text: str) -> Slo:
    found = re.fullmatch(r"(?:([a-z_]+)\.)?p(\d+(?:\.\d+)?)=(\S+)", text)
    if found is None:
        raise InvalidInputError(f"--slo: expected [STAGE.]pQ=TIME {EXAMPLE}, got {text!r}")
    level = float(found[2]) / 100
    if not 0 < level < 1:
        raise InvalidInputError(f"--slo: expected a quantile between p0 and p100, got p{found[2]} in {text!r}")
    return Slo(found[1] or "total", level, parse_duration(found[3], text))


def parse_duration(text: str, where: str) -> float:
    """Return the nanoseconds of "5ms", "250us", "1.5s"."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(ns|us|ms|s)", text)
    if found is None or float(found[1]) == 0:
        raise InvalidInputError(
            f"--slo: expected a time above 0 with its unit (us, ms or s), got {text!r} in {where!r}"
        )
    return float(found[1]) * UNITS[found[2]]


def duration_text(ns: float) -> str:
    """Return three figures and the unit that suits."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if ns >= size:
            return f"{ns / size:.3g}{unit}" if ns < 100 * size else f"{ns / size:.0f}{unit}"
    return f"{ns:.0f}ns"


def judge(slo: Slo, stages: Mapping[str, Nanoseconds]) -> Judgement:
    """Compare a run's stage with its objective.

    Args:
        stages: stage -> (n,) ns, in the order of intended send.
    Raises:
        InvalidInputError: the target did not report that stage.
    """
    if slo.stage not in stages:
        raise InvalidInputError(
            f"--slo: {slo}: this target reports no stage {slo.stage!r}; it reports {', '.join(stages)}"
        )
    found = quantile(stages[slo.stage], slo.level)
    if found.low is None or found.high is None:
        return Judgement(slo, found, UNTOLD)
    if found.low > slo.limit_ns:
        return Judgement(slo, found, MISSED)
    return Judgement(slo, found, MET if found.high <= slo.limit_ns else UNTOLD)
