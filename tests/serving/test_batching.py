"""What shares a forward, when the worker waits, and the blocking front for threads."""

import sys

import pytest

from ipr_engine import Engine, InvalidInputError
from ipr_engine.errors import EncoderFailedError, IprError, NotServingError, OverloadError
from ipr_engine.prompts import ParsedRequest
from ipr_engine.serving import BatchingEngine, Limits
from ipr_engine.serving.forward import ForwardCost, compose, padded_tokens
from ipr_engine.serving.queueing import QueuedRequest
from tests.support.callers import join_all, start_all, until
from tests.support.decisions import bits
from tests.support.serving_encoders import CHAT, PROMPTS, Gate, queued_engine


def requests(*lengths, budget_us=None):
    made = []
    for tokens in lengths:
        one = QueuedRequest(ParsedRequest("x"), None, begun_ns=0)
        one.deadline_ns = None if budget_us is None else budget_us * 1000
        one.tokens = tokens
        made.append(one)
    return made


def cost(fixed_us, token_us):
    made = ForwardCost("test")
    made.fixed_us, made.token_us = fixed_us, token_us
    return made


def lengths(batch):
    return [request.tokens for request in batch]


GPU = cost(1e6, 1e-3)  # padding costs nothing there
CPU = cost(5.0, 10.0)


# -- batches


def test_where_a_forward_costs_the_same_all_that_waits_goes_in():
    window = requests(7, 300, 9, 80, 5)
    assert set(compose(window, Limits(), GPU, 0)) == set(window)


def test_where_tokens_cost_only_prompts_of_like_length_share_a_forward():
    assert lengths(compose(requests(100, 300, 104, 20, 98, 250), Limits(), CPU, 0)) == [100, 98, 104]
    assert lengths(compose(requests(300, 100, 290, 20), Limits(), CPU, 0)) == [300, 290]


def test_a_batch_keeps_to_rows_and_tokens_and_the_oldest_is_always_in():
    assert lengths(compose(requests(*[10] * 9), Limits(max_batch=4), GPU, 0)) == [10] * 4
    assert lengths(compose(requests(10, 10, 10, 10), Limits(max_batch_tokens=35), GPU, 0)) == [10] * 3
    assert lengths(compose(requests(10, 20, 11), Limits(max_batch_tokens=35), GPU, 0)) == [10, 11]
    assert lengths(compose(requests(900, 900), Limits(max_batch_tokens=35), GPU, 0)) == [900]


def test_equally_long_prompts_are_taken_in_order_of_arrival():
    window = requests(*[10] * 6)
    assert compose(window, Limits(max_batch=4), CPU, 0) == window[:4]


def test_a_batch_ends_where_growing_gains_nothing():
    window = requests(*[20] * 40)
    assert len(compose(window, Limits(max_batch=64), cost(5.0, 1.0), 0)) == 8  # 32 times 5 tokens
    assert len(compose(window, Limits(max_batch=64), cost(10.0, 1.0), 0)) == 16
    assert len(compose(window, Limits(max_batch=64), cost(1e6, 1.0), 0)) == 40


def test_nobody_misses_its_deadline_for_being_in_a_larger_batch():
    token_ms = cost(0.0, 1000.0)  # a millisecond a token
    tight, loose = requests(10, budget_us=25_000)[0], requests(10, 10, 10)
    assert len(compose([tight, *loose], Limits(), token_ms, 0)) == 2
    assert len(compose([*loose, tight], Limits(), token_ms, 0)) == 3  # three of 10 ms without the tight one
    assert tight not in compose([*loose, tight], Limits(), token_ms, 0)
    assert len(compose([tight, *loose], Limits(), ForwardCost("unknown"), 0)) == 4


def test_the_padded_tokens_of_a_batch_are_rows_times_the_longest():
    assert padded_tokens(requests(3, 10, 4)) == 30


