"""Two tiers at run time: who decides, row by row, and that the first tier alone is left as it was."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from ipr_engine import Engine
from ipr_engine.audit.replay import replay
from ipr_engine.bundle import Price, PriceTier, with_prices
from ipr_engine.encoders.base import Encoded
from ipr_engine.errors import EncoderMismatchError, InvalidInputError, RowError
from tests.support.decisions import same_row
from tests.support.two_tier_bundles import join, make_prompts, make_tiers, middle_gap

PROMPTS = make_prompts(60)


@pytest.fixture(scope="module")
def tiers(tmp_path_factory):
    return make_tiers(tmp_path_factory.mktemp("tiers"))


@pytest.fixture(scope="module")
def alone(tiers):
    return tuple(Engine(bundle) for bundle in tiers)


@pytest.fixture(scope="module")
def gap(alone):
    return middle_gap(alone[0].route_many(PROMPTS, tau=0.2).gap)


@pytest.fixture(scope="module")
def engine(tiers, gap, tmp_path_factory):
    return Engine(join(tmp_path_factory.mktemp("joined"), tiers, gap=gap))


class Counting:
    """An encoder that keeps what it was asked for."""

    def __init__(self, encoder):
        self.encoder, self.asked = encoder, []

    def encode(self, prompts):
        self.asked.append(list(prompts))
        return self.encoder.encode(prompts)


def test_a_row_of_a_small_gap_is_decided_by_the_second_heads_and_every_other_by_the_first(engine, alone, gap):
    seen = set()
    for prompt in PROMPTS:
        first, second = (one.route(prompt, tau=0.2) for one in alone)
        decision = engine.route(prompt, tau=0.2)
        assert decision.escalated == (first.gap < gap)
        assert same_row(decision, second if decision.escalated else first)
        assert decision.encoder == (alone[decision.escalated].encoder.identity)
        assert decision.truncated == (second if decision.escalated else first).truncated
        assert (decision.billed_tokens, decision.support) == (first.billed_tokens, first.support)
        seen.add(decision.escalated)
    assert seen == {False, True}


def test_a_batch_decides_each_row_as_that_row_alone_and_encodes_the_escalated_rows_together(engine, monkeypatch):
    counting = Counting(engine.second_encoder)
    monkeypatch.setattr(engine.loaded.second, "encoder", counting)
    decisions = engine.route_many(PROMPTS, tau=0.2)
    assert counting.asked == [[p for p, again in zip(PROMPTS, decisions.escalated, strict=True) if again]]
    for prompt, decision in zip(PROMPTS, decisions, strict=True):
        single = engine.route(prompt, tau=0.2)
        assert same_row(decision, single)
        assert decision.escalated == single.escalated
        assert decision.to_dict() == single.to_dict()


def test_a_batch_of_no_small_gap_asks_the_second_encoder_nothing(engine, monkeypatch):
    counting = Counting(engine.second_encoder)
    monkeypatch.setattr(engine.loaded.second, "encoder", counting)
    sure = [p for p, again in zip(PROMPTS, engine.route_many(PROMPTS, tau=0.2).escalated, strict=True) if not again]
    counting.asked.clear()
    assert not engine.route_many(sure, tau=0.2).escalated.any()
    assert not engine.route_many(PROMPTS, tau=0.2, escalate_below=0).escalated.any()
    assert len(engine.route_many([], tau=0.2)) == 0
    assert counting.asked == []


@pytest.mark.parametrize(("below", "which"), [(0, 0), (0.0, 0), (math.inf, 1)])
def test_never_and_always_are_the_tiers_alone(engine, alone, below, which):
    together, own = engine.route_many(PROMPTS, tau=0.2, escalate_below=below), alone[which].route_many(PROMPTS, tau=0.2)
    assert together.escalated.all() == together.escalated.any() == bool(which)
    assert all(same_row(a, b) for a, b in zip(together, own, strict=True))
    assert same_row(engine.route(PROMPTS[0], tau=0.2, escalate_below=below), own[0])


def test_chat_and_values_given_per_row_reach_the_second_heads(engine, alone):
    rng = np.random.default_rng(0)
    tokens, extra = rng.uniform(10, 500, (60, 4)), rng.uniform(0, 1e-3, (60, 4))
    chats = [[{"role": "system", "content": "be short"}, {"role": "user", "content": p}] for p in PROMPTS]
    given = {"tau": 0.3, "tokens_out": tokens, "extra_usd": extra}
    decisions = engine.route_many(chats, **given)
    first, second = (one.route_many(chats, **given) for one in alone)
    assert decisions.escalated.any()
    assert not decisions.escalated.all()
    for row, decision in enumerate(decisions):
        assert same_row(decision, (second if decision.escalated else first)[row])


def test_rule_fixed_has_the_constants_of_the_heads_that_decide(engine, alone):
    decisions = engine.route_many(PROMPTS, tau=0.4, rule="fixed")
    own = [one.route_many(PROMPTS, tau=0.4, rule="fixed") for one in alone]
    assert decisions.escalated.any()
    for row, decision in enumerate(decisions):
        twin = own[decision.escalated][row]
        assert same_row(decision, twin)
        assert (decision.ranked, decision.frontier, decision.feasible) == (twin.ranked, twin.frontier, twin.feasible)


def test_an_explanation_is_of_the_heads_that_decided_and_says_so(engine, alone):
    for prompt in PROMPTS[:12]:
        explained, decision = engine.explain(prompt, tau=0.2), engine.route(prompt, tau=0.2)
        twin = alone[decision.escalated].explain(prompt, tau=0.2)
        assert (explained.gaps, explained.flips_at, explained.holds_for) == (twin.gaps, twin.flips_at, twin.holds_for)
        assert ("decided by the second heads (second on encoder large)" in str(explained)) == decision.escalated
        assert explained.to_dict()["decision"]["escalated"] == decision.escalated


@pytest.mark.parametrize("wrong", [-0.1, math.nan, -math.inf, True, "0.1", [0.1]])
def test_what_is_no_gap_is_refused(engine, wrong):
    with pytest.raises(InvalidInputError, match="escalate_below: expected"):
        engine.policy(tau=0.2, escalate_below=wrong)


def test_a_bundle_of_one_tier_refuses_to_escalate(alone):
    with pytest.raises(InvalidInputError, match=r"escalate_below: the bundle has no second tier to ask, got 0\.1"):
        alone[0].route(PROMPTS[0], tau=0.2, escalate_below=0.1)
    assert not alone[0].route(PROMPTS[0], tau=0.2, escalate_below=0).escalated
    assert alone[0].second_encoder is None
    with pytest.raises(InvalidInputError, match=r"second: bundle .* has no second tier"):
        alone[0].encode(PROMPTS, second=True)


def test_the_gap_is_part_of_what_a_policy_means(engine, gap):
    own, same, other = (engine.policy(tau=0.2, **e) for e in ({}, {"escalate_below": gap}, {"escalate_below": 0.5}))
    assert own == same != other
    assert (own.escalate_below, other.escalate_below) == (gap, 0.5)
    assert ("escalate_below" in own.options, other.options["escalate_below"]) == (False, 0.5)
    assert "escalate_below=0.5" in repr(other)
    assert repr(engine).count("encoder=") == 2
    assert f"below a gap of {gap:g}: " in repr(engine)


def test_kept_embeddings_are_decided_by_the_heads_that_read_them(engine, alone):
    first, second = engine.encode(PROMPTS), engine.encode(PROMPTS, second=True)
    assert (first.encoder, second.encoder) == tuple(one.encoder.identity for one in alone)
    np.testing.assert_array_equal(first.billed_tokens, second.billed_tokens)
    for kept, one in ((first, alone[0]), (second, alone[1])):
        decisions = engine.decide(kept, tau=0.2)
        assert decisions.escalated.all() == decisions.escalated.any() == (one is alone[1])
        assert all(same_row(a, b) for a, b in zip(decisions, one.route_many(PROMPTS, tau=0.2), strict=True))
    bare = engine.decide(first.x, tau=0.2, billed_tokens=first.billed_tokens)
    assert not bare.escalated.any()
    with pytest.raises(InvalidInputError, match=r"x: expected .* \(batch, 16\) float32"):
        engine.decide(second.x, tau=0.2, billed_tokens=first.billed_tokens)
    assert engine.decide(second, tau=0.2).support is None


def test_both_embeddings_kept_decide_as_the_text_does(engine):
    first, second = engine.encode(PROMPTS), engine.encode(PROMPTS, second=True)
    for below in (None, 0, 0.01, math.inf):
        routed = engine.route_many(PROMPTS, tau=0.2, escalate_below=below)
        decided = engine.decide(first, tau=0.2, escalate_below=below, second=second)
        assert routed.escalated.tolist() == decided.escalated.tolist()
        assert all(same_row(a, b) for a, b in zip(routed, decided, strict=True))


def test_embeddings_that_do_not_belong_are_refused(engine, alone):
    first, second = engine.encode(PROMPTS), engine.encode(PROMPTS, second=True)
    with pytest.raises(EncoderMismatchError, match="second: expected embeddings of encoder"):
        engine.decide(first, tau=0.2, second=first)
    with pytest.raises(EncoderMismatchError, match="x: expected embeddings of encoder"):
        engine.decide(second, tau=0.2, second=second)
    with pytest.raises(InvalidInputError, match=r"second: expected what encode.* 60 rows, got 3 rows"):
        engine.decide(first, tau=0.2, second=second[:3])
    with pytest.raises(InvalidInputError, match=r"second: bundle .* has no second tier"):
        alone[0].decide(first, tau=0.2, second=second)
    foreign = Encoded(first.x, first.billed_tokens, first.truncated, "0" * 64)
    with pytest.raises(EncoderMismatchError, match=r"000000000000, but the heads .* read \w{12} or \w{12}"):
        engine.decide(foreign, tau=0.2)


def test_a_failed_row_stays_with_the_first_tier_and_is_told(tmp_path):
    bundle = join(tmp_path, make_tiers(tmp_path, models=2, context_windows=[9000, 9000]), gap=10.0)
    engine = Engine(bundle)
    prompts = ["what is the story", "why " * 9000, "how to code"]
    decisions = engine.route_many(prompts, tau=0.3, on_error="status")
    assert [d.status for d in decisions] == ["ok", "none_allowed", "ok"]
    assert decisions.escalated.tolist() == [True, False, True]
    for ask in (
        lambda: engine.route_many(prompts, tau=0.3),
        lambda: engine.route_many(prompts, tau=0.3, escalate_below=math.inf),
    ):
        with pytest.raises(RowError) as caught:
            ask()
        assert list(caught.value.rows) == [1]


def test_a_record_holds_what_decided_and_replays_to_the_bit(engine, alone, tmp_path):
    lines: list[bytes] = []
    recorder = engine.recorder(lines.append, min_words=0)
    recorded = recorder.route_many(PROMPTS, tau=0.2)
    recorder.route(PROMPTS[0], tau=0.2, escalate_below=math.inf)
    recorder.decide(engine.encode(PROMPTS[:3], second=True), tau=0.2)
    assert all(same_row(a, b) for a, b in zip(recorded, engine.route_many(PROMPTS, tau=0.2), strict=True))
    log = b"".join(lines).splitlines()
    heads = [one.bundle.quality_heads.sha256 for one in alone]
    for decision, line in zip(recorded, log, strict=False):
        document = json.loads(line)
        assert document["encoder"] == decision.encoder
        assert document["heads"] == heads[decision.escalated]
        assert (document["decision"]["support"] is None) == decision.escalated
    outcomes = list(replay(log, engine))
    assert len(outcomes) == 64
    assert all(not r.differences and r.refused is None for r in outcomes)
    assert json.loads(log[60])["terms"] == {"tau": 0.2, "escalate_below": "infinity"}
    on_first = list(replay(log, alone[0]))
    refused = [r.refused is not None for r in on_first[:60]]
    assert refused == recorded.escalated.tolist()


def test_a_swap_keeps_both_encoders_and_policies_follow(engine, tiers, tmp_path, gap):
    serving = Engine(engine.bundle)
    encoders = serving.encoder, serving.second_encoder
    policy = serving.policy(tau=0.2, escalate_below=2 * gap)
    before = serving.route_many(PROMPTS, policy)
    serving.swap(join(tmp_path, tiers, gap=gap / 2))
    assert (serving.encoder, serving.second_encoder) == encoders
    assert serving.route_many(PROMPTS, policy).escalated.tolist() == before.escalated.tolist()
    assert serving.route_many(PROMPTS, tau=0.2).escalated.sum() < before.escalated.sum()
    with pytest.raises(EncoderMismatchError, match=r"second heads .* none: it has none"):
        serving.swap(tiers[0])
    serving.swap(tiers[0], allow_other_encoder=True)
    with pytest.raises(InvalidInputError, match="its terms do not fit"):
        serving.route(PROMPTS[0], policy)
    serving.swap(engine.bundle)
    assert serving.route_many(PROMPTS, policy).escalated.tolist() == before.escalated.tolist()


def test_new_prices_hold_in_both_tiers(engine, tmp_path):
    bundle = engine.bundle
    dear = {name: replace(price, fixed_usd=1.0) for name, price in bundle.prices.prices.items()}
    changed = Engine.load(with_prices(bundle, replace(bundle.prices, prices=dear), root=tmp_path))
    assert changed.bundle.escalation == bundle.escalation
    costs = changed.route_many(PROMPTS, tau=0.2).costs_usd - engine.route_many(PROMPTS, tau=0.2).costs_usd
    np.testing.assert_allclose(costs, 1.0, rtol=1e-5)


@pytest.mark.parametrize("below", [0.0, math.inf])
def test_both_tiers_charge_in_the_price_tier_of_the_bill(engine, below):
    tier = PriceTier(above_tokens=30, input_usd_per_1m=40.0, output_usd_per_1m=80.0)
    price = Price(input_usd_per_1m=2.0, output_usd_per_1m=8.0, basis="a test", tiers=(tier,))
    terms = {"tau": 0.3, "rule": "minmax", "prices": dict.fromkeys(engine.bundle.names, price), "escalate_below": below}
    made = engine.route_many(["one", "two"], billed_tokens=[5, 400], tokens_out=10, **terms)
    ratio = np.array([candidate.token_ratio for candidate in engine.bundle.candidates])
    assert made.escalated.all() == bool(below)
    for row, (tokens, into, out) in enumerate(((5, 2, 8), (400, 40, 80))):
        np.testing.assert_allclose(made.costs_usd[row], (tokens * ratio * into + 10 * out) / 1e6, rtol=1e-6)
