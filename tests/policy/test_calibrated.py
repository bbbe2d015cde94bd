"""Rule `calibrated`: which point a policy runs, what else may be asked, and the status on every decision."""

from dataclasses import replace

import numpy as np
import pytest

from ipr_engine import Engine, Price
from ipr_engine.audit.replay import replay
from ipr_engine.bundle import (
    BundleParts,
    with_calibrations,
    with_prices,
    write_bundle,
)
from ipr_engine.errors import InvalidInputError
from ipr_engine.policy.calibrated import DriftEvidence
from ipr_engine.serving import BatchingEngine
from tests.support.bundles import bundle_parts
from tests.support.calibration_data import calibrate, make_engine, make_outcomes
from tests.support.calibration_maps import make_map

PROMPT = "prove why the sum of ten loops"


@pytest.fixture(scope="module")
def engine(plain):
    return Engine.load(with_calibrations(plain.bundle, [make_map(plain.bundle)], activate=False))


@pytest.mark.parametrize(
    ("tau", "worth", "status"),
    [
        (0.0, 0.5, "calibrated"),
        (0.05, 0.5, "calibrated"),
        (0.1, 0.1, "calibrated"),
        (0.17, 0.1, "calibrated"),
        (0.2, 0.01, "calibrated"),
        (0.5, 0.01, "insufficient_evidence"),
        (1.0, 0.0, "calibrated"),
    ],
)
def test_the_greatest_knot_at_most_tau_runs(engine, tau, worth, status):
    policy = engine.policy(tau=tau, rule="calibrated")
    assert (policy.worth, policy.calibration.status, policy.tau) == (worth, status, tau)
    decision = engine.route(PROMPT, policy)
    assert decision.calibration == status
    assert decision.to_dict()["calibration_reason"] == policy.calibration.reason


def test_a_calibrated_decision_is_that_of_the_points_worth(engine):
    ours = engine.route(PROMPT, tau=0.2, rule="calibrated")
    same = engine.route(PROMPT, tau=1.0, worth=0.01)
    assert (ours.index, ours.threshold, ours.quality) == (same.index, same.threshold, same.quality)


@pytest.mark.parametrize(
    ("ask", "worth"),
    [
        ({"quality_share": 1.0}, 0.5),
        ({"quality_share": 0.98}, 0.1),
        ({"quality_share": 0.96}, 0.1),
        ({"quality_share": 0.5}, 0.01),
        ({"response_quality_difference": 0}, 0.5),
        ({"response_quality_difference": 2}, 0.1),
        ({"response_quality_difference": 10}, 0.01),
        ({"preset": "quality"}, 0.5),
        ({"preset": "balanced"}, 0.1),
        ({"preset": "cost"}, 0.01),
        ({"max_usd_per_1k": 100.0}, 0.5),
        ({"max_usd_per_1k": 2.0}, 0.1),
        ({"max_usd_per_1k": 1.99}, 0.01),
        ({"max_usd_per_1k": 0.25}, 0.0),
        ({"max_share_strongest": 0.5}, 0.1),
        ({"max_share_strongest": 0.2}, 0.01),
        ({"max_share_strongest": 0.0}, 0.0),
    ],
)
def test_what_is_asked_instead_of_tau_is_answered_by_the_map(engine, ask, worth):
    policy = engine.policy(**ask)
    assert (policy.rule, policy.worth) == ("calibrated", worth)
    assert engine.route(PROMPT, **ask).policy == policy


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"max_usd_per_1k": 0.1}, "max_usd_per_1k: the least that a knot of the map has is 0.25"),
        ({"quality_share": 1.2}, r"quality_share: expected a value in \[0, 1\]"),
        ({"response_quality_difference": 101}, "0 to 100"),
        ({"preset": "fast"}, "preset: expected one of 'quality', 'balanced', 'cost'"),
        ({"preset": "cost", "tau": 0.1}, "tau: expected tau=.* instead, got tau, preset"),
        ({"preset": "cost", "rule": "minmax"}, "preset: only rule 'calibrated' answers it"),
        ({}, "tau: expected tau=.* got nothing"),
        ({"tau": 0.1, "rule": "calibrated", "slack": 0.1}, "slack: only rule 'max' has one"),
    ],
)
def test_bad_asks_are_named(engine, terms, message):
    with pytest.raises(InvalidInputError, match=message):
        engine.policy(**terms)


