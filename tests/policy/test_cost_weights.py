"""Cost as a weighted sum of USD, seconds and Wh: what is decided, what is told in USD, what follows refreshed figures."""

import gc
import json
import threading
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipr_engine import Engine, InvalidInputError
from ipr_engine.bundle import Bundle, BundleParts, Performance, PriceTier, write_bundle
from ipr_engine.cli import main
from ipr_engine.decide import reference
from ipr_engine.policy.cost_weights import CostWeights, resolve_weights
from ipr_engine.policy.promise import TAUS
from ipr_engine.serving import BatchingEngine
from tests.support import skips
from tests.support.bundles import bundle_parts
from tests.support.calibration_data import make_prompts
from tests.support.calibration_maps import make_map
from tests.support.path_rows import make_rows, with_path, with_rows
from tests.support.tokenized_bundles import tokenized
from tests.support.two_tier_bundles import join, make_tiers, middle_gap
from tests.support.two_tier_bundles import make_prompts as tier_prompts

TEXTS = ["what is the sum of two and two", "write a story " * 30, "Почему небо голубое?", '{"a": [1, 22]}']
FIGURES = [
    Performance(ttft_s=0.9, tpot_s=0.05, wh_per_request=0.02, wh_per_1m_input=40.0, wh_per_1m_output=800.0),
    Performance(ttft_s=0.3, tpot_s=0.004, wh_per_1m_output=90.0),
    Performance(ttft_s=0.5, tpot_s=0.02, wh_per_request=0.01),
    Performance(ttft_s=2.5, tpot_s=0.001, wh_per_1m_input=15.0),
    Performance(ttft_s=0.2, tpot_s=0.09, wh_per_1m_output=10.0),
]
WEIGHTS = {"usd": 0.7, "ttft_s": 2e-4, "generation_s": 5e-5, "wh": 1e-3}


def figures_of(names):
    return dict(zip(names, FIGURES, strict=False))


@pytest.fixture
def engine(shared_bundle):
    made = Engine(shared_bundle)
    made.update_performance(figures_of(made.bundle.names))
    return made


@pytest.fixture(scope="module")
def shared_bundle(tmp_path_factory):
    """Own tokenizers, one price with a tier, path rows."""
    bundle = tokenized(tmp_path_factory.mktemp("weighed"))
    name = bundle.names[2]
    price = bundle.prices.prices[name]
    tier = PriceTier(above_tokens=20, input_usd_per_1m=9.0, output_usd_per_1m=30.0)
    prices = replace(
        bundle.prices, prices={**bundle.prices.prices, name: replace(price, tiers=(tier,), per_image_usd=1e-4)}
    )
    return with_path(Engine(replace(bundle, prices=prices, hash="f" * 64))).bundle


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


def test_the_weighted_sum_is_what_is_traded_and_usd_is_what_is_told(engine):
    policy, plain = engine.policy(tau=0.4, cost_weights=WEIGHTS), engine.policy(tau=0.4)
    for text in TEXTS:
        decision, usd = engine.route(text, policy), engine.route(text, plain)
        assert decision.costs_usd.tobytes() == usd.costs_usd.tobytes()
        sums = [
            by_definition(view, own, CostWeights(**WEIGHTS))
            for view, own in zip(decision.candidates, FIGURES, strict=True)
        ]
        np.testing.assert_allclose(decision.costs, sums, rtol=2e-6)
        objective = np.array(sums) - policy.worth * decision.qualities
        assert decision.model == engine.bundle.names[int(objective.argmin())]
        assert decision.cost == pytest.approx(sums[decision.index], rel=2e-6)
        assert decision.cost_usd == decision.costs_usd[decision.index]
        assert (usd.cost, usd.cost_terms) == (usd.cost_usd, None)


