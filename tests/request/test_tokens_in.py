"""Input tokens that a caller gives by candidates' own counts: charged as they are, on every way through the engine and in records."""

import asyncio
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipr_engine import Engine, InvalidInputError
from ipr_engine.audit.record import Record
from ipr_engine.audit.replay import replay
from ipr_engine.bundle import BundleParts, PriceTier, with_prices, write_bundle
from ipr_engine.cli.main import main
from ipr_engine.policy.price_table import PriceTable, expected_cost
from ipr_engine.request.arguments import given_tokens
from ipr_engine.request.overrides import RequestOverrides
from ipr_engine.serving import AsyncEngine, BatchingEngine
from ipr_engine.tokens.profiles import shipped_profile
from tests.support import skips
from tests.support.bundles import bundle_parts, make_siblings
from tests.support.two_tier_bundles import join, make_prompts, make_tiers

PROMPT = "what is the sum of two and two " * 20
NAMES = ("alpha/large", "beta/mid", "gamma/small")
PROFILES = {"plain": (None,) * 3, "own": ("o200k_base", None, "claude_2"), "others": ("bpe", None, "claude_2")}
RATIOS = (1.09, 0.97, 1.25)  # whose products and quotients round
TIER = 5_000
FORMS = [4321.0, [10, 20.5, 3e6], {"BETA/mid": 90, "gamma/small": 0.0}, {NAMES[0]: 7}, np.full((1, 3), 55)]


@pytest.fixture(scope="module")
def engines(tmp_path_factory):
    """Bundles of the same heads: whose tokenizers are named differs. Prices have a tier and cached input; one window is 9,000 tokens."""
    root = tmp_path_factory.mktemp("told")
    made = {}
    for name, profiles in PROFILES.items():
        parts = bundle_parts(root / "sources", models=3, dim=16)
        parts["candidates"] = [
            replace(
                candidate,
                token_ratio=RATIOS[m],
                context_window=9_000 if m == 2 else None,
                tokenizer=None if profile is None else shipped_profile(profile),
            )
            for m, (candidate, profile) in enumerate(zip(parts["candidates"], profiles, strict=True))
        ]
        prices = {
            who: replace(
                price,
                cached_read_usd_per_1m=price.input_usd_per_1m / 10,
                tiers=(PriceTier(above_tokens=TIER, input_usd_per_1m=50.0, output_usd_per_1m=90.0),),
            )
            for who, price in parts["prices"].prices.items()
        }
        parts["prices"] = replace(parts["prices"], prices=prices)
        made[name] = Engine.load(write_bundle(root / name, BundleParts(**parts)))
    return made


def tokens_in(decision):
    return [view.tokens_in for view in decision.candidates]


def bits(decision):
    return decision.model, decision.costs_usd.tobytes(), np.float32(tokens_in(decision)).tobytes(), decision.excluded


def by_definition(engine, own, tokens_out, **more):
    prices = [engine.bundle.prices.prices[name] for name in engine.bundle.names]
    return expected_cost(prices, np.array([own], np.float64), np.array([tokens_out], np.float64), **more)[0]


# -- what it decides


@pytest.mark.parametrize("kind", PROFILES)
@given(own=st.lists(st.integers(0, 2**24), min_size=3, max_size=3), cached=st.integers(0, 2**20))
def test_each_candidate_is_charged_what_was_given_of_it(engines, kind, own, cached):
    engine = engines[kind]
    told = dict(zip(NAMES, own, strict=True))
    decisions = engine.route_many([PROMPT], tau=0.5, tokens_in=told, tokens_out=100, cached_tokens=cached)
    expected = by_definition(engine, own, [100] * 3, cached_tokens=np.minimum(cached, np.float64(own)))
    # a float32 rounding of each of rate, count, their product, the output's, their sum, the saving and the last sum, to sums that
    # may cancel: the largest term bounds each
    size = by_definition(engine, own, [100] * 3)
    np.testing.assert_allclose(decisions.costs_usd[0], expected, rtol=0, atol=8 * 2.0**-24 * size.max())
    assert tokens_in(decisions[0]) == own
    assert decisions[0].tokens_in == own[decisions[0].index]


