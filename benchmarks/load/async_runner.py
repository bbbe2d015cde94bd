"""This module runs the loops of `blocking_runner` on an event loop of their own, in a thread of its own."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Callable, Iterable, Sequence

from .arrivals import MOST_REQUESTS
from .clock import Clock
from .loads import FIRST_CALLS, MOST_FAILURES, NEAR_NS, Load, Run, assemble
from .samples import Log
from .targets import AsyncCall, AsyncTarget
from .threads import Progress, Stop, in_threads

TOGETHER = (
    16  # late requests are sent this many at a time: a turn of the loop for each would cost as much as a short answer
)
COARSE_NS = 2_000_000  # an event loop's timer is good to a millisecond; nearer, it is polled


def run_async(
    target: AsyncTarget,
    prompts: Sequence[str],
    loads: Iterable[Load],
    each: Callable[[Run], None],
    seconds: float,
    clock: Clock,
    stop: Stop,
    progress: Progress | None,
) -> None:
    """Run the loads one after the other; callers are tasks of one loop, which outlives each of the loads."""
    current: list[Log] = []

    def work() -> None:
        asyncio.run(main())

    async def main() -> None:
        async with target.async_session() as call:
            for k in range(FIRST_CALLS):
                await call(prompts[k % len(prompts)])
            for load in loads:
                current[:] = [Log(len(target.stages)) for _ in range(load.callers if load.schedule is None else 1)]
                start = await one(call, load)
                each(assemble(target, load, list(current), start, stop))
                if stop.asked:
                    return

    async def one(call: AsyncCall, load: Load) -> int:
        start = clock.now() + NEAR_NS
        await _until(start, clock)
        callers = [_Caller(call, target, prompts, clock, log, stop) for log in current]
        if load.schedule is None:
            await asyncio.gather(*(caller.closed(k, load, start) for k, caller in enumerate(callers)))
        else:
            await _open(callers[0], load, start)
        return start

    in_threads([work], lambda: current, seconds, stop, progress)


class _Caller:
    """A `_Caller` makes one call and notes it."""

    def __init__(
        self, call: AsyncCall, target: AsyncTarget, prompts: Sequence[str], clock: Clock, log: Log, stop: Stop
    ) -> None:
        self.call, self.rejections, self.prompts = call, target.rejections, prompts
        self.now, self.clock, self.log, self.stop = clock.now, clock, log, stop
        self.in_flight = 0
        self.tasks: set[asyncio.Task[None] | None] = set()  # referenced until they are done, or they may be collected

    async def ask(self, index: int, intended: int) -> None:
        log = self.log
        begun = self.now()
        try:
            parts = await self.call(self.prompts[index % len(self.prompts)])
        except self.rejections:
            log.rejected_at.append(intended)
            return
        except Exception as error:
            log.fail(error, intended)
            if len(log.failed_at) >= MOST_FAILURES:
                self.stop.ask(f"{MOST_FAILURES:,} failures")
            return
        done = self.now()
        log.intended.append(intended)
        log.started.append(begun)
        log.ended.append(done)
        if parts is not None:
            for column, part in zip(log.stages, parts, strict=True):
                column.append(part)

    async def closed(self, first: int, load: Load, start: int) -> None:
        """Send, wait for the answer, let the other callers have the loop, send again."""
        index, most, free = first, MOST_REQUESTS // load.callers, max(start, self.now())
        warm, end = start + load.warm_up_ns, start + load.end_ns
        # who a busy machine, or a slow answer, keeps away from the warm-up to the end still sends one request
        while (free < end or not self.log.reaches(warm)) and not self.stop.asked:
            await self.ask(index, free)
            index += load.callers
            free = self.now()
            if len(self.log.ended) >= most:
                self.stop.ask(f"{MOST_REQUESTS:,} requests, as many as a run keeps")
            await asyncio.sleep(0)

    async def scheduled(self, index: int, intended: int) -> None:
        try:
            await self.ask(index, intended)
        finally:
            self.in_flight -= 1
            self.tasks.discard(asyncio.current_task())


async def _open(caller: _Caller, load: Load, start: int) -> None:
    assert load.schedule is not None
    due = array("q", load.schedule.due_ns.tobytes())
    now, together, sent = caller.now, min(TOGETHER, load.callers), 0
    for index, offset in enumerate(due):
        if sent == together or now() < start + offset:
            await _until(start + offset, caller.clock)
            sent = 0
        if caller.stop.asked:
            break
        if caller.in_flight >= load.callers:
            continue  # stays unsent, and is counted as that
        caller.in_flight += 1
        sent += 1
        caller.tasks.add(asyncio.create_task(caller.scheduled(index, start + offset)))
    while caller.tasks:
        await asyncio.wait([task for task in caller.tasks if task is not None])


async def _until(due: int, clock: Clock) -> None:
    early = due - clock.now() - COARSE_NS
    if early > 0:
        await asyncio.sleep(early / 1e9)
    await asyncio.sleep(0)  # even when late: who was sent before must get the loop
    while clock.now() < due:
        await asyncio.sleep(0)
