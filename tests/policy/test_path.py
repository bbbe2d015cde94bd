"""Rule `path`: which rule a bare tau runs, what the path answers, what the policy promises and refuses."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from ipr_engine import Engine, InvalidInputError
from ipr_engine.bundle import Bundle
from ipr_engine.cli import main
from ipr_engine.policy.cost_weights import row_costs
from ipr_engine.policy.promise import TAUS, point_at
from ipr_engine.policy.rules import Coefficients
from ipr_engine.policy.tau_path import TauPath
from tests.support.calibration_data import make_outcomes
from tests.support.calibration_maps import make_map
from tests.support.path_rows import with_path, with_rows

PROMPT = "prove why the sum of ten loops"
ANY_QUALITY, HIGHEST = Coefficients(0.0, 0.0, 0.0), Coefficients(1.0, 0.0, 0.0)


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
    for tau, coefficients in ((0.0, HIGHEST), (0.5, ANY_QUALITY), (1.0, ANY_QUALITY)):
        policy = engine.policy(tau=tau)
        assert policy.coefficients == coefficients
        assert (policy.worth > 0) == (tau == 0.5)
    prompts = list(make_outcomes(engine, "ends", 60).prompts)
    best, cheapest = engine.route_many(prompts, tau=0.0), engine.route_many(prompts, tau=1.0)
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
        assert policy.coefficients == ANY_QUALITY
    worths = [engine.policy(preset=preset).worth for preset in ("quality", "balanced", "cost")]
    assert worths == [engine.policy(quality_share=share).worth for share in (1.0, 0.98, 0.95)]
    assert engine.policy(response_quality_difference=5).worth == worths[2]
    assert engine.route(PROMPT, preset="cost").policy == engine.policy(preset="cost")


def test_a_share_below_the_cheapest_promises_what_the_cheapest_has(engine):
    policy = engine.policy(quality_share=0.1)
    promise, path = policy.promise, policy.path
    assert promise.quality == min(promise.cheapest_quality, path.cheapest_choice_quality)
    assert engine.policy(quality_share=0.1).tau == 1.0


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
        taken = np.mean(np.array(engine.route_many(prompts, policy).models) == policy.promise.best)
        assert taken <= limit + 0.07  # 3 standard errors on 500 prompts


def test_the_calibration_rule_keeps_the_map(engine):
    with pytest.raises(InvalidInputError, match="'calibrated' needs a map, and this bundle has none"):
        engine.policy(preset="cost", rule="calibrated")
    both = Engine(replace(engine.bundle, calibrations=(make_map(engine.bundle),), hash="2" * 64))
    for terms in ({"tau": 0.17}, {"preset": "cost"}, {"max_usd_per_1k": 5.0}):
        policy = both.policy(**terms, rule="calibrated")
        assert (policy.rule, policy.calibration.status) == ("calibrated", "calibrated")
        assert policy.promise is None
        assert policy.worth in [point.worth for point in policy.map.points]
        assert both.policy(**terms) == both.policy(**terms, rule="path")
        assert both.policy(**terms).worth == engine.policy(**terms).worth


# -- policies, records of them, decisions


def test_a_policy_held_across_swaps_means_what_tau_means_on_each_bundle(plain, engine):
    served = Engine(engine.bundle)
    policy, price = served.policy(tau=0.3), served.policy(max_usd_per_1k=5.0)
    assert dict(policy.options) == {"tau": 0.3, "slack": 0.0}
    for bundle, rule in ((plain.bundle, "minmax"), (engine.bundle, "path"), (plain.bundle, "minmax")):
        served.swap(bundle, allow_fewer_outputs=True)
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
    from ipr_engine.policy.calibrated import DriftEvidence

    fresh = Engine(engine.bundle)
    policy = fresh.policy(tau=0.3)
    fresh.mark_stale(DriftEvidence(kind="stated", message="the product changed"))
    assert policy.calibration == ("stale", "the product changed")
    rows = fresh.bundle.path_rows
    fresh.swap(replace(fresh.bundle, hash="3" * 64))  # the same rows: they are as stale as before
    assert fresh.route(PROMPT, policy).calibration == "stale"
    fresh.swap(with_rows(fresh.bundle, replace(rows, outcome=254 - rows.outcome)))
    assert fresh.route(PROMPT, policy).calibration == "estimated"


# -- the command line


@pytest.fixture
def served(engine, monkeypatch):
    """Commands without --bundle run the bundle of `engine`."""
    monkeypatch.setattr(Bundle, "load", lambda folder: engine.bundle)


def test_info_shows_what_tau_buys(served, engine, capsys):
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    assert "a bare tau runs rule path (estimated: " in text
    for tau in TAUS:
        policy = engine.policy(tau=tau)
        line = next(line for line in text.splitlines() if line.split()[:1] == [f"{tau:g}"])
        assert float(line.split()[1]) == pytest.approx(policy.promise.quality, abs=5e-4)
    assert main(["info", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["path"]
    assert [line["worth"] for line in shown["taus"]] == [engine.policy(tau=tau).worth for tau in TAUS]


def test_route_and_explain_show_rule_worth_and_promise(served, engine, capsys):
    assert main(["route", PROMPT, "--json", "--tau", "0.3"]) == 0
    decision = json.loads(capsys.readouterr().out)["decision"]
    policy = engine.policy(tau=0.3)
    assert (decision["rule"], decision["worth"]) == ("path", policy.worth)
    assert decision["promise"]["quality"] == policy.promise.quality
    assert main(["explain", PROMPT, "--tau", "0.3"]) == 0
    assert "policy: promised mean quality" in capsys.readouterr().out
    assert main(["route", PROMPT, "--rule", "path", "--preset", "cost"]) == 0
    capsys.readouterr()
    assert main(["route", PROMPT, "--tau", "0.3", "--worth", "0.1"]) == 1
    assert "worth: rule 'path' reads it from tau" in capsys.readouterr().err
