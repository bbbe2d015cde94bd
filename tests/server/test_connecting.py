"""The time to connect bounds all that stands before a request: the look-up of a name, and the connection."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import pytest

from ipr_engine.server.passed_request import PassedRequest
from ipr_engine.server.request_formats import CHAT
from ipr_engine.server.request_text import RequestText
from ipr_engine.server.server_config import Endpoint, ServerConfig, Timeouts
from tests.support.skips import SERVE

if find_spec("aiohttp") is None:
    pytest.skip(SERVE, allow_module_level=True)

from ipr_engine.server.upstreams import UpstreamFailedError, Upstreams

CONNECT_S, SLOW_S = 0.3, 2.0


def outcome(base_url: str) -> tuple[str, float]:
    """Return what comes of asking there, and after how many seconds."""
    config = ServerConfig(
        endpoints={
            "there": Endpoint(base_url=base_url, formats=("openai-chat",), timeouts=Timeouts(connect_s=CONNECT_S))
        },
        upstreams={"candidate": "there"},
    )

    async def ask() -> tuple[str, float]:
        upstreams = Upstreams(config)
        await upstreams.open()
        target = upstreams.targets["candidate"]
        request = PassedRequest(CHAT, RequestText(b'{"messages": []}'), {}, "", False, None)
        begun = time.monotonic()
        try:
            with pytest.raises(UpstreamFailedError) as failed:
                await upstreams.ask(target, target.health.last(), request)
            return failed.value.outcome, time.monotonic() - begun
        finally:
            await upstreams.close()

    return asyncio.run(ask())


def test_a_name_that_is_not_found_in_time_is_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up = socket.getaddrinfo

    def slow(host: Any, *arguments: Any, **options: Any) -> Any:
        if "slow.example" in str(host):
            time.sleep(SLOW_S)
            raise socket.gaierror(socket.EAI_AGAIN, "as a name server that does not answer")
        return looked_up(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    said, seconds = outcome("http://slow.example/v1")
    assert (said, seconds < SLOW_S) == ("connect", True)


@contextmanager
def full() -> Iterator[int]:
    """Give a port whose queue of connections is full: the next one waits."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        address = listening.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(address)
        yield address[1]
        for one in waiting:
            one.close()


def test_a_connection_that_is_not_taken_in_time_is_none() -> None:
    with full() as port:
        said, seconds = outcome(f"http://127.0.0.1:{port}/v1")
    assert (said, seconds < SLOW_S) == ("connect", True)
