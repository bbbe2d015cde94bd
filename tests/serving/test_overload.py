"""Admission by the wait foreseen (max_wait_us): who would wait longer is refused at once, and nobody else."""

import asyncio
import pickle

import pytest

from ipr_engine.errors import OverloadError
from ipr_engine.serving import AsyncEngine, BatchingEngine
from tests.support.callers import join_all, start_all, until
from tests.support.serving_encoders import Gate, queued_engine


def with_cost(serving, fixed_us, token_us):
    cost = serving.service.forwards.cost
    cost.observe = lambda padded, us: None
    cost.fixed_us, cost.token_us = fixed_us, token_us


@pytest.mark.parametrize(("fixed_us", "token_us", "most"), [(0.0, 1e9, 4), (10e9, 0.0, 2), (1e9, 1e9, 2)])
def test_a_request_that_would_wait_too_long_is_refused_and_one_that_is_next_never(bundles, fixed_us, token_us, most):
    """Seconds in thousands, so that no clock matters: a forward runs, and forwards of two prompts of one token come."""
    engine, encoder = queued_engine(bundles[0])
    wait_us = 5.5e9 if fixed_us == 0.0 else 25e9 if token_us == 0.0 else 6.5e9
    with BatchingEngine(engine, limits={"max_batch": 2, "max_wait_us": wait_us, "wait_fraction": 0.0}) as serving:
        gate = encoder.on_encode = Gate()
        with_cost(serving, fixed_us, token_us)
        threads = start_all(lambda: serving.route("why", tau=0.2), 1)
        until(gate.entered.is_set)
        for waiting in range(1, most + 1):
            threads += start_all(lambda: serving.route("how", tau=0.2), 1)
            until(lambda waiting=waiting: serving.counters().queue_depth == waiting)
        with pytest.raises(OverloadError, match="longer than max_wait_us allows") as refused:
            serving.route("how", tau=0.2)
        assert refused.value.queued == most
        assert refused.value.predicted_us > wait_us
        assert str(pickle.loads(pickle.dumps(refused.value))) == str(refused.value)
        gate.open()
        join_all(threads)
        with_cost(serving, 1e15, 0.0)  # a wrong estimate must not keep everyone out
        assert serving.route("why", tau=0.2).status == "ok"
        assert (serving.counters().events["rejected"], serving.counters().decided) == (1, most + 2)


def test_without_it_only_the_queue_bounds_the_wait(bundles):
    engine, encoder = queued_engine(bundles[0])
    with BatchingEngine(engine, limits={"max_batch": 2, "wait_fraction": 0.0}) as serving:
        gate = encoder.on_encode = Gate()
        with_cost(serving, 1e15, 1e15)
        threads = start_all(lambda: serving.route("why", tau=0.2), 1)
        until(gate.entered.is_set)
        threads += start_all(lambda: serving.route("how", tau=0.2), 9)
        until(lambda: serving.counters().queue_depth == 9)
        gate.open()
        join_all(threads)


@pytest.mark.parametrize("front", ["threads", "tasks"])
def test_a_list_that_the_queue_does_not_hold_leaves_nothing_in_it(bundles, front):
    engine, encoder = queued_engine(bundles[0])
    serving = AsyncEngine(engine, limits={"max_queue": 3, "max_batch": 1})
    blocking = serving.blocking.start()
    gate = encoder.on_encode = Gate()
    threads = start_all(lambda: blocking.route("why", tau=0.2), 1)
    until(gate.entered.is_set)

    def ask():
        if front == "threads":
            return blocking.route_many(["how"] * 9, tau=0.2)
        return asyncio.run(serving.route_many(["how"] * 9, tau=0.2))

    with pytest.raises(OverloadError):
        ask()
    counters = blocking.counters()
    assert (counters.queue_depth, counters.events["rejected"] >= 1) == (0, True)
    gate.open()
    join_all(threads)
    assert [row.model for row in blocking.route_many(["how"] * 3, tau=0.2)] == [engine.route("how", tau=0.2).model] * 3
    assert blocking.close()
