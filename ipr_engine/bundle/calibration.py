"""A calibration map says what tau runs, and what of it is certified (docs/calibration.md).

`ipr_engine/calibration/` makes them, calibration_entry.py reads them from a bundle, and `ipr_engine/policy/calibrated.py` reads a
policy off them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

# Statuses of a knot: true of any data, shown on the calibration sample, or neither.
CERTAIN, CERTIFIED, INSUFFICIENT = "certain", "certified", "insufficient_evidence"
KNOT_STATUS = (CERTAIN, CERTIFIED, INSUFFICIENT)
TESTS = ("target", "plugin", "agrapa", "hoeffding_bentkus", "empirical_bernstein")
SUPPORT_QUANTILES = 21
COST_SLACK = 1e-6  # relative; float32 means of equal choices may differ by this


@dataclass(frozen=True, kw_only=True)
class RuleConstants:
    """`RuleConstants` are the mean row maximum and minimum of predicted quality on the fitting prompts (rule `fixed`)."""

    hi: float
    lo: float


@dataclass(frozen=True, kw_only=True)
class CalibratedPoint:
    """A `CalibratedPoint` is one setting of the op, and what it did on the calibration sample.

    Attributes:
        alpha_hi, alpha_lo, offset, worth: coefficients of docs/decide.md; worth in USD per unit of quality.
        allowed: the only candidates this point chooses from; None for all of the map's.
        quality: mean realised quality. quality_lower: lower confidence bound of its mean at 1 - risk, for this point alone.
        cost_usd: mean expected cost of a prompt, by the op. share_best: share of prompts that went to the map's `best`.
    """

    alpha_hi: float
    alpha_lo: float
    offset: float
    worth: float
    allowed: tuple[str, ...] | None
    quality: float
    quality_lower: float
    cost_usd: float
    share_best: float


@dataclass(frozen=True, kw_only=True)
class Knot:
    """A `Knot` is one promise and the point that runs for it.

    Attributes:
        level: tau of the promise (1 - tau)*best + tau*cheapest, or s of the promise s*best.
        point: index of what runs: the cheapest certified point, or, without one, that of the nearest safer knot.
        status: "certain" (true of any data: a single candidate against itself), "certified", "insufficient_evidence".
    """

    level: float
    point: int
    status: str

    @property
    def insufficient(self) -> bool:
        """Return whether the sample could not show that the promise is kept."""
        return self.status == INSUFFICIENT


@dataclass(frozen=True, kw_only=True)
class CalibrationSample:
    """A `CalibrationSample` holds the prompts that a map was certified on.

    Attributes:
        path_source, path_prompts: what its path was fitted on.
        disjoint: how it is known that no head saw the prompts: "checked" by hash, or "stated" by the caller.
        support: quantiles, at 21 equal steps, of the prompts' support (docs/formats.md); None without centroids.
    """

    source: str
    prompts: int
    prompt_ids_sha256: str
    path_source: str
    path_prompts: int
    disjoint: str
    support: tuple[float, ...] | None


@dataclass(frozen=True, kw_only=True)
class TestedTau:
    """A `TestedTau` tells whether rule `path` at one tau kept what tau promises, tested on the calibration sample.

    Attributes:
        tau: in [0, 1]. worth: USD per unit of quality that ran; of tau 0, where the highest predicted quality runs, 0.
        status: "certified", or "insufficient_evidence" where the test could not tell that the promise is kept.
        promised: (1 - tau) * best + tau * cheapest, in mean realised quality on the sample.
        quality: mean realised of what ran. quality_lower: lower confidence bound of its mean at 1 - risk, for this tau alone.
        cost_usd: mean expected cost of a prompt, by the op.
    """

    __test__ = False  # no class of tests, whatever its name starts with

    tau: float
    worth: float
    status: str
    promised: float
    quality: float
    quality_lower: float
    cost_usd: float

    @property
    def insufficient(self) -> bool:
        """Return whether the sample could not show that the promise is kept."""
        return self.status == INSUFFICIENT


@dataclass(frozen=True, kw_only=True)
class CalibrationMap:
    """A `CalibrationMap` is a step function from promises to operating points; there is one map per candidate set.

    Attributes:
        family: the family it was made for, None for another set. whole: made for every candidate of its bundle.
        candidates: the set it holds for. heads, prices: hashes of what decides among them (`BundleSpec.heads_key`, `PriceList.key`).
        best, cheapest: the single candidates that promises speak of, fixed on the path's data.
        risk: chance that a certified point breaks its promise: of each knot, or of any (`simultaneous`).
        test: which of calibration/bounds.py certified.
        best_quality, cheapest_quality: their mean realised quality on the calibration sample.
        points: the path, safest first. knots: by rising tau, the first 0. shares: by falling share of best, the first 1.
        tested: what rule `path` runs, by rising tau, in bundles of schema_version 5; empty where the bundle had no path.
    """

    family: str | None
    whole: bool
    candidates: tuple[str, ...]
    heads: str
    prices: str
    best: str
    cheapest: str
    risk: float
    simultaneous: bool
    test: str
    best_quality: float
    cheapest_quality: float
    sample: CalibrationSample
    points: tuple[CalibratedPoint, ...]
    knots: tuple[Knot, ...]
    shares: tuple[Knot, ...]
    tested: tuple[TestedTau, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types; `calibration_entry.parse_map` reads them back. `tested` is there only where something was."""
        # asdict leaves tuples as they are: lists take their place, as JSON gives them back.
        document: dict[str, Any] = asdict(self)
        document["candidates"] = list(self.candidates)
        if not self.tested:
            del document["tested"]
        for name in ("points", "knots", "shares", *(["tested"] if self.tested else [])):
            document[name] = [dict(item) for item in document[name]]
        for point in document["points"]:
            point["allowed"] = None if point["allowed"] is None else list(point["allowed"])
        support = self.sample.support
        document["sample"]["support"] = None if support is None else list(support)
        return document
