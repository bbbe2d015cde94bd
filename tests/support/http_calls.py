"""An `HttpCalls` asks one server on loopback by the standard library alone; a `Reply` is what came back."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

WAIT_S = 45.0
_HELD: list[socket.socket] = []


@dataclass(frozen=True)
class Reply:
    """A `Reply` is an HTTP answer; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.content)

    @property
    def told(self) -> dict[str, str]:
        """Return the headers `x-ipr-*`, without that."""
        return {name[6:]: value for name, value in self.headers.items() if name.startswith("x-ipr-")}

    @property
    def samples(self) -> dict[str, float]:
        """Return every sample of metrics: name and labels, as they are written there -> value."""
        lines = [line for line in self.content.decode().splitlines() if line and not line.startswith("#")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


class HttpCalls:
    """An `HttpCalls` asks the server at a port.

    Attributes:
        headers: sent with every request; a call leaves out one that it names with None.
    """

    def __init__(self, port: int, headers: Mapping[str, str | None] | None = None) -> None:
        self.port = port
        self.headers = dict(headers or {})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str, headers: Mapping[str, str | None] | None = None) -> Reply:
        return self.send("GET", path, None, headers)

    def post(self, path: str, body: Any, headers: Mapping[str, str | None] | None = None) -> Reply:
        """Post an object as JSON, or bytes as they are."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.send("POST", path, content, headers)

    def send(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str | None] | None = None
    ) -> Reply:
        with self.answer(method, path, body, headers) as answer:
            content = answer.read()
            return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, content)

    @contextmanager
    def answer(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str | None] | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        """Send a request, and give its answer once the head is there; the connection closes with the `with`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        try:
            told = {"content-type": "application/json", **self.headers, **(headers or {})}
            connection.request(method, path, body, {name: value for name, value in told.items() if value is not None})
            yield connection.getresponse()
        finally:
            connection.close()

    @contextmanager
    def streamed(
        self, path: str, body: Mapping[str, Any], headers: Mapping[str, str | None] | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        """Post a request, and give its answer to be read piece by piece (`read1`)."""
        with self.answer("POST", path, json.dumps(body).encode(), headers) as answer:
            yield answer

    def connection(self) -> socket.socket:
        """Return a connection to write to by hand."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=WAIT_S)


def answered(connection: socket.socket) -> bytes:
    """Return all that comes until the server closes the connection."""
    kept = b""
    while True:
        try:
            piece = connection.recv(65536)
        except ConnectionResetError:
            return kept
        if not piece:
            return kept
        kept += piece


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@cache
def nobody() -> str:
    """Return an address where nobody listens, and nobody else can: this process has its port, until it ends."""
    held = socket.socket()
    held.bind(("127.0.0.1", 0))
    _HELD.append(held)
    return f"http://127.0.0.1:{held.getsockname()[1]}"


def events(content: bytes) -> list[dict[str, Any]]:
    """Return the events of a stream, their data read; without [DONE]."""
    lines = [line.removeprefix(b"data: ") for line in content.splitlines() if line.startswith(b"data: ")]
    return [json.loads(line) for line in lines if line != b"[DONE]"]
