"""Prices from a CSV and from LiteLLM's table: what is taken, told and refused. The tables here are made up, in their shape."""

from __future__ import annotations

import json

import pytest

from ipr_engine.bundle import Bundle, PriceTier
from ipr_engine.bundle.price_import import is_foreign, read_foreign_prices
from ipr_engine.cli.main import main
from ipr_engine.errors import InvalidInputError
from tests.support.bundles import make_bundle

TABLE = {
    "plain": {"input_cost_per_token": 1.1e-06, "output_cost_per_token": 4.4e-06, "mode": "chat", "supports_vision": True,
              "max_input_tokens": 128000},
    "lab/tiered": {
        "input_cost_per_token": 1.25e-06, "input_cost_per_token_above_200k_tokens": 2.5e-06,
        "output_cost_per_token": 1e-05, "output_cost_per_token_above_200k_tokens": 1.5e-05,
        "cache_read_input_token_cost": 1.25e-07, "cache_read_input_token_cost_above_200k_tokens": 2.5e-07,
        "cache_creation_input_token_cost": 1.6e-06, "prompt_cache_min_tokens": 2048,
        "input_cost_per_token_batches": 6.25e-07, "output_cost_per_token_batches": 5e-06,
        "output_cost_per_reasoning_token": 1.2e-05, "input_cost_per_image": 0.001, "input_cost_per_request": 0.005,
        "input_cost_per_token_priority": 2e-06, "search_context_cost_per_query": {"low": 0.03},
        "litellm_provider": "lab",
    },
    "two-edges": {
        "input_cost_per_token": 1e-06, "output_cost_per_token": 2e-06, "output_cost_per_token_above_256k_tokens": 8e-06,
        "input_cost_per_token_above_128k_tokens": 3e-06, "input_cost_per_token_above_256k_tokens": 4e-06,
    },
    "ranges": {
        "tiered_pricing": [
            {"range": [0, 32000.0], "input_cost_per_token": 2e-07, "output_cost_per_token": 1.2e-06,
             "output_cost_per_reasoning_token": 4e-06},
            {"range": [32000.0, 128000.0], "input_cost_per_token": 4e-07, "output_cost_per_token": 2e-06},
        ]
    },
    "from-the-edge": {"input_cost_per_token": 1e-06, "output_cost_per_token": 1e-06, "litellm_provider": "xai",
                      "input_cost_per_token_above_128k_tokens": 2e-06},
    "hit": {"input_cost_per_token": 1e-06, "output_cost_per_token": 1e-06, "input_cost_per_token_cache_hit": 1e-07},
    "writes": {"input_cost_per_token": 1e-06, "output_cost_per_token": 1e-06, "cache_creation_input_token_cost": 1e-06},
    "painter": {"output_cost_per_image": 0.04, "mode": "image_generation"},
    "negative": {"input_cost_per_token": -1e-06, "output_cost_per_token": 1e-06},
    "text": {"input_cost_per_token": "cheap", "output_cost_per_token": 1e-06},
    "gap": {"tiered_pricing": [{"range": [0, 5], "input_cost_per_token": 1e-6, "output_cost_per_token": 1e-6},
                               {"range": [6, 9], "input_cost_per_token": 1e-6, "output_cost_per_token": 1e-6}]},
    "odd-range": {"tiered_pricing": [{"range": [0, 5], "input_cost_per_token": 1e-6, "output_cost_per_token": 1e-6,
                                      "input_cost_per_second": 1}]},
}  # fmt: skip
CSV = """# USD per million tokens
model,usd_in_per_m,usd_out_per_m,max_input_tokens,entry
plain,1.1,4.4,128000,somewhere
other,0.5,0.25,,x
"""


@pytest.fixture
def table(tmp_path):
    file = tmp_path / "prices.json"
    file.write_text(json.dumps(TABLE))
    return file


