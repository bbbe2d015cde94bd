"""Closed and open loops: what is recorded of a target whose latencies are known."""

import asyncio
import time

import numpy as np
import pytest

from benchmarks.load.arrivals import schedule
from benchmarks.load.loads import Load
from benchmarks.load.quantiles import quantile
from benchmarks.load.runner import run, run_parts
from benchmarks.load.window import Lost
from ipr_engine.errors import InvalidInputError
from tests.support.load_targets import MS, US, AsyncKnownTarget, KnownTarget, MadeUpClock, S


class NoRoom(Exception):
    pass


def open_load(rate, seconds, *, warm_up=0.0, callers=1, kind="constant"):
    due = schedule(kind, rate=rate, seconds=seconds + warm_up, seed=3)
    return Load(seconds=seconds, warm_up=warm_up, callers=callers, schedule=due)


def queued(due, service):
    """Starts and ends of one server that takes requests in order."""
    starts, ends, free = [], [], 0
    for index, at in enumerate(due):
        starts.append(max(at, free))
        free = starts[-1] + service(index)
        ends.append(free)
    return np.array(starts), np.array(ends)


def test_a_stall_is_charged_to_every_request_that_had_to_wait_for_it():
    clock, load = MadeUpClock(), open_load(1000, 4)

    def service(call):
        return 1 * S if call == 500 else 100 * US

    found = run(KnownTarget(clock, service), ["prompt"], load, clock=clock).measured
    starts, ends = queued(load.schedule.due_ns, service)
    assert (found.total == ends - load.schedule.due_ns).all()
    assert (found.started == starts).all()
    # One call of 4,000 was slow, but a fifth of the requests were: omission would tell 100 us up to p99.9.
    assert quantile(found.service, 0.99).value == 100 * US
    assert np.quantile(found.total, 0.9) > 500 * MS
    assert quantile(found.total, 0.9).value is None  # one stall is one event, however many requests it hit
    assert (found.queue + found.service == found.total).all()


def test_the_schedule_does_not_slow_down_for_a_target_that_is_too_slow():
    clock, load = MadeUpClock(), open_load(1000, 1)
    found = run(KnownTarget(clock, lambda call: 2 * MS), ["prompt"], load, clock=clock)
    assert (found.measured.intended == load.schedule.due_ns).all()
    assert found.measured.total.max() == 1000 * 2 * MS - load.schedule.due_ns[-1]
    assert found.throughput == pytest.approx(500)


def test_a_closed_loop_counts_from_when_the_caller_was_free():
    clock = MadeUpClock()
    load = Load(seconds=1, warm_up=0, callers=1)
    found = run(KnownTarget(clock, lambda call: MS * (1 + call % 2)), ["a", "b"], load, clock=clock)
    assert set(found.measured.total.tolist()) == {1 * MS, 2 * MS}
    assert (found.measured.intended[1:] == found.measured.ended[:-1]).all()
    assert found.throughput == pytest.approx(1000 / 1.5, rel=0.01)


@pytest.mark.parametrize(("warm_up", "answered"), [(0.0, 0), (0.5, 1)])
def test_a_caller_that_a_busy_machine_wakes_after_the_end_still_sends_one_request(warm_up, answered):
    class LateClock(MadeUpClock):
        def wait_until(self, due_ns):
            self.time = due_ns + (0 if warm_up else 5 * S)

    clock = LateClock()
    target = KnownTarget(clock, lambda call: 5 * S if call == 0 and warm_up else MS)
    found = run(target, ["a"], Load(seconds=1, warm_up=warm_up, callers=1), clock=clock)
    assert len(found.warm_up) == answered
    assert found.measured.intended.tolist() == [5 * S]
    assert found.measured.service.tolist() == [MS]
    assert found.throughput > 0


def test_a_task_whose_turn_comes_after_the_end_still_sends_one_request():
    async def slow():
        time.sleep(0.002)  # the event loop is held, as by a router that decides on it

    found = run(AsyncKnownTarget(slow), ["a"], Load(seconds=0.001, warm_up=0, callers=5))
    assert len(found.measured) == 5


