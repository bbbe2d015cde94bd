"""Bundles swapped under an AsyncEngine: no decision is torn, the next ones are the new bundle's, the old one is freed."""

import asyncio
import gc
import weakref

from ipr_engine import AsyncEngine, Engine
from tests.support.callers import in_loop
from tests.support.decisions import bits
from tests.support.serving_encoders import PROMPTS, queued_engine


@in_loop
async def test_a_batch_is_decided_within_one_loaded_bundle_whatever_is_swapped_meanwhile(bundles):
    """No torn decision while bundles are swapped between forwards, and within them."""
    engines = {bundle.hash: queued_engine(bundle) for bundle in bundles}
    engine, _ = engines[bundles[0].hash]
    lives = [made.loaded for made, _ in engines.values()]
    reference = {bundle.hash: Engine(bundle) for bundle in bundles}
    turns = iter(range(10**6))

    def swap(prompts):
        engine.loaded = lives[next(turns) % len(lives)]  # in the middle of a forward

    for _, one in engines.values():
        one.on_encode = swap
    async with AsyncEngine(engine, limits={"max_batch": 4}) as serving:
        policy = serving.policy(tau=0.3, exclude=["beta/mid"])
        seen = set()
        for _ in range(6):
            asked = [(prompt, {"policy": policy}) for prompt in PROMPTS] + [
                (prompt, {"tau": 0.6}) for prompt in PROMPTS
            ]
            answers = await asyncio.gather(*(serving.route(prompt, **options) for prompt, options in asked))
            for (prompt, options), answer in zip(asked, answers, strict=True):
                assert bits(answer) == bits(reference[answer.bundle_hash].route(prompt, **options))
                seen.add(answer.bundle_hash)
        assert seen == set(reference)


@in_loop
async def test_a_swap_through_the_async_engine_is_counted_and_serves_from_then_on(bundles):
    async with AsyncEngine(Engine(bundles[0])) as serving:
        policy = serving.policy(tau=0.3)
        assert (await serving.swap(bundles[1])).hash == bundles[1].hash
        answer = await serving.route("why", policy)
        assert bits(answer) == bits(Engine(bundles[1]).route("why", tau=0.3))
        assert (serving.counters().swaps, serving.counters().bundle_hash) == (1, bundles[1].hash)
        await serving.swap(bundles[1])
        assert serving.counters().swaps == 1


@in_loop
async def test_a_swapped_bundle_is_freed_while_the_worker_waits(bundles):
    engine, _ = queued_engine(bundles[0])
    async with AsyncEngine(engine) as serving:
        old = weakref.ref(engine.loaded)
        assert (await serving.route("why", tau=0.3)).status == "ok"
        assert serving.blocking.route("why", tau=0.3).status == "ok"
        engine.swap(bundles[1])
        while serving.service.scheduler.wanted != 1:  # the worker's turn is over
            await asyncio.sleep(0)
        gc.collect()
        assert old() is None
