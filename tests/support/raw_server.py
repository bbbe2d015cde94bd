"""A server that writes bytes: for replies that no HTTP server would make. A test says what it writes by the name of the model."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol


class Written(Protocol):
    """What a server writes to one request, piece by piece."""

    def __call__(self, body: dict[str, Any], headers: dict[str, str]) -> Iterable[bytes]: ...


def completion(body: dict[str, Any], **changed: Any) -> dict[str, Any]:
    """Return an answer of chat completions."""
    choice = {"index": 0, "message": {"role": "assistant", "content": "The answer is 4."}, "finish_reason": "stop"}
    return {
        "model": body["model"],
        "choices": [choice],
        "usage": {"prompt_tokens": 20, "completion_tokens": 6},
    } | changed


def http(document: Any, status: str = "200 OK", *headers: str) -> bytes:
    """Return a reply of HTTP. document: its body, made JSON where it is no bytes."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    lines = (f"HTTP/1.1 {status}", "Content-Type: application/json", f"Content-Length: {len(body)}", *headers)
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@contextmanager
def raw_server(written: Written) -> Iterator[str]:
    """Run a server on a free port; give its address, as a plan's provider names it."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while line := self.rfile.readline():
                headers: dict[str, str] = {}
                while (line := self.rfile.readline()) not in (b"\r\n", b""):
                    name, _, value = line.decode("latin1").partition(":")
                    headers[name.lower()] = value.strip()
                body = json.loads(self.rfile.read(int(headers["content-length"])))
                try:
                    for piece in written(body, headers):
                        self.wfile.write(piece)
                except OSError:  # who asked has gone
                    return

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads, request_queue_size = True, 128

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()