@pytest.mark.parametrize("rate", [None, 1000])
def test_the_warm_up_is_kept_apart(rate):
    clock = MadeUpClock()
    load = Load(seconds=1, warm_up=0.5, callers=1) if rate is None else open_load(rate, 1, warm_up=0.5)
    found = run(KnownTarget(clock, lambda call: 9 * MS if call < 10 else MS // 2), ["a"], load, clock=clock)
    assert found.warm_up.service.max() == 9 * MS
    assert found.measured.service.max() == MS // 2
    assert found.measured.intended.min() >= S // 2
    assert found.seconds == pytest.approx(1, abs=0.02)


def test_failures_and_rejections_are_counted_and_have_no_latency():
    clock, load = MadeUpClock(), open_load(100, 1)
    fails = {5: ValueError("broken"), 6: ValueError("broken"), 7: NoRoom(), 8: OSError("other")}
    target = KnownTarget(clock, lambda call: MS, fails=fails, rejections=(NoRoom,))
    found = run(target, ["a"], load, clock=clock)
    assert (found.lost, len(found.measured)) == (Lost(failed=3, rejected=1), 96)
    assert found.errors == {"ValueError: broken": 2, "OSError: other": 1}


@pytest.mark.parametrize(("rate", "kept_up"), [(400, True), (1000, False)])
def test_an_overloaded_target_s_throughput_is_what_it_answers_a_second_though_it_begins_with_a_backlog(rate, kept_up):
    clock, load = MadeUpClock(), open_load(rate, 1, warm_up=0.5)
    found = run(KnownTarget(clock, lambda call: 2 * MS), ["a"], load, clock=clock)
    assert found.throughput == pytest.approx(min(rate, 500), rel=0.01)
    assert found.kept_up is kept_up
    assert found.due == len(found.measured) == rate


def test_what_the_warm_up_lost_is_told_apart():
    clock, load = MadeUpClock(), open_load(100, 1, warm_up=1)
    fails = {5: ValueError("cold"), 6: NoRoom(), **{call: ValueError("broken") for call in range(150, 180)}}
    target = KnownTarget(clock, lambda call: MS, fails=fails, rejections=(NoRoom,))
    found = run(target, ["a"], load, clock=clock)
    assert found.lost_in_warm_up == Lost(failed=1, rejected=1)
    assert found.lost == Lost(failed=30)
    assert (len(found.warm_up), len(found.measured)) == (98, 70)
    assert found.kept_up is False
    assert found.errors == {"ValueError: cold": 1, "ValueError: broken": 30}


def test_a_target_that_never_answers_is_an_error_that_says_why():
    clock = MadeUpClock()
    fails = {call: ValueError("no weights") for call in range(200)}
    with pytest.raises(InvalidInputError, match=r"not one request was answered.*ValueError: no weights"):
        run(KnownTarget(clock, lambda call: MS, fails=fails), ["a"], open_load(100, 1), clock=clock)


def test_stages_add_up_to_the_total_request_by_request():
    clock, load = MadeUpClock(), open_load(1000, 1)
    target = KnownTarget(clock, lambda call: (100 * US, 300 * US), stages=("encode", "decide"))
    found = run(target, ["a"], load, clock=clock).measured
    parts = found.parts()
    assert list(parts) == ["queue", "encode", "decide", "other"]
    assert (sum(parts.values()) == found.total).all()


def test_parts_share_one_session_and_end_with_the_first_that_was_stopped():
    clock = MadeUpClock()
    target = KnownTarget(clock, lambda call: MS)
    found = []
    run_parts(target, ["a"], [open_load(100, 1)] * 3, found.append, seconds=3, clock=clock)
    assert [len(one.measured) for one in found] == [100, 100, 100]
    assert target.calls == 300  # a session's first calls are made once


@pytest.mark.parametrize("callers", [1, 4])
def test_threads_share_a_schedule_and_lose_no_request(callers):
    import time

    target = KnownTarget(MadeUpClock(), lambda call: 0)
    target.call = lambda prompt: time.sleep(0.001)
    load = open_load(200, 0.3, callers=callers, kind="poisson")
    found = run(target, ["a"], load)
    assert len(found.measured) + found.lost.unsent == len(load.schedule)
    assert (found.measured.started >= found.measured.intended).all()


def test_tasks_of_a_closed_loop_take_turns_though_none_of_them_waits():
    async def at_once():
        pass

    found = run(AsyncKnownTarget(at_once), ["a"], Load(seconds=0.1, warm_up=0, callers=5)).measured
    assert len(found) > 50
    # In the order of sending, the next four requests are the other callers'.
    assert (found.started[5:] >= found.ended[:-5]).mean() > 0.9


def test_an_async_open_loop_counts_what_it_could_not_send():
    async def slow():
        await asyncio.sleep(0.2)

    load = open_load(100, 0.3, callers=2)
    found = run(AsyncKnownTarget(slow), ["a"], load)
    assert found.lost.unsent > 0
    assert len(found.measured) + found.lost.unsent == len(load.schedule)


def test_an_async_open_loop_that_is_late_sends_in_order_and_never_more_at_once_than_it_may():
    busy, peak = 0, 0

    async def slow():
        nonlocal busy, peak
        busy += 1
        peak = max(peak, busy)
        await asyncio.sleep(0.002)
        busy -= 1

    load = open_load(20_000, 0.1, callers=40)  # an arrival every 50 us: the loop is late for most of them
    found = run(AsyncKnownTarget(slow), ["a"], load)
    assert 1 < peak <= 40
    assert len(found.measured) + found.lost.unsent == len(load.schedule)
    assert (np.diff(found.measured.started) >= 0).all()


def test_an_async_target_s_rejections_and_failures_are_counted():
    async def at_once():
        pass

    target = AsyncKnownTarget(at_once, rejections=(NoRoom,), fails={10: NoRoom(), 11: ValueError("broken")})
    found = run(target, ["a"], open_load(200, 0.2))
    assert found.lost == Lost(failed=1, rejected=1)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_ctrl_c_keeps_what_was_measured(asynchronous):
    async def soon():
        await asyncio.sleep(0.001)

    def interrupt(seconds, answered):
        raise KeyboardInterrupt

    if asynchronous:
        target = AsyncKnownTarget(soon)
    else:
        target = KnownTarget(MadeUpClock(), lambda call: 0)
        target.call = lambda prompt: time.sleep(0.001)
    found = run(target, ["a"], Load(seconds=60, warm_up=0, callers=2), progress=interrupt)
    assert found.stopped == "interrupted"
    assert len(found.measured) > 0


def test_what_was_not_yet_due_at_ctrl_c_is_not_counted_as_dropped():
    def interrupt(seconds, answered):
        raise KeyboardInterrupt

    target = KnownTarget(MadeUpClock(), lambda call: 0)
    found = run(target, ["a"], open_load(200, 60), progress=interrupt)
    assert found.stopped == "interrupted"
    assert found.lost.unsent == 0


def test_an_error_on_the_way_in_is_raised_to_the_caller():
    class Broken(AsyncKnownTarget):
        def async_session(self):
            raise InvalidInputError("encoder: no such file")

    with pytest.raises(InvalidInputError, match="no such file"):
        run(Broken(None), ["a"], Load(seconds=1, warm_up=0, callers=1))


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"seconds": 0}, "seconds: expected a number > 0"),
        ({"seconds": 1e9}, "seconds: expected at most 3600"),
        ({"callers": 0}, "callers: expected a whole number >= 1"),
        ({"callers": 10**6}, "callers: expected at most 1024"),
        ({"warm_up": float("nan")}, "warm_up: expected a finite number"),
    ],
)
def test_a_load_out_of_range_is_refused(given, named):
    with pytest.raises(InvalidInputError, match=named):
        Load(**{"seconds": 1.0, "warm_up": 0.0, "callers": 1, **given})


def test_no_prompt_is_refused():
    with pytest.raises(InvalidInputError, match="prompts: expected at least one"):
        run(KnownTarget(MadeUpClock(), lambda call: 0), [], Load(seconds=1, warm_up=0, callers=1))
