"""Figures refreshed through the serving engines: known to all of them, and weighed from then on, by requests that wait too."""

import asyncio
import functools

import pytest

from ipr_engine import AsyncEngine, Engine, InvalidInputError
from ipr_engine.serving import BatchingEngine
from tests.support.decisions import bits
from tests.support.serving_encoders import PROMPTS, Gate, queued_engine

WEIGHTS = {"usd": 0.0, "ttft_s": 1.0}


@pytest.fixture(scope="module")
def bundle(bundles):
    return bundles[0]


def in_loop(test):
    @functools.wraps(test)
    def run(*arguments, **named):
        asyncio.run(asyncio.wait_for(test(*arguments, **named), 20))

    return run


def fastest(bundle, m):
    return {name: {"ttft_s": 0.1 if at == m else 1.0} for at, name in enumerate(bundle.names)}


@pytest.mark.parametrize("cache_entries", [0, 8])
def test_threads_route_by_the_new_figures_from_the_next_call_on(bundle, cache_entries):
    plain = Engine(bundle)
    with BatchingEngine(Engine(bundle), cache_entries=cache_entries) as serving:
        serving.update_performance(fastest(bundle, 0))
        policy = serving.policy(tau=1, cost_weights=WEIGHTS)
        for m in (0, 2, 1):
            serving.update_performance(fastest(bundle, m))
            plain.update_performance(fastest(bundle, m))
            assert serving.performance == serving.engine.performance == plain.performance
            for prompt in PROMPTS:
                answer = serving.route(prompt, policy)
                assert answer.model == bundle.names[m]
                assert bits(answer) == bits(plain.route(prompt, tau=1, cost_weights=WEIGHTS))


@in_loop
async def test_a_request_that_waits_is_decided_by_the_new_figures(bundle):
    engine, encoder = queued_engine(bundle)
    async with AsyncEngine(engine) as serving:
        await serving.update_performance(fastest(bundle, 0))
        policy = serving.policy(tau=1, cost_weights=WEIGHTS)
        gate = encoder.on_encode = Gate()
        first = asyncio.create_task(serving.route("first", tau=0.2))
        await asyncio.to_thread(gate.entered.wait, 20)
        waiting = asyncio.create_task(serving.route("why", policy))
        await asyncio.sleep(0)  # it has asked
        await serving.update_performance(fastest(bundle, 2))
        gate.open()
        await first
        assert (await waiting).model == bundle.names[2]
        assert serving.performance[bundle.names[2]].ttft_s == 0.1


@in_loop
async def test_bad_figures_are_refused_and_nothing_is_taken(bundle):
    async with AsyncEngine(Engine(bundle)) as serving:
        before = serving.performance
        with pytest.raises(InvalidInputError, match="figures: unknown 'nobody'"):
            await serving.update_performance({bundle.names[0]: {"ttft_s": 1}, "nobody": {"ttft_s": 1}})
        assert serving.performance is before
        with pytest.raises(InvalidInputError, match="figures: unknown 'nobody'"):
            serving.blocking.update_performance({"nobody": {"ttft_s": 1}})