def test_the_cost_of_a_forward_is_learnt_from_forwards():
    learnt = ForwardCost("test")
    assert (learnt.predict(100), learnt.fixed_tokens) == (0.0, float("inf"))
    for padded in (16, 128, 64, 16, 300, 40):
        learnt.observe(padded, 500 + 3 * padded)
    assert learnt.predict(200) == pytest.approx(1100)
    assert learnt.fixed_tokens == pytest.approx(500 / 3)
    for _ in range(200):
        learnt.observe(64, 692)  # of one size: they tell nothing of the slope, which stays
    assert learnt.predict(300) == pytest.approx(1400)
    learnt.observe(64, 1e9)  # one hiccup
    assert learnt.predict(64) < 1.1 * 692
    for _ in range(60):
        learnt.observe(64, 6920)  # a lasting slowdown
    assert learnt.predict(64) > 0.8 * 6920


def test_neither_part_of_a_cost_is_negative():
    for seen in ([(16, 1000), (128, 500)], [(16, 10), (128, 5000)]):
        learnt = ForwardCost("test")
        for padded, us in seen * 3:
            learnt.observe(padded, us)
        assert learnt.fixed_us >= 0
        assert learnt.token_us >= 0


def test_forwards_of_no_token_cost_their_fixed_part():
    learnt = ForwardCost("test")
    learnt.observe(0, 70)
    assert learnt.predict(5) == 70


@pytest.mark.parametrize(
    "wrong",
    [{"max_batch": 0}, {"max_batch": None}, {"max_batch": 0.5}, {"max_queue": 1.5}, {"max_batch_tokens": True},
     {"wait_fraction": 1.1}, {"wait_fraction": "x"}, {"inline_chars": -1}, {"workers": 2}, {"max_wait_us": 0}, {"max_wait_us": "x"}, 7],
)  # fmt: skip
def test_limits_out_of_range_or_unknown_are_refused(bundles, wrong):
    with pytest.raises(InvalidInputError, match=next(iter(wrong)) if isinstance(wrong, dict) else "limits"):
        BatchingEngine(Engine(bundles[0]), limits=wrong)


# -- the worker


def test_the_worker_takes_what_is_queued_and_does_not_wait_for_more(bundles):
    engine, encoder = queued_engine(bundles[0])
    with BatchingEngine(engine, limits={"wait_fraction": 1.0}) as serving:
        encoder.batches.clear()
        for _ in range(5):  # one caller at a time: a forward of one has none after it to wait for
            serving.route("why", tau=0.2)
        assert encoder.batches == [["why"]] * 5
        assert serving.service.scheduler.last == 1
        serving.service.forwards.cost.fixed_us = 1e5  # together is cheaper, whatever this machine's times say
        serving.service.forwards.cost.observe = lambda padded, us: None
        gate = encoder.on_encode = Gate()
        threads = start_all(lambda: serving.route("how", tau=0.2), 1)
        until(gate.entered.is_set)  # it alone is taken: five that come meanwhile are queued
        threads += start_all(lambda: serving.route("how", tau=0.2), 5)
        until(lambda: serving.counters().queue_depth == 5)
        gate.open()
        join_all(threads)
        assert list(map(len, encoder.batches[5:])) == [1, 5]
        assert serving.counters().batch_sizes == {1: 6, 5: 1}


def test_after_a_forward_of_several_the_worker_waits_for_as_many_up_to_its_limit(bundles):
    engine, encoder = queued_engine(bundles[0])
    with BatchingEngine(engine, limits={"wait_fraction": 1.0}) as serving:
        scheduler, cost = serving.service.scheduler, serving.service.forwards.cost
        gate = encoder.on_encode = Gate()
        threads = start_all(lambda: serving.route("how", tau=0.2), 1)
        until(gate.entered.is_set)
        threads += start_all(lambda: serving.route("how", tau=0.2), 3)
        until(lambda: serving.counters().queue_depth == 3)
        cost.fixed_us = 1e12  # so that it would wait for ever
        cost.observe = lambda padded, us: None
        gate.let()
        until(lambda: len(encoder.batches[-1]) == 3 and gate.entered.is_set())
        gate.open()
        until(lambda: scheduler.wanted == 3)
        join_all(threads)  # their forward is over: the worker waits for three more
        threads = start_all(lambda: serving.route("why", tau=0.2), 2)
        until(lambda: serving.counters().queue_depth == 2)
        threads += start_all(lambda: serving.route("why", tau=0.2), 1)
        join_all(threads)
        assert encoder.batches[-1] == ["why"] * 3


