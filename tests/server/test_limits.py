"""What a client may send is bounded: its head, its body, its time, and how much is answered at once."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from tests.support.http_calls import answered
from tests.support.server_configs import CHAT, EVERY, MESSAGES, PATHS, body_of
from tests.support.server_process import ServerProcess, until
from tests.support.upstream_stub import UpstreamStub

HEAD_BYTES, HEAD_S, BODY_BYTES, BODY_S, AT_ONCE = 8192, 1.0, 65536, 1.0, 3
HELD = EVERY[0]


@pytest.fixture(scope="module")
def bounded(provider: UpstreamStub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with small limits, and one candidate behind it."""
    limits = {"head_bytes": HEAD_BYTES, "head_s": HEAD_S, "body_bytes": BODY_BYTES, "body_s": BODY_S}
    config = {
        "endpoints": {"stub": {"base_url": f"{provider.url}/v1", "formats": [CHAT, MESSAGES]}},
        "upstreams": {HELD: "stub"},
        "server": {"limits": {**limits, "requests": AT_ONCE}},
    }
    with ServerProcess(tmp_path_factory.mktemp("bounded"), config) as server:
        yield server


def asked(length: int, path: str = PATHS[MESSAGES]) -> bytes:
    return f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n".encode()


def test_a_body_that_says_it_is_too_long_is_not_read(bounded: ServerProcess) -> None:
    with bounded.connection() as connection:
        connection.sendall(asked(BODY_BYTES + 1))
        assert b" 413 " in connection.recv(65536).split(b"\r\n")[0]


@pytest.mark.parametrize("length", [BODY_BYTES + 1, 40 * BODY_BYTES])
def test_a_body_that_is_too_long_is_refused(bounded: ServerProcess, length: int) -> None:
    with bounded.connection() as connection:
        head = b"POST /v1/messages HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
        connection.sendall(head)
        with suppress(OSError):  # the server may close before all is sent
            for _ in range(0, length, 8192):
                connection.sendall(b"2000\r\n" + 8192 * b" " + b"\r\n")
            connection.sendall(b"0\r\n\r\n")
        assert b" 413 " in connection.recv(65536).split(b"\r\n")[0]


def test_a_body_of_the_most_bytes_is_read(bounded: ServerProcess) -> None:
    body = b'{"model": "auto", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 9}'
    assert bounded.post(PATHS[MESSAGES], body.ljust(BODY_BYTES)).status == 200
    assert bounded.post(PATHS[MESSAGES], body.ljust(BODY_BYTES + 1)).status == 413


@pytest.mark.parametrize("begun", [b"", b'{"model"'])
def test_a_body_that_does_not_come_is_given_up(bounded: ServerProcess, begun: bytes) -> None:
    with bounded.connection() as connection:
        connection.sendall(asked(100) + begun)
        told = connection.recv(65536)
    assert b" 408 " in told.split(b"\r\n")[0]
    assert b'"type":"error"' in told


def trickle(connection: socket.socket, piece: bytes, seconds: float) -> bytes:
    """Send a piece every tenth of a second until the server says something or closes; return what it says."""
    connection.settimeout(0.1)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            connection.sendall(piece)
            return connection.recv(65536)
        except TimeoutError:
            continue
        except ConnectionError:
            return b""
    raise AssertionError(f"the server still waits after {seconds:g} s")


def test_a_body_that_trickles_is_given_up(bounded: ServerProcess) -> None:
    with bounded.connection() as connection:
        connection.sendall(asked(1000))
        assert b" 408 " in trickle(connection, b" ", 10 * BODY_S).split(b"\r\n")[0]


def test_a_head_that_trickles_is_closed(bounded: ServerProcess) -> None:
    with bounded.connection() as connection:
        connection.sendall(b"POST /v1/messages HTTP/1.1\r\nhost: localhost\r\n")
        told = trickle(connection, b"x-slow: 1\r\n", 10 * HEAD_S)
    assert told == b"" or b" 408 " in told.split(b"\r\n")[0]


def test_a_huge_head_is_refused(bounded: ServerProcess) -> None:
    with bounded.connection() as connection:
        with suppress(OSError):  # the server may close before all is sent
            connection.sendall(b"POST /v1/messages HTTP/1.1\r\nhost: localhost\r\nx-huge: " + 1024 * HEAD_BYTES * b"x")
        told = answered(connection)
    assert told == b"" or b" 431 " in told.split(b"\r\n")[0]
    assert bounded.get("/health").status == 200


