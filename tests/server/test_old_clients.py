"""A client of HTTP/1.0 knows no chunks: its stream ends with the connection, and one that is not whole ends with a reset."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.server_configs import CHAT, EVERY, PATHS, TEAM_KEY, body_of
from tests.support.server_process import ServerProcess
from tests.support.upstream_stub import UpstreamStub

NAME = EVERY[0]


def request(version: str, body: dict[str, Any], method: str = "POST", path: str = PATHS[CHAT]) -> bytes:
    content = json.dumps(body).encode()
    lines = [
        f"{method} {path} HTTP/{version}",
        "host: localhost",
        f"authorization: Bearer {TEAM_KEY}",
        "connection: keep-alive" if version == "1.0" else "connection: close",
        f"content-length: {len(content)}",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def parts(server: ServerProcess, sent: bytes) -> tuple[list[bytes], bytes]:
    """Return the lines of a reply's head, in lower case, and all that follows until the connection ends."""
    with server.connection() as connection:
        connection.sendall(sent)
        seen = b""
        while piece := connection.recv(65536):
            seen += piece
    head, _, rest = seen.partition(b"\r\n\r\n")
    return head.lower().split(b"\r\n"), rest


def unchunked(content: bytes) -> bytes:
    whole = b""
    while True:
        size, _, content = content.partition(b"\r\n")
        if int(size, 16) == 0:
            return whole
        whole, content = whole + content[: int(size, 16)], content[int(size, 16) + 2 :]


def test_a_stream_ends_with_the_connection_and_has_no_chunks(gateway: ServerProcess, upstream: UpstreamStub) -> None:
    body = body_of(CHAT, model=NAME, stream=True)
    head, stream = parts(gateway, request("1.0", body))
    assert not [line for line in head if line.startswith((b"transfer-encoding", b"content-length"))]
    assert b"connection: close" in head
    chunked, pieces = parts(gateway, request("1.1", body))
    assert b"transfer-encoding: chunked" in chunked
    assert stream == unchunked(pieces)
    assert stream.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", PATHS[CHAT], body_of(CHAT, model=NAME)),
        ("POST", "/v1/route", {"prompt": "hi"}),
        ("POST", "/v1/route", {"prompt": "hi", "ipr": {"tau": 7}}),
        ("GET", "/metrics", {}),
        ("GET", "/nowhere", {}),
    ],
)
def test_a_whole_reply_has_its_length(
    gateway: ServerProcess, upstream: UpstreamStub, method: str, path: str, body: dict[str, Any]
) -> None:
    head, content = parts(gateway, request("1.0", body, method, path))
    assert f"content-length: {len(content)}".encode() in head
    assert not [line for line in head if line.startswith(b"transfer-encoding")]
    assert b"connection: close" in head


def test_a_reply_that_breaks_off_is_told_from_one_that_is_whole(gateway: ServerProcess, upstream: UpstreamStub) -> None:
    long = 64 << 20  # more than is kept whole, so that it passes as it comes
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {long}\r\n\r\n"
    upstream.fail(NAME, "raw", pieces=[head, 1000 * "x"])
    with pytest.raises(ConnectionResetError):
        parts(gateway, request("1.0", body_of(CHAT, model=NAME)))
