"""budget_us: who answers when it is over, how that is told, and what cannot be answered then."""

import asyncio
import json
import math
import pickle

import numpy as np
import pytest

from ipr_engine import AsyncEngine, Bundle, Engine, InvalidInputError
from ipr_engine.errors import DeadlineError
from ipr_engine.serving import BatchingEngine
from ipr_engine.serving.forward import PROBE
from tests.support.bundles import make_bundle
from tests.support.callers import SOON, held, in_loop, join_all, settled, start_all, until
from tests.support.decisions import bits
from tests.support.serving_encoders import CHAT, Gate, queued_engine

LATE = 60e6  # a minute: not in a test


def timers_by_hand():
    """Timers of the running loop, fired by the test; (callback, arguments) of each that was set."""
    loop, timers = asyncio.get_running_loop(), []
    set_one = loop.call_later
    loop.call_later = lambda delay, callback, *arguments: timers.append((callback, arguments)) or set_one(1e6, print)
    return timers


@in_loop
async def test_past_its_budget_a_request_is_answered_by_the_static_engine_and_says_so(bundles):
    engine, encoder = queued_engine(bundles[0])
    static = Engine(bundles[1])
    async with AsyncEngine(engine, fallback=static) as serving:
        gate, first, tasks = await held(encoder, serving, "why")  # the worker is busy: the callers' timers fire
        policy = serving.policy(tau=0.3, exclude=["beta/mid"])
        for prompt in ("how", CHAT):
            late = await serving.route(prompt, policy, budget_us=SOON)
            expected = static.route(prompt, tau=0.3, exclude=["beta/mid"])
            assert bits(late)[:-1] == bits(expected)[:-1]
            assert (late.cause, late.degraded, expected.degraded) == ("deadline", "static", None)
            assert (late.calibration, late.bundle_hash) == ("uncalibrated", bundles[1].hash)
            assert late.to_dict()["degraded"] == "static"
            assert late.ranked == expected.ranked
        assert serving.counters().queue_depth == 1  # the late ones left it
        gate.open()
        await settled([first, *tasks])
        assert (await serving.route("how", tau=0.3, budget_us=LATE)).degraded is None
        counters = serving.counters()
        assert counters.deadline_misses == counters.by_cause["deadline"] == 2
        assert counters.routing_coverage == 3 / 5


@in_loop
async def test_a_configured_candidate_answers_without_any_prediction(bundles):
    engine, encoder = queued_engine(bundles[0])
    async with AsyncEngine(engine, fallback=["beta/mid", "gamma/small"]) as serving:
        gate, first, _ = await held(encoder, serving)
        late = await serving.route("how to code", tau=0.3, budget_us=SOON)
        assert (late.model, late.cause, late.degraded, late.status) == ("beta/mid", "deadline", "candidate", "ok")
        assert all(
            math.isnan(value) for value in (late.quality, late.cost_usd, late.tokens_out, late.threshold, late.gap)
        )
        assert np.isnan(late.qualities).all()
        assert (late.ranked, late.frontier, late.feasible) == (("beta/mid",), (), ())
        assert [view.name for view in late.candidates if view.chosen] == ["beta/mid"]
        told = late.to_dict()
        assert (told["model"], told["quality"], told["gap"], told["degraded"]) == ("beta/mid", None, None, "candidate")
        assert "deadline" in repr(late)
        other = await serving.route("how", tau=0.3, exclude=["beta/mid"], budget_us=SOON)
        assert other.model == "gamma/small"  # the first that the policy allows
        with pytest.raises(InvalidInputError, match="the policy allows none of the fallback's candidates"):
            await serving.route("how", tau=0.3, family="alpha", budget_us=LATE)
        gate.open()
        await first


@in_loop
async def test_either_fallback_charges_and_fits_the_tokens_that_were_given(bundles):
    static, told = Engine(bundles[1]), {"alpha/large": 70, "beta/mid": 30.5}
    engine, encoder = queued_engine(bundles[0])
    async with AsyncEngine(engine, fallback=static) as serving:
        gate, first, _ = await held(encoder, serving)
        figures = {name: {"ttft_s": 0.1 * m} for m, name in enumerate(engine.bundle.names)}
        weighed = {"cost_weights": {"ttft_s": 1e-3}, "performance": figures, "tau": 0.3, "rule": "minmax"}
        late = await serving.route("how", **weighed, budget_us=SOON, tokens_in=told, extra_usd=0.25)
        expected = static.route("how", **weighed, tokens_in=told, extra_usd=0.25)
        assert late.costs_usd.min() > 0.25
        assert late.costs_usd.tobytes() == expected.costs_usd.tobytes()
        assert [view.tokens_in for view in late.candidates] == [view.tokens_in for view in expected.candidates]
        gate.open()
        await first
    engine, encoder = queued_engine(bundles[0])
    window = next(c.context_window for c in engine.bundle.candidates if c.name == "gamma/small")
    async with AsyncEngine(engine, fallback=["gamma/small", "beta/mid"]) as serving:
        gate, first, _ = await held(encoder, serving)
        over = {"gamma/small": window + 1, "beta/mid": 30.5}
        late = await serving.route("how", tau=0.3, budget_us=SOON, tokens_in=over)
        assert (late.model, late.tokens_in) == ("beta/mid", 30.5)
        with pytest.raises(InvalidInputError, match=f"gamma/small lacks a context window for {window + 1} tokens"):
            await serving.route("how", tau=0.3, allowed=["gamma/small"], budget_us=SOON, tokens_in=over)
        gate.open()
        await first