def test_more_requests_than_may_be_are_refused(bounded: ServerProcess, provider: UpstreamStub) -> None:
    provider.reset()
    provider.fail(HELD, "pace", seconds=1.0)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        held = [pool.submit(bounded.post, PATHS[CHAT], body_of(CHAT)) for _ in range(AT_ONCE)]
        until(lambda: len(provider.seen()) == AT_ONCE)
        for form in (CHAT, MESSAGES):
            over = bounded.post(PATHS[form], body_of(form))
            assert (over.status, over.headers["retry-after"]) == (503, "1")
            assert over.body["error"]["type"] == "overloaded_error"
            assert over.body.get("type") == ("error" if form == MESSAGES else None)
        assert bounded.get("/health").status == 200
        assert [one.result().status for one in held] == AT_ONCE * [200]
    provider.reset()
    assert bounded.post(PATHS[CHAT], body_of(CHAT)).status == 200


def test_a_client_that_reads_nothing_of_its_stream_has_left(bounded: ServerProcess, provider: UpstreamStub) -> None:
    provider.reset()
    head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
    provider.fail(HELD, "raw", pieces=[head, *(32 * [f"data: {2**20 * 'x'}\n\n"])])
    before = bounded.metrics()
    body = json.dumps(body_of(CHAT, stream=True)).encode()
    with bounded.connection() as connection:
        connection.sendall(asked(len(body), PATHS[CHAT]) + body)
        left = f'ipr_requests_total{{path="{PATHS[CHAT]}",status="499",tenant="anybody"}}'
        until(lambda: bounded.counted(before).get(left) == 1, 10 * BODY_S, lambda: str(bounded.counted(before)))
    until(lambda: bounded.metrics()["ipr_in_flight"] == 0)  # it tells how it was a second ago
    assert "Traceback" not in bounded.printed()
    provider.reset()


def test_a_client_that_reads_slowly_gets_everything(bounded: ServerProcess, provider: UpstreamStub) -> None:
    provider.reset()
    sent = 8 * [f"data: {2**20 * 'x'}\n\n"]
    head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
    provider.fail(HELD, "raw", pieces=[head, *sent, "data: [DONE]\n\n"])
    before = bounded.metrics()
    body = json.dumps(body_of(CHAT, stream=True)).encode()
    asking = socket.socket()
    asking.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # else the kernel takes most of it at once
    asking.settimeout(10)
    with asking:
        asking.connect(("127.0.0.1", bounded.port))
        asking.sendall(asked(len(body), PATHS[CHAT]) + body)
        read, begun = 0, time.monotonic()
        while time.monotonic() < begun + 5 * BODY_S:
            read += len(asking.recv(4096))
            time.sleep(0.05)
        while read < sum(map(len, sent)):
            piece = asking.recv(2**20)
            assert piece, read
            read += len(piece)
    assert not any('status="499"' in name for name in bounded.counted(before))
    provider.reset()


@pytest.mark.parametrize(
    "path", ["/v1/chat/completion", "/v2", "/v1/route/", "/..%2f..%2fetc/passwd", "/v1/messages//"]
)
def test_an_unknown_path_is_not_found(bounded: ServerProcess, path: str) -> None:
    reply = bounded.post(path, {})
    assert (reply.status, reply.body["error"]["type"]) == (404, "not_found_error")


def test_a_wrong_method_is_refused(bounded: ServerProcess) -> None:
    assert bounded.get(PATHS[CHAT]).status == 405
    assert bounded.post("/health", {}).status == 405


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", ""])
def test_a_name_that_is_not_this_machines_is_refused(bounded: ServerProcess, host: str) -> None:
    refused = bounded.post(PATHS[CHAT], body_of(CHAT), {"host": host})
    assert refused.status == 403
    assert b"server.hosts" in refused.content


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:9", "[::1]:9"])
def test_names_of_this_machine_are_answered(bounded: ServerProcess, host: str) -> None:
    assert bounded.post(PATHS[CHAT], body_of(CHAT), {"host": host}).status == 200


def test_a_page_of_another_site_is_refused(bounded: ServerProcess) -> None:
    assert bounded.post(PATHS[CHAT], body_of(CHAT), {"sec-fetch-site": "cross-site"}).status == 403
    assert bounded.post(PATHS[CHAT], body_of(CHAT), {"sec-fetch-site": "same-origin"}).status == 200
