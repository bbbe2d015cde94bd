"""`calibrate` makes a map of a calibration sample. `ipr calibrate` is its command; docs/calibration.md says what is promised."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ipr_engine.audit.owner_key import Key, keys_beside
from ipr_engine.bundle import Bundle, CalibratedPoint, CalibrationMap, CalibrationSample
from ipr_engine.bundle.calibration import (
    TESTS,
    TestedTau,
)
from ipr_engine.bundle.origin import constant_notice, constant_of, constant_throughout, prior_of
from ipr_engine.bundle.price import Price
from ipr_engine.calibration import bounds
from ipr_engine.calibration.observed import POINTS, Observed, OperatingPath, decide_points, fit_path, observe
from ipr_engine.calibration.promises import (
    SHARES,
    TAUS,
    ExcessDraws,
    Promises,
    certified_points,
    certify_path,
    knots_of,
)
from ipr_engine.data import Outcomes, key_of_hashes, overlap, prompt_hashes, read_prompt_hashes
from ipr_engine.data.outcomes import MIN_KEY
from ipr_engine.errors import InvalidInputError
from ipr_engine.evaluation.embedded import DecidingEngine, EmbeddedPrompts, embed_rows
from ipr_engine.measures.resampling import drawn_questions
from ipr_engine.policy.paths import Paths

RISK = 0.1
MOST_LAID_OUT = 1 << 16  # prompts that a path is laid out on: they say where its points are, and certify nothing
DRAWN = 4000  # seed of their draw
Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class CandidateSet:
    """A `CandidateSet` holds the candidates that a map is of, and their names in the outcomes.

    Attributes:
        candidates, family: the set, by name or as a family; by default every candidate. Rows that lack one are left out.
        sources: name in the bundle -> name in the outcomes, where they differ; one for all, or {source: name}.
    """

    candidates: Sequence[str] | None = None
    family: str | None = None
    sources: Mapping[str, Mapping[str, str] | str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class CertifyOptions:
    """`CertifyOptions` are the promises that are tested, and the test.

    Attributes:
        risk: in (0, 0.5], the chance that a certified knot breaks its promise: of each knot, or, if `simultaneous`, of any; the same
            of tested taus, among themselves.
        test: one of bounds.TESTS.
        taus, shares: the promises (promises.py); 0 and 1 are always among the taus, 1 among the shares.
        points: quality levels of the path, hence its points at most, besides the ends.
        seed: of the order in which prompts are tested. Fix it before you look: a seed tried until it certifies is no evidence.
    Raises:
        InvalidInputError: a value is out of range.
    """

    risk: float = RISK
    simultaneous: bool = False
    test: str = "target"
    taus: Sequence[float] = TAUS
    shares: Sequence[float] = SHARES
    points: int = POINTS
    seed: int = 0

    def __post_init__(self) -> None:
        risk, points, seed = self.risk, self.points, self.seed
        if not isinstance(risk, (int, float)) or not 0 < risk <= 0.5:
            raise InvalidInputError(f"risk: expected a number above 0 and at most 0.5, got {risk!r}")
        if self.test not in TESTS:
            raise InvalidInputError(f"test: expected one of {', '.join(TESTS)}, got {self.test!r}")
        outside = [level for level in [*self.taus, *self.shares] if not 0 <= level <= 1]
        if outside:
            raise InvalidInputError(f"taus, shares: expected values in [0, 1], got {outside[0]!r}")
        if type(points) is not int or points < 1 or type(seed) is not int or seed < 0:
            raise InvalidInputError(f"points, seed: expected an int >= 1 and an int >= 0, got {points!r} and {seed!r}")


@dataclass(frozen=True, kw_only=True)
class Disjointness:
    """A `Disjointness` holds the evidence that no calibration prompt is among those that heads or path were fitted on.

    Attributes:
        drop_overlap: leave out of the sample what is among the fitting or the path's prompts, instead of refusing.
        stated: accept a bundle without prompt hashes; the map then says that disjointness was stated, not checked.
        key: the owner's, under which the bundle hashed its fitting prompts, a file or 32 bytes; several where two tiers have one
            each. None reads ROOT/owner.key beside the bundle.
    """

    drop_overlap: bool = False
    stated: bool = False
    key: Key | Sequence[Key] | None = None


EVERY_CANDIDATE, DEFAULTS, CHECKED = CandidateSet(), CertifyOptions(), Disjointness()


def calibrate(
    engine: DecidingEngine,
    sample: Outcomes,
    path_data: Outcomes,
    *,
    of: CandidateSet = EVERY_CANDIDATE,
    options: CertifyOptions = DEFAULTS,
    disjoint: Disjointness = CHECKED,
    cache: str | os.PathLike[str] | None = None,
    progress: Callable[[str], None] = lambda message: None,
) -> CalibrationMap:
    """Certify what tau runs, for one candidate set; of a two-tier bundle what both tiers together choose at the bundle's gap.

    Where the bundle has a path, what rule `path` runs at each tau of the map is tested as well (`tested`).

    Args:
        engine: with the bundle to calibrate; points are decided by it.
        sample: scored prompts like the traffic to come, none of them among the heads' fitting prompts.
        path_data: other scored prompts, where the path is laid out; the heads' training split may serve. Of more than
            `MOST_LAID_OUT` as many are drawn, whole questions by chance.
        cache: folder that keeps a transformer's embeddings.
    Raises:
        KeyMismatchError: the hashes are of another key than what is at hand.
        InvalidInputError: an argument is out of range; prompts overlap; a candidate lacks outcomes or a price; a prior stands in for
            one; every point rests on constant heads; or nothing can be saved.
    """
    bundle = engine.bundle
    names = engine.policy(tau=0.0, allowed=of.candidates, family=of.family).allowed
    free, priors = free_notice(bundle.prices.prices, names), prior_notice(bundle, names)
    if free is not None:
        raise InvalidInputError(f"prices: {free}")
    if priors is not None:
        raise InvalidInputError(f"candidates: {priors}")
    sample, known_by = _disjoint(bundle, sample, path_data, disjoint)
    risk, test, simultaneous = options.risk, bounds.TESTS[options.test], options.simultaneous
    progress("laying out the path ...")

    def embed(rows: Outcomes) -> EmbeddedPrompts:
        return embed_rows(engine, rows, cache=cache, progress=progress)

    def observed(rows: Outcomes) -> Observed:
        return observe(bundle, embed, rows, names, of.sources, label=_label(rows))

    if len(path_data) > MOST_LAID_OUT:
        drawn = drawn_questions(path_data.question_keys, MOST_LAID_OUT, seed=DRAWN)
        progress(f"of {len(path_data)} prompts {int(drawn.sum())} are drawn to lay the path out on")
        path_data = path_data.take(drawn)
    path_rows = observed(path_data)
    path = fit_path(path_rows, points=options.points)
    rows = observed(sample)
    progress(
        f"{len(path)} points, fitted on {len(path_rows)} prompts; testing on {len(rows)}, {rows.outcomes.dropped} left out"
    )
    # A short key names too little of a question to say that two are the same: each such row counts for itself.
    repeated = len(rows) - len(
        {key if len(key) >= MIN_KEY else row for row, key in enumerate(rows.outcomes.question_keys)}
    )
    if repeated:
        progress(f"{repeated} prompts ask what another one asks: they are not independent, and the risk may be higher")
    choices, costs = decide_points(rows, path)
    _check_constant(bundle, names, choices, progress)
    routed = rows.quality[np.arange(len(rows)), choices].T  # (rows, points)
    best, cheapest = rows.quality[:, path.best], rows.quality[:, path.cheapest]
    order = np.random.default_rng(options.seed).permutation(len(rows))  # bets depend on the order, so chance draws it

    levels, parts = sorted({0.0, 1.0, *options.taus}), sorted({1.0, *options.shares}, reverse=True)
    promises = Promises.of(levels, parts)
    tested = len(promises) - 2  # tau 1 is certain, tau 0 and share 1 are one promise
    # The path's own rows steer the bets alone: a bad guess of the moments costs power, never validity.
    draws = ExcessDraws(promises, routed, best, cheapest, order[:, None])
    moment = promises.second_moment(path.routed, path.best_quality, path.cheapest_quality)
    certain = promises.certain(len(path))
    level_risk = risk / tested if simultaneous else risk
    last = certified_points(draws, test, second_moment=moment, risk=level_risk)[0]
    lower = bounds.lower_bounds(routed[order], test, risk=risk)
    return CalibrationMap(
        family=_whole_family(bundle, names) if of.family is not None else None,
        whole=len(names) == len(bundle.names),
        candidates=names,
        heads=bundle.heads_key(names),
        prices=bundle.prices.key(bundle.candidates, names),
        best=names[path.best],
        cheapest=names[path.cheapest],
        risk=float(risk),
        simultaneous=simultaneous,
        test=options.test,
        best_quality=float(best.mean()),
        cheapest_quality=float(cheapest.mean()),
        sample=CalibrationSample(
            source=rows.source,
            prompts=len(rows),
            prompt_ids_sha256=rows.outcomes.prompt_ids_sha256,
            path_source=path_rows.source,
            path_prompts=len(path_rows),
            disjoint=known_by,
            support=rows.support_quantiles(),
        ),
        points=_points(path, names, routed, lower, costs, (choices == path.best).mean(axis=1)),
        knots=knots_of(levels, last[: len(levels)], certain[: len(levels)], costs),
        shares=knots_of(parts, last[len(levels) :], certain[len(levels) :], costs),
        tested=_tested(engine, rows, path_rows, levels, order, options),
    )


def _tested(
    engine: DecidingEngine,
    rows: Observed,
    path_rows: Observed,
    levels: Sequence[float],
    order: Indices,
    options: CertifyOptions,
) -> tuple[TestedTau, ...]:
    """Test the points of tau's path at these taus; nothing where the bundle has no path of the candidates."""
    if Paths(engine.bundle).lacking(rows.names) is not None:
        return ()
    policies = [engine.policy(tau=tau, rule="path", allowed=list(rows.names)) for tau in levels]
    return certify_path(
        rows,
        path_rows,
        levels,
        policies,
        order,
        risk=options.risk,
        simultaneous=options.simultaneous,
        test=options.test,
    )