@in_loop
async def test_without_a_fallback_the_deadline_is_an_error(bundles):
    engine, encoder = queued_engine(bundles[0])
    async with AsyncEngine(engine) as serving:
        gate, first, _ = await held(encoder, serving)
        with pytest.raises(DeadlineError, match="pass fallback=") as error:
            await serving.route("how", tau=0.3, budget_us=SOON)
        assert isinstance(error.value, TimeoutError)
        assert error.value.budget_us == SOON
        assert error.value.waited_us >= SOON
        assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)
        gate.open()
        await first
        assert serving.counters().events["deadline_unanswered"] == serving.counters().deadline_misses == 1


@in_loop
async def test_a_request_in_a_forward_past_its_budget_is_answered_and_its_result_dropped(bundles):
    engine, encoder = queued_engine(bundles[0])
    async with AsyncEngine(engine, fallback="beta/mid") as serving:
        gate = encoder.on_encode = Gate()
        timers = timers_by_hand()
        task = asyncio.create_task(serving.route("how", tau=0.3, budget_us=LATE))
        await asyncio.to_thread(gate.entered.wait, 20)
        assert serving.counters().in_forward == 1
        for callback, arguments in timers:
            callback(*arguments)
        assert (await task).degraded == "candidate"
        gate.open()
        assert (await serving.route("how", tau=0.3)).degraded is None
        assert serving.counters().decided == 2


def test_a_thread_is_answered_past_its_budget_too(bundles):
    engine, encoder = queued_engine(bundles[0])
    with BatchingEngine(engine, fallback=Engine(bundles[0])) as serving:
        gate = encoder.on_encode = Gate()
        assert serving.route("how", tau=0.3, budget_us=SOON).degraded == "static"
        gate.open()
        assert serving.route("how", tau=0.3, budget_us=LATE).degraded is None


def test_what_cannot_be_ready_in_time_takes_no_part_in_a_forward_but_is_tried_now_and_then(bundles):
    engine, encoder = queued_engine(bundles[0])
    with BatchingEngine(engine, fallback="beta/mid") as serving:
        cost = serving.service.forwards.cost
        cost.observe = lambda padded, us: None
        cost.fixed_us = 1e11
        encoder.batches.clear()
        answers = [serving.route("how", tau=0.3, budget_us=LATE) for _ in range(2 * PROBE)]
        assert [one.degraded for one in answers] == ([*["candidate"] * (PROBE - 1), None]) * 2
        assert len(encoder.batches) == 2


def test_the_static_tier_is_not_cut_short(bundles):
    with BatchingEngine(Engine(bundles[0])) as serving:
        assert serving.route("how", tau=0.3, budget_us=SOON).degraded is None


@in_loop
async def test_a_fallback_that_no_longer_fits_after_a_swap_is_told(bundles, tmp_path):
    engine, encoder = queued_engine(bundles[0])
    async with AsyncEngine(engine, fallback="epsilon/nano") as serving:
        gate, first, _ = await held(encoder, serving)
        timers = timers_by_hand()
        task = asyncio.create_task(serving.route("how", tau=0.3, budget_us=LATE))
        await asyncio.sleep(0)
        three = Bundle.load(make_bundle(tmp_path, models=3))
        engine.swap(three, allow_fewer_candidates=True, allow_other_encoder=True)
        for callback, arguments in timers:
            callback(*arguments)
        with pytest.raises(DeadlineError, match="'epsilon/nano' is not among the candidates"):
            await task
        gate.open()
        await first


def test_a_fallback_that_cannot_serve_is_refused_when_it_is_configured(bundles, tmp_path):
    engine, _ = queued_engine(bundles[0])
    for fallback, why in [
        (engine, "static tier"),
        ("nobody", "nobody"),
        ([], "none"),
        (7, "expected an Engine"),
        (["beta/mid", 7], "expected an Engine"),
        (Engine(Bundle.load(make_bundle(tmp_path, models=6))), "candidates the engine lacks"),
    ]:
        with pytest.raises(InvalidInputError, match=why):
            BatchingEngine(engine, fallback=fallback)


def test_a_policy_the_fallback_engine_cannot_follow_is_refused_with_the_request(bundles, tmp_path):
    engine, _ = queued_engine(bundles[0])
    small = Engine(Bundle.load(make_bundle(tmp_path, models=3)))
    with BatchingEngine(engine, fallback=small) as serving:
        with pytest.raises(InvalidInputError, match="the fallback engine cannot serve this policy"):
            serving.route("how", tau=0.3, allowed=["epsilon/nano"], budget_us=LATE)
        assert serving.route("how", tau=0.3, allowed=["epsilon/nano"]).model == "epsilon/nano"
        until(lambda: serving.counters().events["invalid"] == 1)


