"""Drift: the same traffic is seldom reported, other traffic and worse answers are."""

from dataclasses import replace

import numpy as np
import pytest

from ipr_engine import Engine
from ipr_engine.bundle import with_calibrations
from ipr_engine.calibration.drift import embedding_drift, kolmogorov_p, ks_distance, quality_drift
from ipr_engine.encoders.base import Encoded
from ipr_engine.errors import InvalidInputError
from tests.support.calibration_data import calibrate, make_engine, make_outcomes


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drift")
    plain = make_engine(folder / "plain")
    train = make_outcomes(plain, "train", 300)
    fitted = make_engine(folder, fitted=train, support=near(plain, train))
    made = calibrate(fitted, make_outcomes(plain, "calibration", 600), train, points=8)
    return Engine.load(with_calibrations(fitted.bundle, [made]))


def near(engine, rows):
    """Centroids among the prompts themselves, and plausible distances to them."""
    from ipr_engine.bundle import SupportSpec

    x = engine.encode(list(rows.prompts)).x
    centroids = x[:8]
    distance = np.sqrt(((x[8:, None] - centroids) ** 2).sum(axis=2)).min(axis=1)
    return SupportSpec(
        encoder="static", centroids=centroids, distances=np.percentile(distance, np.arange(101)).astype(np.float32)
    )


def test_traffic_like_the_sample_is_not_reported(engine):
    recent = make_outcomes(engine, "recent", 300)
    evidence = embedding_drift(engine, engine.encode(list(recent.prompts)))
    assert not evidence.drifted
    assert evidence.kind == "embeddings"
    assert evidence.prompts == 300


def test_other_traffic_is_reported_and_turns_the_status_to_stale(engine):
    evidence = embedding_drift(engine, engine.encode([f"0x{n:x} {n * n} ;; {{}}" for n in range(200)]))
    assert evidence.drifted
    fresh = Engine(engine.bundle)
    fresh.mark_stale(evidence)
    decision = fresh.route("prove the sum", tau=0.2, rule="calibrated")
    assert decision.calibration == "stale"
    assert "200 recent prompts differ from the 600 of the calibration sample" in decision.calibration_reason


def test_scores_that_keep_their_level_are_not_reported_and_lower_ones_are(engine, rng):
    policy = engine.policy(tau=0.2, rule="calibrated")
    quality = next(p.quality for p in policy.map.points if p.worth == policy.worth and p.allowed is None)
    assert not quality_drift(policy, (rng.random(500) < quality).astype(float)).drifted
    assert quality_drift(policy, (rng.random(500) < quality - 0.2).astype(float)).drifted


def test_a_broken_promise_is_reported(engine, rng):
    policy = engine.policy(tau=0.2, rule="calibrated")
    best, cheapest = np.ones(400), np.zeros(400)
    assert not quality_drift(policy, (rng.random(400) < 0.85).astype(float), best=best, cheapest=cheapest).drifted
    broken = quality_drift(policy, (rng.random(400) < 0.6).astype(float), best=best, cheapest=cheapest)
    assert broken.drifted
    assert "is below the promised 0.8" in broken.message


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"routed": [1.5]}, r"routed: expected scores in \[0, 1\]"),
        ({"routed": []}, "routed: expected"),
        ({"routed": [1.0], "best": [1.0]}, "best, cheapest: give both, or neither"),
        ({"routed": [1.0, 0.0], "best": [1.0], "cheapest": [0.0]}, r"best: expected \(2,\) scores"),
    ],
)
def test_bad_scores_are_named(engine, terms, message):
    with pytest.raises(InvalidInputError, match=message):
        quality_drift(engine.policy(tau=0.2, rule="calibrated"), **terms)


def test_checks_need_a_map_and_enough_prompts(engine, tmp_path):
    with pytest.raises(InvalidInputError, match="at least 50 prompts, got 1"):
        embedding_drift(engine, engine.encode("one"))
    with pytest.raises(InvalidInputError, match="policy: expected one under rule 'calibrated', got rule 'minmax'"):
        quality_drift(engine.policy(tau=0.2), [1.0])
    with pytest.raises(InvalidInputError, match=r"policy: it runs no point of its map \(worth=3"):
        quality_drift(engine.policy(tau=0.2, rule="calibrated", worth=3.0), [1.0])
    bare = make_engine(tmp_path)
    with pytest.raises(InvalidInputError, match="no calibration map to compare with"):
        embedding_drift(bare, Encoded(np.zeros((60, 16), np.float32), np.ones(60, np.int64), np.zeros(60, bool)))
    blind = Engine(replace(engine.bundle, support=None))
    with pytest.raises(InvalidInputError, match="no support centroids"):
        embedding_drift(blind, engine.encode(["prove"] * 60))


def test_ks_distance_counts_atoms_as_one_step():
    quantiles = np.array([0.0, 0.0, 0.0, 0.5, 1.0])  # half of the mass at 0
    assert ks_distance(np.array([0.0, 0.0, 0.5, 1.0]), quantiles) <= 0.25
    assert ks_distance(np.ones(10), quantiles) == pytest.approx(0.75)


def test_kolmogorov_p_is_that_of_the_tables():
    assert kolmogorov_p(1.358) == pytest.approx(0.05, abs=1e-3)
    assert kolmogorov_p(0.0) == 1.0


def test_the_risk_of_a_look_holds(rng):
    reference = np.quantile(rng.random(400), np.linspace(0, 1, 21), method="inverted_cdf")
    p = []
    for _ in range(400):
        sample = np.quantile(rng.random(400), np.linspace(0, 1, 21), method="inverted_cdf")
        p.append(kolmogorov_p(ks_distance(rng.random(300), sample) * np.sqrt(300 * 400 / 700)))
    assert (np.array(p) <= 0.1).mean() <= 0.1 + 3 * np.sqrt(0.09 / 400)
    assert len(reference) == 21
