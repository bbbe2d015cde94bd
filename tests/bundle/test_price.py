"""The price model: what is refused, its form in files, what a batch, a cache and a tier make of it."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipr_engine import Engine
from ipr_engine.bundle import Bundle, Price, PriceList, PriceTier, with_prices
from ipr_engine.bundle.checks import MOST_TIERS, price_problem
from ipr_engine.bundle.price import price_json, price_of
from ipr_engine.errors import BundleFormatError, BundleValueError
from ipr_engine.policy.price_table import PriceTable, expected_cost
from tests.support.bundles import make_bundle

TIER = {"above_tokens": 200_000, "input_usd_per_1m": 2.5, "output_usd_per_1m": 15.0}
PLAIN = {"input_usd_per_1m": 1.25, "output_usd_per_1m": 10.0}
FULL = {
    **PLAIN,
    "fixed_usd": 0.001,
    "basis": "a list",
    "tiers": [{**TIER, "cached_read_usd_per_1m": 0.5, "cached_write_usd_per_1m": 3.0}],
    "cached_read_usd_per_1m": 0.25,
    "cached_write_usd_per_1m": 1.5,
    "cache_ttl_s": 300.0,
    "cache_min_tokens": 1024,
    "per_image_usd": 0.002,
    "batch_input_usd_per_1m": 0.625,
    "batch_output_usd_per_1m": 5.0,
    "reasoning_usd_per_1m": 12.0,
    "reasoning_share": 0.25,
}


def price(**more) -> Price:
    row = {**PLAIN, **more}
    assert price_problem(row) is None
    return price_of(row, "a test")


def usd(one: Price, read: float, wrote: float, **more) -> float:
    return float(expected_cost([one], [[read]], [[wrote]], **more)[0, 0])


BAD = [
    ({"input_usd_per_1m": -1}, "input_usd_per_1m", "a number >= 0"),
    ({"output_usd_per_1m": math.nan}, "output_usd_per_1m", "a finite number"),
    ({"fixed_usd": True}, "fixed_usd", "a number"),
    ({"per_image_usd": "1"}, "per_image_usd", "a number"),
    ({"cached_read_usd_per_1m": math.inf}, "cached_read_usd_per_1m", "a finite number"),
    ({"reasoning_usd_per_1m": -0.5}, "reasoning_usd_per_1m", "a number >= 0"),
    ({"reasoning_share": 0.5}, "reasoning_usd_per_1m", "a price of reasoning beside reasoning_share"),
    ({"reasoning_usd_per_1m": 1, "reasoning_share": 1.01}, "reasoning_share", "a number in [0, 1]"),
    ({"reasoning_usd_per_1m": 1, "reasoning_share": -0.1}, "reasoning_share", "a number >= 0"),
    ({"reasoning_usd_per_1m": 1, "reasoning_share": math.nan}, "reasoning_share", "a finite number"),
    ({"reasoning_usd_per_1m": 1, "reasoning_share": True}, "reasoning_share", "a number"),
    ({"basis": " "}, "basis", "a text"),
    ({"input_usd_per_1m_above_200k": 2.5}, "input_usd_per_1m_above_200k", "no key but"),
    ({"tiers": TIER}, "tiers", "a list"),
    ({"tiers": [5]}, "tiers[0]", "above_tokens"),
    ({"tiers": [{**TIER, "image": 1}]}, "tiers[0]", "above_tokens"),
    ({"tiers": [{**TIER, "above_tokens": 0}]}, "tiers[0].above_tokens", "an integer from 1"),
    ({"tiers": [{**TIER, "above_tokens": -5}]}, "tiers[0].above_tokens", "an integer from 1"),
    ({"tiers": [{**TIER, "above_tokens": 2e5}]}, "tiers[0].above_tokens", "an integer"),
    ({"tiers": [{**TIER, "input_usd_per_1m": None}]}, "tiers[0].input_usd_per_1m", "a number"),
    ({"tiers": [{**TIER, "output_usd_per_1m": -1}]}, "tiers[0].output_usd_per_1m", "a number >= 0"),
    ({"tiers": [TIER, TIER]}, "tiers[1].above_tokens", "overlap"),
    ({"tiers": [TIER, {**TIER, "above_tokens": 100}]}, "tiers[1].above_tokens", "sort them"),
    ({"tiers": [{**TIER, "cached_read_usd_per_1m": 1}]}, "tiers[0].cached_read_usd_per_1m", "none, since"),
    ({"tiers": [{**TIER, "above_tokens": n + 1} for n in range(MOST_TIERS + 1)]}, "tiers", f"at most {MOST_TIERS}"),
    ({"cached_write_usd_per_1m": 1}, "cached_read_usd_per_1m", "beside cached_write_usd_per_1m"),
    ({"cache_min_tokens": 5}, "cached_read_usd_per_1m", "beside cache_min_tokens"),
    ({"cache_ttl_s": 5}, "cached_read_usd_per_1m", "beside cache_ttl_s"),
    ({"cached_read_usd_per_1m": 1, "cache_ttl_s": 0}, "cache_ttl_s", "a number > 0"),
    ({"cached_read_usd_per_1m": 1, "cache_min_tokens": 1.5}, "cache_min_tokens", "an integer"),
    ({"cached_read_usd_per_1m": 1, "cache_min_tokens": -1}, "cache_min_tokens", "an integer from 0"),
    ({"batch_input_usd_per_1m": 1}, "batch_output_usd_per_1m", "beside batch_input_usd_per_1m"),
    ({"batch_factor": 0.5, "batch_input_usd_per_1m": 1, "batch_output_usd_per_1m": 1}, "batch_factor", "either"),
    ({"input_usd_per_1m": 0, "batch_input_usd_per_1m": 1, "batch_output_usd_per_1m": 1}, "batch_input_usd_per_1m", "0"),
]


@pytest.mark.parametrize(("wrong", "key", "told"), BAD, ids=lambda value: str(value)[:40])
def test_what_cannot_be_is_named(wrong, key, told):
    problem = price_problem({**PLAIN, **wrong})
    assert problem is not None
    assert problem.key == key
    assert told in problem.expected


@pytest.mark.parametrize("missing", PLAIN)
def test_a_price_needs_input_and_output(missing):
    problem = price_problem({key: value for key, value in PLAIN.items() if key != missing})
    assert (problem.key, problem.expected) == (missing, "this key")


def test_the_json_form_gives_back_the_price():
    full = price_of(FULL, "")
    assert price_json(full) == FULL
    assert price_of(json.loads(json.dumps(price_json(full))), "") == full
    assert hash(full) == hash(price_of(FULL, ""))


def test_a_price_that_says_nothing_new_has_the_old_form():
    assert price_json(price()) == {**PLAIN, "fixed_usd": 0.0, "basis": "a test"}


# -- what a request costs


@pytest.mark.parametrize(("tokens", "rate"), [(0, 1.25), (199_999, 1.25), (200_000, 1.25), (200_001, 2.5)])
def test_a_tier_is_charged_above_its_edge_for_the_whole_request(tokens, rate):
    out = 15.0 if rate == 2.5 else 10.0
    assert usd(price(tiers=[TIER]), tokens, 1000) == pytest.approx((tokens * rate + 1000 * out) / 1e6, rel=1e-12)


def test_images_reasoning_and_cached_input_are_added():
    one = price(cached_read_usd_per_1m=0.125, per_image_usd=0.01, reasoning_usd_per_1m=12.0, tiers=[TIER])
    assert usd(one, 1000, 0, images=[3]) == pytest.approx(1000 * 1.25e-6 + 0.03)
    assert usd(one, 0, 100, reasoning_tokens=[[40]]) == pytest.approx((60 * 10 + 40 * 12) / 1e6)
    assert usd(one, 1000, 0, cached_tokens=[[400]]) == pytest.approx((600 * 1.25 + 400 * 0.125) / 1e6)
    above = (100_000 * 2.5 + 200_000 * 0.25) / 1e6  # cached input keeps its tenth of the input price in every tier
    assert usd(one, 300_000, 0, cached_tokens=[[200_000]]) == pytest.approx(above)


@given(
    share=st.floats(0, 1), reasoning=st.floats(0, 1000), output=st.floats(0, 1000), tokens=st.integers(0, 10**6),
    read=st.sampled_from([100, 200_000, 200_001]), batch=st.booleans(),
)  # fmt: skip
def test_a_share_of_reasoning_costs_what_so_many_reasoning_tokens_cost(share, reasoning, output, tokens, read, batch):
    """In the base price, in a tier and in a batch, whose factor is on reasoning too."""
    one = price(output_usd_per_1m=output, tiers=[TIER], batch_factor=0.5, reasoning_usd_per_1m=reasoning)
    shared = replace(one, reasoning_share=share)
    if batch:
        one, shared = one.in_batch(), shared.in_batch()
    known = usd(one, read, tokens, reasoning_tokens=[[share * tokens]])
    assert usd(shared, read, tokens) == pytest.approx(known, rel=1e-9, abs=1e-15)
    assert usd(shared, read, tokens, reasoning_tokens=[[tokens]]) == usd(one, read, tokens, reasoning_tokens=[[tokens]])


def test_without_a_share_every_output_token_is_other_output():
    bare, stated = PriceTable([price()]), PriceTable([price(reasoning_usd_per_1m=12.0)])
    assert bare.out_rate.tobytes() == stated.out_rate.tobytes()
    none = PriceTable([price(reasoning_usd_per_1m=12.0, reasoning_share=0)])
    assert none.out_rate.tobytes() == bare.out_rate.tobytes()


def test_a_decision_counts_the_share_and_a_bundle_that_states_one_is_schema_6(tmp_path):
    bundle = Bundle.load(make_bundle(tmp_path, models=3, dim=16))
    rows = {
        name: replace(one, reasoning_usd_per_1m=10 * one.output_usd_per_1m, reasoning_share=0.5 if m else None)
        for m, (name, one) in enumerate(bundle.prices.prices.items())
    }
    folder = with_prices(bundle, PriceList(date="2026-11-28", prices=rows), activate=False)
    assert json.loads((folder / "bundle.json").read_text())["schema_version"] == 6
    shared = Engine(Bundle.load(folder))
    assert shared.bundle.prices.prices == rows
    before, now = (engine.route("a story", tau=0.5, tokens_out=1000) for engine in (Engine(bundle), shared))
    written = np.array([1000 * one.output_usd_per_1m / 1e6 for one in bundle.prices.prices.values()])
    more = written * [0, 4.5, 4.5]  # half of it at ten times the price
    np.testing.assert_allclose(now.costs_usd, before.costs_usd + more, rtol=1e-5)
    asked = Engine(bundle).route("a story", tau=0.5, tokens_out=1000, prices=rows)
    assert asked.costs_usd.tobytes() == now.costs_usd.tobytes()


@pytest.mark.parametrize(("held", "billed_as"), [(1023, 0), (1024, 1024), (5000, 5000), (9000, 8000)])
def test_too_few_cached_tokens_are_none_and_no_more_than_the_input_are_cached(held, billed_as):
    one = price(cached_read_usd_per_1m=0.25, cache_min_tokens=1024)
    expected = ((8000 - billed_as) * 1.25 + billed_as * 0.25) / 1e6
    assert usd(one, 8000, 0, cached_tokens=[[held]]) == pytest.approx(expected)


def test_a_token_ratio_moves_rates_and_edges_alike():
    """100,000 tokens of the prompt encoder are 200,000 of the candidate's: the last of the base tier."""
    table = PriceTable([price(tiers=[TIER])], [2.0])
    costs = table.cost(np.array([[100_000.0], [100_001.0]]), np.zeros((2, 1)))[:, 0]
    np.testing.assert_allclose(costs, [200_000 * 1.25e-6, 200_002 * 2.5e-6])
    assert table.op_terms()["tier_above"].tolist() == [[100_000.0]]


