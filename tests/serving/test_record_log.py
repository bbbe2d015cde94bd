"""Where records are written: a disk that is slow, full or gone; what a caller is told; closing, forks and the end of a process."""

import asyncio
import contextlib
import gc
import os
import threading
import time
import weakref

import pytest

from ipr_engine import AsyncEngine, Engine
from ipr_engine.audit.record import Record
from ipr_engine.errors import OverloadError, RecordError
from ipr_engine.serving import BatchingEngine, record_log
from tests.support import skips
from tests.support.callers import in_loop, join_all, settled, start_all, until
from tests.support.own_processes import run_apart
from tests.support.replay_logs import all_equal
from tests.support.serving_encoders import PROMPTS, Gate, queued_engine
from tests.support.walks import recorded_walk

FULL = "/dev/full"
needs_full = pytest.mark.skipif(not os.path.exists(FULL), reason=f"{skips.HARDWARE} /dev/full")


class SlowDisk:
    """A sink whose writes wait until it is opened."""

    def __init__(self):
        self.lines, self.entered, self._may = [], threading.Event(), threading.Event()

    def __call__(self, line):
        self.entered.set()
        assert self._may.wait(20)
        self.lines.append(line)

    def open(self):
        self._may.set()


def ids(lines):
    return [Record.from_line(line).id for line in lines]


# -- what cannot be written


@needs_full
@pytest.mark.parametrize("queued", [False, True])
@in_loop
async def test_a_full_disk_fails_the_call_is_counted_and_others_go_on(bundles, queued):
    engine = queued_engine(bundles[0])[0] if queued else Engine(bundles[0])
    async with AsyncEngine(engine, cache_entries=3) as serving, serving.recorder(FULL) as to:
        answers = await settled(to.route(prompt, tau=0.2) for prompt in PROMPTS)
        assert {type(one) for one in answers} == {RecordError}
        assert "to: cannot write to /dev/full: No space left" in str(answers[0])
        assert len({id(one) for one in answers}) == len(PROMPTS)
        with pytest.raises(RecordError):
            await asyncio.to_thread(to.blocking.route, "why", tau=0.2)
        with pytest.raises(RecordError):
            await to.route_many(["why", "how"], tau=0.2, on_error="status")
        assert (await serving.route("why", tau=0.2)).status == "ok"
        counters = serving.counters()
        assert counters.events["record_failed"] >= len(PROMPTS) + 2
        assert (counters.decided, counters.records.written) == (1, 0)


def test_a_sink_that_raises_fails_its_own_record_alone(bundles):
    lines = []

    def sink(line):
        if Record.from_line(line).id == "bad":
            raise ValueError(line.decode())
        lines.append(line)

    with BatchingEngine(Engine(bundles[0])) as serving, serving.recorder(sink, min_words=0) as to:
        for name in ("good", "bad", "better"):
            with contextlib.suppress(RecordError):
                to.route("why", tau=0.2, id=name)
        with pytest.raises(RecordError, match=r"could not be written: ValueError$") as failed:
            to.route("why", tau=0.2, id="bad")
        assert isinstance(failed.value.__cause__, ValueError)
        counters = serving.counters()
        assert (counters.decided, counters.events["record_failed"], counters.requests) == (2, 2, 4)
    assert all_equal(lines, Engine(bundles[0])) == ["good", "better"]


# -- a slow one


@pytest.mark.parametrize("queued", [False, True])
@in_loop
async def test_a_slow_disk_holds_up_neither_loop_nor_worker_and_answers_wait_for_their_records(bundles, queued):
    engine = queued_engine(bundles[0])[0] if queued else Engine(bundles[0])
    disk = SlowDisk()
    async with AsyncEngine(engine) as serving, serving.recorder(disk, min_words=0) as to:
        tasks = [asyncio.create_task(to.route(prompt, tau=0.2, id=at)) for at, prompt in enumerate(PROMPTS)]
        assert await asyncio.to_thread(disk.entered.wait, 20)
        for prompt in PROMPTS:
            assert (await serving.route(prompt, tau=0.2)).status == "ok"  # the loop turns, the worker works
        while serving.counters().records.waiting < len(PROMPTS):
            await asyncio.sleep(0)
        assert not any(task.done() for task in tasks)
        assert serving.counters().decided == len(PROMPTS)
        disk.open()
        assert [one.status for one in await settled(tasks)] == ["ok"] * len(PROMPTS)
        assert serving.counters().decided == 2 * len(PROMPTS)
    assert sorted(ids(disk.lines)) == list(range(len(PROMPTS)))