def test_without_a_map_the_rule_is_refused_and_the_paper_rules_say_uncalibrated(plain):
    with pytest.raises(InvalidInputError, match="'calibrated' needs a map, and this bundle has none"):
        plain.policy(tau=0.1, rule="calibrated")
    decision = plain.route(PROMPT, tau=0.1)
    assert decision.policy.rule == "minmax"
    assert decision.calibration == "uncalibrated"
    assert "rule 'minmax'" in decision.calibration_reason


@pytest.mark.parametrize(
    ("terms", "reason"),
    [
        ({"worth": 0.3}, "worth=0.3 instead of the map's 0.1"),
        ({"prices": {"beta/mid": (1.0, 2.0)}}, "prices= differ"),
        ({"exclude": ["beta/mid"]}, "3 of the map's 4 candidates are allowed"),
        ({"family": "delta"}, "1 of the map's 4 candidates are allowed"),
    ],
)
def test_an_override_makes_the_status_uncalibrated_and_is_named(engine, terms, reason):
    decision = engine.route(PROMPT, tau=0.1, rule="calibrated", **terms)
    assert decision.calibration == "uncalibrated"
    assert reason in decision.calibration_reason


def test_terms_that_override_nothing_keep_the_status(engine):
    price = engine.bundle.prices.prices["beta/mid"]
    same = {"beta/mid": (price.input_usd_per_1m, price.output_usd_per_1m)}
    for terms in ({"worth": 0.1}, {"prices": same}, {"allowed": list(engine.bundle.names)}):
        assert engine.policy(tau=0.1, rule="calibrated", **terms).calibration.status == "calibrated"


def test_a_point_whose_single_candidate_is_away_runs_the_others_uncalibrated(engine):
    decision = engine.route(PROMPT, tau=0.0, rule="calibrated", exclude=["alpha/large"])
    assert decision.model != "alpha/large"
    assert decision.calibration == "uncalibrated"
    assert "alpha/large alone, not allowed here" in decision.calibration_reason


def test_a_map_of_the_very_set_is_preferred(plain):
    pair = ("alpha/large", "delta/tiny")
    maps = [make_map(plain.bundle), make_map(plain.bundle, pair)]
    engine = Engine.load(with_calibrations(plain.bundle, maps, activate=False))
    policy = engine.policy(tau=0.1, rule="calibrated", allowed=pair)
    assert policy.calibration.status == "calibrated"
    assert policy.map is not None
    assert policy.map.candidates == pair


def test_a_set_that_no_map_covers_is_refused(plain):
    engine = Engine.load(
        with_calibrations(plain.bundle, [make_map(plain.bundle, ("alpha/large", "delta/tiny"))], activate=False)
    )
    with pytest.raises(InvalidInputError, match="no map covers the allowed candidates"):
        engine.policy(tau=0.1, rule="calibrated", allowed=["beta/mid", "delta/tiny"])


def test_changed_prices_make_a_map_stale(engine):
    prices = dict(engine.bundle.prices.prices)
    prices["beta/mid"] = Price(input_usd_per_1m=9.0, output_usd_per_1m=9.0, basis="new")
    changed = Engine.load(with_prices(engine.bundle, replace(engine.bundle.prices, prices=prices), activate=False))
    decision = changed.route(PROMPT, tau=0.1, rule="calibrated")
    assert decision.calibration == "stale"
    assert "prices or token ratios changed since" in decision.calibration_reason
    back = changed.policy(tau=0.1, rule="calibrated", prices=engine.bundle.prices)
    assert back.calibration.status == "calibrated"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"heads": "0" * 64}, "encoder or heads changed since"),
        (
            {"candidates": ("alpha/large", "gone/model"), "cheapest": "gone/model"},
            "candidates removed since: gone/model",
        ),
    ],
)
def test_what_changed_since_makes_a_map_stale(plain, change, reason):
    made = replace(make_map(plain.bundle), **change)
    if "candidates" in change:
        made = replace(made, points=tuple(replace(p, allowed=None) for p in made.points))
    engine = Engine.load(with_calibrations(plain.bundle, [made], activate=False))
    policy = engine.policy(tau=0.1, rule="calibrated")
    assert policy.calibration.status == "stale"
    assert reason in policy.calibration.reason


