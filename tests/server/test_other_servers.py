"""The application keeps to ASGI: other servers leave out what may be left out, and their errors hold no text of a prompt."""

from __future__ import annotations

import asyncio
import json
import traceback
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from tests.support import skips
from tests.support.asgi_calls import AsgiApp
from tests.support.server_configs import CHAT, EVERY, PATHS, body_of
from tests.support.upstream_stub import UpstreamStub

pytest.importorskip("starlette", reason=skips.SERVE)

SECRET = "canary of a prompt"


def scope(**more: Any) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "path": "/health",
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
        **more,
    }


async def whole() -> dict[str, Any]:
    return {"type": "http.request", "body": b"{}"}


def headers() -> Iterator[tuple[bytes, bytes]]:
    yield b"host", b"localhost"


@pytest.fixture(scope="module")
def application() -> Any:
    from ipr_engine.server import app

    return app()


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"extensions": None},
        {"extensions": {}},
        {"headers": headers()},
        {"headers": [[b"host", b"localhost"]]},
    ],
)
def test_what_may_be_left_out_may_be_left_out(application: Any, more: dict[str, Any]) -> None:
    sent = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(application(scope(**more), whole, send))
    assert [message.get("status") for message in sent] == [200, None]


def test_an_error_of_the_server_beneath_holds_no_text_of_another(application: Any) -> None:
    from ipr_engine.server.answering import Answering
    from ipr_engine.server.request_formats import CHAT

    async def fails(*_: Any) -> None:
        raise ValueError(SECRET)

    async def send(_: dict[str, Any]) -> None:
        raise OSError("the client is gone")

    answering = Answering(application.state.ipr, "/v1/route", fails, CHAT)
    with pytest.raises(OSError, match="gone") as raised:
        asyncio.run(answering(scope(), whole, send))
    assert SECRET not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize("method", ["HEAD", "GET", "DELETE"])
@pytest.mark.parametrize("path", ["/health", "/v1/route", "/v1/route/", "/v1%2Froute", "/nowhere"])
def test_known_paths_are_found_as_starlette_finds_them(application: Any, method: str, path: str) -> None:
    def status(**more: Any) -> int:
        sent: list[dict[str, Any]] = []

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        asyncio.run(application(scope(method=method, path=path, **more), whole, send))
        found: int = sent[0]["status"]
        return found

    at_once = status()
    kept, application.at_once = application.at_once, {}
    try:
        assert at_once == status()
    finally:
        application.at_once = kept


@pytest.mark.parametrize("error", [OSError, RuntimeError])
def test_an_attempt_is_counted_whatever_ends_its_stream(provider: UpstreamStub, error: type[Exception]) -> None:
    """A server may raise what it likes where a client is gone."""
    from ipr_engine.server import app
    from ipr_engine.server.server_config import make_config

    provider.reset()
    endpoint = {"base_url": f"{provider.url}/v1", "formats": [CHAT]}
    config = make_config({"endpoints": {"provider": endpoint}, "upstreams": {EVERY[0]: "provider"}})
    body = json.dumps(body_of(CHAT, model=EVERY[0], stream=True)).encode()
    asked = scope(method="POST", path=PATHS[CHAT])
    messages = iter([{"type": "http.request", "body": body}])

    async def receive() -> dict[str, Any]:
        message = next(messages, None)
        return await asyncio.Future() if message is None else message

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.body":
            raise error("the client is gone")

    async def counted() -> bytes:
        application = app(None, config)
        async with AsgiApp(application) as running:
            with suppress(OSError, RuntimeError):
                await application(asked, receive, send)
            found = await running.call("GET", "/metrics", [(b"host", b"localhost")], [], leaves=False)
            return found.content

    assert (
        f'ipr_upstream_attempts_total{{candidate="{EVERY[0]}",outcome="left"}} 1.0' in asyncio.run(counted()).decode()
    )