@in_loop
async def test_records_are_written_in_the_order_of_the_decisions(bundles):
    lines = []
    async with AsyncEngine(Engine(bundles[0])) as serving, serving.recorder(lines.append) as to:
        await asyncio.gather(*(to.route("why", tau=0.2, id=at) for at in range(50)))
    assert ids(lines) == list(range(50))


@in_loop
async def test_requests_are_refused_when_too_many_answers_wait_for_their_records(bundles):
    disk = SlowDisk()
    async with AsyncEngine(Engine(bundles[0]), limits={"max_queue": 3}) as serving, serving.recorder(disk) as to:
        tasks = [asyncio.create_task(to.route("why", tau=0.2, id=at)) for at in range(5)]
        refused = await settled(tasks[3:])
        assert [(type(one), one.queued, one.limit) for one in refused] == [(OverloadError, 3, 3)] * 2
        assert serving.counters().events["rejected"] == 2
        assert (await serving.route("why", tau=0.2)).status == "ok"  # what is not recorded is
        disk.open()
        assert [one.status for one in await settled(tasks[:3])] == ["ok"] * 3
    assert ids(disk.lines) == [0, 1, 2]


@in_loop
async def test_a_task_that_is_cancelled_while_its_record_is_written_is_counted_once(bundles):
    disk = SlowDisk()
    async with AsyncEngine(Engine(bundles[0])) as serving, serving.recorder(disk) as to:
        task = asyncio.create_task(to.route("why", tau=0.2, id="left"))
        assert await asyncio.to_thread(disk.entered.wait, 20)
        task.cancel()
        await settled([task])
        disk.open()
        while serving.counters().records.waiting:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        counters = serving.counters()
        assert (counters.events["cancelled"], counters.requests, counters.records.written) == (1, 1, 1)


@in_loop
async def test_a_budget_is_the_decisions_and_not_the_records(bundles):
    disk = SlowDisk()
    engine = queued_engine(bundles[0])[0]
    async with AsyncEngine(engine, fallback="beta/mid") as serving, serving.recorder(disk) as to:
        task = asyncio.create_task(to.route("why", tau=0.2, budget_us=200_000.0))
        assert await asyncio.to_thread(disk.entered.wait, 20)
        await asyncio.sleep(0.25)
        assert not task.done()
        disk.open()
        assert (await task).degraded is None


# -- closing


@in_loop
async def test_closing_writes_what_waits_and_refuses_what_comes_later(bundles, tmp_path):
    log = tmp_path / "log.jsonl"
    engine, encoder = queued_engine(bundles[0])
    async with AsyncEngine(engine) as serving:
        async with serving.recorder(log) as to:
            gate = encoder.on_encode = Gate()
            late = asyncio.create_task(to.route("why", tau=0.2, id="late"))
            assert await asyncio.to_thread(gate.entered.wait, 20)
        gate.open()
        assert "the recorder was closed before" in str((await settled([late]))[0])
        with pytest.raises(RecordError, match="the recorder is closed; make a new one"):
            await to.route("why", tau=0.2)
        assert await to.close()
        assert serving.counters().events["record_failed"] == serving.counters().requests == 2
        disk = SlowDisk()
        other = serving.recorder(disk)
        task = asyncio.create_task(other.route("why", tau=0.2, id="kept"))
        assert await asyncio.to_thread(disk.entered.wait, 20)
        assert await other.close(timeout_s=0.01) is False
        assert await serving.close(timeout_s=0.01) is False
        disk.open()
        assert await other.close() is True
        assert (await task).status == "ok"
        assert await serving.close() is True
    assert ids(disk.lines) == ["kept"]
    assert log.read_bytes() == b""


def test_closing_the_engine_waits_for_the_records_of_what_it_decided(bundles):
    disk = SlowDisk()
    serving = BatchingEngine(Engine(bundles[0])).start()
    to = serving.recorder(disk)
    asking = start_all(lambda: to.route("why", tau=0.2, id="kept"), 1)
    assert disk.entered.wait(20)
    closing = start_all(serving.close, 1)
    time.sleep(0.05)
    assert closing[0].is_alive()
    disk.open()
    join_all(closing + asking)
    assert ids(disk.lines) == ["kept"]