@pytest.mark.parametrize("kind", PROFILES)
def test_a_tier_begins_above_its_own_tokens_whatever_the_token_ratio(engines, kind):
    for own, rate in ((TIER, None), (TIER + 1, 50.0)):
        views = engines[kind].route(PROMPT, tau=0.5, tokens_in=own, tokens_out=0).candidates
        for view in views:
            price = engines[kind].bundle.prices.prices[view.name]
            usd = (price.input_usd_per_1m if rate is None else rate) * own / 1e6 + price.fixed_usd
            assert view.cost_usd == pytest.approx(usd, rel=1e-6)


@given(tier=st.integers(1, 2**22), ratio=st.floats(0.25, 4))
def test_no_rounding_moves_a_count_over_a_tiers_border(engines, tier, ratio):
    price = replace(
        engines["plain"].bundle.prices.prices[NAMES[0]],
        tiers=(PriceTier(above_tokens=tier, input_usd_per_1m=50.0, output_usd_per_1m=90.0),),
    )
    table = PriceTable([price], [ratio])
    bills = table.counted(np.zeros(2, np.int64), np.array([[tier], [tier + 1]], np.float32))
    assert (bills > table.tier_above[0]).tolist() == [[False], [True]]


def test_a_context_window_is_held_against_the_given_tokens(engines):
    for engine in engines.values():
        excluded = [engine.route(PROMPT, tau=0.5, tokens_in=tokens, tokens_out=0).excluded for tokens in (9_000, 9_001)]
        assert excluded[0] == {}
        assert excluded[1] == {NAMES[2]: "prompt of about 9001 tokens over its context window of 9000"}
        assert NAMES[2] not in engine.route(PROMPT, tau=0.5, tokens_in={NAMES[2]: 9_001}).ranked


@pytest.mark.parametrize("kind", PROFILES)
@pytest.mark.parametrize("bill", [None, 640])
def test_who_is_not_named_keeps_its_estimate(engines, kind, bill):
    engine = engines[kind]
    before = engine.route(PROMPT, tau=0.5, billed_tokens=bill)
    after = engine.route(PROMPT, tau=0.5, billed_tokens=bill, tokens_in={NAMES[1]: 77})
    assert after.billed_tokens == before.billed_tokens
    assert tokens_in(after)[1] == 77
    np.testing.assert_array_equal(np.float32(tokens_in(after))[[0, 2]], np.float32(tokens_in(before))[[0, 2]])
    # without a profile the plain path charges the bundle's count; here it is multiplied, rounded and divided again: one float32
    np.testing.assert_allclose(after.costs_usd[[0, 2]], before.costs_usd[[0, 2]], rtol=2.0**-22)


def test_an_empty_mapping_tells_nothing(engines):
    engine = engines["own"]
    for told in ({}, [None], [{}]):
        assert bits(engine.route(PROMPT, tau=0.5, tokens_in=told)) == bits(engine.route(PROMPT, tau=0.5))
    assert len(engine.route_many([], tau=0.5, tokens_in=[])) == 0


def test_a_list_gives_every_prompt_its_own(engines):
    engine = engines["own"]
    rows = [{NAMES[0]: 40}, None, dict.fromkeys(NAMES, 6_000)]
    many = engine.route_many([PROMPT] * 3, tau=0.5, tokens_in=rows)
    assert [bits(row) for row in many] == [bits(engine.route(PROMPT, tau=0.5, tokens_in=row)) for row in rows]
    assert many.tokens_in_given.tolist() == [[True, False, False], [False] * 3, [True] * 3]
    array = engine.route_many([PROMPT] * 2, tau=0.5, tokens_in=[[1, 2, 3], [4, 5, 6]])
    assert array.own_tokens.tolist() == [[1, 2, 3], [4, 5, 6]]


@given(
    told=st.one_of(
        st.floats(0, 2**30), st.dictionaries(st.sampled_from(NAMES), st.floats(0, 2**30)),
        st.lists(st.floats(0, 2**30), min_size=3, max_size=3),
    )
)  # fmt: skip
def test_every_form_is_rounded_once(told):
    expected = [told.get(name, np.nan) if isinstance(told, dict) else told for name in NAMES]
    expected = told if isinstance(told, list) else expected
    found = given_tokens(told, 2, NAMES)
    assert found.tobytes() == np.float32([expected] * 2).tobytes()


# -- every way through the engine


