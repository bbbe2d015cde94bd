"""Calibration maps as frozen objects and as JSON: what tau runs, and what of it is certified (docs/calibration.md).

They hold and check their own shape. `ipr_engine/calibration/` makes them, `ipr_engine/policy/calibrated.py` reads a policy off them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ipr_engine.bundle.fields import Field
from ipr_engine.bundle.price import price_numbers, says_more
from ipr_engine.bundle.spec import SHARED_TENSOR, Candidate, HeadsSpec, PriceList, canonical_json
from ipr_engine.bundle.tested import CERTIFIED, INSUFFICIENT, TestedTau, parse_tested

if TYPE_CHECKING:
    from ipr_engine.bundle.load import Bundle

CERTAIN = "certain"
KNOT_STATUS = (CERTAIN, CERTIFIED, INSUFFICIENT)
TESTS = ("target", "plugin", "agrapa", "hoeffding_bentkus", "empirical_bernstein")
SUPPORT_QUANTILES = 21
COST_SLACK = 1e-6  # relative; float32 means of equal choices may differ by this


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """One setting of the op, and what it did on the calibration sample.

    Attributes:
        alpha_hi, alpha_lo, offset, worth: coefficients of docs/design.md section 3; worth in USD per unit of quality.
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
    """One promise and the point that runs for it.

    Attributes:
        level: tau of the promise (1 - tau)*best + tau*cheapest, or s of the promise s*best.
        point: index of what runs: the cheapest certified point, or, without one, that of the nearest safer knot.
        status: "certain" (true of any data: a single candidate against itself), "certified", "insufficient_evidence".
    """

    level: float
    point: int
    status: str


@dataclass(frozen=True, kw_only=True)
class CalibrationSample:
    """What a map was certified on.

    Attributes:
        path_source, path_prompts: what its path was fitted on.
        disjoint: how it is known that no head saw the prompts: "checked" by hash, or "stated" by the caller.
        support: quantiles, at 21 equal steps, of the prompts' support (docs/design.md section 6); None without centroids.
    """

    source: str
    prompts: int
    prompt_ids_sha256: str
    path_source: str
    path_prompts: int
    disjoint: str
    support: tuple[float, ...] | None


@dataclass(frozen=True, kw_only=True)
class CalibrationMap:
    """A step function from promises to operating points; one map per candidate set.

    Attributes:
        family: the family it was made for, None for another set. whole: made for every candidate of its bundle.
        candidates: the set it holds for. heads, prices: hashes of what decides among them (`heads_key`, `prices_key`).
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
    points: tuple[OperatingPoint, ...]
    knots: tuple[Knot, ...]
    shares: tuple[Knot, ...]
    tested: tuple[TestedTau, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; `parse_map` reads them back. `tested` is there only where something was."""
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


_MAP = tuple(name for name in CalibrationMap.__dataclass_fields__ if name != "tested")
_SAMPLE = tuple(CalibrationSample.__dataclass_fields__)
_POINT = tuple(OperatingPoint.__dataclass_fields__)
_KNOT = tuple(Knot.__dataclass_fields__)


def parse_map(field: Field, *, tested: bool = True) -> CalibrationMap:
    """The map of this JSON object; BundleError where it is none or is not monotone. Names need not be the bundle's: it may be stale.

    tested: whether it may hold tested taus.
    """
    has_tested = tested and "tested" in field.mapping()
    keys = field.object((*_MAP, "tested") if has_tested else _MAP)
    candidates = keys["candidates"].names(at_least=2)
    points = tuple(_point(item, candidates) for item in keys["points"].list(at_least=2))
    _require_falling([p.worth for p in points], keys["points"], "worth that never rises")
    knots = tuple(_knot(item, len(points)) for item in keys["knots"].list(at_least=2))
    shares = tuple(_knot(item, len(points)) for item in keys["shares"].list(at_least=1))
    _require_steps(knots, points, keys["knots"], [knot.level for knot in knots], 0.0)
    _require_steps(shares, points, keys["shares"], [-knot.level for knot in shares], -1.0)
    if knots[-1].level != 1.0:
        keys["knots"].fail("the last knot at tau 1")
    return CalibrationMap(
        family=None if keys["family"].value is None else keys["family"].text(),
        whole=keys["whole"].boolean(),
        candidates=candidates,
        heads=keys["heads"].sha256(),
        prices=keys["prices"].sha256(),
        best=keys["best"].one_of(candidates),
        cheapest=keys["cheapest"].one_of(candidates),
        risk=keys["risk"].number(above=0, at_most=0.5),
        simultaneous=keys["simultaneous"].boolean(),
        test=keys["test"].one_of(TESTS),
        best_quality=keys["best_quality"].number(at_least=0, at_most=1),
        cheapest_quality=keys["cheapest_quality"].number(at_least=0, at_most=1),
        sample=_sample(keys["sample"]),
        points=points,
        knots=knots,
        shares=shares,
        tested=parse_tested(keys["tested"]) if has_tested else (),
    )