def test_the_terms_of_a_decision_add_up_to_its_cost(engine):
    decision = engine.route(TEXTS[1], tau=0.4, cost_weights=WEIGHTS)
    terms = decision.cost_terms
    total = sum(WEIGHTS[name] * (value or 0.0) for name, value in terms._asdict().items())
    assert total == pytest.approx(decision.cost, rel=2e-6)
    told = json.loads(json.dumps(decision.to_dict(), allow_nan=False))
    assert (told["cost"], told["cost_usd"], told["cost_terms"]) == (decision.cost, decision.cost_usd, terms._asdict())
    plain = engine.route(TEXTS[1], tau=0.4).to_dict()
    assert (plain["cost"], plain["cost_terms"]) == (plain["cost_usd"], None)


@pytest.mark.parametrize("extra", [None, 0.002, np.array([1e-3, -1e-4, 0, 2e-3, 5e-4])])
@pytest.mark.parametrize("cached", [None, 3])
def test_what_a_caller_adds_is_usd_and_is_weighed_as_usd(engine, extra, cached):
    policy, plain = engine.policy(tau=0.4, cost_weights=WEIGHTS), engine.policy(tau=0.4)
    image = {
        "messages": [
            {
                "role": "user",
                "content": [{"type": "text", "text": "what"}, {"type": "image_url", "image_url": {"url": "x"}}],
            }
        ]
    }
    given = {"extra_usd": extra, "cached_tokens": cached, "tokens_out": 77}
    ours = engine.route_many([*TEXTS, image, 7], policy, on_error="status", **given)
    theirs = engine.route_many([*TEXTS, image, 7], plain, on_error="status", **given)
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
def test_all_weights_times_a_number_choose_the_same(shared_bundle, scale, tau):
    engine = Engine(shared_bundle)
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


def test_usd_alone_at_its_own_weight_is_the_plain_policy(engine):
    plain = engine.policy(tau=0.3)
    for weights in ({}, {"usd": 1}, {"usd": 1.0, "wh": 0, "ttft_s": 0.0}):
        policy = engine.policy(tau=0.3, cost_weights=weights)
        assert policy == plain
        assert (policy.weighing, policy.measured) == (None, None)


def test_the_path_runs_on_the_weighted_sum_and_tells_usd(engine):
    names = engine.bundle.names
    policy = engine.policy(tau=0.5, cost_weights={"usd": 0, "ttft_s": 1})
    assert policy.promise.cheapest == names[4]  # the fastest to answer
    assert {row.model for row in engine.route_many(TEXTS, tau=1, cost_weights={"usd": 0, "ttft_s": 1})} == {names[4]}
    assert "cost is weighed (usd 0, ttft_s 1" in str(policy.promise)
    assert policy.promise.cost_weights == "usd 0, ttft_s 1"
    single = engine.policy(tau=0.5).path.single_usd
    np.testing.assert_allclose(policy.path.single_usd, single)
    rows, taken = engine.bundle.path_rows, 1.0
    for tau in TAUS:
        point = engine.policy(tau=tau, cost_weights=WEIGHTS)
        assert single.min() <= point.promise.cost_usd <= single.max()
        assert point.worth <= (taken if tau else np.inf)
        taken = point.worth if tau else np.inf
    assert rows is engine.bundle.path_rows


def test_the_weighted_cost_of_a_prompt_never_rises_with_tau(engine):
    prompts = list(make_prompts("never rises", 60))
    before = np.full(60, np.inf)
    for tau in np.linspace(0, 1, 21):
        cost = engine.route_many(prompts, tau=float(tau), cost_weights=WEIGHTS).cost.astype(np.float64)
        assert (cost <= before * (1 + 1e-6)).all()
        before = cost


