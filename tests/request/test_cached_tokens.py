"""Cached tokens by name: the same as the array, none of what a cache no longer holds, and after a swap still who was meant."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipr_engine import Engine, InvalidInputError
from ipr_engine.audit.record import Record
from ipr_engine.bundle import with_prices
from ipr_engine.cli.main import main
from ipr_engine.request.arguments import held_tokens
from ipr_engine.request.overrides import RequestOverrides
from ipr_engine.serving import BatchingEngine
from tests.support.bundles import make_bundle, make_siblings

PROMPT = "what is the sum of two and two " * 20
NAMES = ("alpha/large", "beta/mid", "gamma/small")


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return Engine.load(make_bundle(tmp_path_factory.mktemp("cached"), models=3, dim=16))


@pytest.fixture(scope="module")
def policy(engine):
    """Cached input at a tenth; the first cache lasts 300 s, of the others nothing is known."""
    prices = {
        name: replace(price, cached_read_usd_per_1m=price.input_usd_per_1m / 10, cache_ttl_s=300.0 if m == 0 else None)
        for m, (name, price) in enumerate(engine.bundle.prices.prices.items())
    }
    return engine.policy(tau=0.5, prices=prices)


def costs(decision):
    return decision.costs_usd.tobytes()


def test_names_mean_what_the_array_means(engine, policy):
    by_name = engine.route(PROMPT, policy, cached_tokens={"BETA/mid": 50, "alpha/large": 9})
    assert costs(by_name) == costs(engine.route(PROMPT, policy, cached_tokens=[9, 50, 0]))
    assert costs(by_name) != costs(engine.route(PROMPT, policy))


@given(
    tokens=st.lists(st.one_of(st.none(), st.floats(0, 2**20)), min_size=3, max_size=3),
    age=st.floats(0, 1e6),
    ttl=st.one_of(st.none(), st.floats(1e-3, 1e6)),
)
def test_what_a_cache_no_longer_holds_counts_as_none_and_an_unknown_ttl_never_passes(engine, tokens, age, ttl):
    prices = engine.bundle.prices
    rows = {n: replace(p, cache_ttl_s=ttl if n == NAMES[1] else None) for n, p in prices.prices.items()}
    named = {name: (held, age) for name, held in zip(NAMES, tokens, strict=True) if held is not None}
    expected = [0 if held is None else held for held in tokens]
    if ttl is not None and age >= ttl:
        expected[1] = 0
    found = held_tokens(named, 2, NAMES, replace(prices, prices=rows))
    assert found.tolist() == [np.float32(expected).astype(float).tolist()] * 2


def test_a_list_gives_every_prompt_its_own(engine, policy):
    rows = [{"alpha/large": (40, 299.9)}, None, {"alpha/large": (40, 300)}, {"beta/mid": 7}]
    many = engine.route_many([PROMPT] * 4, policy, cached_tokens=rows)
    array = engine.route_many([PROMPT] * 4, policy, cached_tokens=[[40, 0, 0], [0, 0, 0], [0, 0, 0], [0, 7, 0]])
    assert many.costs_usd.tobytes() == array.costs_usd.tobytes()
    assert [costs(row) for row in many] == [costs(engine.route(PROMPT, policy, cached_tokens=row)) for row in rows]


@pytest.mark.parametrize("inline", [0, 10**6])
def test_serving_and_recording_take_names_too(engine, policy, inline):
    named = {"alpha/large": (40, 10.0), "beta/mid": 7}
    expected = costs(engine.route(PROMPT, policy, cached_tokens=named))
    with BatchingEngine(engine, limits={"inline_chars": inline}) as serving:
        assert costs(serving.route(PROMPT, policy, cached_tokens=named)) == expected
        rows = serving.route_many([PROMPT] * 2, policy, cached_tokens=[named, None])
        assert [costs(row) for row in rows] == [expected, costs(engine.route(PROMPT, policy))]
        assert costs(serving.route_many([PROMPT], policy, cached_tokens=named)[0]) == expected
    lines = []
    recorder = engine.recorder(lines.append, min_words=0)
    assert costs(recorder.route(PROMPT, policy, cached_tokens=named)) == expected
    assert Record.from_line(lines[0]).cached_tokens.tolist() == [40, 7, 0]
    with pytest.raises(InvalidInputError, match="cached_tokens"):
        recorder.route(PROMPT, policy, cached_tokens={"nobody": 1})


def test_a_row_of_a_file_takes_names_too(engine, policy, tmp_path, capsys):
    name = engine.bundle.names[0]
    prices = replace(policy.prices, date="2026-11-28")
    folder = with_prices(engine.bundle, prices, root=tmp_path / "priced")
    rows = tmp_path / "rows.jsonl"
    held = [{name: 40}, {name.upper(): [40, 1.0]}, {name: [40, 9e9]}, {"nobody": 1}]
    rows.write_text("".join(json.dumps({"prompt": PROMPT, "cached_tokens": one}) + "\n" for one in held))
    assert (
        main(["route", "--jsonl", str(rows), "--bundle", str(folder), "--tau", "0", "--exclude", ",".join(NAMES[1:])])
        == 3
    )
    *told, bad = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    costs = [one["decision"]["cost_usd"] for one in told]
    assert costs[0] == costs[1] < costs[2]
    assert "cached_tokens: unknown 'nobody'" in bad["error"]


def test_names_outlive_a_swap_that_orders_candidates_otherwise_or_brings_new_ones(tmp_path):
    one, other = (Engine.load(path) for path in make_siblings(tmp_path, 2, models=3))
    assert one.bundle.names != other.bundle.names
    policy = one.policy(tau=0.5)
    named = {one.bundle.names[0]: 30}
    order = [one.bundle.names.index(name) for name in other.bundle.names]
    assert costs(other.route(PROMPT, policy, cached_tokens=named)) == costs(
        other.route(PROMPT, policy, cached_tokens=np.array([30, 0, 0])[order])
    )
    own = RequestOverrides.of({"cached_tokens": named}, 1, one.bundle.names, policy.prices)
    assert own.on([*other.bundle.names, "new"]).cached_tokens.tolist() == [
        [*np.array([30.0, 0, 0])[order].tolist(), 0.0]
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"nobody": 1}, "cached_tokens: unknown 'nobody'; known: alpha/large"),
        ({"alpha/large": -1}, r"cached_tokens\['alpha/large'\]: expected a value from 0"),
        ({"alpha/large": True}, r"cached_tokens\['alpha/large'\]: expected a number"),
        ({"alpha/large": (1, -2.0)}, r"cached_tokens\['alpha/large'\], seconds: expected a value from 0"),
        ({"alpha/large": (1, float("nan"))}, r"cached_tokens\['alpha/large'\], seconds: expected a finite number"),
        ({"alpha/large": (1, 2, 3)}, r"expected tokens, or \(tokens, seconds since last used\)"),
        ({"alpha/large": 1, "ALPHA/large": 1}, "both mean alpha/large; give it once"),
        ({1: 1}, "cached_tokens: expected candidate -> tokens"),
        ([{}, {}], "cached_tokens: expected one mapping a prompt, 1 in all, got 2"),
        ([1, {}, 2], "cached_tokens: expected one mapping a prompt, 1 in all, got 3"),
        ([{"nobody": 1}], r"cached_tokens\[0\]: unknown 'nobody'"),
        (float("nan"), "cached_tokens: expected finite numbers >= 0, got nan"),
    ],
    ids=str,
)
def test_bad_cached_tokens_are_named(engine, policy, given, message):
    with pytest.raises(InvalidInputError, match=message):
        engine.route(PROMPT, policy, cached_tokens=given)
