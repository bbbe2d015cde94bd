"""An application that is mounted in another needs its lifespan: docs/server.md shows how it gets it, and without it it says so."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

import pytest

from tests.support import skips
from tests.support.asgi_calls import AsgiApp
from tests.support.http_calls import HttpCalls, free_port
from tests.support.places import ROOT
from tests.support.server_process import until

uvicorn = pytest.importorskip("uvicorn", reason=skips.SERVE)

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "server.md").read_text(), flags=re.S)
ASKED = {"prompt": "What is 2+2?"}


def shown() -> dict[str, Any]:
    """Return what the page's own lines make."""
    [block] = [block for block in BLOCKS if "lifespan_context" in block]
    made: dict[str, Any] = {}
    exec(compile(block, "docs/server.md", "exec"), made)
    return made


@contextmanager
def served(application: Any) -> Iterator[HttpCalls]:
    """Serve it by uvicorn alone, as an application of one's own."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(application, port=port, log_level="error"))
    thread = Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started)
        yield HttpCalls(port)
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


def test_the_lines_of_the_page_serve_below_the_path_of_the_mount() -> None:
    with served(shown()["outer"]) as client:
        until(lambda: client.get("/router/ready").status == 200)
        reply = client.post("/router/v1/route", ASKED)
        assert reply.status == 200
        assert reply.body["model"] == "llama-3.1-70b-instruct"


@pytest.mark.parametrize("path", ["/v1/route", "/v1/chat/completions", "/v1/models"])
def test_without_its_lifespan_it_says_what_is_missing(path: str, caplog: pytest.LogCaptureFixture) -> None:
    from starlette.applications import Starlette

    made = shown()
    outer = Starlette()
    outer.mount("/router", made["gateway"])
    body = {"model": "llama-3.1-70b-instruct", "messages": [{"role": "user", "content": "What is 2+2?"}], **ASKED}
    with served(outer) as client:
        for _ in range(3):
            reply = client.get(f"/router{path}") if path == "/v1/models" else client.post(f"/router{path}", body)
            assert reply.status == 503
            assert "lifespan_context(application)" in reply.body["error"]["message"]
        assert "lifespan" in client.get("/router/ready").body["problem"]
        assert client.get("/router/health").status == 200
    assert len([line for line in caplog.messages if "lifespan" in line]) == 1


def test_one_that_has_stopped_was_started() -> None:
    async def asked() -> bytes:
        from ipr_engine.server import app

        made = app()
        async with AsgiApp(made) as running:
            pass
        return (await running.call("POST", "/v1/route", [], [json.dumps(ASKED).encode()], leaves=False)).content

    assert b"the server is starting or stopping" in asyncio.run(asked())