def prior_notice(bundle: Bundle, names: Sequence[str]) -> str | None:
    """Return why nothing is certified of these candidates where a prior stands in for some; None where none does."""
    priors = [name for name in names if prior_of(bundle, name) is not None]
    if not priors:
        return None
    return (
        f"what a prior decides is not certified, and these have no outcomes of their own: {', '.join(priors)}; fit them on outcomes "
        "(`ipr train`, or `ipr remove-model` and `ipr add-model --outcomes`), or certify without them (`ipr calibrate --allow`)"
    )


def free_notice(prices: Mapping[str, Price], names: Iterable[str]) -> str | None:
    """Return why nothing is certified of these candidates where some of them cost nothing; None where each has a price."""
    free = [name for name in names if prices[name].is_free]
    if not free:
        return None
    return (
        f"expected a price above 0 of every candidate, {', '.join(map(repr, free))} cost nothing; "
        "a map trades quality for cost: give what their tokens cost you, or calibrate without them"
    )


def _check_constant(bundle: Bundle, names: Sequence[str], choices: Indices, progress: Callable[[str], None]) -> None:
    """Say which heads are constant; refuse points (points, rows) that all choose among candidates without any other."""
    constant = {name: why for name, why in constant_of(bundle).items() if name in names}
    if not constant:
        return
    progress(constant_notice(constant, len(names)))
    if {names[m] for m in np.unique(choices)} <= constant_throughout(bundle):
        raise InvalidInputError(
            "candidates: every operating point rests on constant heads alone: what would be certified is a fixed choice by price and "
            "length, not routing by what prompts say; train on more prompts, or certify others (`ipr calibrate --allow`)"
        )