def imported(table, key):
    made = read_foreign_prices(table, ("mine",), {"mine": key})
    return made.prices["mine"], made.untold.get("mine", ())


def test_prices_per_token_become_the_decimals_that_are_written(table):
    price, untold = imported(table, "plain")
    assert (price.input_usd_per_1m, price.output_usd_per_1m, untold) == (1.1, 4.4, ())
    assert price.basis == "prices.json, plain"


def test_every_price_of_a_request_is_taken_and_the_others_are_told(table):
    price, untold = imported(table, "lab/tiered")
    assert price.tiers == (
        PriceTier(above_tokens=200_000, input_usd_per_1m=2.5, output_usd_per_1m=15.0, cached_read_usd_per_1m=0.25),
    )
    assert (price.cached_read_usd_per_1m, price.cached_write_usd_per_1m, price.cache_min_tokens) == (0.125, 1.6, 2048)
    assert (price.batch_input_usd_per_1m, price.batch_output_usd_per_1m) == (0.625, 5.0)
    assert (price.reasoning_usd_per_1m, price.per_image_usd, price.fixed_usd) == (12.0, 0.001, 0.005)
    assert untold == ("input_cost_per_token_priority", "search_context_cost_per_query")


def test_a_tier_that_states_one_side_keeps_the_other(table):
    tiers = imported(table, "two-edges")[0].tiers
    told = [(t.above_tokens, t.input_usd_per_1m, t.output_usd_per_1m) for t in tiers]
    assert told == [(128_000, 3.0, 2.0), (256_000, 4.0, 8.0)]


def test_ranges_are_tiers(table):
    price = imported(table, "ranges")[0]
    assert (price.input_usd_per_1m, price.output_usd_per_1m, price.reasoning_usd_per_1m) == (0.2, 1.2, 4.0)
    assert price.tiers == (PriceTier(above_tokens=32_000, input_usd_per_1m=0.4, output_usd_per_1m=2.0),)


def test_a_provider_that_charges_from_the_edge_on_has_its_edge_one_token_lower(table):
    assert imported(table, "from-the-edge")[0].tiers[0].above_tokens == 127_999


def test_a_cache_hit_is_a_cached_read_and_writing_alone_is_told(table):
    assert imported(table, "hit")[0].cached_read_usd_per_1m == 0.1
    price, untold = imported(table, "writes")
    assert (price.cached_write_usd_per_1m, untold) == (None, ("cache_creation_input_token_cost",))


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("painter", "prices.json: painter: has no price of input tokens"),
        ("negative", "prices.json: negative: input_usd_per_1m: expected a number >= 0"),
        ("text", "prices.json: text: input_cost_per_token: expected a finite number"),
        ("gap", r"gap: tiered_pricing\[1\].range: expected it to begin at 5"),
        ("odd-range", r"tiered_pricing\[0\]: has input_cost_per_second, unknown here"),
        ("nobody", "as: prices.json has no 'nobody' for mine"),
        ("other/tiered", "keys that end alike: lab/tiered"),
    ],
)
def test_an_entry_that_is_no_price_is_refused(table, key, told):
    with pytest.raises(InvalidInputError, match=told):
        imported(table, key)


def test_names_that_are_the_tables_own_need_no_mapping_and_the_others_are_told(table):
    made = read_foreign_prices(table, ("plain", "tiered"), {})
    assert set(made.prices) == {"plain"}
    assert made.missing == {"tiered": ("lab/tiered",)}


def test_a_table_of_none_of_the_candidates_is_refused(table):
    with pytest.raises(InvalidInputError, match=r"prices none of a, b; say what it calls them with --as NAME=KEY"):
        read_foreign_prices(table, ("a", "b"), {})
    with pytest.raises(InvalidInputError, match="as: unknown candidate c; known: a, b"):
        read_foreign_prices(table, ("a", "b"), {"c": "plain"})


