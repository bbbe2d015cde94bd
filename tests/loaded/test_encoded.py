"""Encode once, decide later: `decide(encode(p))` is `route(p)`, whatever kind of request p is, errors included."""

import math

import numpy as np
import pytest

from ipr_engine import Bundle, Engine, IprError
from tests.support.bundles import make_bundle
from tests.support.two_tier_bundles import join, make_tiers, measured

USER = {"role": "user", "content": "what is the story"}
SEES = {"role": "user", "content": [{"type": "text", "text": "what"}, {"type": "image_url", "image_url": {"url": "u"}}]}
HEARS = {"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
KINDS = {
    "text": "why",
    "unknown words": "你好",
    "long": "a b c " * 400,
    "chat": [{"role": "system", "content": "be brief"}, USER],
    "tools": {"messages": [USER], "tools": [TOOL]},
    "a limit of output": {"messages": [USER], "max_tokens": 12},
    "a limit over a window": {"messages": [USER], "max_tokens": 700},
    "a limit over all": {"messages": [USER], "max_tokens": 10**9},
    "tools and a limit": {"messages": [USER], "tools": [TOOL], "max_tokens": 700},
    "vision": [SEES],
    "what nobody has": [HEARS],
    "empty": "",
    "no prompt": 7,
}
BILLS = {"vision": 90, "what nobody has": 40}
TERMS = [
    {"tau": 0.3},
    {"tau": 1.0},
    {"tau": 0.3, "worth": 0.01},
    {"tau": 0.3, "allowed": ["alpha/large", "beta/mid"]},
    {"tau": 0.3, "min_support": 0.5, "unsupported": "gamma/small"},
    {"tau": 0.3, "min_support": 1.0, "unsupported": "cheapest"},
]


@pytest.fixture(scope="module")
def engines(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    one = make_bundle(folder, models=5, dim=16, context_windows=[1000, None, 800, 600, None])
    two = tmp_path_factory.mktemp("two")
    return {
        "one tier": Engine(measured(Bundle.load(one))),
        "two tiers": Engine(measured(join(two, make_tiers(two), gap=0.05))),
    }


def outcome(call):
    """All that a decision says, or the error."""
    try:
        row = call()
    except IprError as error:
        return type(error), str(error)
    parts = (row.qualities, row.costs_usd, np.float64(row.threshold), np.float64(row.gap), np.float64(row.support))
    return row.to_dict(), row.feasible, tuple(part.tobytes() for part in parts), row.allowed.tolist()


def kept(engine, prompts, policy, on_error="raise", billed_tokens=None, **given):
    """encode, then decide; of two tiers by both encoders."""
    options = {"billed_tokens": billed_tokens, "on_error": on_error}
    x = engine.encode(prompts, **options)
    second = None if engine.second_encoder is None else engine.encode(prompts, second=True, **options)
    return engine.decide(x, policy, second=second, on_error=on_error, **given)


@pytest.mark.parametrize("terms", TERMS, ids=str)
@pytest.mark.parametrize("tiers", ["one tier", "two tiers"])
def test_kept_embeddings_decide_as_the_prompt_does(engines, tiers, terms):
    engine = engines[tiers]
    for below in (None,) if tiers == "one tier" else (None, 0, math.inf):
        policy = engine.policy(**terms, escalate_below=below)
        for kind, prompt in KINDS.items():
            for given in ({}, {"tokens_out": 30.0}, {"extra_usd": np.linspace(0, 1e-3, len(engine.bundle.names))}):
                bill = BILLS.get(kind)
                routed = outcome(lambda: engine.route(prompt, policy, billed_tokens=bill, **given))  # noqa: B023
                decided = outcome(lambda: kept(engine, prompt, policy, billed_tokens=bill, **given)[0])  # noqa: B023
                assert decided == routed, kind


@pytest.mark.parametrize("terms", TERMS, ids=str)
@pytest.mark.parametrize("tiers", ["one tier", "two tiers"])
def test_a_list_of_all_kinds_gives_the_same_rows_and_reasons(engines, tiers, terms):
    engine, prompts = engines[tiers], list(KINDS.values())
    bills = [BILLS.get(kind) for kind in KINDS]
    policy = engine.policy(**terms)
    routed = engine.route_many(prompts, policy, billed_tokens=bills, on_error="status")
    decided = kept(engine, prompts, policy, on_error="status", billed_tokens=bills)
    assert decided.errors == routed.errors
    for kind, a, b in zip(KINDS, routed, decided, strict=True):
        assert outcome(lambda: a) == outcome(lambda: b), kind  # noqa: B023
    assert decided[list(KINDS).index("what nobody has")].status == "invalid_input"
    some = [0, 4, 8]
    part = engine.encode(prompts, billed_tokens=bills, on_error="status")[some]
    if tiers == "one tier":
        for row, one in zip(some, engine.decide(part, policy, on_error="status"), strict=True):
            assert outcome(lambda: one) == outcome(lambda: routed[row])  # noqa: B023


def test_a_recorder_writes_no_record_of_a_row_that_nobody_can_read(engines):
    lines = []
    recorder = engines["one tier"].recorder(lines.append)
    x = engines["one tier"].encode(["why", [HEARS]], billed_tokens=[None, 40])
    rows = recorder.decide(x, tau=0.3, on_error="status")
    assert [row.status for row in rows] == ["ok", "invalid_input"]
    assert len(b"".join(lines).splitlines()) == 1