def _whole_family(bundle: Bundle, names: Sequence[str]) -> str | None:
    """Return the family that these candidates are all of, None for a part of one: the rest of it must not pass for added since."""
    family = bundle.candidates[bundle.names.index(names[0])].family
    return family if sum(c.family == family for c in bundle.candidates) == len(names) else None


def _points(
    path: OperatingPath, names: Sequence[str], routed: Array, lower: Array, costs: Array, share_best: Array
) -> tuple[CalibratedPoint, ...]:
    return tuple(
        CalibratedPoint(
            alpha_hi=0.0,
            alpha_lo=1.0,
            offset=0.0,
            worth=float(path.worth[i]),
            allowed=None if (single := path.single(i)) is None else (names[single],),
            quality=float(routed[:, i].mean()),
            quality_lower=float(lower[i]),
            cost_usd=float(costs[i]),
            share_best=float(share_best[i]),
        )
        for i in range(len(path))
    )


def _label(outcomes: Outcomes) -> str:
    """Name the outcomes by source and split, where they are of one split."""
    splits = sorted(set(outcomes.splits) - {""})
    return f"{outcomes.source}, split {splits[0]}" if len(splits) == 1 else outcomes.source


def _disjoint(bundle: Bundle, sample: Outcomes, path_data: Outcomes, disjoint: Disjointness) -> tuple[Outcomes, str]:
    """Return the sample without the prompts that path or heads were fitted on (else such prompts are refused), and how that is known."""
    keys, stated = keys_beside(bundle.path.parent, disjoint.key), disjoint.stated
    heads = [h for h in (bundle.quality_heads, bundle.escalation_heads) if h is not None]
    unreadable = stated and not keys  # what is stated needs no key
    known = [
        (read_prompt_hashes(h.fitted_on.prompt_hashes), key_of_hashes(h.fitted_on, keys))
        for h in heads
        if h.fitted_on.prompt_hashes is not None and not (unreadable and h.fitted_on.hash_key is not None)
    ]
    if len(known) < len(heads) and not stated:
        raise InvalidInputError(
            "bundle: it keeps no hashes of its fitting prompts, so overlap with the sample cannot be checked; "
            "train it anew with `ipr train`, or state that they are disjoint (--disjoint)"
        )
    # Under no key: both are at hand here, and nothing is kept of them.
    on_path = overlap(sample, prompt_hashes(path_data.prompts, path_data.question_keys))
    fitted = np.zeros_like(on_path)
    for hashes, key in known:
        fitted |= overlap(sample, hashes, key)
    for what, shared, why in (
        ("the heads were fitted on", fitted, "predictions on them flatter, and nothing would be certified"),
        ("the path is fitted on", on_path, "the path must not depend on the sample"),
    ):
        if shared.any() and not disjoint.drop_overlap:
            raise InvalidInputError(
                f"outcomes: {shared.sum()} of {len(sample)} calibration prompts (or their questions) are among those {what}; "
                f"{why}: use other prompts, or leave these out (--drop-overlap)"
            )
    return sample.take(~(on_path | fitted)), "checked" if len(known) == len(heads) else "stated"