def test_what_taking_the_cheapest_on_each_prompt_costs_in_quality_is_promised(engine):
    """Where the best candidate has the least mean cost too, and another one is cheaper on some prompts."""
    names, rows = engine.bundle.names, engine.bundle.path_rows
    brief, long = np.tile([[20.0], [900.0]], (250, 1)), np.tile([[900.0], [20.0]], (250, 1))
    tokens = np.column_stack([brief, 1.2 * long, *[np.full((500, 1), 5000.0)] * 3]).astype(np.float32)
    right = np.zeros((500, 5), np.uint8)
    right[:, 0] = 254
    right[:125, 1] = 254
    quality = np.tile([0.9, 0.3, 0.1, 0.1, 0.1], (500, 1)) + np.linspace(0, 0.05, 500)[:, None] * [0, 1, 0, 0, 0]
    rows = replace(rows, tokens_out=tokens, outcome=right, quality=quality.astype(np.float16))
    same = Engine(with_rows(engine.bundle, rows))
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


def test_a_limit_in_usd_holds_whatever_is_weighed(engine):
    weights = {"usd": 0.0, "ttft_s": 1.0, "generation_s": 0.3}
    path = engine.policy(tau=0.5, cost_weights=weights).path
    least = 1000 * min(path.cheapest_choice_usd, path.cost_usd.min())
    for limit in np.linspace(1.0001 * least, 1000 * path.cost_usd.max(), 12):
        policy = engine.policy(max_usd_per_1k=float(limit), cost_weights=weights)
        assert 1000 * policy.promise.cost_usd <= limit * (1 + 1e-9)
    with pytest.raises(InvalidInputError, match="max_usd_per_1k: the least possible"):
        engine.policy(max_usd_per_1k=0.9 * least, cost_weights=weights)


def test_frontier_and_explanation_are_of_the_weighted_sum(engine):
    policy = engine.policy(tau=0.4, cost_weights=WEIGHTS)
    for text in TEXTS:
        decision = engine.route(text, policy)
        steps = decision.frontier
        for step in steps:
            again = engine.route(text, tau=step.tau, cost_weights=WEIGHTS)
            assert (again.model, again.cost_usd) == (step.model, pytest.approx(step.cost_usd))
        told = engine.explain(decision)
        assert told.gaps[decision.model] == pytest.approx(decision.gap, rel=1e-3, abs=1e-6)
        assert "weighed cost" in str(told)
        json.dumps(told.to_dict(), allow_nan=False)


# -- refreshed while serving


def test_a_policy_in_use_follows_refreshed_figures_and_others_stay_as_they_are(engine):
    names = engine.bundle.names
    weights = {"usd": 0, "ttft_s": 1}
    fastest, plain = engine.policy(tau=1, cost_weights=weights), engine.policy(tau=1)
    pinned = engine.policy(tau=1, cost_weights=weights, performance=figures_of(names))
    assert engine.route("what", fastest).model == names[4]
    for name in (names[1], names[3], names[0]):
        engine.update_performance({name: {"ttft_s": 0.001}, names[4]: {"ttft_s": 0.2}})
        for asked in (fastest, None):
            terms = {} if asked else {"tau": 1, "cost_weights": weights}
            assert engine.route("what", asked, **terms).model == name
            assert engine.decide(engine.encode("what"), asked, **terms).models == [name]
        assert engine.route("what", pinned).model == names[4]
        assert engine.route("what", plain).policy is plain
        engine.update_performance({name: {"ttft_s": 5.0}})
    assert engine.performance[names[1]] == replace(FIGURES[1], ttft_s=5.0, basis="given by the caller")


def test_policies_in_use_are_compiled_by_the_refresh_and_others_not_at_all(engine, monkeypatch):
    names = engine.bundle.names
    weights = {"usd": 0, "ttft_s": 1}
    held, dropped = engine.policy(tau=0.5, cost_weights=weights), engine.policy(tau=0.6, cost_weights=weights)
    plain = engine.policy(tau=0.5)
    loaded, compiled = engine.loaded, []
    compile_ = type(loaded.policies).compile
    monkeypatch.setattr(
        type(loaded.policies), "compile", lambda self, *given: compiled.append(given) or compile_(self, *given)
    )
    del dropped
    engine.update_performance({names[0]: {"ttft_s": 0.001}})
    assert len(compiled) == 1
    for policy in (held, plain):
        engine.route("what", policy)
    assert len(compiled) == 1
    engine.swap(replace(engine.bundle, hash="c" * 64))
    assert len(compiled) == 3
    for policy in (held, plain):
        assert engine.route("what", policy).policy.bundle_hash == "c" * 64
    assert len(compiled) == 3