@pytest.mark.parametrize("kind", ["plain", "own"])
@pytest.mark.parametrize("told", FORMS, ids=str)
def test_every_way_to_a_decision_gives_the_same_bits(engines, kind, told):
    engine = engines[kind]
    policy = engine.policy(tau=0.5)
    want = bits(engine.route(PROMPT, policy, tokens_in=told, cached_tokens=30))
    asked = {"tokens_in": told, "cached_tokens": 30}
    assert bits(engine.route([{"role": "user", "content": PROMPT}], policy, **asked)) == want
    assert bits(engine.route_many([PROMPT], policy, **asked)[0]) == want
    assert bits(engine.decide(engine.encode([PROMPT]), policy, **asked)[0]) == want
    assert bits(engine.explain(PROMPT, policy, **asked).decision) == want
    one = None if np.ndim(told) == 2 else told
    if one is not None:
        beside = engine.route_many(["", PROMPT], policy, on_error="status", **asked)
        assert (beside[0].model, bits(beside[1])) == (None, want)
    recorder = engine.recorder([].append)
    assert bits(recorder.route(PROMPT, policy, **asked)) == want
    assert bits(recorder.route_many([PROMPT], policy, **asked)[0]) == want
    assert bits(recorder.decide(engine.encode([PROMPT]), policy, **asked)[0]) == want
    for limits in ({}, {"inline_chars": 0}):
        with BatchingEngine(engine, cache_entries=9, limits=limits) as serving:
            assert bits(serving.route(PROMPT, policy)) == bits(engine.route(PROMPT, policy))
            assert bits(serving.route(PROMPT, policy, **asked)) == want  # not what the cache holds of the prompt
            assert bits(serving.route_many([PROMPT], policy, **asked)[0]) == want
            assert serving.counters().cache.hits == 0

    async def tasks():
        async with AsyncEngine(engine, limits={"inline_chars": 0}) as serving:
            return [await serving.route(PROMPT, policy, **asked), *await serving.route_many([PROMPT], policy, **asked)]

    assert [bits(row) for row in asyncio.run(tasks())] == [want, want]


def test_both_tiers_of_a_bundle_are_charged_the_given_tokens(tmp_path):
    engine = Engine(join(tmp_path, make_tiers(tmp_path)))
    prompts = make_prompts(5, "told")
    told = np.arange(5 * len(engine.bundle.names)).reshape(5, -1) + 1
    policy = engine.policy(tau=0.2, escalate_below=math.inf)
    made = engine.route_many(prompts, policy, tokens_in=told)
    assert made.escalated.all()
    assert made.own_tokens.tolist() == told.tolist()
    prices = [engine.bundle.prices.prices[name] for name in engine.bundle.names]
    np.testing.assert_allclose(made.costs_usd, expected_cost(prices, told, made.tokens_out), rtol=1e-5)
    kept = engine.decide(engine.encode(prompts), policy, tokens_in=told, second=engine.encode(prompts, second=True))
    assert kept.costs_usd.tobytes() == made.costs_usd.tobytes()


def test_a_row_of_a_file_may_state_them(engines, tmp_path, capsys):
    rows = tmp_path / "rows.jsonl"
    told = [{NAMES[1].upper(): 6_000}, 4_000, [1, 2, 3.5], None, {"nobody": 1}, -1]
    rows.write_text("".join(json.dumps({"id": 1, "prompt": PROMPT, "tokens_in": one}) + "\n" for one in told))
    engine = engines["own"]
    assert main(["route", "--jsonl", str(rows), "--bundle", str(engine.bundle.path), "--tau", "0.5"]) == 3
    *good, unknown, negative = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for line, one in zip(good, told[:4], strict=True):
        assert line["decision"] == engine.route(PROMPT, tau=0.5, tokens_in=one).to_dict()
        assert "tokens_in" not in line
    assert "tokens_in: unknown 'nobody'" in unknown["error"]
    assert "tokens_in: expected finite numbers >= 0, got -1" in negative["error"]


