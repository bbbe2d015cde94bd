"""Whole LLM requests through the serving engines: what they need is held, inline, by the queue, from the cache and past the budget."""

import asyncio

import pytest

from ipr_engine import AsyncEngine, Engine, InvalidInputError
from ipr_engine.prompts import ParsedRequest, parse_request
from ipr_engine.serving import BatchingEngine
from ipr_engine.serving.decision_cache import DecisionCache
from tests.support.callers import SOON, in_loop
from tests.support.decisions import bits
from tests.support.serving_encoders import queued_engine

USER = {"role": "user", "content": "why"}
TOOL = {"type": "function", "function": {"name": "add", "description": "adds two numbers"}}
CALL = {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": "{}"}}]}
REQUESTS = [
    {"messages": [USER], "tools": [TOOL]},
    {"messages": [USER], "max_tokens": 9000},
    {"messages": [USER], "max_tokens": 3},
    {"input": "why", "instructions": "explain", "tools": [TOOL], "max_output_tokens": 50},
    [USER, CALL, {"role": "tool", "content": "42"}],
    parse_request([USER], tools=[TOOL]),
]


@pytest.mark.parametrize("queued", [False, True], ids=["inline", "queued"])
@in_loop
async def test_requests_are_answered_as_the_engine_does(bundles, queued):
    direct = Engine(bundles[0])
    engine = queued_engine(bundles[0])[0] if queued else Engine(bundles[0])
    async with AsyncEngine(engine, cache_entries=20) as serving:
        policy = serving.policy(tau=0.4)
        expected = [direct.route(request, policy) for request in REQUESTS]
        assert any(one.excluded for one in expected)
        for _ in range(2):  # decided, then from the cache
            answers = await asyncio.gather(*(serving.route(request, policy) for request in REQUESTS))
            for answer, one in zip(answers, expected, strict=True):
                assert bits(answer) == bits(one)
                assert answer.excluded == one.excluded
                assert answer.billed_tokens == one.billed_tokens
        assert serving.counters().cache.hits >= len(REQUESTS)


@pytest.mark.parametrize("queued", [False, True], ids=["inline", "queued"])
def test_an_image_alone_is_served_with_its_bill(bundles, queued):
    engine = queued_engine(bundles[0])[0] if queued else Engine(bundles[0])
    alone = [{"role": "user", "content": [{"type": "image_url"}]}]
    with BatchingEngine(engine) as serving:
        answer = serving.route(alone, tau=0.4, billed_tokens=90)
        assert bits(answer) == bits(Engine(bundles[0]).route(alone, tau=0.4, billed_tokens=90))
        assert "vision" in answer.bundle.candidates[answer.index].features
        with pytest.raises(InvalidInputError, match="unknown part type 'hologram'"):
            serving.route([{"role": "user", "content": [{"type": "hologram"}]}], tau=0.4)


def test_a_key_of_the_cache_tells_what_a_request_needs(bundles):
    cache, policy = DecisionCache(3), Engine(bundles[0]).policy(tau=0.4)
    needs = [{}, {"tools": "tools"}, {"tools": "tool_calls"}, {"vision": "image"}]
    keys = {cache.key(ParsedRequest("why", features=one), policy) for one in needs}
    keys |= {cache.key(ParsedRequest("why", max_output_tokens=most), policy) for most in (3, 30)}
    assert len(keys) == 6


def test_a_fallback_reads_what_it_answers(bundles):
    engine, _ = queued_engine(bundles[0])
    by_name = {candidate.name: candidate for candidate in bundles[0].candidates}
    blind = next(name for name, candidate in by_name.items() if "tools" not in candidate.features)
    able = next(name for name, candidate in by_name.items() if "tools" in candidate.features)
    tools, long = REQUESTS[0], {"messages": [USER], "max_tokens": 10**6}
    with BatchingEngine(engine, fallback=[blind, able]) as serving:
        assert serving.route("why", tau=0.4, budget_us=SOON).model == blind
        assert serving.route(tools, tau=0.4, budget_us=SOON).model == able
    short = next(name for name, candidate in by_name.items() if candidate.context_window is not None)
    for fallback, request, why in (
        (short, long, r"a context window for 1 tokens and 1000000 of output"),
        (blind, tools, rf"{blind} lacks tools, needed by 'tools'"),
    ):
        with BatchingEngine(engine, fallback=fallback) as serving, pytest.raises(InvalidInputError, match=why):
            serving.route(request, tau=0.4, budget_us=SOON)
    expected = [10.0**6 if name == short else 1.0 for name in bundles[0].names]
    with BatchingEngine(engine, fallback=[short, able]) as serving:  # what the caller expects counts as well
        assert serving.route("why", tau=0.4, tokens_out=expected, budget_us=SOON).model == able
    with BatchingEngine(engine, fallback=short) as serving, pytest.raises(InvalidInputError, match="1000000 of output"):
        serving.route("why", tau=0.4, tokens_out=10**6, budget_us=SOON)
    with BatchingEngine(engine, fallback=Engine(bundles[1])) as serving:
        late = serving.route(tools, tau=0.4, budget_us=SOON)
        assert late.degraded == "static"
        assert blind in late.excluded
