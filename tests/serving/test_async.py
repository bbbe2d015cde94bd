"""AsyncEngine: Engine.route's answers under any concurrency; each request's fault, cancellation and loop are its own."""

import asyncio
import gc
import sys
import threading

import pytest

import ipr_engine
from ipr_engine import AsyncEngine, Engine, InvalidInputError, RowError
from ipr_engine.errors import EncoderFailedError, NotServingError, OverloadError
from ipr_engine.serving import Limits
from tests.support.callers import held, in_loop, settled
from tests.support.decisions import bits
from tests.support.serving_encoders import CHAT, PROMPTS, Gate, queued_engine

BAD = {"": "without one token", "a lone \ud800 surrogate": "surrogate"}


# -- the same answers


@in_loop
async def test_the_static_tier_answers_as_the_engine_does_without_yielding_to_the_loop(bundles):
    async with AsyncEngine(Engine(bundles[0])) as serving:
        policy = serving.policy(tau=0.4, exclude=["beta/mid"])
        for prompt in [*PROMPTS, CHAT]:
            for terms in (
                {"policy": policy},
                {"tau": 0.1, "rule": "max"},
                {"tau": 0.1, "tokens_out": 9, "billed_tokens": 7},
            ):
                coroutine = serving.route(prompt, **terms)
                with pytest.raises(StopIteration) as end:  # done at its first step
                    coroutine.send(None)
                assert bits(end.value.value) == bits(serving.engine.route(prompt, **terms))


@in_loop
async def test_many_tasks_with_many_policies_get_the_answers_of_the_engine(bundles):
    engine, encoder = queued_engine(bundles[0])
    reference = Engine(bundles[0])
    policies = [
        {"policy": engine.policy(tau=0.3)},
        {"tau": 0.0},
        {"tau": 0.9, "family": "alpha"},
        {"tau": 0.5, "worth": 0.01},
    ]
    extras = [{}, {"tokens_out": 50.0}, {"billed_tokens": 12}, {"extra_usd": [0.1, 0, 0, 0, 0]}]
    asked = [(prompt, {**terms, **extra}) for prompt in [*PROMPTS, CHAT] for terms in policies for extra in extras]
    async with AsyncEngine(engine, limits={"max_batch": 8}) as serving:
        answers = await asyncio.gather(*(serving.route(prompt, **options) for prompt, options in asked))
        for (prompt, options), answer in zip(asked, answers, strict=True):
            assert bits(answer) == bits(reference.route(prompt, **options))
        assert max(map(len, encoder.batches)) > 1
        assert serving.counters().decided == len(asked)


@in_loop
async def test_a_long_text_of_the_static_tier_goes_to_the_worker(bundles):
    engine = Engine(bundles[0])
    async with AsyncEngine(engine, limits={"inline_chars": 100}) as serving:
        for prompt in ("explain " * 100, [{"role": "user", "content": "explain " * 100}]):
            assert bits(await serving.route(prompt, tau=0.2)) == bits(engine.route(prompt, tau=0.2))
        assert serving.counters().stages["queued"].count == 2
        assert (await serving.route("explain", tau=0.2)).status == "ok"
        assert serving.counters().stages["inline"].count == 1


def test_several_loops_and_threads_share_one_engine(bundles):
    engine, _ = queued_engine(bundles[0])
    expected = [bits(Engine(bundles[0]).route(prompt, tau=0.3)) for prompt in PROMPTS]
    found = []

    async def ask(serving):
        return [bits(one) for one in await asyncio.gather(*(serving.route(prompt, tau=0.3) for prompt in PROMPTS))]

    async def main():
        async with AsyncEngine(engine) as serving:
            loops = [threading.Thread(target=lambda: found.append(asyncio.run(ask(serving)))) for _ in range(3)]
            blocking = [
                threading.Thread(
                    target=lambda: found.append([bits(serving.route_blocking(prompt, tau=0.3)) for prompt in PROMPTS])
                )
                for _ in range(3)
            ]
            for thread in loops + blocking:
                thread.start()
            found.append(await ask(serving))
            for thread in loops + blocking:
                await asyncio.to_thread(thread.join)

    asyncio.run(main())
    assert found == [expected] * 7