def test_a_recorder_that_nobody_holds_ends_its_thread_and_one_that_idled_writes_on(bundles, monkeypatch):
    monkeypatch.setattr(record_log, "IDLE_S", 0.01)
    lines = []

    def writing():
        return [thread for thread in threading.enumerate() if thread.name == "ipr records"]

    with BatchingEngine(Engine(bundles[0])) as serving:
        to = serving.recorder(lines.append)
        for name in ("one", "two"):
            to.route("why", tau=0.2, id=name)
            until(lambda: not writing())
        held = weakref.ref(to.log)
        del to
        gc.collect()
        assert held() is None
    assert ids(lines) == ["one", "two"]


def test_a_swapped_bundle_is_freed_though_records_were_written_of_it(bundles):
    engine = Engine(bundles[0])
    with BatchingEngine(engine) as serving, serving.recorder([].append) as to:
        to.route("why", tau=0.2)
        before = weakref.ref(engine.loaded)
        engine.swap(bundles[1])
        to.route("why", tau=0.2)

        def freed():
            gc.collect()
            return before() is None

        until(freed)


def test_a_plain_route_pays_nothing_for_a_recorder(bundles):
    with BatchingEngine(Engine(bundles[0])) as serving, serving.recorder([].append) as to:
        policy = serving.policy(tau=0.2)
        for _ in range(2):
            to.route("why", policy)
            serving.route("why", policy)
        until(lambda: not serving.counters().records.waiting)
        with recorded_walk() as walk:
            serving.route("why", policy)
            walk.stop()
    assert {name.split("/")[0] for name in walk.files} == {"serving", "loaded", "decision"}
    assert sorted(walk.functions["serving/service.py"]) == ["Service.begin"]
    assert not [name for name in walk.files if "record" in name]


# -- processes of their own


@pytest.mark.skipif(not hasattr(os, "fork"), reason=f"{skips.HARDWARE} fork")
def test_a_child_forked_while_a_record_is_written_writes_its_own(tmp_path):
    """The parent's thread holds the file's lock as it forks: the pipe that it writes to is full."""
    done = run_apart(
        tmp_path,
        """
        import fcntl, time
        fifo = sys.argv[1] + "/fifo"
        os.mkfifo(fifo)
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        serving = BatchingEngine(Engine(bundles[0])).start()
        to = serving.recorder(fifo, min_words=0)
        size = fcntl.fcntl(reader, fcntl.F_GETPIPE_SZ)
        ask = lambda: [to.route("why", tau=0.3, id="parent") for _ in range(size // 1000 + 2)]
        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        written = -1
        while written != serving.counters().records.written:  # until it is stuck
            written = serving.counters().records.written
            time.sleep(0.3)
        assert to.log.waiting == 1

        def child():
            assert serving.counters().records.waiting == 0
            other = serving.recorder(sys.argv[1] + "/log", min_words=0)
            other.route("why", tau=0.3, id="child")
            assert other.close()
            os.read(reader, size)
            to.route("why", tau=0.3, id="child")
            assert serving.close()

        in_child(child)
        while asking.is_alive():
            with contextlib.suppress(BlockingIOError):
                os.read(reader, 1 << 20)
            time.sleep(0.01)
        print("served")
        """,
    )
    assert done == ["served"]
    assert ids((tmp_path / "log").read_bytes().splitlines()) == ["child"]


def test_a_process_that_ends_without_closing_has_written_every_answer_that_it_gave(tmp_path):
    acknowledged = run_apart(
        tmp_path,
        """
        async def main():
            serving = await AsyncEngine(Engine(bundles[0])).start()
            to = serving.recorder(sys.argv[1] + "/log", min_words=0)

            async def ask(at):
                await to.route("why", tau=0.3, id=at)
                print(at)

            tasks = [asyncio.create_task(ask(at)) for at in range(40)]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run(main())
        """,
    )
    assert acknowledged
    assert {int(at) for at in acknowledged} <= set(ids((tmp_path / "log").read_bytes().splitlines()))