@pytest.mark.parametrize("ratio", [0.7, 1.1, 1.3, 3.3])
def test_a_rounded_edge_changes_no_comparison(ratio):
    table = PriceTable([price(tiers=[TIER])], [ratio])
    edge, rounded = table.tier_above[0, 0], table.op_terms()["tier_above"][0, 0]
    near = np.float32(edge) + np.arange(-3, 4, dtype=np.float32)
    near = np.concatenate([near, np.nextafter(near, np.float32(0)), np.nextafter(near, np.float32(1e9))])
    np.testing.assert_array_equal(near > rounded, near.astype(np.float64) > edge)


def test_a_free_candidate_costs_nothing():
    free = price(
        input_usd_per_1m=0, output_usd_per_1m=0, tiers=[{**TIER, "input_usd_per_1m": 0, "output_usd_per_1m": 0}]
    )
    assert free.is_free
    assert usd(free, 1e6, 1e6) == 0
    assert not price(input_usd_per_1m=0, output_usd_per_1m=0, per_image_usd=1).is_free


# -- batch and cache


def test_a_batch_is_charged_by_its_factor_or_its_own_prices():
    for more in ({"batch_factor": 0.5}, {"batch_input_usd_per_1m": 0.625, "batch_output_usd_per_1m": 5.0}):
        one = price(tiers=[TIER], cached_read_usd_per_1m=0.25, reasoning_usd_per_1m=12.0, **more).in_batch()
        assert (one.input_usd_per_1m, one.output_usd_per_1m, one.cached_read_usd_per_1m) == (0.625, 5.0, 0.125)
        assert (one.tiers[0].input_usd_per_1m, one.tiers[0].output_usd_per_1m) == (1.25, 7.5)
        assert one.tiers[0].cached_read_usd_per_1m == 0.25
        assert one.reasoning_usd_per_1m == 6.0
        assert one.in_batch() == one