def test_names_outlive_a_swap_and_a_candidate_that_it_brings_is_estimated(tmp_path):
    one, other = (Engine.load(path) for path in make_siblings(tmp_path, 2, models=3))
    assert one.bundle.names != other.bundle.names
    policy, names = one.policy(tau=0.5), one.bundle.names
    own = RequestOverrides.of({"tokens_in": {names[0]: 30}}, 1, names, policy.prices)
    moved = own.on([*other.bundle.names, "new"]).tokens_in
    assert dict(zip([*other.bundle.names, "new"], moved[0].tolist(), strict=True)) == pytest.approx(
        {names[0]: 30, names[1]: np.nan, names[2]: np.nan, "new": np.nan}, nan_ok=True
    )
    everyone = RequestOverrides.of({"tokens_in": 8}, 1, names, policy.prices)
    assert everyone.on([*names, "new"]).tokens_in.tolist() == [[8, 8, 8, 8]]
    array = RequestOverrides.of({"tokens_in": [1, 2, 3]}, 1, names, policy.prices)
    with pytest.raises(
        InvalidInputError, match=r"tokens_in: given for .*, and the bundle that decides has new besides"
    ):
        array.on([*names, "new"])


# -- what is told of it


def test_explain_says_whose_tokens_were_given_and_what_counted_the_others(engines):
    engine = engines["own"]
    told = engine.explain(PROMPT, tau=0.5, tokens_in={NAMES[0]: 77})
    assert f"in: input tokens as tokens_in= gives them of {NAMES[0]}" in str(told)
    counted = {view["name"]: view["tokenizer"] for view in told.to_dict()["candidates"]}
    assert counted == {NAMES[0]: None, NAMES[1]: None, NAMES[2]: "claude_2"}
    assert f"· {told.decision.billed_tokens} tokens by the bundle's tokenizer" in str(told)
    given_bill = engine.explain(PROMPT, tau=0.5, billed_tokens=50)  # then nobody's own tokens are counted
    assert {view["tokenizer"] for view in given_bill.to_dict()["candidates"]} == {None}


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"nobody": 1}, "tokens_in: unknown 'nobody'; known: alpha/large"),
        ({"alpha/large": -1}, r"tokens_in\['alpha/large'\]: expected a value from 0"),
        ({"alpha/large": True}, r"tokens_in\['alpha/large'\]: expected a number"),
        ({"alpha/large": (1, 2.0)}, r"tokens_in\['alpha/large'\]: expected a number, got tuple"),
        ({"alpha/large": float("nan")}, r"tokens_in\['alpha/large'\]: expected a finite number, got nan"),
        ({"alpha/large": 1, "ALPHA/large": 1}, "both mean alpha/large; give it once"),
        ({1: 1}, "tokens_in: expected candidate -> tokens"),
        ([{}, {}], "tokens_in: expected one mapping a prompt, 1 in all, got 2"),
        ([], "tokens_in: expected one mapping a prompt, 1 in all, got 0"),
        ([{"nobody": 1}], r"tokens_in\[0\]: unknown 'nobody'"),
        ([None, 4.0], "tokens_in: expected one mapping a prompt, 1 in all, got 2"),
        ([1, 2], r"tokens_in: expected candidate -> tokens .*a number, or 3 numbers, one a candidate, got a list of 2"),
        ("a whole prompt", "one a candidate, got a text of 14 characters"),
        ("many", "tokens_in: expected candidate -> tokens .*a number"),
        (True, "tokens_in: expected candidate -> tokens .*a number"),
        (float("inf"), "tokens_in: expected finite numbers >= 0, got inf"),
        ([1, float("nan"), 2], "tokens_in: expected finite numbers >= 0, got nan"),
        (-0.5, "tokens_in: expected finite numbers >= 0, got -0.5"),
    ],
    ids=str,
)
def test_bad_input_is_named_on_every_way(engines, told, message):
    engine = engines["plain"]
    kept = engine.encode([PROMPT])
    asks = [
        lambda: engine.route(PROMPT, tau=0.5, tokens_in=told),
        lambda: engine.decide(kept, tau=0.5, tokens_in=told),
        lambda: engine.recorder([].append).route(PROMPT, tau=0.5, tokens_in=told),
    ]
    for limits in ({}, {"inline_chars": 0}):
        serving = BatchingEngine(engine, limits=limits).start()
        asks += [lambda serving=serving: serving.route(PROMPT, tau=0.5, tokens_in=told)]
        asks += [lambda serving=serving: serving.route_many([PROMPT], tau=0.5, tokens_in=told)]
    for ask in asks:
        with pytest.raises(InvalidInputError, match=message):
            ask()


