"""What a call cost, and the most that it can cost, by every kind of price."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipr_engine.bundle.price import Price, PriceTier
from ipr_engine.collection.bill import TokenUsage, call_usd, most_call_usd, most_input_tokens, nanousd

USD = st.just(0.0) | st.floats(1e-3, 1000)


def price(**more):
    return Price(**{"input_usd_per_1m": 1.0, "output_usd_per_1m": 2.0, "basis": "test", **more})


def test_a_call_is_priced_by_what_its_provider_reports():
    usage = TokenUsage(input_tokens=1_000_000, output_tokens=1_000_000, cached_tokens=400_000, reasoning_tokens=500_000)
    assert call_usd(price(), usage) == pytest.approx(3.0)
    told = price(cached_read_usd_per_1m=0.1, reasoning_usd_per_1m=4.0, fixed_usd=0.5, per_image_usd=0.25)
    assert call_usd(told, usage, images=2) == pytest.approx(0.6 + 0.04 + 1.0 + 2.0 + 0.5 + 0.5)


def test_a_tier_prices_all_of_a_longer_request():
    tiers = (PriceTier(above_tokens=1000, input_usd_per_1m=10.0, output_usd_per_1m=20.0),)
    assert call_usd(price(tiers=tiers), TokenUsage(input_tokens=1000, output_tokens=0)) == pytest.approx(0.001)
    assert call_usd(price(tiers=tiers), TokenUsage(input_tokens=1001, output_tokens=0)) == pytest.approx(0.01001)


@given(
    given_tokens=st.integers(0, 100_000),
    made=st.integers(0, 10_000),
    parts=st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)),
    usd=st.tuples(USD, USD, USD, USD, USD, USD),
    written=st.none() | USD,
)
def test_no_call_within_its_tokens_costs_more_than_its_most(given_tokens, made, parts, usd, written):
    tier = PriceTier(above_tokens=5000, input_usd_per_1m=usd[2], output_usd_per_1m=usd[3])
    told = price(
        input_usd_per_1m=usd[0],
        output_usd_per_1m=usd[1],
        tiers=(tier,),
        cached_read_usd_per_1m=usd[4],
        cached_write_usd_per_1m=written,
        reasoning_usd_per_1m=usd[5],
        fixed_usd=0.01,
    )
    share, cached, reasoning = parts
    used = TokenUsage(
        input_tokens=int(share * given_tokens),
        output_tokens=int(share * made),
        cached_tokens=int(cached * int(share * given_tokens)),
        reasoning_tokens=int(reasoning * int(share * made)),
    )
    assert nanousd(call_usd(told, used)) <= nanousd(most_call_usd(told, given_tokens, made)) + 1


@given(st.text(max_size=200))
def test_a_text_has_no_more_tokens_than_are_set_aside(text):
    body = {"messages": [{"role": "user", "content": text}]}
    assert most_input_tokens(body) >= len(text.encode("utf-8", "surrogatepass")) + 256


def test_the_bytes_of_an_image_are_not_text():
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}
    body = {"messages": [{"role": "user", "content": [image]}]}
    assert most_input_tokens(body, part_tokens=1500, uncountable=1) < 2000


def test_a_tool_s_schema_counts_whole_whatever_its_properties_are_called():
    schema = {"properties": {name: {"description": "x" * 5000} for name in ("url", "data", "file_data")}}
    tool = {"type": "function", "function": {"name": "look", "parameters": schema}}
    assert most_input_tokens({"messages": [{"role": "user", "content": "Look."}], "tools": [tool]}) > 15_000
