"""A reply that an upstream wrote to nobody reaches no client: a kept connection on which anything came is not used again."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from threading import Event, Thread

import pytest

from tests.support.http_calls import nobody
from tests.support.server_configs import CHAT, EVERY, KEYS, PATHS, TEAM_KEY, body_of, gateway_config
from tests.support.server_process import ServerProcess
from tests.support.skips import SERVE
from tests.support.upstream_stub import UpstreamStub

if find_spec("aiohttp") is None:
    pytest.skip(SERVE, allow_module_level=True)

import aiohttp

from ipr_engine.server.kept_connections import IS_KEPT, KeptConnections

OWN = b"own"
UNASKED: dict[str, bytes] = {
    "a whole reply": b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nstale",
    "half a reply": b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nst",
    "half a head": b"HTTP/1.1 200 OK\r\nconte",
    "a time-out": b"HTTP/1.1 408 Request Time-out\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "an answer to come": b"HTTP/1.1 100 Continue\r\n\r\n",
    "no HTTP": b"GARBAGE\r\n\r\n",
    "a byte": b"H",
}


class Talker:
    """A `Talker` is an upstream that writes something 10 ms after each of its replies.

    Attributes:
        carried: for each of its connections, how many requests came on it. talked: it has written that.
    """

    def __init__(self, unasked: bytes) -> None:
        self._unasked = unasked
        self.carried: list[int] = []
        self.talked = Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}/"
        Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Talker:
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection = self._listening.accept()[0]
                self.carried.append(0)
                Thread(target=self._talk, args=(connection, len(self.carried) - 1), daemon=True).start()

    def _talk(self, connection: socket.socket, number: int) -> None:
        with suppress(OSError), connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while connection.recv(65536):
                self.carried[number] += 1
                self.talked.clear()
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nown")
                time.sleep(0.01)
                connection.sendall(self._unasked)
                self.talked.set()


async def asked(session: aiohttp.ClientSession, url: str) -> bytes:
    async with session.get(url) as response:
        return await response.read()


@pytest.mark.parametrize("busy", [False, True], ids=["read", "in the socket"])
@pytest.mark.parametrize("case", UNASKED)
def test_a_connection_on_which_anything_came_is_not_used_again(case: str, busy: bool) -> None:
    async def ask(talker: Talker) -> None:
        async with aiohttp.ClientSession(connector=KeptConnections()) as session:
            for number in range(3):
                assert (await asked(session, talker.url), IS_KEPT.get()) == (OWN, False)
                assert talker.carried == [1] * (number + 1)
                await asyncio.sleep(0)
                assert talker.talked.wait(10.0)  # what comes meanwhile is not read
                if not busy:
                    await asyncio.sleep(0.02)

    with Talker(UNASKED[case]) as talker:
        asyncio.run(ask(talker))


def test_a_connection_on_which_nothing_came_is_used_again() -> None:
    async def ask(talker: Talker) -> None:
        async with aiohttp.ClientSession(connector=KeptConnections()) as session:
            for number in range(3):
                assert (await asked(session, talker.url), IS_KEPT.get()) == (OWN, number > 0)
                await asyncio.sleep(0.05)

    with Talker(b"") as talker:
        asyncio.run(ask(talker))
        assert talker.carried == [3]


def test_aiohttp_alone_gives_the_reply_to_the_next_request() -> None:
    """Where this fails, aiohttp looks by itself: `KeptConnections` can go."""

    async def ask(talker: Talker) -> list[bytes]:
        async with aiohttp.ClientSession() as session:
            replies = []
            for _ in range(2):
                replies.append(await asked(session, talker.url))
                assert await asyncio.to_thread(talker.talked.wait, 10.0)
                await asyncio.sleep(0.02)
            return replies

    with Talker(UNASKED["a whole reply"]) as talker:
        assert asyncio.run(ask(talker)) == [OWN, b"stale"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, UpstreamStub]]:
    """A gateway and its provider, whose connections nobody else uses."""
    with UpstreamStub() as stub:
        config = gateway_config(stub.url, nobody())
        authorization = {"authorization": f"Bearer {TEAM_KEY}"}
        folder = tmp_path_factory.mktemp("alone")
        with ServerProcess(folder, config, environment=KEYS, headers=authorization) as server:
            yield server, stub


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("case", UNASKED)
def test_no_client_of_the_gateway_gets_what_came_unasked(
    alone: tuple[ServerProcess, UpstreamStub], case: str, stream: bool
) -> None:
    gateway, upstream = alone
    upstream.reset()
    said = '{"id": "1"}'
    reply = f"HTTP/1.1 200 -\r\ncontent-type: application/json\r\ncontent-length: {len(said)}\r\n\r\n{said}"
    upstream.fail(EVERY[0], "raw", pieces=[reply, 0.01, UNASKED[case].decode(), 1.0], times=1)
    assert gateway.post(PATHS[CHAT], body_of(CHAT, model=EVERY[0])).content.decode() == said
    time.sleep(0.2)
    before = gateway.metrics()
    next_one = gateway.post(PATHS[CHAT], body_of(CHAT, model=EVERY[0], stream=stream))
    assert next_one.status == 200
    assert EVERY[0].encode() in next_one.content
    counted = gateway.counted(before)
    assert [v for name, v in counted.items() if name.startswith("ipr_upstream_attempts_total")] == [1]


def test_a_time_out_of_an_idle_connection_that_crosses_a_request_is_not_its_reply(
    alone: tuple[ServerProcess, UpstreamStub],
) -> None:
    gateway, upstream = alone
    upstream.reset()
    gateway.post(PATHS[CHAT], body_of(CHAT, model=EVERY[0]))  # there is a kept one
    late = "HTTP/1.1 408 -\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    upstream.fail(EVERY[0], "raw", pieces=[late], times=1)
    reply = gateway.post(PATHS[CHAT], body_of(CHAT, model=EVERY[0]))
    assert (reply.status, EVERY[0].encode() in reply.content) == (200, True)
    assert len(upstream.seen()) == 3
    upstream.fail(EVERY[0], "raw", pieces=[late], times=2)
    assert gateway.post(PATHS[CHAT], body_of(CHAT, model=EVERY[0])).status == 408
