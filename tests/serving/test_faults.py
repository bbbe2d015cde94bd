"""The worker outlives whatever runs in it, and nobody waits for an answer that never comes."""

import threading

import pytest

from ipr_engine import Engine
from ipr_engine.errors import DeviceLostError, EncoderFailedError, NotServingError
from ipr_engine.serving import BatchingEngine
from ipr_engine.serving.forward import compose
from tests.support.callers import join_all, start_all, until
from tests.support.decisions import bits
from tests.support.serving_encoders import CHAT, Gate, queued_engine


class Panic(BaseException):
    """As a panic of Rust's reaches Python (pyo3's PanicException, of the tokenizers library): not an Exception."""


def panic(*_):
    raise Panic("index out of bounds")


def outcome_of(call, into):
    try:
        into.append(call())
    except BaseException as error:
        into.append(error)


@pytest.mark.parametrize("where", ["encode", "count_tokens", "bill"])
def test_a_panic_of_the_encoder_fails_its_requests_and_the_worker_goes_on(bundles, where):
    engine, encoder = queued_engine(bundles[0])
    with BatchingEngine(engine) as serving:
        if where == "encode":
            encoder.on_encode = panic
        else:
            count, bad = encoder.count_tokens, "explain" if where == "bill" else "write the code"
            encoder.count_tokens = lambda text: panic() if text == bad else count(text)
        answers = []
        threads = start_all(lambda: outcome_of(lambda: serving.route(CHAT, tau=0.2), answers), 1)
        join_all(threads)
        assert isinstance(answers[0], EncoderFailedError)
        assert isinstance(answers[0].__cause__, Panic)
        encoder.on_encode = None
        assert serving.route("why", tau=0.2).status == "ok"
        assert serving.counters().events["encoder_failed"] == 1


def test_a_panic_in_the_warm_up_is_raised_by_the_start_and_closes_the_engine(bundles):
    engine, encoder = queued_engine(bundles[0])
    encoder.on_encode = panic
    serving, raised = BatchingEngine(engine), []
    join_all(start_all(lambda: outcome_of(serving.start, raised), 1))
    assert isinstance(raised[0], Panic)
    with pytest.raises(NotServingError):
        serving.route("why", tau=0.2)


def test_a_bill_that_cannot_be_made_is_its_requests_own_fault(bundles):
    engine, encoder = queued_engine(bundles[0])
    with BatchingEngine(engine) as serving:
        gate = encoder.on_encode = Gate()
        answers, count = [], encoder.count_tokens
        threads = start_all(lambda: serving.route("how", tau=0.2), 1)
        until(gate.entered.is_set)
        encoder.count_tokens = lambda text: [][0] if text == CHAT[0]["content"] else count(text)
        for prompt in (CHAT, "why", "prove it"):
            threads += start_all(lambda prompt=prompt: outcome_of(lambda: serving.route(prompt, tau=0.2), answers), 1)
        until(lambda: serving.counters().queue_depth == 3)
        gate.open()
        join_all(threads)
        assert sorted(type(one).__name__ for one in answers) == ["Decision", "Decision", "EncoderFailedError"]


def test_a_close_without_draining_refuses_what_the_worker_was_about_to_take(bundles, monkeypatch):
    engine, _ = queued_engine(bundles[0])
    serving = BatchingEngine(engine).start()
    composing, closed = threading.Event(), threading.Event()

    def slowly(window, *rest):
        composing.set()
        assert closed.wait(20)
        return compose(window, *rest)

    monkeypatch.setattr("ipr_engine.serving.forward.compose", slowly)
    scheduler, answers = serving.service.scheduler, []

    def late(answer):
        def run(outcomes):  # between the queue's emptying and the answers, as a busy machine may have it
            if threading.current_thread() is not scheduler.worker:
                closed.set()
                scheduler.worker.join(0.2)
            answer(outcomes)

        return run

    monkeypatch.setattr(scheduler, "deliver", late(scheduler.deliver))
    monkeypatch.setattr(scheduler, "finish", late(scheduler.finish))
    threads = start_all(lambda: outcome_of(lambda: serving.route("why", tau=0.2), answers), 1)
    assert composing.wait(20)
    assert serving.close(drain=False)
    join_all(threads)
    assert isinstance(answers[0], NotServingError)


def test_a_second_start_waits_for_the_warm_up_and_a_close_meanwhile_wins(bundles):
    engine, encoder = queued_engine(bundles[0])
    gate = encoder.on_encode = Gate()
    serving, outcomes = BatchingEngine(engine), []
    threads = start_all(lambda: outcome_of(serving.start, outcomes), 2)
    until(gate.entered.is_set)
    threads[0].join(0.05)
    threads[1].join(0.05)
    assert outcomes == []
    assert serving.close(timeout_s=0) is False
    gate.open()
    join_all(threads)
    assert [type(one) for one in outcomes] == [NotServingError] * 2
    assert not serving.service.serving


def test_a_worker_thread_that_cannot_be_had_is_told_and_the_start_can_be_tried_again(bundles, monkeypatch):
    engine, _ = queued_engine(bundles[0])
    serving = BatchingEngine(engine)

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            serving.start()
    with serving:
        assert serving.route("why", tau=0.2).status == "ok"


def test_a_lost_device_hands_its_batch_and_all_that_follow_to_the_cpu_fallback(bundles):
    engine, encoder = queued_engine(bundles[0])
    loaded = engine.loaded
    cpu_fallback = loaded.cpu_fallback = queued_engine(bundles[0])[0].loaded
    loaded.share_drift(loaded.calibrations.drift)
    with BatchingEngine(engine) as serving:

        def lose(prompts):
            raise DeviceLostError("the GPU is gone")

        encoder.on_encode = lose
        expected = bits(Engine(bundles[0]).route("why", tau=0.2))
        assert [bits(serving.route("why", tau=0.2)) for _ in range(2)] == [expected] * 2
        assert engine.loaded is cpu_fallback
        assert serving.counters().events["encoder_failed"] == 0
        cpu_fallback.encoder.on_encode = lose  # nobody is left
        with pytest.raises(EncoderFailedError, match="the GPU is gone"):
            serving.route("why", tau=0.2)


def test_what_is_known_of_drift_holds_on_the_cpu_fallback(bundles):
    engine, _ = queued_engine(bundles[0])
    loaded = engine.loaded
    loaded.cpu_fallback = queued_engine(bundles[0])[0].loaded
    loaded.share_drift(loaded.calibrations.drift)
    policy = engine.policy(tau=0.2)
    engine.fail_over(loaded, DeviceLostError("the GPU is gone"))
    assert engine.calibrations.drift is policy.drift
    assert engine.loaded.resolve(policy, {}) is policy
