"""One run: callers that wait for their answers (closed loop), or a schedule that does not wait (open loop)."""

from __future__ import annotations

import gc
import itertools
import threading
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ipr_engine.errors import InvalidInputError
from ipr_engine.loadtest.arrivals import MOST_REQUESTS, Schedule, at_least_one, duration
from ipr_engine.loadtest.clock import Clock, MonotonicClock
from ipr_engine.loadtest.samples import Log, Samples, gathered
from ipr_engine.loadtest.targets import BlockingTarget, Call, Target, is_async
from ipr_engine.loadtest.threads import INTERRUPTED, Progress, Stop, in_threads

MOST_CALLERS = 1024
MOST_FAILURES = 10_000  # then the run ends: it measures a broken target
NEAR_NS = 20_000_000  # callers start together, this long after the last of them is ready
FIRST_CALLS = 3  # before a session's first load: they fill caches that no later one pays for


@dataclass(frozen=True, kw_only=True)
class Load:
    """What a run does.

    Attributes:
        seconds: measured. warm_up: seconds of the same load before them, reported apart.
        callers: in a closed loop, how many send their next request when they have their answer; in an open loop, how
            many calls of a blocking target, or requests of an async one, are served at once at most.
        schedule: of an open loop, over warm_up + seconds; None for a closed loop.
    """

    seconds: float
    warm_up: float
    callers: int
    schedule: Schedule | None = None

    def __post_init__(self) -> None:
        duration("seconds", self.seconds)
        if self.warm_up:
            duration("warm_up", self.warm_up)
        at_least_one("callers", self.callers)
        if self.schedule is None and self.callers > MOST_CALLERS:
            raise InvalidInputError(f"callers: expected at most {MOST_CALLERS}, got {self.callers}")


@dataclass(frozen=True)
class Run:
    """What came of it.

    Attributes:
        measured, warm_up: the answered requests.
        seconds: from the end of the warm-up to the last answer, or to the end of the run if that is later.
        errors: what failed, counted by type and message; failed of them in all.
        rejected: refused by the target for want of room.
        unsent: of a schedule, not sent: the run was cut for being late, or (async target) as many as `callers` were being served.
        stopped: why it ended before its time, or None.
    """

    target: str
    load: Load
    measured: Samples
    warm_up: Samples
    seconds: float
    errors: Counter[str]
    failed: int
    rejected: int
    unsent: int
    stopped: str | None

    @property
    def throughput(self) -> float:
        """Answers a second."""
        return len(self.measured) / self.seconds if self.seconds > 0 else 0.0


def run(
    target: Target,
    prompts: Sequence[str],
    load: Load,
    *,
    clock: Clock | None = None,
    progress: Progress | None = None,
) -> Run:
    """Put the load on the target. Ctrl-C ends it early and keeps what was measured.

    Raises:
        InvalidInputError: not one request was answered; the errors are named.
    """
    found: list[Run] = []
    run_parts(
        target, prompts, [load], found.append, seconds=load.warm_up + load.seconds, clock=clock, progress=progress
    )
    return found[0]


def run_parts(
    target: Target,
    prompts: Sequence[str],
    loads: Iterable[Load],
    each: Callable[[Run], None],
    *,
    seconds: float,
    clock: Clock | None = None,
    progress: Progress | None = None,
) -> None:
    """Loads one after the other on one session of the target, `each` called with what came of one before the next.

    Args:
        seconds: of all loads together; much later than that the last one is cut.
    """
    if not prompts:
        raise InvalidInputError("prompts: expected at least one, got none")
    clock = MonotonicClock() if clock is None else clock
    stop = Stop()
    gc.collect()
    gc.freeze()  # collections go on, over what the run makes
    try:
        if is_async(target):
            from ipr_engine.loadtest.async_runner import run_async

            run_async(target, prompts, loads, each, seconds, clock, stop, progress)  # type: ignore[arg-type]
        else:
            _run_blocking(target, prompts, loads, each, seconds, clock, stop, progress)  # type: ignore[arg-type]
    finally:
        gc.unfreeze()