def test_refreshed_figures_hold_across_a_swap_and_before_the_bundle_s(engine, shared_bundle):
    names = engine.bundle.names
    candidates = tuple(
        replace(c, performance=Performance(ttft_s=7.0, wh_per_request=0.5)) for c in shared_bundle.candidates
    )
    policy = engine.policy(tau=1, cost_weights={"usd": 0, "ttft_s": 1})
    engine.swap(replace(shared_bundle, candidates=candidates, hash="e" * 64))
    assert engine.performance[names[4]].ttft_s == 0.2
    assert engine.performance[names[4]].wh_per_request == 0.5
    assert engine.route("what", policy).model == names[4]
    engine.update_performance({names[4].upper(): None})
    assert engine.performance[names[4]].ttft_s == 7.0
    alone = Engine(replace(shared_bundle, candidates=candidates, hash="e" * 64))
    assert alone.performance[names[4]].ttft_s == 7.0


def test_figures_refreshed_beside_routing_are_never_torn(engine):
    """Every decision is that of one set of figures: one candidate is fast, every other one slow."""
    names = engine.bundle.names
    policy = engine.policy(tau=1, cost_weights={"usd": 0, "ttft_s": 1})

    def refresh(turn):
        engine.update_performance({name: {"ttft_s": 0.1 if m == turn % 5 else 1.0} for m, name in enumerate(names)})

    refresh(0)
    done, seen, failed = threading.Event(), set(), []

    def route():
        while not done.is_set():
            decision = engine.route("what", policy)
            known = [own.ttft_s for own in decision.policy.weighing.figures]
            if sorted(known) != [0.1, 1.0, 1.0, 1.0, 1.0] or decision.model != names[known.index(0.1)]:
                failed.append((known, decision.model))
            seen.add(decision.model)

    threads = [threading.Thread(target=route) for _ in range(3)]
    for thread in threads:
        thread.start()
    for turn in range(150):
        refresh(turn)
    done.set()
    for thread in threads:
        thread.join()
    assert not failed
    assert len(seen) > 1
    assert engine.route("what", policy).model == names[149 % 5]


def test_what_was_compiled_for_a_policy_goes_with_its_last_holder(engine):
    weights = {"usd": 0, "ttft_s": 1}
    held = [engine.policy(tau=0.1 + n / 1000, cost_weights=weights) for n in range(300)]
    engine.update_performance({engine.bundle.names[0]: {"ttft_s": 0.4}})
    for policy in held:
        assert engine.route("what", policy).policy is engine.route("what", policy).policy  # kept, however many
    assert len(engine.loaded.policies.followed) == 300
    del held, policy
    gc.collect()
    assert not engine.loaded.policies.followed


def test_a_policy_whose_figures_were_taken_back_says_so(engine):
    policy = engine.policy(tau=0.5, cost_weights={"ttft_s": 1.0})
    engine.update_performance({engine.bundle.names[0]: None})
    with pytest.raises(InvalidInputError, match=r"policy: figures that it weighs were taken back .* is not known"):
        engine.route("what", policy)


def test_figures_of_a_candidate_come_back_with_it(engine, shared_bundle, tmp_path):
    from ipr_engine.bundle.edit import without_candidate

    name = engine.bundle.names[4]
    smaller = Bundle.load(without_candidate(shared_bundle, name, root=tmp_path))
    engine.swap(smaller, allow_fewer_candidates=True, allow_fewer_outputs=True)
    assert name not in engine.performance
    engine.swap(shared_bundle)
    assert engine.performance[name] == FIGURES[4]


