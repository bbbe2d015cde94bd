"""Figures refreshed while serving: policies in use follow them, and what is no figure or no weight is refused by name."""

import gc
import json
import threading
from dataclasses import replace

import numpy as np
import pytest

from ipr_engine import Engine, InvalidInputError
from ipr_engine.bundle import Bundle, Performance
from tests.support.weighed_bundles import FIGURES, figures_of


def test_a_policy_in_use_follows_refreshed_figures_and_others_stay_as_they_are(weighed_engine):
    names = weighed_engine.bundle.names
    weights = {"usd": 0, "ttft_s": 1}
    fastest, plain = weighed_engine.policy(tau=1, cost_weights=weights), weighed_engine.policy(tau=1)
    pinned = weighed_engine.policy(tau=1, cost_weights=weights, performance=figures_of(names))
    assert weighed_engine.route("what", fastest).model == names[4]
    for name in (names[1], names[3], names[0]):
        weighed_engine.update_performance({name: {"ttft_s": 0.001}, names[4]: {"ttft_s": 0.2}})
        for asked in (fastest, None):
            terms = {} if asked else {"tau": 1, "cost_weights": weights}
            assert weighed_engine.route("what", asked, **terms).model == name
            assert weighed_engine.decide(weighed_engine.encode("what"), asked, **terms).models == [name]
        assert weighed_engine.route("what", pinned).model == names[4]
        assert weighed_engine.route("what", plain).policy is plain
        weighed_engine.update_performance({name: {"ttft_s": 5.0}})
    assert weighed_engine.performance[names[1]] == replace(FIGURES[1], ttft_s=5.0, basis="given by the caller")


def test_policies_in_use_are_compiled_by_the_refresh_and_others_not_at_all(weighed_engine, monkeypatch):
    names = weighed_engine.bundle.names
    weights = {"usd": 0, "ttft_s": 1}
    held, dropped = (
        weighed_engine.policy(tau=0.5, cost_weights=weights),
        weighed_engine.policy(tau=0.6, cost_weights=weights),
    )
    plain = weighed_engine.policy(tau=0.5)
    loaded, compiled = weighed_engine.loaded, []
    compile_ = type(loaded.policies).compile
    monkeypatch.setattr(
        type(loaded.policies), "compile", lambda self, *given: compiled.append(given) or compile_(self, *given)
    )
    del dropped
    weighed_engine.update_performance({names[0]: {"ttft_s": 0.001}})
    assert len(compiled) == 1
    for policy in (held, plain):
        weighed_engine.route("what", policy)
    assert len(compiled) == 1
    weighed_engine.swap(replace(weighed_engine.bundle, hash="c" * 64))
    assert len(compiled) == 3
    for policy in (held, plain):
        assert weighed_engine.route("what", policy).policy.bundle_hash == "c" * 64
    assert len(compiled) == 3


def test_refreshed_figures_hold_across_a_swap_and_before_the_bundle_s(weighed_engine, weighed):
    names = weighed_engine.bundle.names
    candidates = tuple(replace(c, performance=Performance(ttft_s=7.0, wh_per_request=0.5)) for c in weighed.candidates)
    policy = weighed_engine.policy(tau=1, cost_weights={"usd": 0, "ttft_s": 1})
    weighed_engine.swap(replace(weighed, candidates=candidates, hash="e" * 64))
    assert weighed_engine.performance[names[4]].ttft_s == 0.2
    assert weighed_engine.performance[names[4]].wh_per_request == 0.5
    assert weighed_engine.route("what", policy).model == names[4]
    weighed_engine.update_performance({names[4].upper(): None})
    assert weighed_engine.performance[names[4]].ttft_s == 7.0
    alone = Engine(replace(weighed, candidates=candidates, hash="e" * 64))
    assert alone.performance[names[4]].ttft_s == 7.0


def test_figures_refreshed_beside_routing_are_never_torn(weighed_engine):
    """Every decision is that of one set of figures: one candidate is fast, every other one slow."""
    names = weighed_engine.bundle.names
    policy = weighed_engine.policy(tau=1, cost_weights={"usd": 0, "ttft_s": 1})

    def refresh(turn):
        weighed_engine.update_performance(
            {name: {"ttft_s": 0.1 if m == turn % 5 else 1.0} for m, name in enumerate(names)}
        )

    refresh(0)
    done, seen, failed = threading.Event(), set(), []

    def route():
        while not done.is_set():
            decision = weighed_engine.route("what", policy)
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
    assert weighed_engine.route("what", policy).model == names[149 % 5]


def test_what_was_compiled_for_a_policy_goes_with_its_last_holder(weighed_engine):
    weights = {"usd": 0, "ttft_s": 1}
    held = [weighed_engine.policy(tau=0.1 + n / 1000, cost_weights=weights) for n in range(300)]
    weighed_engine.update_performance({weighed_engine.bundle.names[0]: {"ttft_s": 0.4}})
    for policy in held:
        # kept, however many
        assert weighed_engine.route("what", policy).policy is weighed_engine.route("what", policy).policy
    assert len(weighed_engine.loaded.policies.followed) == 300
    del held, policy
    gc.collect()
    assert not weighed_engine.loaded.policies.followed


def test_a_policy_whose_figures_were_taken_back_says_so(weighed_engine):
    policy = weighed_engine.policy(tau=0.5, cost_weights={"ttft_s": 1.0})
    weighed_engine.update_performance({weighed_engine.bundle.names[0]: None})
    with pytest.raises(InvalidInputError, match=r"policy: figures that it weighs were taken back .* is not known"):
        weighed_engine.route("what", policy)


def test_figures_of_a_candidate_come_back_with_it(weighed_engine, weighed, tmp_path):
    from ipr_engine.bundle.edit import without_candidate

    name = weighed_engine.bundle.names[4]
    smaller = Bundle.load(without_candidate(weighed, name, root=tmp_path))
    weighed_engine.swap(smaller, allow_fewer_candidates=True, allow_fewer_outputs=True)
    assert name not in weighed_engine.performance
    weighed_engine.swap(weighed)
    assert weighed_engine.performance[name] == FIGURES[4]


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
def test_figures_that_are_none_are_refused_by_name_and_nothing_is_taken(weighed_engine, figures, message):
    before, name = weighed_engine.performance, weighed_engine.bundle.names[0]
    if isinstance(figures, dict) and "first" in figures:
        figures = {weighed_engine.bundle.names[1]: {"ttft_s": 9.0}, name: figures["first"]}
    with pytest.raises(InvalidInputError, match=message):
        weighed_engine.update_performance(figures)
    assert weighed_engine.performance is before
    if isinstance(figures, dict):
        with pytest.raises(InvalidInputError, match="performance"):
            weighed_engine.policy(tau=0.3, cost_weights={"ttft_s": 1}, performance=figures)


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
def test_weights_that_are_none_are_refused_by_name(weighed_engine, weights, message):
    with pytest.raises(InvalidInputError, match=message):
        weighed_engine.policy(tau=0.3, cost_weights=weights)


def test_a_term_that_is_not_known_of_an_allowed_candidate_is_refused_and_of_another_one_left_out(weighed):
    engine, names = Engine(weighed), weighed.names
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


def test_figures_without_a_weight_are_told_to_do_nothing(weighed_engine):
    with pytest.raises(InvalidInputError, match="performance: nothing but USD is weighed"):
        weighed_engine.policy(tau=0.3, performance={weighed_engine.bundle.names[0]: {"ttft_s": 1}})