def test_a_candidate_added_since_is_not_chosen_until_calibrated(plain):
    three = replace(make_map(plain.bundle, plain.bundle.names[:3]), whole=True)
    engine = Engine.load(with_calibrations(plain.bundle, [three], activate=False))
    policy = engine.policy(tau=0.1, rule="calibrated")
    assert policy.calibration.status == "stale"
    assert "candidates added since: delta/tiny" in policy.calibration.reason
    assert policy.allowed == plain.bundle.names[:3]
    assert policy.exclusions["delta/tiny"] == "added after calibration"


def test_a_candidate_added_to_a_family_makes_its_map_stale(tmp_path):
    parts = bundle_parts(tmp_path / "sources", models=3)
    family = [replace(c, family="house") for c in parts["candidates"][:2]] + parts["candidates"][2:]
    engine = Engine.load(write_bundle(tmp_path / "bundles", BundleParts(**parts | {"candidates": family})))
    one = replace(make_map(engine.bundle, engine.bundle.names[:2]), family="house")
    grown = [replace(c, family="house") for c in family]
    other = Engine.load(write_bundle(tmp_path / "bundles", BundleParts(**parts | {"candidates": grown})))
    served = Engine.load(with_calibrations(other.bundle, [one], activate=False))
    policy = served.policy(tau=0.1, rule="calibrated", family="house")
    assert policy.calibration.status == "stale"
    assert "candidates added since: gamma/small" in policy.calibration.reason
    assert policy.allowed == engine.bundle.names[:2]


def test_another_candidate_of_the_bundle_does_not_touch_a_map(plain):
    names = plain.bundle.names[:2]
    other = dict(plain.bundle.quality_heads.tensors)
    other["skip"] = other["skip"].copy()
    other["skip"][3] += 1
    changed = replace(plain.bundle, heads=(replace(plain.bundle.quality_heads, tensors=other),))
    assert changed.heads_key(names) == plain.bundle.heads_key(names)
    assert changed.heads_key(plain.bundle.names) != plain.bundle.heads_key(plain.bundle.names)


def test_drift_turns_every_calibrated_policy_stale_and_can_be_taken_back(plain, engine):
    fresh = Engine(engine.bundle)
    policy, paper = fresh.policy(tau=0.1, rule="calibrated"), fresh.policy(tau=0.1)
    fresh.mark_stale(DriftEvidence(kind="stated", message="the product changed"))
    assert policy.calibration == ("stale", "the product changed")
    assert fresh.route(PROMPT, policy).calibration == "stale"
    assert paper.calibration.status == "uncalibrated"
    fresh.mark_stale(None)
    assert policy.calibration.status == "calibrated"
    with pytest.raises(InvalidInputError, match="evidence: expected a DriftEvidence or None, got str"):
        fresh.mark_stale("drift")


def test_a_prompt_too_long_for_a_candidate_is_uncalibrated(engine):
    bill = engine.bundle.candidates[0].context_window + 1
    decision = engine.decide(engine.encode(PROMPT), tau=0.1, rule="calibrated", billed_tokens=bill)[0]
    assert decision.calibration == "uncalibrated"
    assert "keeps out alpha/large: prompt of about" in decision.calibration_reason


@pytest.mark.parametrize("request_of", [{"max_tokens": 10**6}, {"tools": [{"name": "add"}]}], ids=["output", "tools"])
def test_a_request_that_keeps_out_a_candidate_is_uncalibrated(engine, request_of):
    decision = engine.route(
        {"messages": [{"role": "user", "content": PROMPT}], **request_of}, tau=0.1, rule="calibrated"
    )
    assert decision.calibration == "uncalibrated"
    assert "keeps out alpha/large: " in decision.calibration_reason
    assert engine.route([{"role": "user", "content": PROMPT}], tau=0.1, rule="calibrated").calibration != "uncalibrated"