@pytest.mark.parametrize(
    ("figures", "message"),
    [
        (3, "expected name -> Performance"),
        ({"nobody": {"ttft_s": 1}}, "figures: unknown 'nobody'; known: "),
        ({"first": {"ttft_s": float("nan")}}, r"figures\['.*'\].ttft_s: expected a finite number, got nan"),
        ({"first": {"tpot_s": -0.1}}, r"tpot_s: expected a number >= 0, got -0.1"),
        (
            {"first": {"ttft_ms": 300}},
            r"ttft_ms: expected one of ttft_s \(seconds to the first token\), .* got unknown key 'ttft_ms'; times are in seconds: if",
        ),
        (
            {"first": {"tpot_s": 12}},
            r"tpot_s: expected a number of seconds .*, at most 5, got 12; it is in seconds: if these",
        ),
        ({"first": {}}, "expected at least one of ttft_s"),
        ({"first": 0.3}, "expected a Performance, a mapping of its figures, or None, got 0.3"),
        ({"first": {"ttft_s": True}}, "ttft_s: expected a number"),
    ],
)
def test_figures_that_are_none_are_refused_by_name_and_nothing_is_taken(engine, figures, message):
    before, name = engine.performance, engine.bundle.names[0]
    if isinstance(figures, dict) and "first" in figures:
        figures = {engine.bundle.names[1]: {"ttft_s": 9.0}, name: figures["first"]}
    with pytest.raises(InvalidInputError, match=message):
        engine.update_performance(figures)
    assert engine.performance is before
    if isinstance(figures, dict):
        with pytest.raises(InvalidInputError, match="performance"):
            engine.policy(tau=0.3, cost_weights={"ttft_s": 1}, performance=figures)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (3, "cost_weights: expected term -> USD per unit of it"),
        ({"ms": 1}, r"cost_weights: unknown 'ms'; known, each in USD per unit: usd \(USD\), ttft_s"),
        ({"tpot_s": 1}, "unknown 'tpot_s'; .*; tpot_s is the figure behind generation_s"),
        ({"wh": float("nan")}, r"cost_weights\['wh'\]: expected a finite number"),
        ({"ttft_s": -1}, r"cost_weights\['ttft_s'\]: expected a value from 0"),
        ({"ttft_s": "1"}, r"cost_weights\['ttft_s'\]: expected a number"),
        ({"usd": 0}, "cost_weights: expected a weight above 0"),
    ],
)
def test_weights_that_are_none_are_refused_by_name(engine, weights, message):
    with pytest.raises(InvalidInputError, match=message):
        engine.policy(tau=0.3, cost_weights=weights)


def test_a_term_that_is_not_known_of_an_allowed_candidate_is_refused_and_of_another_one_left_out(shared_bundle):
    engine, names = Engine(shared_bundle), shared_bundle.names
    engine.update_performance({name: {"ttft_s": 0.5} for name in names[1:]})
    with pytest.raises(
        InvalidInputError, match=f"ttft_s .* is weighed, and ttft_s of {names[0]} is not known; give it in"
    ):
        engine.policy(tau=0.3, cost_weights={"ttft_s": 0.1})
    with pytest.raises(
        InvalidInputError, match=r"wh .* is weighed, and wh_per_request or wh_per_1m_input or wh_per_1m_output of"
    ):
        engine.policy(tau=0.3, cost_weights={"wh": 0.1}, exclude=[names[0]])
    decision = engine.route("what", tau=0.3, cost_weights={"ttft_s": 0.1}, exclude=names[0])
    views = {view.name: view for view in decision.candidates}
    assert np.isnan(views[names[0]].cost)
    assert np.isfinite(views[names[1]].cost)
    json.dumps(engine.explain(decision).to_dict(), allow_nan=False)