def test_a_csv_prices_tokens(tmp_path):
    file = tmp_path / "p.csv"
    file.write_text(CSV)
    made = read_foreign_prices(file, ("plain", "mine"), {"mine": "other"})
    assert [(p.input_usd_per_1m, p.output_usd_per_1m) for p in made.prices.values()] == [(1.1, 4.4), (0.5, 0.25)]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (CSV.replace("usd_out_per_m", "usd_out"), "expected the columns model, usd_in_per_m, usd_out_per_m"),
        (CSV.replace("max_input_tokens", "usd_cached"), "expected the columns"),
        (CSV + "plain,1,1,1,x\n", "'plain' stands twice"),
        (CSV + "more,1\n", "expected 5 cells in row 3"),
        (CSV.replace("1.1", "nan"), "plain: usd_in_per_m: expected a finite number"),
        (CSV.replace("4.4", "-4.4"), "plain: output_usd_per_1m: expected a number >= 0"),
        ("", "expected the columns"),
    ],
)
def test_a_csv_of_another_form_is_refused(tmp_path, text, told):
    file = tmp_path / "p.csv"
    file.write_text(text)
    with pytest.raises(InvalidInputError, match=told):
        read_foreign_prices(file, ("plain",), {})


def test_a_price_file_of_a_bundle_is_no_table(tmp_path):
    file = tmp_path / "p.json"
    for text, foreign in ((json.dumps(TABLE), True), ('{"currency": "USD", "date": "x", "prices": {}}', False)):
        assert is_foreign(file, text.encode()) is foreign


def test_set_prices_takes_a_table(tmp_path, table, capsys):
    old = Bundle.load(make_bundle(tmp_path / "b"))
    one, other = old.names[:2]
    arguments = ["set-prices", str(table), "--bundle", str(old.path), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--as", f"{one}=lab/tiered", "--as", f"{other}=plain", "--date", "2026-11-28"]) == 0
    told = capsys.readouterr()
    new = Bundle.load(tmp_path / "out")
    assert (new.prices.date, new.prices.prices[other].input_usd_per_1m) == ("2026-11-28", 1.1)
    assert new.prices.prices[one].tiers[0].above_tokens == 200_000
    assert new.prices.prices[old.names[2]] == old.prices.prices[old.names[2]]
    assert f"{one}: prices.json says input_cost_per_token_priority, search_context_cost_per_query too" in told.err
    assert f"{old.names[2]} is not in prices.json and keeps its price" in told.err
    assert "cached_read_usd_per_1m: null -> 0.125" in told.out
    assert new.prices.prices[one].reasoning_share is None
    assert f"{one}: its price of reasoning tokens is not counted in decisions: state reasoning_share" in told.err


def test_set_prices_shows_a_share_of_reasoning_and_asks_for_none_then(tmp_path, capsys):
    old = Bundle.load(make_bundle(tmp_path / "b"))
    row = {"input_usd_per_1m": 1, "output_usd_per_1m": 2, "reasoning_usd_per_1m": 9, "reasoning_share": 0.25}
    whole = {**row, "fixed_usd": 0, "basis": "a page"}
    file = tmp_path / "prices.json"
    file.write_text(json.dumps({"currency": "USD", "date": "2026-11-28", "prices": {old.names[0]: whole}}))
    arguments = ["set-prices", str(file), "--bundle", str(old.path), "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    told = capsys.readouterr()
    assert "reasoning_share: null -> 0.25" in told.out
    assert "reasoning" not in told.err
    assert Bundle.load(tmp_path / "out").prices.prices[old.names[0]].reasoning_share == 0.25


@pytest.mark.parametrize("pair", ["x", "=y", "x=", "nobody=plain"])
def test_a_mapping_of_another_form_is_refused(tmp_path, table, pair, capsys):
    root = make_bundle(tmp_path / "b")
    assert main(["set-prices", str(table), "--bundle", str(root), "--as", pair]) == 1
    assert "as: " in capsys.readouterr().err
