"""The bounds of benchmarks/targets.toml get their verdicts from calls that were timed in turns.

An interval that lies on the right side of its bound as a whole is *met*, one on the wrong side *missed*; one that holds the
bound *cannot tell*. Intervals are order-statistic ones (benchmarks/load/quantiles.py), at 99 %, as several targets are looked
at: of a quantile, and of a median over another implementation's of the ratios round by round, each with its design effect; of any
other ratio, from the intervals of its two quantiles at half the risk each, so that both hold together.
"""

from __future__ import annotations

import math
import statistics
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ipr_engine.errors import InvalidInputError

from ..load.quantiles import Quantile, binomial_ranks, design_effect, quantile, samples_needed
from ..load.slo import MET, MISSED, UNTOLD

PATH = Path(__file__).resolve().parents[1] / "targets.toml"
FLOOR = "an empty call"
QUANTILES = {"p50": 0.5, "p99": 0.99}
CONFIDENCE = 0.99
NOT_RUN = "not run"

Rounds = Sequence[Sequence[int]]  # (rounds, calls) ns


@dataclass(frozen=True, kw_only=True)
class Bound:
    """A `Bound` is one entry of targets.toml; the head of that file describes its parts."""

    case: str
    impl: str
    quantile: str
    over_impl: str | None = None
    over_quantile: str | None = None
    at_most: float | None = None
    at_least: float | None = None
    isas: tuple[str, ...] = ()

    @property
    def is_ratio(self) -> bool:
        return self.over_impl is not None or self.over_quantile is not None

    def __str__(self) -> str:
        over = (
            f" over {self.over_impl}" if self.over_impl else f" over {self.over_quantile}" if self.over_quantile else ""
        )
        return f"{self.case}: {self.impl} {self.quantile}{over}"


@dataclass(frozen=True)
class Figure:
    """A `Figure` is a measured value with its interval: us, or a ratio. It is not finite where the samples do not tell."""

    value: float
    low: float
    high: float
    samples: int
    needed: int | None = None