def test_without_a_batch_price_a_batch_costs_as_a_request():
    assert price(tiers=[TIER]).in_batch() == price(tiers=[TIER])


@pytest.mark.parametrize(("tokens", "rate"), [(1023, 1.25), (1024, 1.5), (200_000, 1.5), (200_001, 3.0)])
def test_input_that_is_written_to_the_cache_costs_what_writing_does(tokens, rate):
    one = price(tiers=[TIER], cached_read_usd_per_1m=0.25, cached_write_usd_per_1m=1.5, cache_min_tokens=1024)
    assert usd(one.writing_cache(), tokens, 0) == pytest.approx(tokens * rate / 1e6)
    anyway = replace(one, cache_min_tokens=0).writing_cache()
    assert usd(anyway, tokens, 0) == pytest.approx(tokens * (3.0 if tokens > 200_000 else 1.5) / 1e6)


def test_what_is_read_from_the_cache_is_not_written_again():
    one = price(cached_read_usd_per_1m=0.25, cached_write_usd_per_1m=1.5, cache_min_tokens=1024).writing_cache()
    assert usd(one, 5000, 0, cached_tokens=[[2000]]) == pytest.approx((3000 * 1.5 + 2000 * 0.25) / 1e6)


def test_a_cache_that_is_not_charged_for_writing_changes_nothing():
    one = price(cached_read_usd_per_1m=0.25)
    assert one.writing_cache() is one