def test_a_configured_candidate_has_a_window_for_the_prompt(bundles):
    engine, encoder = queued_engine(bundles[0])
    with BatchingEngine(engine, fallback=["alpha/large", "gamma/small"]) as serving:
        gate = encoder.on_encode = Gate()
        chat = [{"role": "system", "content": "x" * 8 * 9000}, {"role": "user", "content": "why"}]
        late = serving.route(chat, tau=0.3, budget_us=SOON)
        assert (late.model, late.billed_tokens) == ("gamma/small", 9001)  # 8,192 are not enough
        with pytest.raises(InvalidInputError, match="context window for 1000000000 tokens"):
            serving.route("why", tau=0.3, billed_tokens=10**9, budget_us=LATE)
        gate.open()


@pytest.mark.parametrize("fallback", ["beta/mid", None])
def test_what_is_invalid_is_refused_and_not_answered_by_the_fallback(bundles, fallback):
    engine, encoder = queued_engine(bundles[0])
    with BatchingEngine(engine, fallback=fallback or Engine(bundles[1])) as serving:
        gate = encoder.on_encode = Gate()
        video = [{"role": "user", "content": [{"type": "text", "text": "what"}, {"type": "video_url"}]}]
        for prompt, options in (
            (video, {}),
            (video, {"billed_tokens": 9}),  # which no candidate here can see
            ("why", {"billed_tokens": "x"}),
            ("why", {"billed_tokens": 1.5}),
            ("why", {"tokens_out": [1.0]}),
        ):
            with pytest.raises(InvalidInputError):
                serving.route(prompt, tau=0.3, budget_us=SOON, **options)
        gate.open()
        with pytest.raises(InvalidInputError, match="surrogate"):
            serving.route("a lone \ud800 surrogate", tau=0.3, budget_us=LATE)
        assert serving.counters().events["invalid"] == serving.counters().requests == 6


def test_costs_of_a_request_belong_to_its_candidates_in_the_fallback_and_after_a_swap_too(bundles):
    """bundles[1] has the candidates of bundles[0] in another order."""
    names, others = bundles[0].names, bundles[1].names
    assert names != others
    extra = [float(number) for number in range(len(names))]
    moved = [extra[names.index(name)] for name in others]
    expected = Engine(bundles[1]).route("how", tau=0.9, extra_usd=[moved], tokens_out=7)
    engine, encoder = queued_engine(bundles[0])
    with BatchingEngine(engine, fallback=Engine(bundles[1])) as serving:
        gate = encoder.on_encode = Gate()
        first = start_all(lambda: serving.route("why", tau=0.3), 1)
        until(gate.entered.is_set)
        late = serving.route("how", tau=0.9, extra_usd=extra, tokens_out=7, budget_us=SOON)
        assert bits(late)[:-1] == bits(expected)[:-1]
        answers = []
        waiting = start_all(lambda: answers.append(serving.route("how", tau=0.9, extra_usd=extra, tokens_out=7)), 1)
        until(lambda: serving.counters().queue_depth == 1)
        engine.swap(bundles[1])
        gate.open()
        join_all(first + waiting)
        assert bits(answers[0]) == bits(expected)


def test_a_weighed_policy_is_answered_by_the_static_engine_with_the_figures_of_the_one_that_serves(bundles):
    engine, encoder = queued_engine(bundles[0])
    names, static = engine.bundle.names, Engine(bundles[1])
    terms = {"tau": 1, "cost_weights": {"ttft_s": 0.01, "generation_s": 1e-3}, "extra_usd": 0.5}
    with BatchingEngine(engine, fallback=static) as serving:
        gate = encoder.on_encode = Gate()
        for fastest in (names[1], names[3]):
            figures = {name: {"ttft_s": 0.1 if name == fastest else 3.0, "tpot_s": 0.01} for name in names}
            engine.update_performance(figures)
            late = serving.route("how", **terms, budget_us=SOON)
            wanted = static.route("how", performance=figures, **terms)
            assert (late.degraded, late.model, late.cost) == ("static", wanted.model, wanted.cost)
            assert (late.cost_usd, late.cost_terms) == (wanted.cost_usd, wanted.cost_terms)
            assert late.cost_usd > 0.5
        gate.open()


@pytest.mark.parametrize("terms", [{}, {"cost_weights": {"ttft_s": 0.01}}])
def test_a_candidate_that_answers_for_lack_of_time_says_null_of_what_nobody_predicted(bundles, terms):
    engine, encoder = queued_engine(bundles[0])
    engine.update_performance({name: {"ttft_s": 1.0} for name in engine.bundle.names})
    with BatchingEngine(engine, fallback="beta/mid") as serving:
        gate = encoder.on_encode = Gate()
        late = serving.route("how", tau=0.5, budget_us=SOON, **terms)
        told = json.loads(json.dumps(late.to_dict(), allow_nan=False))
        assert (told["model"], told["cost"], told["cost_usd"], told["cost_terms"]) == ("beta/mid", None, None, None)
        gate.open()
