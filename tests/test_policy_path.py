"""Rule `path`: which rule a bare tau runs, what the path answers, what the policy promises and refuses."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from calibration_data import make_engine, make_outcomes
from path_data import with_path, with_rows

from ipr_engine import Engine, InvalidInputError
from ipr_engine.bundle import PriceList
from ipr_engine.paths import MAX_KEPT_PATHS, Paths, row_costs
from ipr_engine.policy import Coefficients
from ipr_engine.promise import TAUS, point_at
from ipr_engine.tau_path import TauPath

PROMPT = "prove why the sum of ten loops"
NEVER, HIGHEST = Coefficients(0.0, 0.0, 0.0), Coefficients(1.0, 0.0, 0.0)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return make_engine(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def engine(plain):
    return with_path(plain)


# -- which rule runs


def test_a_bare_tau_runs_the_path_where_the_bundle_has_one_and_minmax_where_not(plain, engine):
    assert (engine.policy(tau=0.3).rule, plain.policy(tau=0.3).rule) == ("path", "minmax")
    assert engine.policy(tau=0.3, rule="path") == engine.policy(tau=0.3)
    status = plain.policy(tau=0.3).calibration
    assert status.status == "uncalibrated"
    assert status.reason.startswith("bundle has no path; rule 'minmax'")
    assert engine.policy(tau=0.3).calibration.status == "estimated"
    assert engine.route(PROMPT, tau=0.3).calibration == "estimated"


def test_a_named_rule_of_the_paper_runs_as_without_a_path(plain, engine):
    for rule in ("minmax", "max", "fixed"):
        ours, theirs = engine.policy(tau=0.3, rule=rule, worth=0.01), plain.policy(tau=0.3, rule=rule, worth=0.01)
        assert (ours.coefficients, ours.worth, ours.rule) == (theirs.coefficients, theirs.worth, theirs.rule)
        assert ours.calibration == theirs.calibration
        assert (ours.promise, ours.path) == (None, None)


def test_the_op_gets_the_worth_alone_inside_and_the_ends_are_best_and_cheapest(engine):
    for tau, coefficients in ((0.0, HIGHEST), (0.5, NEVER), (1.0, NEVER)):
        policy = engine.policy(tau=tau)
        assert policy.coefficients == coefficients
        assert (policy.worth > 0) == (tau == 0.5)
    prompts = list(make_outcomes(engine, "ends", 60).prompts)
    best, cheapest = engine.route(prompts, tau=0.0), engine.route(prompts, tau=1.0)
    assert (best.quality == best.qualities.max(axis=1)).all()
    assert (cheapest.cost_usd == cheapest.costs_usd.min(axis=1)).all()


def test_without_path_rows_the_rule_is_refused_by_name(plain):
    with pytest.raises(InvalidInputError, match=r"rule: 'path' needs path rows .* and bundle has no path"):
        plain.policy(tau=0.3, rule="path")


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"tau": 0.3, "worth": 0.1}, "worth: rule 'path' reads it from tau, .* leave it out, or name rule='minmax'"),
        ({"tau": 0.3, "worth": 0}, "worth: rule 'path' reads it from tau"),
        ({"preset": "cost", "worth": 0.1}, "worth: rule 'path' reads it from tau"),
        ({"tau": 0.3, "slack": 0.1}, "slack: only rule 'max' has one, .* or name rule='max'"),
        ({"tau": 0.3, "rule": "best"}, "rule: expected one of 'path', 'minmax', 'max', 'fixed', 'calibrated', got 'best'"),
        ({"tau": 1.2}, r"tau: expected a value in \[0, 1\]"),
        ({"preset": "cost", "rule": "max"}, "preset: only rules 'path' and 'calibrated' answer it, got rule 'max'"),
        ({"quality_share": 0.9, "tau": 0.1}, "tau: expected tau=.* instead, got tau, quality_share"),
    ],
)  # fmt: skip
def test_what_the_path_cannot_run_is_named(engine, terms, message):
    with pytest.raises(InvalidInputError, match=message):
        engine.policy(**terms)


# -- which worth runs


def test_the_worth_is_the_paths_at_the_promised_quality(engine):
    policy = engine.policy(tau=0.3)
    path = policy.path
    assert policy.promise.quality == pytest.approx(0.7 * path.best_quality + 0.3 * path.cheapest_quality)
    assert policy.worth == policy.promise.worth == path.worth_at(path.promise(0.3))


def test_the_path_is_that_of_the_rows_costs_at_the_policys_prices(engine):
    names = engine.bundle.names[1:]
    policy = engine.policy(tau=0.5, allowed=list(names), prices={"delta/tiny": (3.0, 9.0)})
    rows = engine.bundle.path_rows
    cost = np.empty((len(rows.quality), 3))
    for k, candidate in enumerate(engine.bundle.candidates[1:]):
        price = policy.prices.prices[candidate.name]
        cost[:, k] = price.input_usd_per_1m * candidate.token_ratio * rows.billed_tokens / 1e6
        cost[:, k] += price.output_usd_per_1m * rows.tokens_out[:, k + 1].astype(np.float64) / 1e6
    columns = slice(1, None)
    wanted = TauPath.fit(
        rows.quality[:, columns].astype(np.float64),
        rows.outcome[:, columns] / 254,
        cost,
        engine.bundle.tie_rank[columns],
    )
    assert policy.worth == pytest.approx(point_at(wanted, 0.5).worth, rel=1e-9)
    assert policy.worth != engine.policy(tau=0.5, allowed=list(names)).worth


def test_costs_of_rows_are_those_of_the_op(engine):
    rows, bundle = engine.bundle.path_rows, engine.bundle
    ours = row_costs(rows.tokens_out, rows.billed_tokens, bundle.candidates, bundle.prices)
    encoded = engine.encode([PROMPT] * len(rows.billed_tokens))
    theirs = engine.decide(
        encoded, tau=0.5, billed_tokens=rows.billed_tokens.astype(np.int64), tokens_out=rows.tokens_out.astype(np.float32)
    )  # fmt: skip
    assert ours == pytest.approx(theirs.costs_usd, rel=1e-5)


def test_shares_presets_and_differences_read_the_same_path(engine):
    for share in (1.0, 0.98, 0.95, 0.8):
        policy = engine.policy(quality_share=share)
        path = policy.path
        assert policy.rule == "path"
        assert policy.worth == path.worth_at(share * path.best_quality)
        assert policy.promise.quality == pytest.approx(share * path.best_quality)
        tau = (1 - share) * path.best_quality / (path.best_quality - path.cheapest_quality)
        assert policy.tau == pytest.approx(min(tau, 1.0))
        assert policy.coefficients == NEVER
    worths = [engine.policy(preset=preset).worth for preset in ("quality", "balanced", "cost")]
    assert worths == [engine.policy(quality_share=share).worth for share in (1.0, 0.98, 0.95)]
    assert engine.policy(response_quality_difference=5).worth == worths[2]
    assert engine.route(PROMPT, preset="cost").policy == engine.policy(preset="cost")


def test_a_cost_asked_for_runs_the_greatest_worth_that_keeps_it(engine):
    path = engine.policy(tau=0.5).path
    for limit in np.linspace(path.cheapest_choice_usd, 1.2 * path.dearest_choice_usd, 7):
        policy = engine.policy(max_usd_per_1k=1000 * float(limit) * (1 + 1e-12))
        within = path.worth[path.cost_usd <= limit * (1 + 1e-9)]
        assert policy.worth == (within[-1] if len(within) else 0.0)
        assert policy.promise.cost_usd <= limit * (1 + 1e-9)
    with pytest.raises(InvalidInputError, match=f"the least possible .* {1000 * path.cheapest_choice_usd:.6g}, got"):
        engine.policy(max_usd_per_1k=999 * path.cheapest_choice_usd)


def test_a_share_of_the_strongest_runs_the_greatest_worth_up_to_which_it_holds(engine):
    path = engine.policy(tau=0.5).path
    for limit in (0.0, 0.1, 0.3, 1.0):
        policy = engine.policy(max_share_strongest=limit)
        over = np.flatnonzero(path.shares[:, path.best] > limit)
        at = over[0] if len(over) else len(path.worth)
        assert policy.worth == (path.worth[at - 1] if at else 0.0)
        prompts = list(make_outcomes(engine, "share", 500).prompts)
        taken = np.mean(np.array(engine.route(prompts, policy).models) == policy.promise.best)
        assert taken <= limit + 0.07  # 3 standard errors on 500 prompts


def test_the_calibration_rule_keeps_the_map(engine):
    with pytest.raises(InvalidInputError, match="'calibrated' needs a map, and this bundle has none"):
        engine.policy(preset="cost", rule="calibrated")


# -- what is promised


def test_the_promised_quality_is_kept_on_fresh_prompts(plain):
    engine, fresh = with_path(plain, rows=3000), make_outcomes(plain, "fresh", 3000)
    encoded = engine.encode(list(fresh.prompts))
    for tau in (0.1, 0.3, 0.5, 0.7, 0.9):
        decisions = engine.decide(encoded, tau=tau)
        kept = fresh.quality[np.arange(3000), decisions.index].mean()
        promise = decisions.policy.promise
        assert promise.note is None
        assert (
            -0.03 < kept - promise.quality < 0.05
        )  # 3 standard errors of the difference of two samples of 3,000, and more
        assert decisions.cost_usd.mean() == pytest.approx(promise.cost_usd, rel=0.1)


def test_a_pair_trades_at_six_of_eight_taus_at_least(engine):
    pair = ["alpha/large", "delta/tiny"]
    prompts = list(make_outcomes(engine, "pair", 800).prompts)
    encoded = engine.encode(prompts)
    shares = [float((engine.decide(encoded, tau=tau, allowed=pair).index == 3).mean()) for tau in TAUS]
    assert len(set(shares)) >= 6
    assert shares == sorted(shares)
    assert engine.policy(tau=0.3, allowed=pair).promise.note is None
    before = {float((engine.decide(encoded, tau=t, allowed=pair, rule="minmax").index == 3).mean()) for t in TAUS}
    assert len(before) == 2  # tau says nothing there until it is 1


def test_tau_0_says_what_the_highest_predicted_quality_costs(engine):
    promise = engine.policy(tau=0.0).promise
    times = promise.cost_usd / promise.best_usd
    assert f"is expected to cost {times:.2f} times {promise.best} alone" in promise.note


def changed(engine, **changes):
    return Engine(with_rows(engine.bundle, replace(engine.bundle.path_rows, **changes)))


def test_where_the_cheapest_is_also_the_best_every_tau_takes_the_cheapest_and_says_so(engine):
    outcome = np.zeros_like(engine.bundle.path_rows.outcome)
    outcome[:, 3] = 254
    for rows in (outcome, np.full_like(outcome, 254)):
        same = changed(engine, outcome=rows)
        policy = same.policy(tau=0.2)
        assert (policy.coefficients, policy.worth) == (NEVER, 0.0)
        assert policy.promise.note.startswith("the cheapest is also the best")
        assert same.policy(quality_share=0.9).worth == 0.0
        assert same.policy(max_usd_per_1k=1e6).worth == 0.0


def test_a_difference_within_its_standard_error_is_no_difference(engine):
    outcome = np.zeros_like(engine.bundle.path_rows.outcome)
    outcome[::2] = 254
    outcome[1:11:2, 0], outcome[0:8:2, 0] = (
        254,
        0,
    )  # the dearest is right where the others fail five times, and fails four
    note = changed(engine, outcome=outcome).policy(tau=0.2).promise.note
    assert note.startswith("the cheapest is also the best: delta/tiny is not told apart from alpha/large")


def test_heads_that_order_candidates_alike_are_named(engine):
    rows = engine.bundle.path_rows
    alike = changed(
        engine,
        quality=np.broadcast_to(rows.quality[:1], rows.quality.shape).copy(),
        tokens_out=np.broadcast_to(rows.tokens_out[:1], rows.tokens_out.shape).copy(),
        billed_tokens=np.full_like(rows.billed_tokens, 100),
    )
    note = alike.policy(tau=0.2, allowed=["alpha/large", "delta/tiny"]).promise.note
    assert "distinct mixes" in note
    assert "nearly the same on every prompt" in note


def test_a_quality_that_weak_heads_never_reach_is_named_and_the_greatest_worth_runs(engine, rng):
    weak = changed(engine, quality=rng.permuted(engine.bundle.path_rows.quality, axis=0))
    policy = weak.policy(tau=0.02)
    assert policy.worth == policy.path.worth[-1]
    assert "this quality is never reached, the heads are weak" in policy.promise.note


def test_one_candidate_is_its_own_promise(engine):
    policy = engine.policy(tau=0.4, allowed=["beta/mid"])
    assert (policy.promise.best, policy.promise.cheapest) == ("beta/mid", "beta/mid")
    assert policy.promise.note == "it is the only candidate"
    assert engine.route(PROMPT, policy).cause == "only_allowed"


# -- which sets have a path


def test_a_candidate_without_rows_makes_its_sets_run_minmax_and_says_so(engine):
    quality = engine.bundle.path_rows.quality.copy()
    quality[:, 1] = np.nan
    some = changed(engine, quality=quality)
    policy = some.policy(tau=0.3)
    assert policy.rule == "minmax"
    assert policy.calibration.reason.startswith("beta/mid has no path rows; rule 'minmax'")
    assert some.policy(tau=0.3, exclude="beta/mid").rule == "path"
    with pytest.raises(InvalidInputError, match=r"needs path rows .* and beta/mid has no path rows"):
        some.policy(tau=0.3, rule="path")


def test_only_rows_with_every_candidate_of_the_set_count(engine):
    quality = engine.bundle.path_rows.quality.copy()
    quality[:100, 0], quality[100:, 1] = np.nan, np.nan
    some = changed(engine, quality=quality)
    assert some.policy(tau=0.3, allowed=["beta/mid", "delta/tiny"]).path.rows == 100
    assert "no path row has all of" in some.policy(tau=0.3).calibration.reason


def test_a_candidate_without_outcomes_counts_as_predicted_and_is_named(engine):
    outcome = engine.bundle.path_rows.outcome.copy()
    outcome[:, 1] = 255
    promise = changed(engine, outcome=outcome).policy(tau=0.3).promise
    assert "beta/mid has no outcomes in the path rows" in promise.note


def test_paths_are_kept_by_set_and_prices_and_the_oldest_leave(engine):
    paths = Paths(engine.bundle)
    names, prices = list(engine.bundle.names), engine.bundle.prices
    first = paths.of(names, prices, 0.0)
    assert paths.of(names, prices, 0.0) is first
    assert paths.of(names[:2], prices, 0.0) is not first
    again = PriceList(date="another day", prices=dict(prices.prices))
    assert paths.of(names, again, 0.0) is first
    for n in range(MAX_KEPT_PATHS):
        price = replace(prices.prices["beta/mid"], fixed_usd=float(n + 1))
        paths.of(names, PriceList(date="x", prices={**prices.prices, "beta/mid": price}), 0.0)
    assert paths.of(names, prices, 0.0) is not first


# -- policies, records of them, decisions


def test_a_policy_held_across_swaps_means_what_tau_means_on_each_bundle(plain, engine):
    served = Engine(engine.bundle)
    policy, price = served.policy(tau=0.3), served.policy(max_usd_per_1k=5.0)
    assert dict(policy.terms) == {"tau": 0.3, "slack": 0.0}
    for bundle, rule in ((plain.bundle, "minmax"), (engine.bundle, "path"), (plain.bundle, "minmax")):
        served.swap(bundle)
        decision = served.route(PROMPT, policy)
        assert decision.policy.rule == rule
        assert decision.policy == Engine(bundle).policy(tau=0.3)
        if rule == "minmax":
            with pytest.raises(InvalidInputError, match=r"made for bundle .* needs a map, and this bundle has none"):
                served.route(PROMPT, price)
        else:
            assert served.route(PROMPT, price).policy == price


def test_policies_of_equal_terms_are_equal_and_of_another_worth_are_not(engine):
    other = with_path(engine, split="other")
    assert engine.policy(tau=0.3) == engine.policy(tau=0.3)
    assert hash(engine.policy(tau=0.3)) == hash(engine.policy(tau=0.3, rule="path"))
    assert len({engine.policy(tau=0.3), engine.policy(tau=0.4), engine.policy(tau=0.3, rule="minmax")}) == 3
    assert engine.policy(tau=0.3).worth != other.policy(tau=0.3).worth


def test_rule_worth_and_promise_are_shown(engine):
    policy = engine.policy(tau=0.3)
    assert "rule='path'" in repr(policy)
    assert f"worth={policy.worth:g}" in repr(policy)
    assert f"promises {policy.promise.quality:.3f} for" in repr(policy)
    document = json.loads(json.dumps(engine.route(PROMPT, policy).to_dict(), allow_nan=False))
    assert (document["rule"], document["worth"]) == ("path", policy.worth)
    assert document["promise"] == policy.promise.to_dict()
    text = str(engine.explain(PROMPT, policy))
    assert f"policy: promised mean quality {policy.promise.quality:.3f}" in text
    assert "under rule path, tau 0.3" in text


def test_a_request_that_keeps_out_a_candidate_keeps_the_worth_and_says_so(engine):
    bill = engine.bundle.candidates[0].context_window + 1
    policy = engine.policy(tau=0.3)
    decision = engine.decide(engine.encode(PROMPT), policy, billed_tokens=bill)[0]
    assert decision.policy.worth == policy.worth
    assert decision.calibration == "uncalibrated"
    assert "keeps out alpha/large: prompt of about" in decision.calibration_reason
    assert decision.model == decision.ranked[0] != "alpha/large"


def test_drift_makes_an_estimate_stale(engine):
    from ipr_engine.calibrated import DriftEvidence

    fresh = Engine(engine.bundle)
    policy = fresh.policy(tau=0.3)
    fresh.mark_stale(DriftEvidence(kind="stated", message="the product changed"))
    assert policy.calibration == ("stale", "the product changed")