def test_figures_without_a_weight_are_told_to_do_nothing(engine):
    with pytest.raises(InvalidInputError, match="performance: nothing but USD is weighed"):
        engine.policy(tau=0.3, performance={engine.bundle.names[0]: {"ttft_s": 1}})


# -- what is certified, kept, and served


def test_a_weighted_cost_is_not_certified_by_what_was_tested_in_usd(engine, shared_bundle):
    made = make_map(shared_bundle)
    calibrated = Engine(replace(shared_bundle, calibrations=(made,), hash="d" * 64))
    calibrated.update_performance(figures_of(shared_bundle.names))
    assert calibrated.policy(tau=0.1, rule="calibrated").calibration.status == "calibrated"
    policy = calibrated.policy(tau=0.1, rule="calibrated", cost_weights=WEIGHTS)
    assert policy.calibration.status == "uncalibrated"
    assert "cost_weights weigh usd 0.7, ttft_s 0.0002" in policy.calibration.reason


@pytest.mark.parametrize("whole", [False, True])
def test_a_record_is_decided_again_to_the_bit_with_the_figures_of_then(engine, whole):
    pytest.importorskip("cryptography", reason=skips.RECORDS)
    from ipr_engine.audit.replay import replay

    kept, key = [], bytes(range(32))
    policy = engine.policy(tau=0.4, cost_weights=WEIGHTS)
    with engine.recorder(kept.append, keep_x=whole, key=key, min_words=0) as recorder:
        for extra in (None, 0.001):
            recorder.route_many(TEXTS, policy, extra_usd=extra, cached_tokens=None if extra is None else 2)
        engine.update_performance({name: {"ttft_s": 3.0, "tpot_s": 0.5} for name in engine.bundle.names[1:]})
        recorder.route_many(TEXTS, policy)
    engine.update_performance(figures_of(engine.bundle.names[:2]))
    lines = b"".join(kept).splitlines(keepends=True)
    assert len(lines) == 12
    for replayed in replay(lines, engine, key=key if whole else None):
        assert (replayed.refused, replayed.differences, replayed.by_heads) == (None, (), whole)
    for today in ({"policy": engine.policy(tau=0.4, cost_weights=WEIGHTS)}, {"performance": engine.performance}):
        moved = list(replay(lines[-4:], engine, key=key if whole else None, **today))
        assert any(replayed.differences for replayed in moved)


def test_a_weighed_record_is_decided_again_where_a_candidate_is_gone(engine, shared_bundle, tmp_path):
    pytest.importorskip("cryptography", reason=skips.RECORDS)
    from ipr_engine.audit.replay import replay
    from ipr_engine.bundle.edit import without_candidate

    kept, key, gone = [], bytes(range(32)), engine.bundle.names[3]
    with engine.recorder(kept.append, keep_x=True, key=key, min_words=0) as recorder:
        recorder.route_many(TEXTS, tau=0.4, cost_weights=WEIGHTS)
    smaller = Engine.load(without_candidate(shared_bundle, gone, root=tmp_path))
    wanted = smaller.route_many(
        TEXTS,
        tau=0.4,
        cost_weights=WEIGHTS,
        performance=figures_of([*engine.bundle.names[:3], engine.bundle.names[4]])
        | {engine.bundle.names[4]: FIGURES[4]},
    )
    for replayed, decision in zip(replay(kept[0].splitlines(keepends=True), smaller, key=key), wanted, strict=True):
        assert replayed.refused is None
        assert replayed.outcome.model == decision.model


def test_batched_answers_are_the_engine_s(engine):
    policy = engine.policy(tau=0.4, cost_weights=WEIGHTS)
    with BatchingEngine(engine) as batching:
        for text in TEXTS:
            for given in ({}, {"extra_usd": 0.001}):
                ours, theirs = batching.route(text, policy, **given), engine.route(text, policy, **given)
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