def test_it_is_exported_and_costs_nothing_until_asked_for():
    assert ipr_engine.AsyncEngine is AsyncEngine
    with pytest.raises(AttributeError, match="NoSuchName"):
        _ = ipr_engine.NoSuchName


# -- a fault is its request's own


@in_loop
async def test_a_bad_prompt_fails_its_own_request_alone(bundles):
    engine, encoder = queued_engine(bundles[0])
    async with AsyncEngine(engine) as serving:
        gate, first, tasks = await held(encoder, serving, "why", *BAD, "how")
        gate.open()
        answers = await settled([first, *tasks])
        assert [type(one).__name__ for one in answers] == [
            "Decision",
            "Decision",
            *["InvalidInputError"] * 2,
            "Decision",
        ]
        for answer, expected in zip(answers[2:4], BAD.values(), strict=True):
            assert expected in str(answer)
        assert serving.counters().events["invalid"] == 2
        for prompt in (7, [], ["a list", "of prompts"], [{"role": "user"}]):
            with pytest.raises(InvalidInputError):
                await serving.route(prompt, tau=0.1)
        image = [{"role": "user", "content": [{"type": "text", "text": "what"}, {"type": "image_url"}]}]
        with pytest.raises(InvalidInputError, match="billed_tokens"):
            await serving.route(image, tau=0.1)
        seen = await serving.route(image, tau=0.1, billed_tokens=80)
        assert seen.billed_tokens == 80
        assert {c.name for c in bundles[0].candidates if "vision" not in c.features} <= seen.excluded.keys()
        with pytest.raises(InvalidInputError, match="no candidate that the policy allows"):
            await serving.route(
                image,
                tau=0.1,
                billed_tokens=80,
                exclude=[c.name for c in bundles[0].candidates if "vision" in c.features],
            )


@in_loop
async def test_bad_arguments_are_refused_before_the_queue(bundles):
    engine, encoder = queued_engine(bundles[0])
    async with AsyncEngine(engine) as serving:
        encoder.batches.clear()
        for options in ({}, {"tau": 2}, {"tau": 0.1, "nonsense": 1}, {"policy": 3}):
            with pytest.raises(InvalidInputError):
                await serving.route("why", **options)
        for budget in (0, -1.5, float("nan"), float("inf"), True, "5"):
            with pytest.raises(InvalidInputError, match="budget_us"):
                await serving.route("why", tau=0.1, budget_us=budget)
        for name, wrong in (("tokens_out", [1, 2]), ("extra_usd", "x"), ("billed_tokens", 1.5), ("billed_tokens", -1)):
            with pytest.raises(InvalidInputError, match=name):
                await serving.route("why", tau=0.1, **{name: wrong})
        image = [{"role": "user", "content": [{"type": "text", "text": "what"}, {"type": "image_url"}]}]
        with pytest.raises(InvalidInputError, match="billed_tokens"):
            await serving.route(image, tau=0.1)
        assert encoder.batches == []
        assert serving.counters().events["invalid"] == serving.counters().requests == 15


@in_loop
async def test_a_wrong_on_error_is_counted_once_on_the_static_tier_too(bundles, fresh_spellings):
    async with AsyncEngine(Engine(bundles[0])) as serving:
        with pytest.raises(InvalidInputError, match="on_error"), pytest.warns(DeprecationWarning, match="route_many"):
            await serving.route("why", tau=0.1, on_error="x")
        assert (serving.counters().decided, serving.counters().events["invalid"]) == (0, 1)


