"""Cost as a weighted sum of USD, seconds and Wh: what is decided, what is told in USD, what is certified and kept of it."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipr_engine import Engine, InvalidInputError
from ipr_engine.bundle import Bundle, BundleParts, write_bundle
from ipr_engine.cli import main
from ipr_engine.decide import reference
from ipr_engine.policy.cost_weights import CostWeights, resolve_weights
from ipr_engine.policy.promise import TAUS
from ipr_engine.serving import BatchingEngine
from tests.support import skips
from tests.support.bundles import bundle_parts
from tests.support.calibration_data import make_prompts
from tests.support.calibration_maps import make_map
from tests.support.path_rows import make_rows, with_rows
from tests.support.two_tier_bundles import join, make_tiers, middle_gap
from tests.support.two_tier_bundles import make_prompts as tier_prompts
from tests.support.weighed_bundles import FIGURES, TEXTS, WEIGHTS, figures_of


def by_definition(view, own, weights):
    """The weighted sum of one candidate, from its terms in their own units."""
    wh = (own.wh_per_request or 0) + (own.wh_per_1m_input or 0) * view.tokens_in / 1e6
    wh += (own.wh_per_1m_output or 0) * view.tokens_out / 1e6
    return (
        weights.usd * view.cost_usd
        + weights.ttft_s * own.ttft_s
        + weights.generation_s * own.tpot_s * view.tokens_out
        + weights.wh * wh
    )


def test_the_weighted_sum_is_what_is_traded_and_usd_is_what_is_told(weighed_engine):
    policy, plain = weighed_engine.policy(tau=0.4, cost_weights=WEIGHTS), weighed_engine.policy(tau=0.4)
    for text in TEXTS:
        decision, usd = weighed_engine.route(text, policy), weighed_engine.route(text, plain)
        assert decision.costs_usd.tobytes() == usd.costs_usd.tobytes()
        sums = [
            by_definition(view, own, CostWeights(**WEIGHTS))
            for view, own in zip(decision.candidates, FIGURES, strict=True)
        ]
        np.testing.assert_allclose(decision.costs, sums, rtol=2e-6)
        objective = np.array(sums) - policy.worth * decision.qualities
        assert decision.model == weighed_engine.bundle.names[int(objective.argmin())]
        assert decision.cost == pytest.approx(sums[decision.index], rel=2e-6)
        assert decision.cost_usd == decision.costs_usd[decision.index]
        assert (usd.cost, usd.cost_terms) == (usd.cost_usd, None)


def test_the_terms_of_a_decision_add_up_to_its_cost(weighed_engine):
    decision = weighed_engine.route(TEXTS[1], tau=0.4, cost_weights=WEIGHTS)
    terms = decision.cost_terms
    total = sum(WEIGHTS[name] * (value or 0.0) for name, value in terms._asdict().items())
    assert total == pytest.approx(decision.cost, rel=2e-6)
    told = json.loads(json.dumps(decision.to_dict(), allow_nan=False))
    assert (told["cost"], told["cost_usd"], told["cost_terms"]) == (decision.cost, decision.cost_usd, terms._asdict())
    plain = weighed_engine.route(TEXTS[1], tau=0.4).to_dict()
    assert (plain["cost"], plain["cost_terms"]) == (plain["cost_usd"], None)


@pytest.mark.parametrize("extra", [None, 0.002, np.array([1e-3, -1e-4, 0, 2e-3, 5e-4])])
@pytest.mark.parametrize("cached", [None, 3])
def test_what_a_caller_adds_is_usd_and_is_weighed_as_usd(weighed_engine, extra, cached):
    policy, plain = weighed_engine.policy(tau=0.4, cost_weights=WEIGHTS), weighed_engine.policy(tau=0.4)
    image = {
        "messages": [
            {
                "role": "user",
                "content": [{"type": "text", "text": "what"}, {"type": "image_url", "image_url": {"url": "x"}}],
            }
        ]
    }
    given = {"extra_usd": extra, "cached_tokens": cached, "tokens_out": 77}
    ours = weighed_engine.route_many([*TEXTS, image, 7], policy, on_error="status", **given)
    theirs = weighed_engine.route_many([*TEXTS, image, 7], plain, on_error="status", **given)
    np.testing.assert_array_equal(ours.costs_usd, theirs.costs_usd)
    np.testing.assert_allclose(ours.cost_usd, [row.cost_usd for row in ours])
    for decision in list(ours)[:-1]:
        sums = [
            by_definition(view, own, CostWeights(**WEIGHTS))
            for view, own in zip(decision.candidates, FIGURES, strict=True)
        ]
        np.testing.assert_allclose(decision.costs, sums, rtol=2e-6, atol=1e-12)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(scale=st.floats(1e-3, 1e3), tau=st.sampled_from(TAUS))
def test_all_weights_times_a_number_choose_the_same(weighed, scale, tau):
    engine = Engine(weighed)
    terms = {"tau": tau, "performance": figures_of(engine.bundle.names)}
    ours = engine.policy(cost_weights=WEIGHTS, **terms)
    scaled = engine.policy(cost_weights={term: scale * weight for term, weight in WEIGHTS.items()}, **terms)
    assert scaled.worth == pytest.approx(scale * ours.worth, rel=1e-9)
    assert scaled.promise.quality == pytest.approx(ours.promise.quality)
    assert scaled.promise.cost_usd == pytest.approx(ours.promise.cost_usd)
    prompts = list(make_prompts("scaled", 40))
    same = [
        a == b
        for a, b in zip(engine.route_many(prompts, ours).models, engine.route_many(prompts, scaled).models, strict=True)
    ]
    assert sum(same) >= 39  # a tie up to rounding


def test_usd_alone_at_its_own_weight_is_the_plain_policy(weighed_engine):
    plain = weighed_engine.policy(tau=0.3)
    for weights in ({}, {"usd": 1}, {"usd": 1.0, "wh": 0, "ttft_s": 0.0}):
        policy = weighed_engine.policy(tau=0.3, cost_weights=weights)
        assert policy == plain
        assert (policy.weighing, policy.measured) == (None, None)


def test_the_path_runs_on_the_weighted_sum_and_tells_usd(weighed_engine):
    names = weighed_engine.bundle.names
    policy = weighed_engine.policy(tau=0.5, cost_weights={"usd": 0, "ttft_s": 1})
    assert policy.promise.cheapest == names[4]  # the fastest to answer
    assert {row.model for row in weighed_engine.route_many(TEXTS, tau=1, cost_weights={"usd": 0, "ttft_s": 1})} == {
        names[4]
    }
    assert "cost is weighed (usd 0, ttft_s 1" in str(policy.promise)
    assert policy.promise.cost_weights == "usd 0, ttft_s 1"
    single = weighed_engine.policy(tau=0.5).path.single_usd
    np.testing.assert_allclose(policy.path.single_usd, single)
    rows, taken = weighed_engine.bundle.path_rows, 1.0
    for tau in TAUS:
        point = weighed_engine.policy(tau=tau, cost_weights=WEIGHTS)
        assert single.min() <= point.promise.cost_usd <= single.max()
        assert point.worth <= (taken if tau else np.inf)
        taken = point.worth if tau else np.inf
    assert rows is weighed_engine.bundle.path_rows


def test_the_weighted_cost_of_a_prompt_never_rises_with_tau(weighed_engine):
    prompts = list(make_prompts("never rises", 60))
    before = np.full(60, np.inf)
    for tau in np.linspace(0, 1, 21):
        cost = weighed_engine.route_many(prompts, tau=float(tau), cost_weights=WEIGHTS).cost.astype(np.float64)
        assert (cost <= before * (1 + 1e-6)).all()
        before = cost


def test_what_taking_the_cheapest_on_each_prompt_costs_in_quality_is_promised(weighed_engine):
    """Where the best candidate has the least mean cost too, and another one is cheaper on some prompts."""
    names, rows = weighed_engine.bundle.names, weighed_engine.bundle.path_rows
    brief, long = np.tile([[20.0], [900.0]], (250, 1)), np.tile([[900.0], [20.0]], (250, 1))
    tokens = np.column_stack([brief, 1.2 * long, *[np.full((500, 1), 5000.0)] * 3]).astype(np.float32)
    right = np.zeros((500, 5), np.uint8)
    right[:, 0] = 254
    right[:125, 1] = 254
    quality = np.tile([0.9, 0.3, 0.1, 0.1, 0.1], (500, 1)) + np.linspace(0, 0.05, 500)[:, None] * [0, 1, 0, 0, 0]
    rows = replace(rows, tokens_out=tokens, outcome=right, quality=quality.astype(np.float16))
    same = Engine(with_rows(weighed_engine.bundle, rows))
    figures = {name: {"tpot_s": 0.01} for name in names}
    weights = {"usd": 0, "generation_s": 1}
    path = same.policy(tau=0.5, cost_weights=weights, performance=figures).path
    assert path.best == path.cheapest == 0
    assert path.least_quality == path.cheapest_choice_quality == pytest.approx(0.625, abs=0.01)
    worths = []
    for tau in (0.05, 0.5, 0.95, 1.0):
        policy = same.policy(tau=tau, cost_weights=weights, performance=figures)
        assert policy.promise.quality == pytest.approx(1 - tau * (1 - path.least_quality))
        assert "the cheapest is also the best" in policy.promise.note
        worths.append(policy.worth)
    assert worths == sorted(worths, reverse=True)
    assert worths[0] > worths[-1] == 0.0


def test_a_limit_in_usd_holds_whatever_is_weighed(weighed_engine):
    weights = {"usd": 0.0, "ttft_s": 1.0, "generation_s": 0.3}
    path = weighed_engine.policy(tau=0.5, cost_weights=weights).path
    least = 1000 * min(path.cheapest_choice_usd, path.cost_usd.min())
    for limit in np.linspace(1.0001 * least, 1000 * path.cost_usd.max(), 12):
        policy = weighed_engine.policy(max_usd_per_1k=float(limit), cost_weights=weights)
        assert 1000 * policy.promise.cost_usd <= limit * (1 + 1e-9)
    with pytest.raises(InvalidInputError, match="max_usd_per_1k: the least possible"):
        weighed_engine.policy(max_usd_per_1k=0.9 * least, cost_weights=weights)


def test_frontier_and_explanation_are_of_the_weighted_sum(weighed_engine):
    policy = weighed_engine.policy(tau=0.4, cost_weights=WEIGHTS)
    for text in TEXTS:
        decision = weighed_engine.route(text, policy)
        steps = decision.frontier
        for step in steps:
            again = weighed_engine.route(text, tau=step.tau, cost_weights=WEIGHTS)
            assert (again.model, again.cost_usd) == (step.model, pytest.approx(step.cost_usd))
        told = weighed_engine.explain(decision)
        assert told.gaps[decision.model] == pytest.approx(decision.gap, rel=1e-3, abs=1e-6)
        assert "weighed cost" in str(told)
        json.dumps(told.to_dict(), allow_nan=False)


def test_a_weighted_cost_is_not_certified_by_what_was_tested_in_usd(weighed_engine, weighed):
    made = make_map(weighed)
    calibrated = Engine(replace(weighed, calibrations=(made,), hash="d" * 64))
    calibrated.update_performance(figures_of(weighed.names))
    assert calibrated.policy(tau=0.1, rule="calibrated").calibration.status == "calibrated"
    policy = calibrated.policy(tau=0.1, rule="calibrated", cost_weights=WEIGHTS)
    assert policy.calibration.status == "uncalibrated"
    assert "cost_weights weigh usd 0.7, ttft_s 0.0002" in policy.calibration.reason


@pytest.mark.parametrize("whole", [False, True])
def test_a_record_is_decided_again_to_the_bit_with_the_figures_of_then(weighed_engine, whole):
    pytest.importorskip("cryptography", reason=skips.RECORDS)
    from ipr_engine.audit.replay import replay

    kept, key = [], bytes(range(32))
    policy = weighed_engine.policy(tau=0.4, cost_weights=WEIGHTS)
    with weighed_engine.recorder(kept.append, keep_x=whole, key=key, min_words=0) as recorder:
        for extra in (None, 0.001):
            recorder.route_many(TEXTS, policy, extra_usd=extra, cached_tokens=None if extra is None else 2)
        weighed_engine.update_performance(
            {name: {"ttft_s": 3.0, "tpot_s": 0.5} for name in weighed_engine.bundle.names[1:]}
        )
        recorder.route_many(TEXTS, policy)
    weighed_engine.update_performance(figures_of(weighed_engine.bundle.names[:2]))
    lines = b"".join(kept).splitlines(keepends=True)
    assert len(lines) == 12
    for replayed in replay(lines, weighed_engine, key=key if whole else None):
        assert (replayed.refused, replayed.differences, replayed.by_heads) == (None, (), whole)
    for today in (
        {"policy": weighed_engine.policy(tau=0.4, cost_weights=WEIGHTS)},
        {"performance": weighed_engine.performance},
    ):
        moved = list(replay(lines[-4:], weighed_engine, key=key if whole else None, **today))
        assert any(replayed.differences for replayed in moved)


def test_a_weighed_record_is_decided_again_where_a_candidate_is_gone(weighed_engine, weighed, tmp_path):
    pytest.importorskip("cryptography", reason=skips.RECORDS)
    from ipr_engine.audit.replay import replay
    from ipr_engine.bundle.edit import without_candidate

    kept, key, gone = [], bytes(range(32)), weighed_engine.bundle.names[3]
    with weighed_engine.recorder(kept.append, keep_x=True, key=key, min_words=0) as recorder:
        recorder.route_many(TEXTS, tau=0.4, cost_weights=WEIGHTS)
    smaller = Engine.load(without_candidate(weighed, gone, root=tmp_path))
    wanted = smaller.route_many(
        TEXTS,
        tau=0.4,
        cost_weights=WEIGHTS,
        performance=figures_of([*weighed_engine.bundle.names[:3], weighed_engine.bundle.names[4]])
        | {weighed_engine.bundle.names[4]: FIGURES[4]},
    )
    for replayed, decision in zip(replay(kept[0].splitlines(keepends=True), smaller, key=key), wanted, strict=True):
        assert replayed.refused is None
        assert replayed.outcome.model == decision.model


def test_batched_answers_are_the_engine_s(weighed_engine):
    policy = weighed_engine.policy(tau=0.4, cost_weights=WEIGHTS)
    with BatchingEngine(weighed_engine) as batching:
        for text in TEXTS:
            for given in ({}, {"extra_usd": 0.001}):
                ours, theirs = batching.route(text, policy, **given), weighed_engine.route(text, policy, **given)
                assert ours.to_dict() == theirs.to_dict()


def test_two_tiers_run_the_path_of_the_weighted_sum(tmp_path):
    joined = Engine(join(tmp_path, make_tiers(tmp_path), gap=0.1))
    rows, prompts = make_rows(joined, 300), tier_prompts(300)
    two = joined.decide(joined.encode(prompts, second=True), tau=0.0, rule="minmax")
    one = joined.decide(joined.encode(prompts), tau=0.0, rule="minmax")
    rows = replace(
        rows, quality=one.qualities.astype(np.float16), tokens_out=one.tokens_out,
        again_quality=two.qualities.astype(np.float16), again_tokens_out=two.tokens_out,
    )  # fmt: skip
    engine = Engine(with_rows(joined.bundle, rows))
    names = engine.bundle.names
    figures = figures_of(names)
    policy = engine.policy(tau=0.3, cost_weights=WEIGHTS, performance=figures)
    path = policy.path
    weighing = resolve_weights(WEIGHTS, figures, names, names)
    rates, folded = policy.rates, weighing.folded(policy.rates)
    billed = rows.billed_tokens.astype(float)[:, None]
    usd, cost = (
        [table.cost(billed, tokens.astype(float)) for tokens in (rows.tokens_out, rows.again_tokens_out)]
        for table in (rates, folded)
    )
    tiers = [(q.astype(float), c) for q, c in zip((rows.quality, rows.again_quality), cost, strict=True)]
    every = np.arange(300)
    for k in range(0, len(path.worth), 17):
        chosen, asked = reference.two_tier_choices(*tiers, engine.bundle.tie_rank, float(path.worth[k]), 0.1)
        paid = np.where(asked, usd[1][every, chosen], usd[0][every, chosen]).mean()
        assert path.cost_usd[k] == pytest.approx(paid)
        assert path.shares[k] == pytest.approx(np.bincount(chosen, minlength=4) / 300)
    others = tier_prompts(40, "other")
    terms = {"cost_weights": WEIGHTS, "performance": figures, "extra_usd": 1e-3}
    below = middle_gap(engine.route_many(others, tau=0.3, escalate_below=0, **terms).gap)
    decisions = engine.route_many(others, tau=0.3, escalate_below=below, **terms)
    plain = engine.route_many(others, tau=0.3, extra_usd=1e-3, escalate_below=0)
    assert 0 < decisions.escalated.sum() < 40
    kept = ~decisions.escalated
    np.testing.assert_allclose(decisions.costs_usd[kept], plain.costs_usd[kept], rtol=2e-6)


def test_the_command_line_weighs_what_the_bundle_states(tmp_path, capsys):
    parts = bundle_parts(tmp_path / "parts", models=5, dim=16)
    parts["candidates"] = [replace(c, performance=own) for c, own in zip(parts["candidates"], FIGURES, strict=True)]
    folder = write_bundle(tmp_path / "bundles", BundleParts(**parts))
    assert Bundle.load(folder).candidates[0].performance == FIGURES[0]
    asked = ["route", "what is it", "--bundle", str(folder), "--tau", "1", "--json"]
    assert main([*asked, "--cost-weight", "usd=0", "--cost-weight", "ttft_s=1"]) == 0
    told = json.loads(capsys.readouterr().out)["decision"]
    assert told["model"] == parts["candidates"][4].name
    assert told["cost_terms"]["ttft_s"] == 0.2
    for wrong, message in (("ttft_s", "expected TERM=USD"), ("ms=1", "unknown 'ms'")):
        assert main([*asked, "--cost-weight", wrong]) == 1
        assert message in capsys.readouterr().err
    assert main([*asked, "--cost-weight", "wh=1", "--cost-weight", "wh=2"]) == 1
    assert "--cost-weight: wh is given twice" in capsys.readouterr().err
