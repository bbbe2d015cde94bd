"""The points of tau's path on a calibration sample: kept promises are certified, broken ones are not; what a policy then says."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from ipr_engine import Engine
from ipr_engine.bundle import PathRows, TestedTau, with_calibrations, with_prices
from ipr_engine.bundle.calibration import CERTIFIED, INSUFFICIENT
from ipr_engine.bundle.calibration_entry import parse_map
from ipr_engine.bundle.fields import Field
from ipr_engine.calibration.observed import observe
from ipr_engine.calibration.promises import certify_path
from ipr_engine.cli.calibrate import render
from ipr_engine.errors import BundleError
from ipr_engine.evaluation.embedded import embed_rows
from tests.support.calibration_data import calibrate, make_engine, make_outcomes
from tests.support.seeds import seeded

LEVELS = (0.1, 0.3, 0.5)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """(engine with a path, the same without one, path data, sample, folder)."""
    folder = tmp_path_factory.mktemp("tested")
    plain = make_engine(folder / "plain")
    path_data = make_outcomes(plain, "train", 600)
    decisions = plain.route_many(list(path_data.prompts), tau=0.0)
    rows = PathRows(
        candidates=plain.bundle.names,
        quality=decisions.qualities.astype(np.float16),
        tokens_out=decisions.tokens_out.astype(np.float32),
        outcome=(254 * path_data.quality).astype(np.uint8),
        billed_tokens=np.full(len(path_data), 12, np.uint32),
        heads=(plain.bundle.quality_heads.sha256,),
    )
    engine = make_engine(folder, fitted=path_data, path_rows=rows)
    return (
        engine,
        make_engine(folder / "bare", fitted=path_data),
        path_data,
        make_outcomes(plain, "calibration", 900),
        folder,
    )


def calibrated(scene, sample=None, **options):
    engine, _, path_data, own, _ = scene
    return calibrate(engine, own if sample is None else sample, path_data, points=6, taus=LEVELS, **options)


@pytest.fixture(scope="module")
def made(scene):
    return calibrated(scene)


def routed_well(scene, tau):
    """The sample, with whatever tau runs being right on two thirds of its failures."""
    engine, _, _, sample, _ = scene
    quality = sample.quality.copy()
    chosen = engine.route_many(list(sample.prompts), tau=tau).index
    lucky = seeded("lucky").random(len(sample)) < 2 / 3
    at = np.flatnonzero(lucky)
    quality[at, chosen[at]] = 1.0
    return replace(sample, quality=quality)


def test_every_tau_of_the_map_is_tested_at_the_worth_that_the_path_runs(scene, made):
    engine, _, _, sample, _ = scene
    assert [one.tau for one in made.tested] == [0.0, *LEVELS, 1.0]
    for one in made.tested:
        policy = engine.policy(tau=one.tau)
        assert policy.rule == "path"
        assert one.worth == policy.worth
        decisions = engine.decide(engine.encode(list(sample.prompts)), policy)
        rows = np.arange(len(sample))
        assert one.quality == pytest.approx(sample.quality[rows, decisions.index].mean())
        best, cheapest = (engine.bundle.names.index(name) for name in (policy.promise.best, policy.promise.cheapest))
        owed = (1 - one.tau) * sample.quality[:, best].mean() + one.tau * sample.quality[:, cheapest].mean()
        assert one.promised == pytest.approx(owed)
        assert one.quality_lower <= one.quality


def test_promise_kept_with_room_is_certified(scene):
    tested = {one.tau: one for one in calibrated(scene, routed_well(scene, 0.3)).tested}
    assert tested[0.3].status == CERTIFIED
    assert tested[0.3].quality > tested[0.3].promised


@pytest.fixture(scope="module")
def observed(scene):
    """The sample and the path's data as calibration sees them, and what rule `path` runs at LEVELS."""
    engine, _, path_data, sample, _ = scene
    parts = (sample.take(np.arange(250)), path_data.take(np.arange(100)))
    embed = partial(embed_rows, engine)
    policies = [engine.policy(tau=tau, rule="path", allowed=list(engine.bundle.names)) for tau in LEVELS]
    return [*(observe(engine.bundle, embed, rows, engine.bundle.names, {}, label="made") for rows in parts), policies]


def statuses_of(observed, quality):
    """{tau: tested} of the sample with other outcomes."""
    rows, other, policies = observed
    order = np.arange(len(quality))
    found = certify_path(
        replace(rows, quality=quality), other, LEVELS, policies, order, risk=0.1, simultaneous=False, test="target"
    )
    return {one.tau: one for one in found}


def test_broken_promise_is_not_certified(observed):
    """Outcomes that have nothing to do with the prompt: the path then loses more than it says."""
    for seed in range(8):
        rng = seeded("broken", seed)
        tested = statuses_of(observed, np.stack([rng.permutation(column) for column in observed[0].quality.T], axis=1))
        for tau in (0.3, 0.5):
            assert tested[tau].quality < tested[tau].promised
            assert tested[tau].status == INSUFFICIENT


def test_promise_kept_by_a_hair_is_certified_no_more_often_than_the_risk(observed):
    """Every candidate is as good as every other one, so that E[x] is 0: a true null at risk 0.1."""
    passed = 0
    for seed in range(40):
        drawn = (seeded("boundary", seed).random(observed[0].quality.shape) < 0.5).astype(float)
        passed += statuses_of(observed, drawn)[0.5].status == CERTIFIED
    assert passed <= 10  # P(Binomial(40, 0.1) > 10) = 0.001


