"""Rule `path` where two tiers decide: the path counts whom the second heads choose."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from ipr_engine import Engine
from ipr_engine.decide import reference
from ipr_engine.policy.cost_weights import row_costs
from ipr_engine.policy.paths import TWO_TIER_KNOTS, Paths
from ipr_engine.policy.promise import TAUS
from ipr_engine.policy.tau_path import TauPath
from tests.support.path_rows import make_rows, with_rows
from tests.support.seeds import seeded
from tests.support.two_tier_bundles import join, make_prompts, make_tiers


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """Both tiers' predictions in the rows; the second is right, the first blurred."""
    folder = tmp_path_factory.mktemp("tiers")
    joined = Engine(join(folder, make_tiers(folder), gap=0.1))
    first, prompts = make_rows(joined, 400), make_prompts(400)
    encoded = joined.encode(prompts)
    one = joined.decide(encoded, tau=0.0, rule="minmax")
    two = joined.decide(joined.encode(prompts, second=True), tau=0.0, rule="minmax")
    right = seeded("tiers").random(two.qualities.shape) < two.qualities + np.array([0.3, 0.1, 0.0, -0.2])
    rows = replace(
        first,
        quality=one.qualities.astype(np.float16),
        tokens_out=one.tokens_out,
        again_quality=two.qualities.astype(np.float16),
        again_tokens_out=two.tokens_out,
        outcome=(254 * right).astype(np.uint8),
        billed_tokens=encoded.billed_tokens.astype(np.uint32),
    )
    return Engine(with_rows(joined.bundle, rows))


def test_the_worth_goes_to_both_tiers(engine):
    policy = engine.policy(tau=0.3, escalate_below=0.1)
    assert policy.rule == "path"
    assert policy.second.coefficients == policy.coefficients
    assert policy.escalate_below == 0.1
    assert policy.promise.note is None or "first tier" not in policy.promise.note
    prompts = make_prompts(60, "other")
    decisions = engine.route_many(prompts, policy)
    assert 0 < decisions.escalated.sum() < 60
    for decision in decisions:
        assert decision.ranked[0] == decision.model


def test_the_path_is_that_of_what_both_tiers_choose_on_the_rows(engine):
    bundle, rows = engine.bundle, engine.bundle.path_rows
    path = engine.policy(tau=0.3).path
    assert 1 < len(path.worth) <= TWO_TIER_KNOTS
    first = rows.quality.astype(float), row_costs(rows.tokens_out, rows.billed_tokens, bundle.candidates, bundle.prices)
    again = (
        rows.again_quality.astype(float),
        row_costs(rows.again_tokens_out, rows.billed_tokens, bundle.candidates, bundle.prices),
    )
    every, least = np.arange(400), 0.0
    for k in range(0, len(path.worth), 9):
        chosen, asked = reference.two_tier_choices(first, again, bundle.tie_rank, float(path.worth[k]), 0.1)
        cost = np.where(asked, again[1][every, chosen], first[1][every, chosen]).mean()
        assert path.shares[k] == pytest.approx(np.bincount(chosen, minlength=4) / 400)
        assert path.cost_usd[k] >= max(cost, least) - 1e-12
        least = path.cost_usd[k]
    assert (np.diff(path.cost_usd) >= 0).all()
    assert (np.diff(path.level) > 0).all()


def test_the_worth_never_rises_with_tau(engine):
    for below in (None, 0.0, 0.05, math.inf):
        worths = [engine.policy(tau=tau, escalate_below=below).worth for tau in TAUS[1:]]
        assert worths == sorted(worths, reverse=True)


def test_where_one_tier_decides_everything_the_path_is_that_tiers(engine):
    bundle, rows, paths = engine.bundle, engine.bundle.path_rows, Paths(engine.bundle)
    for below, quality, tokens in (
        (0.0, rows.quality, rows.tokens_out),
        (math.inf, rows.again_quality, rows.again_tokens_out),
    ):
        cost = row_costs(tokens, rows.billed_tokens, bundle.candidates, bundle.prices)
        wanted = TauPath.fit(quality.astype(float), rows.outcome / 254, cost, bundle.tie_rank)
        made = paths.of(bundle.names, bundle.prices, below)
        assert made.worth.tolist() == wanted.worth.tolist()
        assert made.level.tolist() == wanted.level.tolist()


def test_rows_of_the_first_tier_alone_say_so(engine):
    rows = replace(engine.bundle.path_rows, again_quality=None, again_tokens_out=None)
    one = Engine(with_rows(engine.bundle, rows))
    assert "the path rows hold the first tier's predictions alone" in one.policy(tau=0.3).promise.note
    assert one.policy(tau=0.3).worth == engine.policy(tau=0.3, escalate_below=0).worth
    alone = one.policy(tau=0.3, escalate_below=0.0).promise.note
    assert alone is None or "first tier" not in alone


def test_both_tiers_are_counted_where_there_is_no_worth(engine):
    prompts = make_prompts(400)
    for tau in (0.0, 1.0):
        every = engine.policy(tau=tau, escalate_below=np.inf).promise
        most = engine.policy(tau=tau, escalate_below=2.0).promise
        assert most.cost_usd == pytest.approx(every.cost_usd, rel=1e-9)
        some = engine.policy(tau=tau, escalate_below=0.1)
        routed = engine.route_many(
            prompts, some
        ).cost_usd.mean()  # the prompts of the rows, at the op's own predictions
        assert some.promise.cost_usd == pytest.approx(routed, rel=2e-3)
