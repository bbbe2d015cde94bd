"""An upstream gets a client's headers as they came: all lines of one, and the same bytes."""

from __future__ import annotations

import json

import pytest

from tests.support.http_calls import answered
from tests.support.server_configs import EVERY, MESSAGES, PATHS, TEAM_KEY, body_of
from tests.support.server_process import ServerProcess
from tests.support.upstream_stub import UpstreamStub

LINES: dict[str, tuple[list[bytes], str, bytes | None]] = {
    "several betas": ([b"anthropic-beta: a,b", b"Anthropic-Beta: c"], "anthropic-beta", b"a,b, c"),
    "a state of traces": ([b"tracestate: a=1", b"tracestate: b=2"], "tracestate", b"a=1, b=2"),
    "what is accepted": ([b"accept: text/event-stream", b"accept: */*"], "accept", b"text/event-stream, */*"),
    "UTF-8": ([b"user-agent: caf\xc3\xa9 \xf0\x9f\x8d\xb5"], "user-agent", b"caf\xc3\xa9 \xf0\x9f\x8d\xb5"),
    "one line": ([b"x-request-id: 7"], "x-request-id", b"7"),
    "none": ([], "user-agent", None),
    "no UTF-8": ([b"user-agent: caf\xe9"], "user-agent", None),
    "a key": ([b"x-goog-api-key: canary"], "x-goog-api-key", None),
}


@pytest.mark.parametrize("case", LINES)
def test_a_header_goes_on_whole(gateway: ServerProcess, upstream: UpstreamStub, case: str) -> None:
    lines, name, value = LINES[case]
    body = json.dumps(body_of(MESSAGES, model=EVERY[0])).encode()
    head = [
        f"POST {PATHS[MESSAGES]} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TEAM_KEY}\r\n".encode(),
        *(line + b"\r\n" for line in lines),
        b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body),
    ]
    connection = gateway.connection()
    with connection:
        connection.sendall(b"".join(head) + body)
        assert answered(connection).startswith(b"HTTP/1.1 200 ")
    (asked,) = upstream.seen()
    got = asked["_headers"].get(name)
    assert (None if got is None else got.encode("latin-1")) == value