@in_loop
async def test_a_row_that_cannot_be_decided_raises_row_error_or_tells_its_status(bundles):
    engine, _ = queued_engine(bundles[0])
    terms = {"tau": 0.1, "allowed": ["alpha/large"]}
    for one in (engine, Engine(bundles[0])):  # queued, inline
        async with AsyncEngine(one) as serving:
            tasks = [serving.route("why", billed_tokens=tokens, **terms) for tokens in (5, 10**9)]
            fits, too_long = await settled(tasks)
            assert (fits.status, fits.model) == ("ok", "alpha/large")
            assert isinstance(too_long, RowError)
            assert (too_long.rows, too_long.reasons) == ((0,), ("none_allowed",))
            (told,) = await serving.route_many(["why"], billed_tokens=10**9, on_error="status", **terms)
            assert (told.status, told.model) == ("none_allowed", None)
            assert serving.counters().by_cause == {"only_allowed": 1, "failed": 2}


@in_loop
async def test_an_encoder_that_fails_fails_its_batch_with_the_reason_and_the_engine_goes_on(bundles):
    engine, encoder = queued_engine(bundles[0])
    async with AsyncEngine(engine) as serving:
        gate, first, tasks = await held(encoder, serving, "why", "how", "prove")

        def fail(prompts):
            raise RuntimeError("out of memory")

        encoder.on_encode = fail
        gate.open()
        answers = await settled([first, *tasks])
        assert answers[0].status == "ok"  # in the forward before
        for answer in answers[1:]:
            assert isinstance(answer, EncoderFailedError)
            assert "batch of 3: RuntimeError: out of memory" in str(answer)
            assert isinstance(answer.__cause__, RuntimeError)
        assert len({id(answer) for answer in answers[1:]}) == 3
        encoder.on_encode = None
        assert (await serving.route("why", tau=0.2)).status == "ok"
        assert serving.counters().events["encoder_failed"] == 3


@in_loop
async def test_a_row_the_encoder_blames_is_found_by_encoding_one_by_one(bundles):
    engine, encoder = queued_engine(bundles[0])
    async with AsyncEngine(engine) as serving:
        gate, first, tasks = await held(encoder, serving, "why", "poison", "prove")

        def refuse(prompts):
            if "poison" in prompts:
                raise InvalidInputError(f"prompts[{prompts.index('poison')}]: expected another")

        encoder.on_encode = refuse
        gate.open()
        answers = await settled([first, *tasks])
        assert [type(one).__name__ for one in answers] == ["Decision", "Decision", "InvalidInputError", "Decision"]


@in_loop
async def test_embeddings_of_a_wrong_shape_are_the_encoders_failure(bundles):
    engine, encoder = queued_engine(bundles[0])
    async with AsyncEngine(engine) as serving:
        encoder.inner = type("Short", (), {"encode": lambda self, prompts: Engine(bundles[0]).encode(["why"] * 3),
                                            "count_tokens": lambda self, text: 3})()  # fmt: skip
        with pytest.raises(EncoderFailedError, match=r"shape \(3, 16\)"):
            await serving.route("why", tau=0.2)


@in_loop
async def test_a_failing_warm_up_is_raised_by_the_start(bundles):
    engine, encoder = queued_engine(bundles[0])

    def fail(prompts):
        raise RuntimeError("no device")

    encoder.on_encode = fail
    with pytest.raises(RuntimeError, match="no device"):
        async with AsyncEngine(engine):
            raise AssertionError("not ready")


# -- cancellation, overload, closing


@in_loop
async def test_a_cancelled_task_frees_its_place_in_the_queue(bundles):
    engine, encoder = queued_engine(bundles[0])
    async with AsyncEngine(engine, limits=Limits(max_queue=2)) as serving:
        gate, first, tasks = await held(encoder, serving, "why", "how")
        with pytest.raises(OverloadError, match="2 requests wait, and at most 2 may") as full:
            await serving.route("prove", tau=0.2)
        assert (full.value.queued, full.value.limit) == (2, 2)
        tasks[0].cancel()
        first.cancel()  # in the forward: its result is dropped
        await settled([tasks[0], first])
        assert serving.counters().queue_depth == 1
        assert serving.counters().in_forward == 1
        third = asyncio.create_task(serving.route("prove", tau=0.2))
        await asyncio.sleep(0)
        gate.open()
        assert [one.status for one in await settled([tasks[1], third])] == ["ok", "ok"]
        assert "why" not in {prompt for batch in encoder.batches for prompt in batch}
        events = serving.counters().events
        assert (events["cancelled"], events["rejected"], serving.counters().decided) == (2, 1, 2)