# -- files


def test_prices_that_say_more_are_read_back_in_schema_version_6(tmp_path):
    old = Bundle.load(make_bundle(tmp_path))
    name = old.names[0]
    full = price_of(FULL, "")
    given = PriceList(date="2026-11-28", prices={**old.prices.prices, name: full})
    new = Bundle.load(with_prices(old, given))
    assert new.prices.prices[name] == full
    assert json.loads((new.path / "bundle.json").read_text())["schema_version"] == 6
    back = Bundle.load(with_prices(new, PriceList(date="2026-11-28", prices=old.prices.prices)))
    assert back.prices_sha256 == Bundle.load(with_prices(old, replace(given, prices=old.prices.prices))).prices_sha256


def test_plain_prices_leave_the_schema_version_as_it_was(tmp_path):
    old = Bundle.load(make_bundle(tmp_path))
    before = json.loads((old.path / "bundle.json").read_text())["schema_version"]
    plain = {name: price_of({**PLAIN, "basis": "b"}, "") for name in old.names}
    new = Bundle.load(with_prices(old, PriceList(date="2026-11-28", prices=plain)))
    assert json.loads((new.path / "bundle.json").read_text())["schema_version"] == before
    rows = json.loads((new.path / "prices.json").read_text())["prices"]
    assert set(rows[old.names[0]]) == {"input_usd_per_1m", "output_usd_per_1m", "fixed_usd", "basis"}


@pytest.mark.parametrize(
    ("tiers", "error"),
    [
        ((PriceTier(**{**TIER, "above_tokens": 5}), PriceTier(**{**TIER, "above_tokens": 5})), BundleValueError),
        ((PriceTier(**{**TIER, "above_tokens": 1.5}),), BundleFormatError),
    ],
)
def test_a_bundle_with_a_wrong_tier_is_not_written(tmp_path, tiers, error):
    old = Bundle.load(make_bundle(tmp_path))
    wrong = replace(price(), tiers=tiers)
    with pytest.raises(error, match=rf"prices\.{old.names[0]}\.tiers"):
        with_prices(old, PriceList(date="2026-11-28", prices={**old.prices.prices, old.names[0]: wrong}))
