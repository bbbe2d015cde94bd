"""What a client waits for ends with it, whenever it leaves, and nothing of its leaving stays with the task."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from ipr_engine.server.exchange import WatchedClient
from ipr_engine.server.patience import Patience
from ipr_engine.server.refused import ClientGoneError, RefusedError


class Request:
    """A `Request` is one whose client leaves when told."""

    def __init__(self, *, left: bool = False) -> None:
        self.left = left
        self.leaves: Callable[[], None] | None = None

    def watch(self, leaves: Callable[[], None] | None) -> None:
        self.leaves = leaves
        if leaves is not None and self.left:
            leaves()

    def leave(self) -> None:
        if self.leaves is not None:
            self.leaves()

    def body(self) -> bytes | None:
        return None

    def reply(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        raise AssertionError("nobody is there")

    def abort(self) -> None:
        raise AssertionError("nobody is there")


async def outcome(request: Request, work: Callable[[], object]) -> object:
    """Return what came of waiting; the task can go on afterwards."""
    task = asyncio.current_task()
    assert task is not None
    try:
        async with WatchedClient(request) as client:
            found: object = await client.waits_for(work())  # type: ignore[arg-type]
    except (ClientGoneError, RefusedError) as error:
        found = type(error)
    await asyncio.sleep(0)
    assert task.cancelling() == 0
    assert request.leaves is None
    return found


async def at_once() -> str:
    return "made"


async def refused() -> None:
    raise RefusedError(400, "wrong")


async def in_time() -> str:
    await asyncio.sleep(0.01)
    return "made"


async def never() -> None:
    await asyncio.sleep(60)


@pytest.mark.parametrize("work", [at_once, in_time])
def test_who_stays_gets_what_is_made(work: Callable[[], object]) -> None:
    assert asyncio.run(outcome(Request(), work)) == "made"


@pytest.mark.parametrize("work", [at_once, in_time, never, refused])
def test_who_had_left_before_gets_nothing(work: Callable[[], object]) -> None:
    assert asyncio.run(outcome(Request(left=True), work)) is ClientGoneError


def test_who_leaves_meanwhile_ends_the_work() -> None:
    ended = []

    async def works() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    async def leaving() -> object:
        request = Request()
        asyncio.get_running_loop().call_later(0.01, request.leave)
        return await outcome(request, works)

    assert asyncio.run(leaving()) is ClientGoneError
    assert ended == [True]


@pytest.mark.parametrize("error", [None, RefusedError(400, "wrong")])
def test_who_leaves_in_the_last_moment_leaves_nothing_behind(error: RefusedError | None) -> None:
    async def leaving() -> object:
        request = Request()

        async def works() -> str:
            await asyncio.sleep(0)
            request.leave()  # told between two steps of the task; it ends in this one
            if error is not None:
                raise error
            return "made"

        return await outcome(request, works)

    assert asyncio.run(leaving()) is ClientGoneError


def test_a_server_that_stops_cancels_as_ever() -> None:
    async def stopping() -> bool:
        task = asyncio.ensure_future(outcome(Request(), never))
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return task.cancelled()

    assert asyncio.run(stopping())


def test_a_client_that_does_not_read_is_told_from_one_that_left() -> None:
    async def slow() -> object:
        patience = Patience(0.1)

        async def writes() -> str:
            try:
                with patience:
                    await asyncio.sleep(60)
            except TimeoutError:
                return "late"
            return "in time"

        return await outcome(Request(), writes)

    assert asyncio.run(slow()) == "late"
