"""Two checks on recent traffic tell whether a map still holds; their evidence goes to `Engine.mark_stale`.

    evidence = embedding_drift(engine, engine.encode(recent_prompts))
    if evidence.drifted:
        engine.mark_stale(evidence)

A map is certified for traffic exchangeable with its calibration sample. `embedding_drift` asks whether prompts still lie as near to the
fitting data as the sample's did: it needs no outcomes and sees no change of quality on the same prompts. Its risk is that of one look; for
k looks divide it by k. `quality_drift` asks whether quality fell, from scored answers; it may be called again after every score, with
all scores since the calibration in order: its risk holds over all looks together (a confidence sequence).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ipr_engine.bundle import CalibrationMap
from ipr_engine.calibration.bounds import agrapa_log_capital
from ipr_engine.encoders.base import Encoded
from ipr_engine.errors import InvalidInputError
from ipr_engine.evaluation.embedded import DecidingEngine
from ipr_engine.policy.calibrated import DriftEvidence
from ipr_engine.policy.policy import Policy

Array = npt.NDArray[np.float64]

RISK = 0.01
LEAST_PROMPTS = 50  # fewer say nothing


def embedding_drift(
    engine: DecidingEngine, recent: Encoded, *, made: CalibrationMap | None = None, risk: float = RISK
) -> DriftEvidence:
    """Test the `support` of recent prompts against that of the calibration sample (Kolmogorov-Smirnov).

    Args:
        recent: `engine.encode` of recent prompts, a plain random sample of the traffic, at least 50.
        made: the map whose sample to compare with; by default the bundle's first.
        risk: chance to report drift where there is none, of this one look.
    """
    maps = engine.bundle.calibrations
    if made is None and not maps:
        raise InvalidInputError(
            "engine: its bundle has no calibration map to compare with; make one with `ipr calibrate`"
        )
    sample = (made or maps[0]).sample
    if sample.support is None or engine.bundle.support is None:
        raise InvalidInputError("engine: its bundle has no support centroids, or had none when it was calibrated")
    if len(recent) < LEAST_PROMPTS:
        raise InvalidInputError(f"recent: expected at least {LEAST_PROMPTS} prompts, got {len(recent)}")
    support = engine.decide(recent, tau=0.0, on_error="status").support
    assert support is not None  # the bundle has centroids
    distance = ks_distance(np.asarray(support, np.float64), np.asarray(sample.support))
    n, m = len(recent), sample.prompts
    # Two samples of n and m: the limit holds for sqrt(n m / (n + m)).
    p = kolmogorov_p(distance * math.sqrt(n * m / (n + m)))
    shift = f"median support {np.median(support):.2f}, in the calibration sample {sample.support[len(sample.support) // 2]:.2f}"
    word = "differ from" if p <= risk else "are not told apart from"
    return DriftEvidence(
        kind="embeddings",
        message=f"{n} recent prompts {word} the {m} of the calibration sample: {shift}; KS distance {distance:.3f}, p {p:.2g}",
        p_value=p,
        prompts=n,
        drifted=p <= risk,
    )


def quality_drift(
    policy: Policy,
    routed: npt.ArrayLike,
    *,
    best: npt.ArrayLike | None = None,
    cheapest: npt.ArrayLike | None = None,
    risk: float = RISK,
) -> DriftEvidence:
    """Test whether quality fell, by a confidence sequence on scored answers in the order they came, all since the calibration.

    Args:
        policy: under rule "calibrated"; the answers were routed by it.
        routed: quality in [0, 1] of what was routed, of a plain random sample of the traffic.
        best, cheapest: of the map's single candidates on the same prompts, where they were asked too. With them the
            promise itself is tested; without them, whether mean quality fell below its lower bound at calibration.
        risk: chance to ever report drift where there is none.
    """
    made = policy.map
    if made is None:
        raise InvalidInputError(f"policy: expected one under rule 'calibrated', got rule {policy.rule!r}")
    answers = _scores("routed", routed)
    if (best is None) != (cheapest is None):
        raise InvalidInputError("best, cheapest: give both, or neither")
    if best is None or cheapest is None:
        bar = made.points[_point_of(policy)].quality_lower
        shortfall, floor = bar - answers, 1 - bar
        against = f"the lower bound of {bar:.4f} it had at calibration"
    else:
        share = policy.target[1] if policy.target is not None and policy.target[0] == "quality_share" else None
        of_best, of_cheapest = (1 - policy.tau, policy.tau) if share is None else (share, 0.0)
        owed = of_best * _scores("best", best, len(answers)) + of_cheapest * _scores("cheapest", cheapest, len(answers))
        shortfall, floor = owed - answers, 1.0
        against = f"the promised {owed.mean():.4f}"
    moment = np.array([0.25])  # of answers that are right half of the time: a guess, which cannot hurt validity
    log_capital = agrapa_log_capital(shortfall[:, None], floor=np.array([max(floor, 1e-9)]), second_moment=moment)
    p = math.exp(-max(0.0, float(log_capital[0])))
    word = "is below" if p <= risk else "is not told to be below"
    return DriftEvidence(
        kind="quality",
        message=f"mean quality {answers.mean():.4f} of {len(answers)} scored answers {word} {against}; p {p:.2g}",
        p_value=p,
        prompts=len(answers),
        drifted=p <= risk,
    )


def ks_distance(values: Array, quantiles: Array) -> float:
    """Return the largest gap between the distribution of `values` and one known by its quantiles at equal steps; atoms count as one."""
    ordered = np.sort(values)
    level = np.linspace(0, 1, len(quantiles))
    at_most = np.searchsorted(ordered, quantiles, side="right") / len(ordered)
    below = np.searchsorted(ordered, quantiles, side="left") / len(ordered)
    lowest = np.array([level[quantiles == q].min() for q in quantiles])  # an atom's share lies between these two
    highest = np.array([level[quantiles == q].max() for q in quantiles])
    return float(np.maximum.reduce([highest - at_most, below - lowest, np.zeros_like(level)]).max())


def kolmogorov_p(t: float) -> float:
    """Return P(sqrt(n) D > t) in the limit, by Kolmogorov's series (1933)."""
    if t < 0.2:  # the series converges badly there, and its sum is 1 to twelve digits
        return 1.0
    terms = ((-1.0) ** (k - 1) * math.exp(-2 * k * k * t * t) for k in range(1, 101))
    return min(1.0, max(0.0, 2 * sum(terms)))


def _point_of(policy: Policy) -> int:
    """Return the point of its map that a policy runs."""
    made, allowed = policy.map, set(policy.allowed)
    assert made is not None
    for i, point in enumerate(made.points):
        if point.worth == policy.worth and _names(made, i) == allowed:
            return i
    raise InvalidInputError(f"policy: it runs no point of its map ({policy.certificate.reason}); check one that does")


def _names(made: CalibrationMap, point: int) -> set[str]:
    return set(made.points[point].allowed or made.candidates)


def _scores(name: str, values: npt.ArrayLike, rows: int | None = None) -> Array:
    scores = np.asarray(values, np.float64)
    if scores.ndim != 1 or not len(scores) or (rows is not None and len(scores) != rows):
        raise InvalidInputError(f"{name}: expected ({rows or 'n'},) scores, got shape {scores.shape}")
    if not ((scores >= 0) & (scores <= 1)).all():
        raise InvalidInputError(f"{name}: expected scores in [0, 1], got {scores.min()} to {scores.max()}")
    return scores