def assemble(target: Target, load: Load, logs: list[Log], start: int, stop: Stop) -> Run:
    every = gathered(logs, target.stages, start)
    errors = sum((log.errors for log in logs), Counter[str]())
    warm_up_ns = int(load.warm_up * 1e9)
    early = every.intended < warm_up_ns
    measured = every.where(~early)
    rejected = sum(log.rejected for log in logs)
    if not len(measured) and stop.why != INTERRUPTED:
        told = "; ".join(f"{count} x {text}" for text, count in errors.most_common(3))
        raise InvalidInputError(
            f"target {target.name}: not one request was answered in {load.seconds:g} s after {load.warm_up:g} s of warm-up "
            f"({told or f'{rejected} rejected'}); give it more time, or a target that works"
        )
    failed = sum(log.failed for log in logs)
    # Ctrl-C leaves a schedule's rest unsent too, but drops nothing.
    scheduled = 0 if load.schedule is None or stop.why == INTERRUPTED else len(load.schedule)
    last = int(every.ended.max()) if len(every) else 0
    planned = 0 if stop.why else int(load.seconds * 1e9) if load.schedule is not None else 0
    return Run(
        target.name,
        load,
        measured,
        every.where(early),
        max(last - warm_up_ns, planned, 0) / 1e9,
        errors,
        failed,
        rejected,
        max(0, scheduled - len(every) - failed - rejected),
        stop.why,
    )


def _run_blocking(
    target: BlockingTarget,
    prompts: Sequence[str],
    loads: Iterable[Load],
    each: Callable[[Run], None],
    seconds: float,
    clock: Clock,
    stop: Stop,
    progress: Progress | None,
) -> None:
    with target.session() as call:
        for k in range(FIRST_CALLS):
            call(prompts[k % len(prompts)])
        for load in loads:
            logs = [Log(len(target.stages)) for _ in range(load.callers)]
            start = clock.now() + NEAR_NS
            if load.schedule is None:
                end = start + int((load.warm_up + load.seconds) * 1e9)
                works = [
                    _closed(call, target, prompts, k, load.callers, start, end, clock, log, stop)
                    for k, log in enumerate(logs)
                ]
            else:
                due = array("q", load.schedule.due_ns.tobytes())
                turns = itertools.count()
                turn = threading.Lock()
                works = [_open(call, target, prompts, due, turns, turn, start, clock, log, stop) for log in logs]
            if load.callers == 1 and not isinstance(clock, MonotonicClock):
                works[0]()  # a made-up clock belongs to one thread
            else:
                in_threads(works, lambda logs=logs: logs, load.warm_up + load.seconds, stop, progress)  # type: ignore[misc]
            each(assemble(target, load, logs, start, stop))
            if stop.asked:
                return


def _closed(
    call: Call,
    target: BlockingTarget,
    prompts: Sequence[str],
    first: int,
    step: int,
    start: int,
    end: int,
    clock: Clock,
    log: Log,
    stop: Stop,
) -> Callable[[], None]:
    most = MOST_REQUESTS // step

    def work() -> None:
        now, rejections, count = clock.now, target.rejections, len(prompts)
        intended, started, ended, stages = log.intended.append, log.started.append, log.ended.append, log.stages
        index = first
        clock.wait_until(start)
        free = now()  # from here on the caller has something to send
        while free < end and not stop.asked:
            prompt = prompts[index % count]
            index += step
            begun = now()
            try:
                parts = call(prompt)
            except rejections:
                log.rejected += 1
                free = now()
                continue
            except Exception as error:
                log.fail(error)
                if log.failed * step >= MOST_FAILURES:
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
    call: Call,
    target: BlockingTarget,
    prompts: Sequence[str],
    due: array[int],
    turns: itertools.count[int],
    turn: threading.Lock,
    start: int,
    clock: Clock,
    log: Log,
    stop: Stop,
) -> Callable[[], None]:
    def work() -> None:
        now, rejections, count, requests = clock.now, target.rejections, len(prompts), len(due)
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
                log.rejected += 1
                continue
            except Exception as error:
                log.fail(error)
                if log.failed >= MOST_FAILURES:
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