# -- records


def recorded(engine, **options):
    lines = []
    recorder = {"min_words": 0, **options.pop("recorder", {})}
    engine.recorder(lines.append, **recorder).route(PROMPT, tau=0.5, **options)
    return lines[0]


@pytest.mark.parametrize("kind", PROFILES)
@pytest.mark.parametrize("told", FORMS, ids=str)
@pytest.mark.parametrize("more", [{}, {"billed_tokens": 70, "cached_tokens": 40}], ids=str)
def test_a_record_gives_them_back_to_the_bit(engines, kind, told, more):
    line = recorded(engines[kind], tokens_in=told, **more)
    record = Record.from_line(line)
    named = told if isinstance(told, dict) else dict.fromkeys(NAMES)
    assert [NAMES[m] for m in record.tokens_in_given] == [n for n in NAMES if n in {k.lower() for k in named}]
    assert record.to_line() == line
    [again] = replay([line], engines[kind])
    assert (again.differences, again.refused, again.kept) == ((), None, ())


@pytest.mark.parametrize("before", PROFILES)
@pytest.mark.parametrize("now", PROFILES)
@pytest.mark.parametrize("told", FORMS, ids=str)
@pytest.mark.parametrize("bill", [None, 70])
def test_on_another_bundle_what_was_given_stands_and_the_rest_is_that_bundles_or_told(engines, before, now, told, bill):
    [again] = replay([recorded(engines[before], tokens_in=told, billed_tokens=bill)], engines[now])
    want = engines[now].route(PROMPT, tau=0.5, tokens_in=told, billed_tokens=bill)
    assert again.refused is None
    kept = [NAMES.index(one.field.removeprefix("own_tokens[").removesuffix("]")) for one in again.kept]
    assert not set(kept) & set(again.record.tokens_in_given)
    same = [m for m in range(3) if m not in kept]
    np.testing.assert_array_equal(again.outcome.cost_usd[same], want.costs_usd[same])
    assert bool(kept) == (bill is None and any(
        PROFILES[now][m] is not None and PROFILES[now][m] != PROFILES[before][m]
        for m in range(3) if m not in again.record.tokens_in_given
    ))  # fmt: skip


def test_with_the_prompt_the_rest_is_counted_anew(engines):
    line = recorded(engines["plain"], tokens_in={NAMES[0]: 77}, recorder={"keep_prompts": True})
    [again] = replay([line], engines["own"])
    assert again.kept == ()
    want = engines["own"].route(PROMPT, tau=0.5, tokens_in={NAMES[0]: 77})
    assert again.outcome.cost_usd.tobytes() == want.costs_usd.tobytes()


def test_given_tokens_of_a_brief_record_are_sealed_and_an_embedding_decides_with_them(engines):
    pytest.importorskip("cryptography", reason=skips.RECORDS)
    key = bytes(range(32))
    for recorder in ({"min_words": 1000, "key": key}, {"keep_x": True, "key": key}):
        line = recorded(engines["plain"], tokens_in={NAMES[0]: 7_000}, recorder=recorder)
        assert ("own_tokens" in json.loads(line)) == ("keep_x" in recorder)
        [again] = replay([line], engines["plain"], key=key)
        assert (again.differences, again.refused, again.kept) == ((), None, ())
        assert again.record.own_tokens[0] == 7_000


def test_a_line_without_given_tokens_says_nothing_of_them(engines):
    assert "tokens_in_given" not in json.loads(recorded(engines["own"]))
    assert "tokens_in_given" not in json.loads(recorded(engines["own"], tokens_in={}))


def test_prices_of_a_replay_meet_the_given_tokens(engines):
    engine = engines["plain"]
    dearer = {n: replace(p, input_usd_per_1m=p.input_usd_per_1m * 3) for n, p in engine.bundle.prices.prices.items()}
    other = Engine.load(with_prices(engine.bundle, replace(engine.bundle.prices, prices=dearer), activate=False))
    [again] = replay([recorded(engine, tokens_in={NAMES[0]: 77})], other)
    want = other.route(PROMPT, tau=0.5, tokens_in={NAMES[0]: 77})
    np.testing.assert_allclose(again.outcome.cost_usd, want.costs_usd, rtol=2.0**-22)
