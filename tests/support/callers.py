"""Threads and tasks call a serving engine here, each for at most 20 seconds."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from ipr_engine import AsyncEngine
from tests.support.serving_encoders import Gate, QueuedEncoder

SOON = 1.0  # us: over before anything can be done


def until(holds: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0)


def start_all(call: Callable[[], object], count: int) -> list[threading.Thread]:
    threads = [threading.Thread(target=call) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads


def join_all(threads: Iterable[threading.Thread]) -> None:
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


def in_loop(test: Callable[..., Any]) -> Callable[..., None]:
    """Run a coroutine test in an event loop of its own, for at most 20 seconds."""

    @functools.wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        asyncio.run(asyncio.wait_for(test(*arguments, **named), 20))

    return run


async def settled(tasks: Iterable[Awaitable[Any]]) -> list[Any]:
    return await asyncio.gather(*tasks, return_exceptions=True)


async def held(
    encoder: QueuedEncoder, serving: AsyncEngine, *prompts: str
) -> tuple[Gate, asyncio.Task[Any], list[asyncio.Task[Any]]]:
    """Return a gate, and tasks of these prompts behind a forward that it holds up; the first task is the one in the forward."""
    gate = encoder.on_encode = Gate()
    first = asyncio.create_task(serving.route("first", tau=0.2))
    await asyncio.to_thread(gate.entered.wait, 20)
    tasks = [asyncio.create_task(serving.route(prompt, tau=0.2)) for prompt in prompts]
    await asyncio.sleep(0)  # they have asked
    return gate, first, tasks