def test_simultaneous_asks_more_of_each(scene):
    sample = routed_well(scene, 0.3).take(np.arange(120))
    alone, joint = calibrated(scene, sample), calibrated(scene, sample, simultaneous=True)
    count = [sum(one.status == CERTIFIED for one in each.tested) for each in (alone, joint)]
    assert count[1] <= count[0]


def test_bundle_without_a_path_tests_nothing_and_its_map_reads_as_before(scene):
    _, bare, path_data, sample = scene[:4]
    made = calibrate(bare, sample, path_data, points=6, taus=LEVELS)
    assert made.tested == ()
    assert "tested" not in made.to_json()
    assert parse_map(Field(made.to_json(), "x: ", "")) == made
    assert "not tested, the bundle has no path" in render(made)


def test_tested_taus_survive_json_and_the_bundle(scene, made):
    engine, *_, folder = scene
    assert parse_map(Field(made.to_json(), "x: ", "")) == made
    again = Engine.load(with_calibrations(engine.bundle, [made], root=folder / "kept"))
    assert again.bundle.calibrations == (made,)
    assert "path tau 0.3" in render(made)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"tau": 1.5}, "<= 1, got 1.5"),
        ({"status": "certain"}, "certified"),
        ({"worth": -1}, ">= 0 and"),
        ({"worth": 1e6}, "worth that never rises"),
        ({"tau": 0.1}, "taus that rise"),
        ({"colour": "red"}, "unknown key"),
    ],
)
def test_damaged_tested_taus_are_refused(made, change, told):
    document = made.to_json()
    document["tested"][2] = {**document["tested"][2], **change}
    with pytest.raises(BundleError, match=told):
        parse_map(Field(document, "x: ", ""))


def test_tested_taus_belong_to_schema_version_5(made):
    with pytest.raises(BundleError, match="unknown key 'tested'"):
        parse_map(Field(made.to_json(), "x: ", ""), tested=False)


def serving(scene, made, **statuses):
    """An engine whose bundle holds the map, with these statuses of its tested taus."""
    engine, *_, folder = scene
    tested = tuple(replace(one, status=statuses.get(f"t{10 * one.tau:g}", one.status)) for one in made.tested)
    root = folder / "serving" / "-".join(sorted(statuses.values()) or ["as made"])
    return Engine.load(with_calibrations(engine.bundle, [replace(made, tested=tested)], root=root))


def test_only_the_very_tau_that_was_certified_is_calibrated(scene, made):
    engine = serving(scene, made, t3=CERTIFIED, t5=INSUFFICIENT)
    certified, not_certified = engine.policy(tau=0.3).calibration, engine.policy(tau=0.5).calibration
    assert certified.status == "calibrated"
    assert "risk 0.1 for this tau" in certified.reason
    assert not_certified.status == "insufficient_evidence"
    assert "promised was" in not_certified.reason
    between = engine.policy(tau=0.4).calibration
    assert between.status == "estimated"
    assert "around it were 0.3 (certified), 0.5 (insufficient evidence)" in between.reason
    assert engine.route("prove ten", tau=0.3).calibration == "calibrated"


def test_what_is_asked_instead_of_tau_is_estimated(scene, made):
    engine = serving(scene, made, t3=CERTIFIED)
    asked = engine.policy(quality_share=0.9, rule="path").calibration
    assert (asked.status, "quality_share=0.9 was not tested" in asked.reason) == ("estimated", True)


def test_another_set_is_estimated(scene, made):
    engine = serving(scene, made, t3=CERTIFIED)
    part = engine.policy(tau=0.3, allowed=list(engine.bundle.names[:2])).calibration
    assert (part.status, "no prompt tested it" in part.reason) == ("estimated", True)


def test_other_prices_of_a_policy_are_estimated_and_new_prices_of_the_bundle_stale(scene, made):
    engine = serving(scene, made, t3=CERTIFIED)
    prices = engine.bundle.prices
    name = engine.bundle.names[0]
    dearer = {name: replace(prices.prices[name], input_usd_per_1m=77.0)}
    told = engine.policy(tau=0.3, prices=dearer).calibration
    assert (told.status, "prices= differ" in told.reason) == ("estimated", True)
    moved = replace(prices, prices={**prices.prices, **dearer})
    again = Engine.load(with_prices(engine.bundle, moved, root=scene[-1] / "dearer"))
    told = again.policy(tau=0.3).calibration
    assert (told.status, "prices or token ratios changed since" in told.reason) == ("stale", True)


def test_another_worth_than_the_tested_one_is_stale(scene, made):
    one = made.tested[2]
    moved = replace(made, tested=(*made.tested[:2], replace(one, worth=one.worth * (1 - 1e-3), status=CERTIFIED)))
    engine = serving(scene, moved)
    told = engine.policy(tau=0.3).calibration
    assert (told.status, "was tested; calibrate anew" in told.reason) == ("stale", True)


def test_drift_makes_a_tested_tau_stale(scene, made):
    from ipr_engine.policy.calibrated import DriftEvidence

    engine = serving(scene, made, t3=CERTIFIED)
    engine.mark_stale(DriftEvidence(kind="stated", message="the traffic changed"))
    assert engine.policy(tau=0.3).calibration == ("stale", "the traffic changed")


def test_rule_calibrated_is_what_it_was(scene, made):
    _, bare, path_data, sample = scene[:4]
    before = calibrate(bare, sample, path_data, points=6, taus=LEVELS)
    assert (made.points, made.knots, made.shares) == (before.points, before.knots, before.shares)
    assert isinstance(made.tested[0], TestedTau)
