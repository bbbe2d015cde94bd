"""Rule `path` under what serves: counters, cache, fallback, swaps, records and their replay."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from ipr_engine import AsyncEngine, Engine
from ipr_engine.audit.replay import replay
from ipr_engine.prompts import ParsedRequest
from ipr_engine.serving import BatchingEngine
from ipr_engine.serving.fallback import StaticFallback
from ipr_engine.serving.queueing import QueuedRequest
from tests.support.calibration_data import make_prompts

PROMPTS = make_prompts("serving", 12)


def told(decision):
    return decision.model, decision.policy.rule, decision.policy.worth, decision.calibration


def test_threads_and_tasks_get_the_engines_decision_and_count_its_status(engine):
    policy = engine.policy(tau=0.3)
    wanted = [told(engine.route(prompt, policy)) for prompt in PROMPTS]
    with BatchingEngine(engine) as serving:
        assert [told(serving.route(prompt, policy)) for prompt in PROMPTS] == wanted
        assert serving.counters().by_calibration == {"estimated": len(PROMPTS)}

    async def all_of_them():
        async with AsyncEngine(engine) as serving:
            return await asyncio.gather(*(serving.route(prompt, tau=0.3) for prompt in PROMPTS))

    assert [told(decision) for decision in asyncio.run(all_of_them())] == wanted


def test_a_cached_decision_is_of_the_rule_asked_for_and_of_the_bundle_that_serves(plain, engine):
    served = Engine(engine.bundle)
    policy = served.policy(tau=0.3)
    with BatchingEngine(served, cache_entries=20) as serving:
        for _ in range(2):
            assert told(serving.route(PROMPTS[0], policy)) == told(engine.route(PROMPTS[0], policy))
            paper = serving.route(PROMPTS[0], tau=0.3, rule="minmax")
            assert paper.policy.rule == "minmax"
        assert serving.counters().cache.hits == 2
        served.swap(plain.bundle, allow_fewer_outputs=True)
        assert serving.route(PROMPTS[0], policy).policy.rule == "minmax"
        served.swap(engine.bundle)
        assert told(serving.route(PROMPTS[0], policy)) == told(engine.route(PROMPTS[0], policy))


def test_a_fallback_engine_means_by_tau_what_its_own_bundle_does(plain, engine):
    policy = engine.policy(tau=0.3)
    for cpu_fallback, rule in ((plain, "minmax"), (engine, "path")):
        request = QueuedRequest(ParsedRequest(PROMPTS[0]), policy, begun_ns=0)
        prepared = StaticFallback(Engine(cpu_fallback.bundle)).prepare(request, engine.loaded)
        assert prepared.rule == rule


def test_a_record_replays_to_the_bit_on_its_bundle(engine):
    lines: list[bytes] = []
    recorder = engine.recorder(lines.append, min_words=0)
    for terms in ({"tau": 0.3}, {"tau": 0.0}, {"preset": "cost"}, {"max_usd_per_1k": 4.0}, {"tau": 0.3, "rule": "max"}):
        recorder.route_many(list(PROMPTS), **terms)
    replayed = list(replay(b"".join(lines).splitlines(keepends=True), Engine(engine.bundle, isa="scalar")))
    assert len(replayed) == 5 * len(PROMPTS)
    assert not [one for one in replayed if one.differences or one.refused]


def test_another_instruction_set_and_batch_decide_alike(engine):
    batch = engine.route_many(list(PROMPTS), tau=0.4)
    scalar = Engine(engine.bundle, isa="scalar").route_many(list(PROMPTS), tau=0.4)
    assert batch.index.tolist() == scalar.index.tolist()
    assert batch.gap.tobytes() == scalar.gap.tobytes()
    assert batch.models == [engine.route(prompt, tau=0.4).model for prompt in PROMPTS]


def test_a_swap_to_new_prices_reads_the_path_anew(engine):
    served, policy = Engine(engine.bundle), engine.policy(tau=0.3)
    prices = {
        name: replace(price, output_usd_per_1m=price.output_usd_per_1m * (1 if name == "alpha/large" else 3))
        for name, price in engine.bundle.prices.prices.items()
    }
    dearer = replace(engine.bundle, prices=replace(engine.bundle.prices, prices=prices), hash="1" * 64)
    served.swap(dearer)
    ours = served.route(PROMPTS[0], policy).policy
    assert ours.worth == engine.policy(tau=0.3, prices=prices).worth != policy.worth