def read(path: Path, impls: Mapping[str, Collection[str]]) -> tuple[Bound, ...]:
    """Read the targets of a file.

    Args:
        impls: case -> names of what may be timed in it.
    Raises:
        InvalidInputError: the file or an entry is not as described in targets.toml.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidInputError(f"{path.name}: cannot be read: {error}") from None
    entries = document.pop("target", None)
    document.pop("server", None)  # read by `server_bounds`
    if document or not isinstance(entries, list) or not entries:
        raise InvalidInputError(
            f"{path.name}: expected [[target]] entries and nothing else, got {', '.join(document) or 'none'}"
        )
    return tuple(_bound(entry, f"{path.name}, target {number}", impls) for number, entry in enumerate(entries, start=1))


def server_bounds(path: Path = PATH) -> dict[tuple[str, str | None], float]:
    """Return (what, body) -> most microseconds, of the [[server]] entries of a file.

    Raises:
        InvalidInputError: an entry is not as described in targets.toml.
    """
    found = {}
    for number, entry in enumerate(tomllib.loads(path.read_text(encoding="utf-8")).get("server", []), start=1):
        where, bound = f"{path.name}, server {number}", entry.get("at_most")
        if not set(entry) <= {"what", "body", "at_most"} or not isinstance(entry.get("what"), str):
            raise InvalidInputError(f"{where}: expected the keys what, body, at_most, got {', '.join(sorted(entry))}")
        if isinstance(bound, bool) or not isinstance(bound, (int, float)) or not (math.isfinite(bound) and bound > 0):
            raise InvalidInputError(f"{where}: at_most: expected a finite number > 0, got {bound!r}")
        found[entry["what"], entry.get("body")] = float(bound)
    return found


def of_turns(values: Sequence[float]) -> Figure:
    """Return the median of paired differences, one a turn, with its interval; without bounds where the turns are too few."""
    ordered, turns = sorted(values), len(values)
    ranks = binomial_ranks(turns, 0.5, CONFIDENCE)
    if ranks is None:
        return Figure(statistics.median(values), -math.inf, math.inf, turns, samples_needed(0.5, CONFIDENCE))
    return Figure(statistics.median(values), ordered[ranks[0] - 1], ordered[ranks[1] - 1], turns)


def _bound(entry: Any, where: str, impls: Mapping[str, Collection[str]]) -> Bound:
    known = Bound.__dataclass_fields__
    unknown = sorted(set(entry) - set(known))
    if unknown:
        raise InvalidInputError(f"{where}: expected the keys {', '.join(known)}, got {', '.join(unknown)}")

    def one_of(key: str, choices: Collection[str], *, needed: bool = True) -> None:
        if (needed or key in entry) and entry.get(key) not in choices:
            raise InvalidInputError(f"{where}: {key}: expected one of {', '.join(choices)}, got {entry.get(key)!r}")

    one_of("case", impls)
    one_of("impl", impls[entry["case"]])
    one_of("quantile", QUANTILES)
    one_of("over_impl", impls[entry["case"]], needed=False)
    one_of("over_quantile", QUANTILES, needed=False)
    if "over_impl" in entry and "over_quantile" in entry:
        raise InvalidInputError(f"{where}: give over_impl or over_quantile, not both")
    bounds = [key for key in ("at_most", "at_least") if key in entry]
    if len(bounds) != 1:
        raise InvalidInputError(
            f"{where}: expected either at_most or at_least, got {' and '.join(bounds) or 'neither'}"
        )
    bound = entry[bounds[0]]
    if isinstance(bound, bool) or not isinstance(bound, (int, float)) or not (math.isfinite(bound) and bound > 0):
        raise InvalidInputError(f"{where}: {bounds[0]}: expected a finite number > 0, got {bound!r}")
    isas = entry.get("isas", [])
    if not isinstance(isas, list) or not all(isinstance(isa, str) for isa in isas):
        raise InvalidInputError(f"{where}: isas: expected a list of names such as avx2, got {isas!r}")
    return Bound(**{**entry, "isas": tuple(isas), bounds[0]: float(bound)})


def figure(bound: Bound, times: Mapping[str, Rounds]) -> Figure:
    """Return the value that the bound is about, with its interval.

    Args:
        times: implementation -> ns of single calls, round by round, all of a round taken one after the other; FLOOR among them.
    """
    if bound.over_impl is not None and bound.quantile == "p50":
        return paired_ratio(times[bound.impl], times[bound.over_impl], times[FLOOR])
    floor = float(np.median(_flat(times[FLOOR])))
    risk = 1 - CONFIDENCE
    level = QUANTILES[bound.quantile]
    above = quantile(_flat(times[bound.impl]), level, confidence=1 - risk / 2 if bound.is_ratio else CONFIDENCE)
    if not bound.is_ratio:
        low, value, high = (edge / 1e3 for edge in _less(above, floor))
        return Figure(value, low, high, above.samples, above.needed)
    level = QUANTILES[bound.over_quantile or bound.quantile]
    below = quantile(_flat(times[bound.over_impl or bound.impl]), level, confidence=1 - risk / 2)
    (low, value, high), (least, middle, most) = _less(above, floor), _less(below, floor)
    needed = max(above.needed or 0, below.needed or 0) or None
    return Figure(
        _over(value, middle, math.nan), _over(low, most, -math.inf), _over(high, least, math.inf), above.samples, needed
    )


def paired_ratio(above: Rounds, below: Rounds, floor: Rounds) -> Figure:
    """Return the median over rounds of one median over another, each less the round's median of an empty call."""
    medians = [[statistics.median(calls) for calls in rounds] for rounds in (above, below, floor)]
    in_turn, most = (
        [_over(a - f, b - f, unknown) for a, b, f in zip(*medians, strict=True)] for unknown in (-math.inf, math.inf)
    )
    least, most = sorted(in_turn), sorted(most)
    rounds, value = len(most), statistics.median(most)
    effect = design_effect(np.asarray(in_turn), value, 0.5)  # rounds in a row depend on each other, as calls do
    worth = max(1, int(rounds / effect))
    ranks = binomial_ranks(worth, 0.5, CONFIDENCE)
    if ranks is None:
        return Figure(value, -math.inf, math.inf, rounds, math.ceil(samples_needed(0.5, CONFIDENCE) * effect))
    low, high = max(1, math.floor(ranks[0] / worth * rounds)), min(rounds, math.ceil(ranks[1] / worth * rounds))
    return Figure(value, least[low - 1], most[high - 1], rounds)


def _flat(rounds: Rounds) -> Any:
    return np.concatenate([np.asarray(calls, np.int64) for calls in rounds])


def _less(found: Quantile, floor: float) -> tuple[float, float, float]:
    """Return low, value, high less the floor; without bounds where the sample is too small for them."""
    if found.value is None or found.low is None or found.high is None:
        return -math.inf, math.nan, math.inf
    return found.low - floor, found.value - floor, found.high - floor


def _over(above: float, below: float, unknown: float) -> float:
    """Return a ratio; `unknown` where the divisor is not told apart from the floor."""
    return above / below if below > 0 else unknown


def verdict(bound: Bound, found: Figure) -> str:
    """Return met, missed or cannot tell: the whole interval decides."""
    if bound.at_most is not None:
        return verdict_at_most(bound.at_most, found)
    assert bound.at_least is not None
    return MET if found.low >= bound.at_least else MISSED if found.high < bound.at_least else UNTOLD


def verdict_at_most(most: float, found: Figure) -> str:
    """Return met, missed or cannot tell of a figure that should be at most this."""
    return MET if found.high <= most else MISSED if found.low > most else UNTOLD