@pytest.mark.parametrize("tau", [0.0, 0.1, 1.0])
def test_a_prompt_of_little_support_may_go_to_whom_the_point_leaves_out_and_counts_as_uncalibrated(engine, tau):
    names = engine.bundle.names
    for to in ("cheapest", *names):
        policy = engine.policy(tau=tau, rule="calibrated", min_support=1.0, unsupported=to)
        assert policy.calibration.status == "calibrated"
        decision = engine.route(PROMPT, policy)
        assert (decision.cause, decision.calibration) == ("unsupported", "uncalibrated")
        assert "its support is below min_support" in decision.calibration_reason
        assert decision.model == (names[int(decision.costs_usd.argmin())] if to == "cheapest" else to)
        assert decision.model not in decision.excluded
        assert sum(view.chosen and view.allowed for view in decision.candidates) == 1
        assert sorted(decision.ranked) == sorted(names)
        assert decision.ranked[0] == decision.model
        if to == "cheapest":
            costs = dict(zip(names, decision.costs_usd.tolist(), strict=True))
            assert [costs[name] for name in decision.ranked] == sorted(costs.values())
        assert decision.to_dict()["excluded"] == decision.excluded


def test_those_left_out_by_a_point_stand_in_last(engine):
    decision = engine.route(PROMPT, tau=0.0, rule="calibrated")
    assert decision.ranked[0] == "alpha/large"
    assert set(decision.ranked) == set(engine.bundle.names)
    assert decision.excluded["beta/mid"].endswith("runs alpha/large alone")


def test_the_frontier_lies_at_the_knots_and_agrees_with_routing(engine):
    decision = engine.route(PROMPT, tau=0.1, rule="calibrated")
    steps = decision.frontier
    assert {step.tau for step in steps} <= {0.0, 0.1, 0.2, 0.3, 1.0}
    for tau in (0.0, 0.05, 0.1, 0.2, 0.6, 1.0):
        chosen = [step for step in steps if step.tau <= tau][-1].model
        assert engine.route(PROMPT, tau=tau, rule="calibrated").model == chosen
    assert decision.calibration in str(engine.explain(decision))


def test_predicted_cost_never_rises_with_tau(engine, tmp_path):
    rows = make_outcomes(engine, "any", 60)
    encoded = engine.encode(list(rows.prompts))
    costs = [engine.decide(encoded, tau=tau, rule="calibrated").cost_usd for tau in (0.1, 0.2, 0.4)]
    assert (np.diff(np.stack(costs), axis=0) <= 0).all()


def test_a_real_map_keeps_its_promise_on_fresh_prompts(tmp_path):
    plain = make_engine(tmp_path / "plain")
    train = make_outcomes(plain, "train", 400)
    fitted = make_engine(tmp_path, fitted=train)
    made = calibrate(fitted, make_outcomes(plain, "calibration", 800), train, points=12)
    engine = Engine.load(with_calibrations(fitted.bundle, [made]))
    fresh = make_outcomes(plain, "fresh", 4000)
    encoded, rows = engine.encode(list(fresh.prompts)), np.arange(4000)
    best, cheapest = (fresh.quality[:, engine.bundle.names.index(name)].mean() for name in (made.best, made.cheapest))
    for tau in (0.1, 0.3):
        decisions = engine.decide(encoded, tau=tau, rule="calibrated")
        assert set(decisions.calibration) == {"calibrated"}
        assert fresh.quality[rows, decisions.index].mean() >= (1 - tau) * best + tau * cheapest - 0.02


