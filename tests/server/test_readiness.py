"""A server says that it is ready once it is, and refuses meanwhile; it answers to its own names alone."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support import skips
from tests.support.asgi_calls import AsgiApp, AsgiReply, Headers
from tests.support.local_server import LocalServer
from tests.support.server_configs import MESSAGES, body_of

pytest.importorskip("uvicorn", reason=skips.SERVE)
WAIT_S = 20.0
ASKED = json.dumps({"prompt": "What is 2+2?"}).encode()


def application(**config: Any) -> Any:
    from ipr_engine.server import app
    from ipr_engine.server.server_config import make_config

    return app(None, make_config(config))


async def ready(app: AsgiApp) -> None:
    async with asyncio.timeout(WAIT_S):
        while (await app.call("GET", "/ready", [], [], leaves=False)).status != 200:
            await asyncio.sleep(0.01)


async def told(made: Any, path: str = "/v1/route", body: bytes = ASKED, headers: Headers = ()) -> AsgiReply:
    """Return what a server that is ready answers."""
    async with AsgiApp(made) as app:
        await ready(app)
        return await app.call("POST", path, headers, [body], leaves=False)


def test_ready_is_false_until_it_is_warm() -> None:
    async def from_the_start() -> list[int]:
        async with AsgiApp(application()) as app:
            seen = [(await app.call("GET", path, [], [], leaves=False)).status for path in ("/ready", "/health")]
            await ready(app)
            return [*seen, (await app.call("POST", "/v1/route", [], [ASKED], leaves=False)).status]

    assert asyncio.run(from_the_start()) == [503, 200, 200]


def test_ready_is_false_once_it_stops() -> None:
    async def stopped() -> int:
        made = application()
        async with AsgiApp(made) as app:
            await ready(app)
        return (await app.call("GET", "/ready", [], [], leaves=False)).status

    assert asyncio.run(stopped()) == 503


@pytest.mark.parametrize(
    ("host", "status"),
    [
        (b"localhost:8000", 200),
        (b"LOCALHOST", 200),
        (b"[::1]:8000", 200),
        (b"attacker.example", 403),
        (b"", 403),
        (None, 403),
    ],
)
def test_a_name_that_is_not_its_own_is_refused(host: bytes | None, status: int) -> None:
    made = application(server={"hosts": ["localhost", "::1"]})
    headers = [] if host is None else [(b"host", host)]
    assert asyncio.run(told(made, headers=headers)).status == status


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses", "/v1/chat/completions"])
def test_without_upstreams_a_server_decides_alone(path: str) -> None:
    reply = asyncio.run(told(application(), path, json.dumps(body_of(MESSAGES)).encode()))
    assert reply.status == 404
    assert "--upstreams" in json.loads(reply.content)["error"]["message"]


def test_a_path_that_is_not_known_is_told_which_are() -> None:
    reply = asyncio.run(told(application(), "/v1/rout", b"{}"))
    message = json.loads(reply.content)["error"]["message"]
    assert reply.status == 404
    assert message.startswith("the path is not known; these are: POST /v1/route, ")
    assert "; GET /, " in message
    for path in ("/v1/chat/completions", "/v1/messages", "/v1/responses", "/v1/models/{model}", "/health", "/metrics"):
        assert path in message


def test_a_record_that_cannot_be_written_is_no_silent_loss(caplog: pytest.LogCaptureFixture) -> None:
    with LocalServer(None, {"records": {"path": "/dev/full"}}) as server:
        assert "records" not in server.get("/ready").body
        for _ in range(3):
            reply = server.post("/v1/route", {"prompt": "What is 2+2?"})
            assert (reply.status, reply.headers["retry-after"]) == (503, "1")
            assert "could not be recorded" in reply.body["error"]["message"]
        ready = server.get("/ready")
        assert (ready.status, ready.body["ready"]) == (200, True)  # a full disk is no reason to restart it
        # anybody may ask: the path stands in the log alone
        assert ready.body["records"] == "decisions cannot be recorded: No space left on device"
    said = [line for line in caplog.messages if "/dev/full" in line]
    assert len(said) == 1, said
    assert "requests are refused" in said[0]


def test_what_stands_in_the_way_of_a_rotated_file_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = tmp_path / "decisions.jsonl"
    with LocalServer(None, {"records": {"path": str(log)}}) as server:
        assert server.post("/v1/route", {"prompt": "What is 2+2?"}).status == 200
        log.unlink()
        log.mkdir()
        assert server.post("/v1/route", {"prompt": "What is 2+2?"}).status == 503
        assert server.get("/ready").body["records"] == "decisions cannot be recorded: Is a directory"
    assert f"records.path: cannot append to {log}: Is a directory" in caplog.text


def test_a_bundle_that_cannot_be_followed_is_told(tmp_path: Path) -> None:
    from ipr_engine.errors import BundleError
    from ipr_engine.server import app

    with pytest.raises(BundleError):
        app(tmp_path)


def test_a_part_that_cannot_be_counted_is_refused_where_nothing_is_assumed() -> None:
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    body = {"messages": [{"role": "user", "content": [{"type": "text", "text": "What?"}, part]}]}
    asked = json.dumps(body).encode()
    assert asyncio.run(told(application(), body=asked)).status == 200
    refused = asyncio.run(told(application(server={"assumed_tokens": None}), body=asked))
    assert refused.status == 400
    assert "billed_tokens" in json.loads(refused.content)["error"]["message"]


def test_every_metric_says_what_it_counts() -> None:
    async def written() -> str:
        async with AsgiApp(application()) as app:
            await ready(app)
            await app.call("POST", "/v1/route", [], [ASKED], leaves=False)
            return (await app.call("GET", "/metrics", [], [], leaves=False)).content.decode()

    lines = asyncio.run(written()).splitlines()
    helped = {line.split()[2] for line in lines if line.startswith("# HELP")}
    typed = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    assert helped == typed
    samples = {line.split("{")[0].split(" ")[0] for line in lines if line and not line.startswith("#")}
    parts = {name + ending for name in helped for ending in ("_bucket", "_sum", "_count")}
    assert samples <= helped | parts
    assert {"ipr_requests_total", "ipr_decisions_total", "ipr_cost_usd_total", "ipr_saved_usd", "ipr_support"} <= helped
