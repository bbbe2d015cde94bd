"""reliability.json tells how often each candidate was right where it was predicted about as high; `explain` takes its intervals there.

An extra file of a bundle: per candidate, bins of its predicted quality on prompts whose outcomes the prediction had not
seen, with how many prompts fell into each and the sum of their realised qualities.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ipr_engine.bundle.bundle_files import read_regular
from ipr_engine.bundle.fields import Field, canonical_json, parse_json
from ipr_engine.bundle.spec import BundleSpec
from ipr_engine.errors import BundleValueError

RELIABILITY = "reliability.json"
RELIABILITY_SECOND = "reliability_second.json"  # of the second heads of a two-tier bundle
CONFIDENCE = 0.95
MOST_BINS = 10
FEWEST_IN_A_BIN = 20
_STEPS = 50  # of bisection: about the precision of float64

Array = npt.NDArray[np.float64]


class RealisedInBin(NamedTuple):
    """A `RealisedInBin` holds one bin's mean realised quality, the Clopper-Pearson interval of the chance of success, and its prompts."""

    mean: float
    low: float
    high: float
    prompts: int


class ReliabilityBins(NamedTuple):
    """`ReliabilityBins` hold one candidate's bins: `edges` (bins - 1,) between them, `counts` and `successes` (bins,)."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    successes: tuple[float, ...]

    def at(self, quality: float, confidence: float = CONFIDENCE) -> RealisedInBin:
        """Return what was realised in the bin of this predicted quality."""
        # A quality on an edge is of the bin above it, as where bins are counted.
        b = int(np.searchsorted(self.edges, quality, side="right"))
        low, high = clopper_pearson(self.successes[b], self.counts[b], confidence)
        return RealisedInBin(self.successes[b] / self.counts[b], low, high, self.counts[b])


def reliability_bins(predicted: Array, quality: Array) -> ReliabilityBins:
    """Return bins of about equal count of one candidate's predictions (rows,), each out of fold, with its outcomes (rows,)."""
    bins = max(1, min(MOST_BINS, len(predicted) // FEWEST_IN_A_BIN))
    # Equal predictions give equal edges, which are one: constant predictions have a single bin.
    edges = np.unique(np.sort(predicted)[np.arange(1, bins) * len(predicted) // bins])
    edges = edges[edges > predicted.min()]  # else nothing would lie below the first
    of_row = np.searchsorted(edges, predicted, side="right")  # (rows,) the bin of each row
    counts = np.bincount(of_row, minlength=len(edges) + 1)
    successes = np.bincount(of_row, weights=quality, minlength=len(edges) + 1)
    return ReliabilityBins(
        # A sum of floats may be above its count by its last digit.
        tuple(edges.tolist()),
        tuple(counts.tolist()),
        tuple(np.minimum(successes, counts).round(9).tolist()),
    )


def reliability_bytes(tables: Mapping[str, ReliabilityBins]) -> bytes:
    """Return the file of these candidates."""
    return canonical_json({"candidates": {name: table._asdict() for name, table in tables.items()}})


def read_reliability(bundle: BundleSpec, *, second: bool = False) -> dict[str, ReliabilityBins] | None:
    """Return bins by candidate, None where the bundle has none (`ipr train` of an earlier release wrote it).

    second: those of the second heads of a two-tier bundle.

    Raises:
        BundleError: the file is not of this form.
    """
    path = bundle.extra_files.get(RELIABILITY_SECOND if second else RELIABILITY)
    if path is None:
        return None
    document = parse_json(read_regular(path, str(path)), str(path)).object(("candidates",))
    return {name: _bins(field) for name, field in document["candidates"].mapping().items() if name in bundle.names}


def _bins(field: Field) -> ReliabilityBins:
    """Return one candidate's bins; BundleError where they do not fit together."""
    keys = field.object(("edges", "counts", "successes"))
    edges = [item.number(at_least=0, at_most=1) for item in keys["edges"].list()]
    counts = [item.integer(at_least=1) for item in keys["counts"].list(at_least=1)]
    successes = [item.number(at_least=0) for item in keys["successes"].list(at_least=1)]
    if not len(counts) == len(successes) == len(edges) + 1 or any(
        b <= a for a, b in zip(edges, edges[1:], strict=False)
    ):
        field.fail("rising edges, and a count and a sum for each bin between them", BundleValueError)
    if any(s > n for s, n in zip(successes, counts, strict=True)):
        keys["successes"].fail("sums of no more than the counts", BundleValueError)
    return ReliabilityBins(tuple(edges), tuple(counts), tuple(successes))


def clopper_pearson(successes: float, trials: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the exact interval of a chance (Clopper and Pearson 1934): each side is missed with at most (1 - confidence) / 2.

    A sum of qualities between 0 and 1 is rounded outwards to whole successes: an approximation there.
    """
    risk = (1 - confidence) / 2
    # Outwards: the interval only gets wider.
    fewest, most = math.floor(successes), math.ceil(successes)
    low = 0.0 if fewest == 0 else _chance(fewest, trials, risk)
    high = 1.0 if most == trials else 1.0 - _chance(trials - most, trials, risk)
    return low, high


def _chance(successes: int, trials: int, risk: float) -> float:
    """Return, by bisection, the chance at which `successes` or more of a binomial count are as likely as `risk`."""
    k = np.arange(successes, trials + 1)
    # Logarithms of binomial coefficients: the coefficients themselves overflow beyond a thousand trials.
    ways = math.lgamma(trials + 1) - np.array([math.lgamma(i + 1) + math.lgamma(trials - i + 1) for i in k.tolist()])
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        chance = (low + high) / 2
        tail = np.exp(ways + k * math.log(chance) + (trials - k) * math.log1p(-chance)).sum()
        low, high = (low, chance) if tail >= risk else (chance, high)
    return high
