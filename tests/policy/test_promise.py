"""Rule `path`: what a policy promises, why tau cannot trade where it cannot, and which sets of candidates have a path."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ipr_engine import Engine, InvalidInputError
from ipr_engine.bundle import PriceList
from ipr_engine.policy.cost_weights import row_costs
from ipr_engine.policy.paths import MAX_KEPT_PATHS, Paths
from ipr_engine.policy.promise import TAUS
from ipr_engine.policy.rules import Coefficients
from tests.support.calibration_data import make_outcomes
from tests.support.path_rows import with_path, with_rows

PROMPT = "prove why the sum of ten loops"
ANY_QUALITY = Coefficients(0.0, 0.0, 0.0)


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
    same = changed(engine, outcome=np.full_like(engine.bundle.path_rows.outcome, 254))
    policy = same.policy(tau=0.2)
    assert (policy.coefficients, policy.worth) == (ANY_QUALITY, 0.0)
    assert policy.promise.note.startswith("the cheapest is also the best")
    assert same.policy(quality_share=0.9).worth == 0.0
    assert same.policy(max_usd_per_1k=1e6).worth == 0.0


def test_where_the_cheapest_on_each_prompt_is_worse_than_the_best_and_cheapest_tau_counts_down_to_that(engine):
    """Another candidate is cheaper on some prompts, and wrong there."""
    outcome = np.zeros_like(engine.bundle.path_rows.outcome)
    outcome[:, 3] = 254
    same = changed(engine, outcome=outcome)
    path = same.policy(tau=0.2).path
    assert path.best == path.cheapest == 3
    assert path.cheapest_choice_quality < 1.0 == path.best_quality
    for tau in (0.2, 0.7, 1.0):
        policy = same.policy(tau=tau)
        assert policy.promise.quality == pytest.approx(1 - tau * (1 - path.cheapest_choice_quality))
        assert "taking the cheapest on each prompt keeps" in policy.promise.note
    assert same.policy(tau=1.0).worth == 0.0


def test_a_share_asked_for_is_promised_where_the_path_reaches_it(engine):
    """Also below the cheapest candidate's mean, where the cheapest on each prompt keeps less still."""
    path = engine.policy(tau=0.5).path
    assert path.cheapest_choice_quality < path.cheapest_quality
    asked = (path.cheapest_choice_quality + path.cheapest_quality) / 2
    policy = engine.policy(quality_share=asked / path.best_quality)
    assert policy.promise.quality == pytest.approx(asked)
    assert policy.worth > 0
    assert engine.policy(quality_share=0.0).promise.quality == path.cheapest_choice_quality


def test_at_tau_0_no_more_is_promised_than_the_highest_predicted_quality_kept(engine):
    rows = engine.bundle.path_rows
    weak = changed(engine, outcome=np.random.default_rng(0).permuted(rows.outcome, axis=0))
    policy = weak.policy(tau=0.0)
    assert policy.promise.quality == min(policy.path.best_quality, policy.path.dearest_choice_quality)
    assert policy.promise.quality < policy.path.best_quality
    assert f"it kept {policy.promise.quality:.3f}, less than" in policy.promise.note


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
    bundle = engine.bundle
    covered = [name for name in bundle.names if name != "beta/mid"]
    some = Engine(with_rows(bundle, bundle.path_rows.of(covered)))
    policy = some.policy(tau=0.3)
    assert policy.rule == "minmax"
    assert policy.calibration.reason.startswith("beta/mid has no path rows; rule 'minmax'")
    alone = some.policy(tau=0.3, exclude="beta/mid")
    assert alone.rule == "path"
    assert alone.worth == engine.policy(tau=0.3, exclude="beta/mid").worth
    with pytest.raises(InvalidInputError, match=r"needs path rows .* and beta/mid has no path rows"):
        some.policy(tau=0.3, rule="path")


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


def test_what_min_support_sends_away_is_told(engine):
    policy = engine.policy(tau=0.3, min_support=0.5, unsupported="cheapest")
    assert "prompts of support below 0.5 go to the cheapest on each" in policy.promise.note


def test_the_most_output_of_a_candidate_bounds_its_cost_on_the_path(engine):
    bundle = engine.bundle
    least = replace(bundle.candidates[0], max_output_tokens=1)
    short = Engine(replace(bundle, candidates=(least, *bundle.candidates[1:]), hash="0" * 64))
    only = bundle.names[0]
    assert (
        short.policy(tau=0.5, allowed=[only]).promise.cost_usd < engine.policy(tau=0.5, allowed=[only]).promise.cost_usd
    )
    rows = bundle.path_rows.of([only])
    prices = bundle.prices
    wanted = row_costs(np.minimum(rows.tokens_out, 1), rows.billed_tokens, [bundle.candidates[0]], prices).mean()
    assert short.policy(tau=0.5, allowed=[only]).promise.cost_usd == pytest.approx(wanted)


def test_a_bundle_under_which_policies_would_mean_otherwise_is_not_swapped_in(engine):
    bundle = engine.bundle
    some = with_rows(bundle, bundle.path_rows.of(bundle.names[1:]))
    bare = replace(bundle, support=None, hash="1" * 64)
    for other, told in (
        (with_rows(bundle, None), r"\(has no path\): a bare tau means rule 'path' now"),
        (some, rf"\({bundle.names[0]} has no path rows\): a bare tau"),
        (bare, "has no centroids, the bundle that serves has"),
    ):
        served = Engine(bundle)
        with pytest.raises(InvalidInputError, match=told):
            served.swap(other)
        assert served.bundle is bundle
        served.swap(other, allow_fewer_outputs=True)
        assert served.bundle is other