@in_loop
async def test_a_task_cancelled_after_its_decision_and_before_it_arrives_is_counted(bundles):
    engine, encoder = queued_engine(bundles[0])
    async with AsyncEngine(engine) as serving:
        gate, first, _ = await held(encoder, serving)
        gate.open()
        assert serving.blocking.close()  # in the loop's own thread: the answer waits for it
        first.cancel()
        assert isinstance((await settled([first]))[0], asyncio.CancelledError)
        assert serving.counters().events["cancelled"] == serving.counters().requests == 1


@in_loop
async def test_a_timeout_of_the_callers_own_is_a_cancellation(bundles):
    engine, encoder = queued_engine(bundles[0])
    async with AsyncEngine(engine) as serving:
        gate, first, _ = await held(encoder, serving)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await serving.route("why", tau=0.2)
        assert serving.counters().queue_depth == 0
        gate.open()
        await first


@in_loop
async def test_closing_decides_what_is_queued_and_takes_no_more(bundles):
    engine, encoder = queued_engine(bundles[0])
    serving = AsyncEngine(engine)
    with pytest.raises(NotServingError, match="not started"):
        await serving.route("why", tau=0.2)
    await serving.start()
    gate, first, tasks = await held(encoder, serving, "why", "how")
    closing = asyncio.create_task(serving.close())
    while serving.service.serving:
        await asyncio.sleep(0)
    with pytest.raises(NotServingError):
        await serving.route("prove", tau=0.2)
    gate.open()
    assert [one.status for one in await settled([first, *tasks])] == ["ok"] * 3
    assert await closing is True
    assert await serving.close() is True
    with pytest.raises(NotServingError, match="closed"):
        await serving.start()


@in_loop
async def test_closing_without_draining_refuses_what_is_queued(bundles):
    engine, encoder = queued_engine(bundles[0])
    serving = await AsyncEngine(engine).start()
    gate, first, tasks = await held(encoder, serving, "why", "how")
    assert await serving.close(drain=False, timeout_s=0) is False  # the forward still runs
    assert [type(one) for one in await settled(tasks)] == [NotServingError] * 2
    gate.open()
    assert (await first).status == "ok"
    assert await serving.close() is True


def test_a_loop_closed_with_work_in_flight_harms_nobody_else(bundles):
    engine, encoder = queued_engine(bundles[0])
    serving = AsyncEngine(engine)
    serving.blocking.start()
    gate = encoder.on_encode = Gate()

    async def leave():
        for prompt in ("first", "why"):
            coroutine = serving.route(prompt, tau=0.2)
            coroutine.send(None)  # it has asked, and nobody ever comes back to it
            left.append(coroutine)
        await asyncio.to_thread(gate.entered.wait, 20)

    left = []
    asyncio.run(leave())
    gate.open()
    assert serving.route_blocking("how", tau=0.2).status == "ok"
    assert serving.counters().events["undelivered"] == 2
    left.clear()  # the coroutines die here
    assert serving.counters().events["cancelled"] == 0
    assert serving.blocking.close() is True


@in_loop
async def test_a_coroutine_that_dies_while_it_waits_leaves_the_queue(bundles):
    engine, encoder = queued_engine(bundles[0])
    async with AsyncEngine(engine) as serving:
        gate, first, _ = await held(encoder, serving)
        coroutine = serving.route("why", tau=0.2)
        coroutine.send(None)
        assert serving.counters().queue_depth == 1
        del coroutine
        assert serving.counters().queue_depth == 0
        assert serving.counters().events["cancelled"] == 1
        gate.open()
        await first


def test_an_engine_that_nobody_holds_ends_its_worker(bundles):
    engine, _ = queued_engine(bundles[0])
    serving = AsyncEngine(engine)
    serving.blocking.start()
    worker = serving.service.scheduler.worker
    assert worker.is_alive()
    assert sys.getrefcount(serving) == 2
    del serving
    gc.collect()
    worker.join(20)
    assert not worker.is_alive()
