"""The page of an application that is mounted at a prefix, behind keys: its figures and its example are of that address."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
from collections.abc import AsyncIterator, Iterator
from threading import Thread
from typing import Any

import pytest

from ipr_engine import Engine
from tests.support.chromium import Chromium
from tests.support.http_calls import HttpCalls, free_port
from tests.support.page_readings import KEY, LIVE, WIDE
from tests.support.server_process import until
from tests.support.skips import SERVE

pytest.importorskip("uvicorn", reason=SERVE)


@pytest.fixture
def mounted(default_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An application of somebody's own, with this one at /router; its address."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.routing import Mount

    from ipr_engine.server import app
    from ipr_engine.server.server_config import make_config

    monkeypatch.setenv("TEST_KEY", KEY)
    inner = app(default_engine, make_config({"tenants": [{"name": "one", "keys_env": ["TEST_KEY"]}]}))

    @contextlib.asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        async with inner.router.lifespan_context(inner):
            yield

    port = free_port()
    outer = Starlette(routes=[Mount("/router", inner)], lifespan=lifespan)
    server = uvicorn.Server(uvicorn.Config(outer, port=port, log_level="error"))
    thread = Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started)
        calls = HttpCalls(port)
        until(lambda: calls.get("/router/ready").status == 200)
        yield f"{calls.url}/router"
    finally:
        server.should_exit = True
        thread.join()


def test_its_example_is_of_its_own_address_and_has_a_place_for_the_key(browser: Chromium, mounted: str) -> None:
    browser.open(f"{mounted}/", WIDE)
    browser.until("!document.getElementById('keyform').hidden")
    browser.tab_to("key")
    browser.type(KEY)
    browser.press("Enter")
    browser.until(LIVE)
    example = browser.text("#totalnote code")
    assert example.startswith(f"curl {mounted}/v1/route -H 'authorization: Bearer YOUR-KEY'")
    asked = shlex.split(example.replace("YOUR-KEY", KEY))
    said = subprocess.run([*asked, "-s"], capture_output=True, text=True, timeout=30, check=True).stdout
    assert '"cause":"within_tolerance"' in said
    browser.until("!document.querySelector('#totalnote code')")  # it is counted, and seen
