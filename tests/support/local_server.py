"""A `LocalServer` is a server's application in this process, asked as one over HTTP is: it begins in milliseconds."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from tests.support.asgi_calls import AsgiApp
from tests.support.http_calls import Reply

WAIT_S = 20.0
HOST = {"host": "localhost"}


class LocalServer:
    """A `LocalServer` runs as long as its `with` lasts. Its loop turns only while it is asked, or waited for.

    Attributes:
        state: the application's `ServerState`.
    """

    def __init__(self, engine: Any, config: Mapping[str, Any], **options: Any) -> None:
        """Make the application: `app(engine, config, **options)`, the config as YAML gives it."""
        from ipr_engine.server import app
        from ipr_engine.server.server_config import make_config

        self._application = app(engine, make_config(config), **options)
        self.state = self._application.state.ipr

    def __enter__(self) -> LocalServer:
        self._runner = asyncio.Runner()
        self._app = AsgiApp(self._application)
        self._runner.run(self._app.__aenter__())
        self.until(lambda: self.get("/ready").status == 200 or self.state.readiness()[1].get("problem"))
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._app.__aexit__(None, None, None))
        self._runner.close()

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Reply:
        return self.send("GET", path, [], headers)

    def post(self, path: str, body: Any, headers: Mapping[str, str] | None = None, *, waits: bool = True) -> Reply:
        """Post an object as JSON. waits: for the reply; else the client leaves once its body is sent, and the status is 0."""
        return self.send("POST", path, [json.dumps(body).encode()], headers, waits=waits)

    def send(
        self, method: str, path: str, body: list[bytes], headers: Mapping[str, str] | None = None, *, waits: bool = True
    ) -> Reply:
        sent = [(name.encode(), value.encode()) for name, value in {**HOST, **(headers or {})}.items()]
        asked = self._app.call(method, path, sent, body, leaves=False, waits=waits)
        reply = self._runner.run(_within(asked))
        return Reply(reply.status, reply.headers, reply.content)

    def until(self, holds: Callable[[], Any], seconds: float = WAIT_S) -> Any:
        """Return what holds, once it does; the server's loop turns meanwhile."""
        end = time.monotonic() + seconds
        while not (found := holds()):
            assert time.monotonic() < end, f"not within {seconds:g} s"
            self._runner.run(asyncio.sleep(0.01))
        return found

    def metrics(self) -> dict[str, float]:
        """Return every sample of /metrics: name and labels, as they are written there -> value."""
        return self.get("/metrics").samples

    def counted(self, before: Mapping[str, float]) -> dict[str, float]:
        """Return by how much samples have grown since, of those that have."""
        return {n: v - before.get(n, 0.0) for n, v in self.metrics().items() if v != before.get(n, 0.0)}


async def _within(asked: Any) -> Any:
    return await asyncio.wait_for(asked, WAIT_S)