# -- threads


@pytest.mark.parametrize("queued", [False, True])
def test_eight_threads_get_the_answers_of_the_engine(bundles, queued):
    engine = queued_engine(bundles[0])[0] if queued else Engine(bundles[0])
    policy = engine.policy(tau=0.3)
    prompts = [*PROMPTS, CHAT]
    expected = [bits(Engine(bundles[0]).route(prompt, policy)) for prompt in prompts]
    wrong, interval = [], sys.getswitchinterval()
    with BatchingEngine(engine, cache_entries=4, limits={"max_batch": 4}) as serving:

        def work():
            for _ in range(10):
                try:
                    if [bits(serving.route(prompt, policy)) for prompt in prompts] != expected:
                        wrong.append("another answer")
                except IprError as error:
                    wrong.append(error)

        sys.setswitchinterval(2e-5)
        try:
            join_all(start_all(work, 8))
        finally:
            sys.setswitchinterval(interval)
        assert not wrong
        counters = serving.counters()
        assert counters.decided == counters.requests == 8 * 10 * len(prompts)
        assert counters.stages["total"].count == counters.decided
        assert (counters.queue_depth, counters.in_forward) == (0, 0)


def test_a_thread_gets_its_own_error_and_overload_is_told_at_once(bundles):
    engine, encoder = queued_engine(bundles[0])
    with BatchingEngine(engine, limits={"max_queue": 1}) as serving:
        gate = encoder.on_encode = Gate()
        threads = start_all(lambda: serving.route("how", tau=0.2), 1)
        until(gate.entered.is_set)
        threads += start_all(lambda: serving.route("how", tau=0.2), 1)
        until(lambda: serving.counters().queue_depth == 1)
        with pytest.raises(OverloadError):
            serving.route("why", tau=0.2)
        gate.open()
        join_all(threads)

        def fail(prompts):
            raise RuntimeError("gone")

        encoder.on_encode = fail
        with pytest.raises(EncoderFailedError, match="gone"):
            serving.route("why", tau=0.2)
        encoder.on_encode = None
        with pytest.raises(InvalidInputError, match="token"):
            serving.route("", tau=0.2)
        assert serving.route("why", tau=0.2).status == "ok"
    with pytest.raises(NotServingError):
        serving.route("why", tau=0.2)


def failing(*_: object) -> None:
    text = "a prompt"
    raise KeyError(text + ", perhaps")


def test_a_fault_of_the_workers_own_fails_what_it_looked_at_and_is_logged(bundles, monkeypatch, caplog):
    engine, _ = queued_engine(bundles[0])
    with BatchingEngine(engine) as serving:
        with monkeypatch.context() as patch:
            patch.setattr("ipr_engine.serving.forward.compose", failing)
            with pytest.raises(KeyError):
                serving.route("why", tau=0.2)
        assert "the worker failed on 1 requests: KeyError" in caplog.text
        assert "in failing" in caplog.text
        assert "a prompt, perhaps" not in caplog.text
        assert serving.counters().events["failed"] == 1
        assert serving.route("why", tau=0.2).status == "ok"


def test_what_is_no_engine_is_refused():
    with pytest.raises(InvalidInputError, match="engine: expected an Engine, got str"):
        BatchingEngine("bundle")


@pytest.mark.parametrize(
    "made", [ParsedRequest(None), ParsedRequest(5), ParsedRequest("why", None), ParsedRequest("why", (None,))]
)
def test_a_request_that_was_made_wrong_is_refused_by_name(bundles, made):
    with BatchingEngine(Engine(bundles[0])) as serving:
        with pytest.raises(InvalidInputError, match=r"prompt\.(encoded|billed_only)"):
            serving.route(made, tau=0.1)
        assert serving.counters().events["invalid"] == 1
