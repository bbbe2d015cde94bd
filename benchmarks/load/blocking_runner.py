"""This module runs closed and open loops of a target that answers in its callers' threads."""

from __future__ import annotations

import itertools
import threading
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from .arrivals import MOST_REQUESTS
from .clock import Clock, MonotonicClock
from .loads import FIRST_CALLS, MOST_FAILURES, NEAR_NS, Load, Run, assemble
from .samples import Log
from .targets import BlockingTarget, Call, Errors
from .threads import Progress, Stop, in_threads


def run_blocking(
    target: BlockingTarget,
    prompts: Sequence[str],
    loads: Iterable[Load],
    each: Callable[[Run], None],
    seconds: float,
    clock: Clock,
    stop: Stop,
    progress: Progress | None,
) -> None:
    """Run the loads one after the other; callers are threads, and the session of the target outlives each of the loads."""
    with target.session() as call:
        for k in range(FIRST_CALLS):
            call(prompts[k % len(prompts)])
        for load in loads:
            logs = [Log(len(target.stages)) for _ in range(load.callers)]
            start = clock.now() + NEAR_NS
            loop = _Loop(call, target.rejections, prompts, start, clock, stop)
            if load.schedule is None:
                works = [_closed(loop, k, load, log) for k, log in enumerate(logs)]
            else:
                due = array("q", load.schedule.due_ns.tobytes())
                turns = itertools.count()
                turn = threading.Lock()
                works = [_open(loop, due, turns, turn, log) for log in logs]
            if load.callers == 1 and not isinstance(clock, MonotonicClock):
                works[0]()  # a made-up clock belongs to one thread
            else:
                in_threads(works, lambda logs=logs: logs, load.warm_up + load.seconds, stop, progress)  # type: ignore[misc]
            each(assemble(target, load, logs, start, stop))
            if stop.asked:
                return


@dataclass(frozen=True)
class _Loop:
    """A `_Loop` holds what all callers of one load share."""

    call: Call
    rejections: Errors
    prompts: Sequence[str]
    start: int
    clock: Clock
    stop: Stop


def _closed(loop: _Loop, first: int, load: Load, log: Log) -> Callable[[], None]:
    call, prompts, clock, stop, step = loop.call, loop.prompts, loop.clock, loop.stop, load.callers
    warm, end = loop.start + load.warm_up_ns, loop.start + load.end_ns
    most = MOST_REQUESTS // step

    def work() -> None:
        now, rejections, count = clock.now, loop.rejections, len(prompts)
        intended, started, ended, stages = log.intended.append, log.started.append, log.ended.append, log.stages
        index = first
        clock.wait_until(loop.start)
        free = now()  # from here on the caller has something to send
        # who a busy machine, or a slow answer, keeps away from the warm-up to the end still sends one request
        while (free < end or not log.reaches(warm)) and not stop.asked:
            prompt = prompts[index % count]
            index += step
            begun = now()
            try:
                parts = call(prompt)
            except rejections:
                log.rejected_at.append(free)
                free = now()
                continue
            except Exception as error:
                log.fail(error, free)
                if len(log.failed_at) * step >= MOST_FAILURES:
                    stop.ask(f"{MOST_FAILURES:,} failures")
                free = now()
                continue
            done = now()
            intended(free)
            started(begun)
            ended(done)
            if parts is not None:
                for column, part in zip(stages, parts, strict=True):
                    column.append(part)
            free = done
            if len(log.ended) >= most:
                stop.ask(f"{MOST_REQUESTS:,} requests, as many as a run keeps")

    return work


def _open(
    loop: _Loop, due: array[int], turns: itertools.count[int], turn: threading.Lock, log: Log
) -> Callable[[], None]:
    call, prompts, clock, stop, start = loop.call, loop.prompts, loop.clock, loop.stop, loop.start

    def work() -> None:
        now, rejections, count, requests = clock.now, loop.rejections, len(prompts), len(due)
        while True:
            with turn:  # one caller waits for the next arrival; it leaves the place before it serves
                index = next(turns)
                if index >= requests or stop.asked:
                    return
                intended = start + due[index]
                clock.wait_until(intended)
            begun = now()
            try:
                parts = call(prompts[index % count])
            except rejections:
                log.rejected_at.append(intended)
                continue
            except Exception as error:
                log.fail(error, intended)
                if len(log.failed_at) >= MOST_FAILURES:
                    stop.ask(f"{MOST_FAILURES:,} failures")
                continue
            done = now()
            log.intended.append(intended)
            log.started.append(begun)
            log.ended.append(done)
            if parts is not None:
                for column, part in zip(log.stages, parts, strict=True):
                    column.append(part)

    return work
