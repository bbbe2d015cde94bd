"""What enters a decision of the price model: tiers, batches, caches, images, several answers; and what a record keeps of it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from ipr_engine import Engine, InvalidInputError, Price
from ipr_engine.audit.replay import replay
from ipr_engine.bundle import PriceTier
from ipr_engine.policy.price_table import PriceTable
from ipr_engine.serving import BatchingEngine
from tests.support.bundles import make_bundle

TIER = PriceTier(above_tokens=50, input_usd_per_1m=4.0, output_usd_per_1m=16.0)
PRICE = Price(
    input_usd_per_1m=2.0, output_usd_per_1m=8.0, basis="a test", tiers=(TIER,), cached_read_usd_per_1m=0.5,
    cached_write_usd_per_1m=2.5, cache_min_tokens=10, per_image_usd=0.125, batch_factor=0.5,
)  # fmt: skip
TEXT = "what is the sum of two and two"
IMAGES = {
    "messages": [
        {
            "role": "user",
            "content": [{"type": "text", "text": TEXT}, *[{"type": "image_url", "image_url": {"url": "x"}}] * 2],
        }
    ]
}


@pytest.fixture(scope="module")
def engine(bundle_folder):
    return Engine.load(bundle_folder)


@pytest.fixture(scope="module")
def terms(engine):
    """Every candidate at PRICE, which candidate 1 has without a tier."""
    prices = dict.fromkeys(engine.bundle.names, PRICE) | {engine.bundle.names[1]: replace(PRICE, tiers=())}
    return {"tau": 0.3, "rule": "minmax", "prices": prices}


def costs(engine, terms, tokens, out=100, **more):
    decisions = engine.route_many([TEXT], billed_tokens=tokens, tokens_out=out, **terms, **more)
    return decisions.costs_usd[0]


def ratios(engine):
    return np.array([candidate.token_ratio for candidate in engine.bundle.candidates])


@pytest.mark.parametrize("tokens", [1, 40, 50, 51, 80, 1000])
def test_each_candidate_is_charged_in_the_tier_of_its_own_tokens(engine, terms, tokens):
    own = tokens * ratios(engine)
    tiered = (own > 50) & (np.arange(5) != 1)
    expected = np.where(tiered, own * 4 + 100 * 16, own * 2 + 100 * 8) / 1e6
    np.testing.assert_allclose(costs(engine, terms, tokens), expected, rtol=1e-6)


def test_batch_prices_are_those_of_a_batch(engine, terms):
    for tokens in (10, 1000):
        np.testing.assert_allclose(costs(engine, {**terms, "batch": True}, tokens), costs(engine, terms, tokens) / 2)


def test_writing_to_the_cache_costs_more_from_the_least_length_on(engine, terms):
    own = np.array([5, 100])[:, None] * ratios(engine)
    for tokens, mine in zip((5, 100), own, strict=True):
        tiered = (mine > 50) & (np.arange(5) != 1)
        factor = np.where(mine > 9, 1.25, 1.0)
        expected = (np.where(tiered, 4, 2) * factor * mine) / 1e6
        np.testing.assert_allclose(costs(engine, {**terms, "cache_write": True}, tokens, out=0), expected, rtol=1e-6)


def test_cached_tokens_are_billed_at_the_price_of_reading(engine, terms):
    held = np.array([0, 5, 20, 30, 10_000], np.float64)
    own = 40 * ratios(engine)
    billed = np.where(held >= 10, np.minimum(held, own), 0)
    tiered = (own > 50) & (np.arange(5) != 1)
    into, read = np.where(tiered, 4, 2), np.where(tiered, 1, 0.5)
    expected = ((own - billed) * into + billed * read) / 1e6
    np.testing.assert_allclose(costs(engine, terms, 40, out=0, cached_tokens=held), expected, rtol=1e-5)


def test_a_cache_can_change_the_choice(engine):
    one, other = engine.bundle.names[:2]
    prices = {name: Price(input_usd_per_1m=2.0, output_usd_per_1m=0.0, basis="t", cached_read_usd_per_1m=0.1)
              for name in (one, other)}  # fmt: skip
    policy = engine.policy(tau=1.0, rule="minmax", allowed=[one, other], prices=prices)
    for cached, holds in (([900, 0, 0, 0, 0], one), ([0, 900, 0, 0, 0], other)):
        assert engine.route(TEXT, policy, billed_tokens=1000, cached_tokens=cached).model == holds


def test_route_decide_and_explain_bill_the_cache_alike(engine, terms):
    policy = engine.policy(**terms)
    given = {"billed_tokens": 40, "cached_tokens": [0, 5, 20, 30, 40], "extra_usd": 0.01}
    one = engine.route(TEXT, policy, **given)
    kept = engine.decide(
        engine.encode([TEXT], billed_tokens=40), policy, cached_tokens=[0, 5, 20, 30, 40], extra_usd=0.01
    )
    assert kept.costs_usd.tobytes() == engine.route_many([TEXT], policy, **given).costs_usd.tobytes()
    assert one.cost_usd == kept[0].cost_usd == engine.explain(TEXT, policy, **given).decision.cost_usd


def test_a_serving_engine_bills_the_cache_and_every_answer_as_the_engine_does(engine, terms):
    policy = engine.policy(**terms)
    given = {"billed_tokens": 40, "cached_tokens": [0, 5, 20, 30, 40]}
    with BatchingEngine(engine, cache_entries=16) as serving:
        assert serving.route(TEXT, policy, **given).cost_usd == engine.route(TEXT, policy, **given).cost_usd
        one, other = (serving.route_many([TEXT], policy, **given)[0], engine.route_many([TEXT], policy, **given)[0])
        assert one.cost_usd == other.cost_usd
        for n in (1, 3, 1):  # a decision that is kept is of one number of answers
            body = {"messages": [{"role": "user", "content": TEXT}], "n": n}
            assert serving.route(body, policy).cost_usd == engine.route(body, policy).cost_usd
        with pytest.raises(InvalidInputError, match="cached_tokens: expected"):
            serving.route(TEXT, policy, cached_tokens=[1, 2])


def test_images_are_billed_where_they_have_a_price(engine, terms):
    seeing = [c.name for c in engine.bundle.candidates if "vision" in c.features]
    if not seeing:
        bundle = replace(
            engine.bundle, candidates=tuple(replace(c, features=("vision",)) for c in engine.bundle.candidates)
        )
        engine = Engine(bundle)
    with_images = engine.route_many([IMAGES], billed_tokens=40, tokens_out=0, **terms).costs_usd[0]
    np.testing.assert_allclose(with_images, costs(engine, terms, 40, out=0) + 0.25, rtol=1e-6)


@pytest.mark.parametrize("limit", [None, 7])
def test_every_answer_is_billed(engine, terms, limit):
    body = {"messages": [{"role": "user", "content": TEXT}], **({} if limit is None else {"max_tokens": limit})}
    one, five = (engine.route_many([{**body, "n": n}], **terms) for n in (1, 5))
    np.testing.assert_array_equal(five.tokens_out, 5 * one.tokens_out)
    own = one.billed_tokens[0] * ratios(engine)
    np.testing.assert_allclose(five.costs_usd[0] - one.costs_usd[0], 4 * one.tokens_out[0] * 8e-6, rtol=1e-4)
    assert (own < 50).all()  # the base tier


def test_given_tokens_are_those_of_one_answer(engine, terms):
    body = {"prompt": TEXT, "n": 3}
    got = engine.route_many([body], tokens_out=10, **terms)
    np.testing.assert_array_equal(got.tokens_out, np.full((1, 5), 30, np.float32))


@pytest.mark.parametrize("n", [0, -1, 1.5, "2", True, 10**9])
def test_a_number_of_answers_that_cannot_be_is_named(engine, n):
    with pytest.raises(InvalidInputError, match=r"prompt\['n'\]: expected a whole number of answers from 1 to"):
        engine.route({"messages": [{"role": "user", "content": TEXT}], "n": n}, tau=0.3)


@pytest.mark.parametrize(
    ("name", "value"),
    [("batch", 1), ("batch", "yes"), ("cache_write", 0.5), ("cached_tokens", -1), ("cached_tokens", [1, 2])],
)
def test_what_cannot_be_asked_is_named(engine, name, value):
    with pytest.raises(InvalidInputError, match=f"{name}: expected"):
        engine.route(TEXT, tau=0.3, rule="minmax", **{name: value})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_cache_of_no_number_is_refused(engine, value):
    with pytest.raises(InvalidInputError, match="cached_tokens: expected finite numbers >= 0"):
        engine.route(TEXT, tau=0.3, rule="minmax", cached_tokens=value)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"input_usd_per_1m": 1, "output_usd_per_1m": 1, "above_200k": 2}, r"\.above_200k: expected no key but"),
        ({"input_usd_per_1m": 1, "output_usd_per_1m": 1, "tiers": [{"above_tokens": 5}]}, r"\.tiers\[0\]: expected"),
        (replace(PRICE, cache_min_tokens=-3), r"\.cache_min_tokens: expected an integer from 0"),
        (replace(PRICE, tiers=(TIER, TIER)), r"\.tiers\[1\]\.above_tokens: expected more than 50"),
        (replace(PRICE, tiers=({"above_tokens": 5},)), r"expected \(input, output\)"),
        ({"input_usd_per_1m": float("nan"), "output_usd_per_1m": 1}, r"input_usd_per_1m: expected a finite number"),
    ],
    ids=str,
)
def test_a_price_that_cannot_be_is_named(engine, wrong, told):
    with pytest.raises(InvalidInputError, match=rf"^prices\[.*{told}"):
        engine.policy(tau=0.3, rule="minmax", prices={engine.bundle.names[0]: wrong})


def test_policies_of_other_kinds_of_request_differ(engine, terms):
    made = [engine.policy(**terms), engine.policy(**terms, batch=True), engine.policy(**terms, cache_write=True)]
    assert len({policy.key for policy in made}) == 3
    assert engine.policy(**terms, batch=False) == made[0]


@pytest.mark.parametrize("kind", [{}, {"batch": True}, {"cache_write": True}], ids=str)
def test_records_replay_to_the_bit_whatever_was_billed(engine, terms, tmp_path, kind):
    """Figures of short prompts are withheld from records: these are long enough."""
    log, text = tmp_path / "log.jsonl", " ".join(f"the {n} of two and {n + 1} is a sum that" for n in range(60))
    bodies = [*({"messages": [{"role": "user", "content": text}], "n": n, **limit}
              for n in (1, 3, 7) for limit in ({}, {"max_tokens": 9})), text]  # fmt: skip
    with engine.recorder(log) as recorder:
        for body in bodies:
            recorder.route(body, billed_tokens=80, cached_tokens=[0, 5, 20, 60, 90], extra_usd=1e-3, **terms, **kind)
            recorder.route(body, **terms, **kind)
    found = list(replay(log.read_bytes().splitlines(keepends=True), engine))
    assert [(one.refused, one.differences) for one in found] == [(None, ())] * 2 * len(bodies)


def test_a_record_without_anything_new_says_nothing_new(engine, tmp_path):
    log = tmp_path / "log.jsonl"
    with engine.recorder(log) as recorder:
        recorder.route({"messages": [{"role": "user", "content": TEXT}], "max_tokens": 9}, tau=0.3, rule="minmax")
    record = json.loads(log.read_text())
    assert record["needs"] == {"features": {}, "max_output_tokens": 9}
    assert set(record["terms"]) == {"tau", "rule"}


def test_several_answers_have_the_window_to_themselves_each(tmp_path):
    engine = Engine.load(make_bundle(tmp_path, models=5, dim=16, context_windows=[60] * 5))
    one = {"messages": [{"role": "user", "content": TEXT}]}
    few = {"tau": 0.3, "tokens_out": 40}
    alone, three = engine.route(one, **few), engine.route({**one, "n": 3}, **few)
    assert three.excluded == alone.excluded == {}
    assert three.ranked[0] == three.model
    assert set(three.ranked) == set(alone.ranked)


@pytest.mark.parametrize("ratio", [0.54, 1.1, 1.3])
def test_the_edge_of_a_tier_is_the_same_under_every_token_ratio(ratio):
    for billed in range(1, 4000, 7):
        own = round(billed * ratio)
        tier = PriceTier(above_tokens=own, input_usd_per_1m=40.0, output_usd_per_1m=160.0)
        table = PriceTable([replace(PRICE, tiers=(tier,))], ratio)
        bill = np.array([[own / ratio]], np.float32).astype(np.float64)  # as the op sees own tokens
        assert table.cost(bill, np.ones((1, 1)))[0, 0] < 40 * own / 1e6
        if own == billed * ratio:
            assert table.cost(np.array([[float(billed)]]), np.ones((1, 1)))[0, 0] < 40 * own / 1e6
