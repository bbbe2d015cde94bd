"""A `ShortWay` keeps nothing of a request that is answered."""

from __future__ import annotations

import json
import socket
import threading
import time
import weakref
from typing import Any

import pytest

from tests.support import skips

pytest.importorskip("uvicorn", reason=skips.SERVE)
import uvicorn

from ipr_engine.server import app
from ipr_engine.server.http_connection import HttpConfig, HttpConnection


def test_an_idle_connection_holds_no_body_of_a_request_that_was_answered() -> None:
    held: weakref.WeakSet[HttpConnection] = weakref.WeakSet()

    class Kept(HttpConnection):
        def __init__(self, config: HttpConfig, *arguments: Any, **options: Any) -> None:
            super().__init__(config, *arguments, **options)
            held.add(self)

    body = json.dumps({"prompt": "why? " * 4000}).encode()
    head = b"POST /v1/route HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % len(body)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        options = {"loop": "uvloop", "ws": "none", "lifespan": "on", "log_config": None, "proxy_headers": False}
        server = uvicorn.Server(HttpConfig(app(), http=Kept, interface="asgi3", access_log=False, **options))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            with socket.create_connection(listening.getsockname()) as client:
                answered = 0
                until = time.monotonic() + 20
                while answered < 3 and time.monotonic() < until:  # the first may come before it is ready
                    client.sendall(head + body)
                    answered += b" 200 OK" in client.recv(65_536)
                assert answered == 3
                (connection,) = held
                assert connection.cycle.response_complete
                assert not connection.cycle.body
        finally:
            server.should_exit = True
            thread.join()
