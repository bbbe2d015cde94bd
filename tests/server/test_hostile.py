"""Whatever is sent to a server is answered: decided, or refused by its own fault, and never a failure of the server's."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import pytest

from tests.support import skips
from tests.support.asgi_calls import AsgiApp, AsgiReply
from tests.support.hostile_requests import CANARY, REAL, Hostile, HostileRequests
from tests.support.http_calls import nobody
from tests.support.memory import resident_bytes
from tests.support.server_configs import KEYS, MESSAGES, PATHS, TEAM_KEY, gateway_config
from tests.support.upstream_stub import UpstreamStub

pytest.importorskip("uvicorn", reason=skips.SERVE)
AT_ONCE = 16
ROUND = 2000  # requests between two times that the provider forgets what it saw
SLACK_BYTES = 16 << 20
WELL = [(b"host", b"x"), (b"authorization", f"Bearer {TEAM_KEY}".encode())]


@pytest.fixture(params=[True], ids=["logged"])
def application(
    request: pytest.FixtureRequest, provider: UpstreamStub, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """The gateway's application, in this process; param: whether it logs requests."""
    from ipr_engine.server import app
    from ipr_engine.server.server_config import make_config

    for name, key in KEYS.items():
        monkeypatch.setenv(name, key)
    provider.reset()
    config = gateway_config(provider.url, nobody())
    config["server"]["limits"] |= {"body_bytes": 1 << 20}
    config["server"]["log_requests"] = request.param
    yield app(None, make_config(config))
    provider.reset()


class Listener(logging.Handler):
    """A `Listener` hears every log line and keeps those that tell too much, or of a failure."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        said = record.getMessage()
        if record.levelno >= logging.ERROR or any(secret in said for secret in (CANARY, *KEYS.values())):
            self.faults.append(said)


@pytest.fixture
def listener() -> Iterator[Listener]:
    logger, made = logging.getLogger("ipr_engine"), Listener()
    level = logger.level
    logger.addHandler(made)
    logger.setLevel(logging.INFO)
    yield made
    logger.removeHandler(made)
    logger.setLevel(level)


@dataclass
class Storm:
    """A `Storm` is what came of many hostile requests: statuses by how often, resident bytes after each round."""

    statuses: Counter[int] = field(default_factory=Counter)
    resident: list[int] = field(default_factory=list)


def check(request: Hostile, reply: AsgiReply) -> None:
    """Check one reply."""
    if request.leaves and not reply.begun:
        return
    assert (reply.begun, reply.ended) == (1, True), request
    assert reply.status < 500, (request, reply.content)
    if reply.status < 400 or "x-ipr-candidate" in reply.headers:
        return  # an answer, or an upstream's own refusal
    told = json.loads(reply.content)
    assert told["error"]["message"], request
    assert told["error"]["type"], request
    known = request.path.startswith(PATHS[MESSAGES])
    assert told.get("type") == ("error" if known else None), request
    assert not any(secret.encode() in reply.content for secret in KEYS.values()), request


async def until_ready(app: AsgiApp) -> int:
    """Wait until the server is warm; return how often it was asked."""
    asked = 1
    while (await app.call("GET", "/ready", WELL, [], leaves=False)).status != 200:
        asked += 1
        await asyncio.sleep(0.01)
    return asked


async def storm(application: Any, provider: UpstreamStub, seed: int, count: int) -> Storm:
    made, requests = Storm(), HostileRequests(seed).many(count)
    async with AsgiApp(application) as app:
        asked = await until_ready(app)

        async def ask(some: Iterator[Hostile]) -> None:
            for request in some:
                reply = await asyncio.wait_for(
                    app.call(request.method, request.path, request.headers, request.pieces, leaves=request.leaves), 30
                )
                check(request, reply)
                made.statuses[reply.status] += 1

        for _ in range(0, count, ROUND):
            some = islice(requests, ROUND)
            await asyncio.gather(*(ask(some) for _ in range(AT_ONCE)))
            provider.reset()
            gc.collect()
            made.resident.append(resident_bytes())
        figures = await app.call("GET", "/metrics", WELL, [], leaves=False)
    counted = sum(
        float(line.rpartition(b" ")[2])
        for line in figures.content.splitlines()
        if line.startswith(b"ipr_requests_total{")
    )
    assert counted == asked + count  # every reply is accounted for, and everyone who left
    assert CANARY.encode() not in figures.content
    return made


def test_the_requests_that_are_changed_are_answered(application: Any) -> None:
    async def asked() -> list[tuple[str, int, bytes]]:
        async with AsgiApp(application) as app:
            await until_ready(app)
            replies = [
                await app.call("POST", path, WELL, [json.dumps(body).encode()], leaves=False) for path, body in REAL
            ]
        return [(path, reply.status, reply.content) for (path, _), reply in zip(REAL, replies, strict=True)]

    assert [one for one in asyncio.run(asked()) if one[1] != 200] == []


@pytest.mark.parametrize("seed", range(3))
def test_nothing_that_is_sent_fails_the_server(
    application: Any, provider: UpstreamStub, listener: Listener, seed: int
) -> None:
    made = asyncio.run(storm(application, provider, seed, 300))
    assert listener.faults == []
    assert {200, 400, 401, 404} <= set(made.statuses)


@pytest.mark.slow
@pytest.mark.parametrize("application", [False], indirect=True, ids=["unlogged"])  # pytest keeps every line in memory
def test_memory_stays_as_it_is_under_a_storm(application: Any, provider: UpstreamStub, listener: Listener) -> None:
    made = asyncio.run(storm(application, provider, 97, 100_000))
    assert listener.faults == []
    settled = made.resident[len(made.resident) // 5]
    print(
        f"{sum(made.statuses.values())} requests, {dict(made.statuses)}; {settled >> 20} MiB settled, {made.resident[-1] >> 20} at the end"
    )
    assert made.resident[-1] - settled < SLACK_BYTES
