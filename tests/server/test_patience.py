"""Tasks that share a `Patience` wait so long at most, each from its own begin."""

from __future__ import annotations

import asyncio
import time

import pytest

from ipr_engine.server.patience import LOOKS, Patience

BOUND_S = 0.4


async def waits(patience: Patience, seconds: float) -> str:
    try:
        with patience:
            await asyncio.sleep(seconds)
    except TimeoutError:
        return "late"
    await asyncio.sleep(0)  # nothing of it is left over
    return "in time"


def test_who_is_late_is_told_and_others_are_not() -> None:
    async def all_of_them() -> list[str]:
        patience = Patience(BOUND_S)
        return await asyncio.gather(*(waits(patience, seconds) for seconds in (0.0, 60.0, 0.05, 60.0, 0.1)))

    begun = time.monotonic()
    assert asyncio.run(all_of_them()) == ["in time", "late", "in time", "late", "in time"]
    assert time.monotonic() - begun >= BOUND_S


def test_each_waits_from_its_own_begin() -> None:
    async def one_after_the_other() -> list[str]:
        patience = Patience(BOUND_S)
        first = asyncio.ensure_future(waits(patience, 60.0))
        await asyncio.sleep(0.75 * BOUND_S)
        second = asyncio.ensure_future(waits(patience, 0.5 * BOUND_S))
        return [await first, await second]

    assert asyncio.run(one_after_the_other()) == ["late", "in time"]


def test_a_task_that_somebody_else_cancels_ends_cancelled() -> None:
    async def cancelled() -> None:
        task = asyncio.ensure_future(waits(Patience(BOUND_S), 60.0))
        await asyncio.sleep(0)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancelled())


def test_errors_pass() -> None:
    async def fails() -> None:
        with Patience(BOUND_S):
            raise KeyError

    with pytest.raises(KeyError):
        asyncio.run(fails())


def test_nothing_runs_while_nobody_waits() -> None:
    async def timers() -> list[str]:
        patience = Patience(BOUND_S)
        await waits(patience, 0.0)
        await asyncio.sleep(2 * BOUND_S / LOOKS)
        loop = asyncio.get_running_loop()
        return [str(handle) for handle in getattr(loop, "_scheduled", ()) if not handle.cancelled()]

    assert asyncio.run(timers()) == []
