"""Two tiers behind the async and the batching engine: the engine's own answers, clear prompts inline, close ones by the worker."""

from __future__ import annotations

import asyncio
import math
from concurrent.futures import ThreadPoolExecutor

import pytest

from ipr_engine import AsyncEngine, Engine
from ipr_engine.errors import EncoderFailedError, InvalidInputError
from ipr_engine.loaded.loaded_bundle import LoadedBundle
from ipr_engine.serving import BatchingEngine
from tests.support.decisions import same_row
from tests.support.serving_encoders import Gate, QueuedEncoder
from tests.support.two_tier_bundles import join, make_prompts, make_tiers, middle_gap

PROMPTS = make_prompts(40, "serving")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiers")
    tiers = make_tiers(folder)
    return join(folder, tiers, gap=middle_gap(Engine(tiers[0]).route_many(PROMPTS, tau=0.2).gap))


@pytest.fixture
def engine(bundle):
    """Its second encoder is not compiled, and counts."""
    made = Engine(bundle)
    second = QueuedEncoder(made.second_encoder)
    made.loaded = LoadedBundle(bundle, options=made.options, encoders={second.identity: second})
    return made


@pytest.fixture(scope="module")
def expected(bundle):
    return Engine(bundle).route_many(PROMPTS, tau=0.2)


def test_the_batching_engine_gives_the_engines_answers(engine, expected):
    with BatchingEngine(engine) as serving, ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda prompt: serving.route(prompt, tau=0.2), PROMPTS))
        counted = serving.counters().decided
    assert 0 < sum(decision.escalated for decision in made) < len(PROMPTS)
    for decision, own in zip(made, expected, strict=True):
        assert same_row(decision, own)
        assert decision.escalated == own.escalated
    assert counted == len(PROMPTS)


def test_only_close_prompts_go_to_the_worker_and_they_share_a_run(engine, expected):
    close = {p for p, again in zip(PROMPTS, expected.escalated, strict=True) if again}
    second = engine.second_encoder

    async def ask():
        async with AsyncEngine(engine) as serving:
            second.batches.clear()
            return await asyncio.gather(*(serving.route(prompt, tau=0.2) for prompt in PROMPTS))

    made = asyncio.run(ask())
    assert [d.escalated for d in made] == expected.escalated.tolist()
    assert {prompt for batch in second.batches for prompt in batch} == close
    assert len(second.batches) < len(close)


@pytest.mark.parametrize("below", [0, math.inf])
def test_never_and_always(engine, bundle, below):
    own = Engine(bundle).route_many(PROMPTS[:6], tau=0.2, escalate_below=below)
    chat = [{"role": "user", "content": PROMPTS[0]}]
    with BatchingEngine(engine) as serving:
        made = [serving.route(prompt, tau=0.2, escalate_below=below) for prompt in PROMPTS[:6]]
        talked = serving.route(chat, tau=0.2, escalate_below=below)
    assert all(same_row(a, b) for a, b in zip([*made, talked], [*own, own[0]], strict=True))
    assert {d.escalated for d in [*made, talked]} == {below > 0}


def test_a_cached_decision_is_of_the_tier_that_made_it(engine):
    with BatchingEngine(engine, cache_entries=100) as serving:
        first = [serving.route(prompt, tau=0.2) for prompt in PROMPTS]
        engine.second_encoder.batches.clear()
        again = [serving.route(prompt, tau=0.2) for prompt in PROMPTS]
        always = serving.route(PROMPTS[0], tau=0.2, escalate_below=math.inf)
    assert all(a is b for a, b in zip(first, again, strict=True))
    assert always.escalated
    assert engine.second_encoder.batches == [[PROMPTS[0]]]


def test_a_second_encoder_that_fails_fails_close_prompts_alone(engine, expected):
    def fail(prompts):
        raise RuntimeError("out of memory")

    outcomes = []
    with BatchingEngine(engine) as serving:
        engine.second_encoder.on_encode = fail
        for prompt in PROMPTS:
            try:
                outcomes.append(serving.route(prompt, tau=0.2))
            except EncoderFailedError:
                outcomes.append(None)
    assert [made is None for made in outcomes] == expected.escalated.tolist()


def test_a_row_that_the_second_encoder_blames_fails_alone(engine):
    bad = PROMPTS[0]

    def blame(prompts):
        if bad in prompts:
            raise InvalidInputError("prompts[0]: not for me")

    async def ask():
        async with AsyncEngine(engine) as serving:
            engine.second_encoder.on_encode = blame
            asked = (serving.route(prompt, tau=0.2, escalate_below=math.inf) for prompt in PROMPTS[:8])
            return await asyncio.gather(*asked, return_exceptions=True)

    made = asyncio.run(ask())
    assert [type(one) is InvalidInputError for one in made] == [prompt == bad for prompt in PROMPTS[:8]]


def test_a_panic_of_the_second_encoder_fails_close_prompts_alone_and_the_worker_goes_on(engine, expected):
    class Panic(BaseException):
        """As a panic of native code reaches Python."""

    def panic(prompts):
        raise Panic("index out of bounds")

    close = next(p for p, again in zip(PROMPTS, expected.escalated, strict=True) if again)
    with BatchingEngine(engine) as serving:
        engine.second_encoder.on_encode = panic
        with pytest.raises(EncoderFailedError, match="Panic"):
            serving.route(close, tau=0.2)
        engine.second_encoder.on_encode = None
        assert serving.route(close, tau=0.2).escalated


def test_a_fallback_of_one_tier_leaves_escalation_out(engine, tmp_path):
    """A policy with its own escalate_below is served within a budget, and by the fallback when it is over."""
    static = Engine(make_tiers(tmp_path)[0])
    encoder = engine.second_encoder
    with BatchingEngine(engine, fallback=static) as serving:
        policy = serving.policy(tau=0.2, escalate_below=math.inf)
        assert serving.route(PROMPTS[0], policy, budget_us=60e6).degraded is None
        gate = encoder.on_encode = Gate()
        late = serving.route(PROMPTS[1], policy, budget_us=20_000)
        gate.open()
        assert (late.cause, late.degraded) == ("deadline", "static")
        assert late.model == static.route(PROMPTS[1], tau=0.2).model