def test_drift_outlives_a_swap_to_the_same_maps_and_not_one_to_new_maps(engine):
    served = Engine(engine.bundle)
    policy = served.policy(tau=0.1, rule="calibrated")
    served.mark_stale(DriftEvidence(kind="stated", message="the product changed"))
    made = engine.bundle.calibrations[0]
    same = with_prices(engine.bundle, replace(engine.bundle.prices, date="2027-01-01"), activate=False)
    served.swap(same)
    assert served.route(PROMPT, policy).calibration_reason == "the product changed"
    served.swap(with_calibrations(engine.bundle, [replace(made, risk=0.05)], activate=False))
    assert served.route(PROMPT, policy).calibration == "calibrated"


def test_drift_is_told_of_a_policy_made_before_its_bundle_went_and_came_back(engine):
    served = Engine(engine.bundle)
    policy = served.policy(tau=0.1, rule="calibrated")
    made = engine.bundle.calibrations[0]
    served.swap(with_calibrations(engine.bundle, [replace(made, risk=0.05)], activate=False))
    served.swap(engine.bundle)
    assert served.route(PROMPT, policy).calibration == "calibrated"
    served.mark_stale(DriftEvidence(kind="stated", message="the product changed"))
    assert served.route(PROMPT, policy).calibration == "stale"


def test_a_cached_decision_is_stale_with_its_engine_after_its_bundle_went_and_came_back(engine):
    with BatchingEngine(Engine(engine.bundle), cache_entries=9) as serving:
        policy = serving.policy(tau=0.1, rule="calibrated")
        assert serving.route(PROMPT, policy).calibration == "calibrated"
        made = engine.bundle.calibrations[0]
        serving.swap(with_calibrations(engine.bundle, [replace(made, risk=0.05)], activate=False))
        serving.swap(engine.bundle)
        serving.engine.mark_stale(DriftEvidence(kind="stated", message="the product changed"))
        assert serving.route(PROMPT, policy).calibration == "stale"
        assert serving.route(PROMPT, tau=0.1, rule="calibrated").calibration == "stale"
        assert serving.counters().by_calibration == {"calibrated": 1, "stale": 2}


def test_a_policy_keeps_what_was_asked_over_a_swap(engine):
    served = Engine(engine.bundle)
    policy = served.policy(quality_share=0.98)
    cheaper = replace(engine.bundle.calibrations[0], shares=tuple(
        replace(knot, point=max(knot.point, 2) if knot.level < 1 else 0) for knot in engine.bundle.calibrations[0].shares
    ))  # fmt: skip
    served.swap(with_calibrations(engine.bundle, [cheaper], activate=False))
    assert served.route(PROMPT, policy).policy.worth == 0.01


def test_policies_that_differ_in_who_stands_in_are_not_equal(engine):
    some = engine.policy(tau=0.0, rule="calibrated", allowed=engine.bundle.names[:2])
    every = engine.policy(tau=0.0, rule="calibrated")
    assert some.allowed == every.allowed
    assert some.reserve != every.reserve
    assert some != every


@pytest.mark.parametrize(
    "terms", [{"tau": t, "rule": "calibrated"} for t in (0.0, 0.1, 0.25, 1.0)] + [{"preset": "balanced"}]
)
def test_records_of_the_rule_replay_to_the_bit_and_resolve_anew_where_there_is_no_map(engine, plain, terms):
    lines = []
    prompts = list(make_outcomes(engine, "calibration", 12).prompts)
    made = engine.recorder(lines.append, min_words=0).route_many(prompts, **terms)
    replays = list(replay(lines[0].splitlines(), engine))
    assert [(one.differences, one.refused, one.by_heads) for one in replays] == [((), None, False)] * 12
    assert replays[0].record.policy.rule == "calibrated"
    assert replays[0].record.policy.worth == made.policy.worth
    [other, *_] = replay(lines[0].splitlines(), plain)
    assert "terms: rule: 'calibrated' needs a map" in other.refused
    x = engine.encode(prompts)
    engine.recorder(lines.append, min_words=0).route_many(prompts, tau=0.6)
    terms = {"rule": "calibrated", **terms}  # these records have another
    for one, index in zip(replay(lines[1].splitlines(), engine, **terms), engine.decide(x, **terms).index, strict=True):
        assert one.outcome.index == index