def _point(field: Field, candidates: Sequence[str]) -> OperatingPoint:
    keys = field.object(_POINT)
    return OperatingPoint(
        alpha_hi=keys["alpha_hi"].number(at_least=-1, at_most=1),
        alpha_lo=keys["alpha_lo"].number(at_least=-1, at_most=1),
        offset=keys["offset"].number(at_least=-1, at_most=1),
        worth=keys["worth"].number(at_least=0, at_most=1e12),
        allowed=None if keys["allowed"].value is None else keys["allowed"].names(at_least=1, known=candidates),
        quality=keys["quality"].number(at_least=0, at_most=1),
        quality_lower=keys["quality_lower"].number(at_least=0, at_most=1),
        cost_usd=keys["cost_usd"].number(at_least=0),
        share_best=keys["share_best"].number(at_least=0, at_most=1),
    )


def _knot(field: Field, points: int) -> Knot:
    keys = field.object(_KNOT)
    return Knot(
        level=keys["level"].number(at_least=0, at_most=1),
        point=keys["point"].integer(at_least=0, at_most=points - 1),
        status=keys["status"].one_of(KNOT_STATUS),
    )


def _sample(field: Field) -> CalibrationSample:
    keys = field.object(_SAMPLE)
    support = None
    if keys["support"].value is not None:
        support = tuple(item.number(at_least=0, at_most=1) for item in keys["support"].list())
        if len(support) != SUPPORT_QUANTILES or (np.diff(support) < 0).any():
            keys["support"].fail(f"{SUPPORT_QUANTILES} quantiles that never fall")
    return CalibrationSample(
        source=keys["source"].text(),
        prompts=keys["prompts"].integer(at_least=1),
        prompt_ids_sha256=keys["prompt_ids_sha256"].sha256(),
        path_source=keys["path_source"].text(),
        path_prompts=keys["path_prompts"].integer(at_least=1),
        disjoint=keys["disjoint"].one_of(("checked", "stated")),
        support=support,
    )


def _require_falling(values: Sequence[float], field: Field, expected: str, slack: float = 0.0) -> None:
    for before, after in zip(values[:-1], values[1:], strict=True):
        if after > before * (1 + slack):
            field.fail(f"{expected} (a map is monotone; {after:g} comes after {before:g})")


def _require_steps(
    knots: Sequence[Knot], points: Sequence[OperatingPoint], field: Field, order: Sequence[float], first: float
) -> None:
    if order[0] != first:
        field.fail(f"the first knot at {abs(first):g}")
    if (np.diff(order) <= 0).any() or (np.diff([knot.point for knot in knots]) < 0).any():
        field.fail("knots in order, whose points never go back (a map is monotone)")
    if knots[0].status == INSUFFICIENT:
        field.fail("a first knot that is certain or certified: the single best candidate is always reachable")
    _require_falling([points[knot.point].cost_usd for knot in knots], field, "cost_usd that never rises", COST_SLACK)


def heads_key(bundle: Bundle, names: Sequence[str]) -> str:
    """sha256 of everything that predicts quality and tokens of these candidates: encoder, activation and their rows of the heads;
    of a two-tier bundle those of both heads, and the gap below which the second ones decide.

    Other candidates of the bundle do not enter: adding one leaves the maps of the others as they are.
    """
    digest = hashlib.sha256()
    for part in _heads_bytes(bundle, bundle.quality_heads, names):
        digest.update(part)
    if bundle.escalation is not None and bundle.escalation_heads is not None:
        digest.update(f"escalation {float(bundle.escalation.gap).hex()}\n".encode())
        for part in _heads_bytes(bundle, bundle.escalation_heads, names):
            digest.update(part)
    return digest.hexdigest()


def _heads_bytes(bundle: Bundle, heads: HeadsSpec, names: Sequence[str]) -> Iterator[bytes]:
    yield f"{bundle.encoder(heads.encoder).identity}\n{heads.activation}\n".encode()
    rows = [heads.candidates.index(name) for name in sorted(names)]
    for name, tensor in sorted(heads.tensors.items()):
        part = tensor if name == SHARED_TENSOR else tensor[rows]
        yield f"{name} {part.shape}\n".encode() + np.ascontiguousarray(part).tobytes()


def prices_key(prices: PriceList, candidates: Sequence[Candidate], names: Sequence[str]) -> str:
    """sha256 of the numbers that cost these candidates' tokens: prices, token ratios and tokenizers, not their dates or names."""
    rows: dict[str, list[Any]] = {}
    for candidate in candidates:
        if candidate.name in names:
            price, tokenizer = prices.prices[candidate.name], candidate.tokenizer
            numbers = (price.input_usd_per_1m, price.output_usd_per_1m, price.fixed_usd, candidate.token_ratio)
            own = () if tokenizer is None else (*tokenizer.coefficients, tokenizer.per_request)
            rows[candidate.name] = [*map(float, numbers), *([price_numbers(price)] if says_more(price) else []), *own]
    return hashlib.sha256(canonical_json(rows, compact=True)).hexdigest()
