"""A connection is kept, bounded and read as HTTP/1.1, whatever else its client asks for; a reply leaves in one piece."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.support.http_calls import answered
from tests.support.server_process import ServerProcess, until

MOST = 4
HEAD_S = 1.0
BODY = b'{"prompt": "What is 17 * 23?"}'
HEAD = b"POST /v1/route HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n" % len(BODY)
UPGRADE = b"connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
WRONG_CHUNK = b"POST /v1/route HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"
PLAIN = HEAD + b"\r\n" + BODY
ASKS_UPGRADE = HEAD + UPGRADE + b"\r\n" + BODY


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    config = {"server": {"limits": {"head_s": HEAD_S, "body_s": HEAD_S, "connections": MOST}}}
    with ServerProcess(tmp_path_factory.mktemp("connections"), config) as serving:
        yield serving


def replies(connection: socket.socket, count: int) -> list[bytes]:
    """Return the bodies of so many replies, each of status 200, and that nothing follows them."""
    connection.settimeout(5)
    seen, bodies = b"", []
    while len(bodies) < count:
        head, end, rest = seen.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n") if end else []  # a head that is cut may end within its length
        length = next((int(line[16:]) for line in lines if line.startswith(b"content-length: ")), 0)
        if not end or len(rest) < length:
            piece = connection.recv(65536)
            assert piece, seen
            seen += piece
            continue
        assert head.startswith(b"HTTP/1.1 200 "), head
        bodies.append(rest[:length])
        seen = rest[length:]
    assert seen == b""
    return bodies


@pytest.mark.parametrize("asked", [ASKS_UPGRADE, PLAIN])
def test_a_request_that_asks_for_another_protocol_is_answered_in_this_one(server: ServerProcess, asked: bytes) -> None:
    with server.connection() as connection:
        connection.sendall(asked)
        assert b'"model":' in replies(connection, 1)[0]
        connection.sendall(PLAIN)  # the connection goes on
        assert b'"model":' in replies(connection, 1)[0]


def test_requests_may_come_at_once_and_in_any_pieces(server: ServerProcess) -> None:
    with server.connection() as connection:
        connection.sendall(ASKS_UPGRADE + PLAIN + ASKS_UPGRADE)
        assert len(replies(connection, 3)) == 3
        for at in range(len(ASKS_UPGRADE)):
            connection.sendall(ASKS_UPGRADE[at : at + 1])
        assert len(replies(connection, 1)) == 1


def test_a_chunked_body_of_a_request_that_asks_for_another_protocol_is_read(server: ServerProcess) -> None:
    head = b"POST /v1/route HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n"
    with server.connection() as connection:
        connection.sendall(head + UPGRADE + b"\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY))
        assert b'"model":' in replies(connection, 1)[0]


def test_a_tunnel_is_refused(server: ServerProcess) -> None:
    with server.connection() as connection:
        connection.sendall(b"CONNECT example.com:443 HTTP/1.1\r\nhost: example.com:443\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 405 ")


@pytest.mark.parametrize(
    "sent",
    [
        b"GARBAGE\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + 32 * b"\x00",  # TLS
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/route HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nno length\r\n",
        b"POST /v1/route HTTP/1.1\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/route HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n",
        b"GET /v1/\x00models HTTP/1.1\r\nhost: localhost\r\n\r\n",
    ],
)
def test_what_is_no_request_is_told_so(server: ServerProcess, sent: bytes) -> None:
    with server.connection() as connection:
        connection.sendall(sent)
        assert connection.recv(65536).startswith(b"HTTP/1.1 400 ")
        assert connection.recv(65536) == b""
    assert "Traceback" not in server.printed()


@pytest.mark.parametrize(
    "head", [b"GET /" + 100_000 * b"x" + b" HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\n" + 30_000 * b"a: b\r\n" + b"\r\n"]
)
def test_a_head_that_is_too_long_is_refused_though_it_came_at_once(server: ServerProcess, head: bytes) -> None:
    with server.connection() as connection:
        connection.sendall(head)
        assert connection.recv(65536).startswith(b"HTTP/1.1 431 ")


def test_a_long_body_that_comes_along_with_its_head_is_no_long_head(server: ServerProcess) -> None:
    prompt = b'{"prompt": "' + 100_000 * b"word " + b'"}'
    with server.connection() as connection:
        connection.sendall(HEAD.replace(b"%d" % len(BODY), b"%d" % len(prompt)) + b"\r\n" + prompt)
        assert b'"model":' in replies(connection, 1)[0]


def test_blank_lines_alone_are_given_up(server: ServerProcess) -> None:
    with server.connection() as connection:
        connection.settimeout(10)
        for _ in range(3):
            connection.sendall(b"\r\n")
            time.sleep(HEAD_S / 4)
        assert connection.recv(65536).startswith(b"HTTP/1.1 408 ")


def test_a_head_that_does_not_end_is_given_up_on_a_kept_connection_too(server: ServerProcess) -> None:
    with server.connection() as connection:
        connection.sendall(PLAIN)
        replies(connection, 1)
        connection.sendall(HEAD)
        connection.settimeout(10)
        assert connection.recv(65536).startswith(b"HTTP/1.1 408 ")
        assert connection.recv(65536) == b""


@pytest.mark.parametrize("apart", [True, False])
def test_the_rest_of_a_body_that_was_answered_before_its_end_is_passed_over(server: ServerProcess, apart: bool) -> None:
    long = HEAD.replace(b"%d" % len(BODY), b"%d" % 500_000).replace(b"localhost", b"elsewhere.example")
    with server.connection() as connection:
        connection.sendall(long + b"\r\n")
        assert b" 403 " in connection.recv(65536)
        connection.sendall(500_000 * b"x")
        if apart:
            time.sleep(HEAD_S / 4)
        connection.sendall(PLAIN)
        assert b'"model":' in replies(connection, 1)[0]
        connection.sendall(long + b"\r\n")
        assert b" 403 " in connection.recv(65536)
        connection.settimeout(10)
        assert connection.recv(65536) == b""  # the rest does not come


def test_an_idle_connection_is_kept_longer_than_a_head_may_take(server: ServerProcess) -> None:
    with server.connection() as connection:
        connection.sendall(PLAIN)
        replies(connection, 1)
        time.sleep(1.5 * HEAD_S)
        connection.sendall(PLAIN)
        replies(connection, 1)


def test_a_reply_leaves_in_one_piece(server: ServerProcess) -> None:
    with server.connection() as connection:
        for _ in range(32):
            connection.sendall(PLAIN)
            piece = connection.recv(65536)
            assert piece.startswith(b"HTTP/1.1 200 ")
            assert piece.endswith(b"}")


def test_one_connection_too_many_is_refused(server: ServerProcess) -> None:
    with ExitStack() as open_ones:
        for _ in range(MOST):  # their bodies have not come
            open_ones.enter_context(server.connection()).sendall(HEAD + b"\r\n")

        def refused() -> bool:
            with server.connection() as over:
                over.settimeout(5)
                return over.recv(65536).startswith(b"HTTP/1.1 503 ")

        assert until(refused)
    assert until(lambda: server.get("/health").status == 200)


def test_connections_that_say_nothing_keep_nobody_out(server: ServerProcess) -> None:
    with ExitStack() as open_ones:
        silent = [open_ones.enter_context(server.connection()) for _ in range(MOST)]
        assert server.get("/health").status == 200
        silent[0].settimeout(5)
        assert silent[0].recv(65536) == b""


def test_who_reads_nothing_is_read_no_further(server: ServerProcess) -> None:
    before = server.metrics()
    page = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"
    with server.connection() as connection:
        connection.sendall(1000 * page)
        time.sleep(HEAD_S / 2)  # who reads nothing for body_s is cut off
        answered = server.counted(before).get('ipr_requests_total{path="/",status="200",tenant=""}', 0.0)
        assert answered < 500  # of some 35 kB each: what is in the buffers of both sides
        assert len(replies(connection, 1000)) == 1000  # and now it reads


@pytest.mark.parametrize("behind", [b"GARBAGE\r\n\r\n", b"x", PLAIN + b"\x00\x01", WRONG_CHUNK])
def test_what_is_wrong_behind_a_request_does_not_eat_its_reply(server: ServerProcess, behind: bytes) -> None:
    with server.connection() as connection:
        connection.sendall(PLAIN + behind)
        connection.settimeout(5)
        seen = b""
        while piece := connection.recv(65536):
            seen += piece
    assert seen.count(b"HTTP/1.1 200 ") == 1 + behind.count(PLAIN)
    assert b" 400 " not in seen


def test_trailers_are_no_headers(server: ServerProcess) -> None:
    chunked = b"POST /v1/route HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n"
    with server.connection() as connection:
        connection.sendall(chunked % (len(BODY), BODY) + b"origin: http://evil.example\r\nx-ipr-tau: 77\r\n\r\n")
        assert b'"model":' in replies(connection, 1)[0]


def test_a_trailer_without_an_end_is_given_up(server: ServerProcess) -> None:
    head = b"POST /v1/route HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n0\r\na: "
    with server.connection() as connection:
        connection.sendall(head)
        with suppress(OSError):  # the server may close before all is sent
            for _ in range(200):
                connection.sendall(10_000 * b"x")
        told = answered(connection)
    assert told == b"" or b" 431 " in told.split(b"\r\n")[0]


@pytest.mark.parametrize("reads", [False, True])
def test_who_asks_on_and_on_has_few_requests_waiting(server: ServerProcess, reads: bool) -> None:
    before, asked = resident(server), 200 * b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"
    end = time.monotonic() + 3
    with server.connection() as connection, suppress(ConnectionError):  # who reads nothing for body_s is cut off
        connection.setblocking(False)
        while time.monotonic() < end:
            with suppress(BlockingIOError):
                connection.send(asked)
            if reads:
                with suppress(BlockingIOError):
                    connection.recv(1 << 20)
    assert resident(server) - before < 64 << 20  # 400 MiB where all that comes is parsed


def test_a_client_that_resets_behind_several_requests_leaves_no_line_in_the_log(server: ServerProcess) -> None:
    for _ in range(5):
        with server.connection() as connection:
            connection.sendall(50 * PLAIN)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert server.get("/health").status == 200
    assert until(lambda: server.metrics()["ipr_in_flight"] == 0)
    assert "Error" not in server.printed()
    assert "ASGI" not in server.printed()


def resident(server: ServerProcess) -> int:
    """Return the bytes of the server that are in memory."""
    return int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]) * 4096


def test_an_early_refusal_comes_before_nothing_else(server: ServerProcess) -> None:
    head = b"POST /v1/route HTTP/1.1\r\nhost: elsewhere.example\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n"
    with server.connection() as connection:
        connection.sendall(head)
        connection.settimeout(2 * HEAD_S + 1)
        seen = b""
        while piece := connection.recv(65536):
            seen += piece
    assert seen.startswith(b"HTTP/1.1 403 ")
    assert b"100 Continue" not in seen


def test_many_requests_that_ask_for_another_protocol_come_at_once(server: ServerProcess) -> None:
    with server.connection() as connection:
        asked = b"GET /health HTTP/1.1\r\nhost: localhost\r\n" + UPGRADE + b"\r\n"
        connection.sendall(700 * asked)
        assert len(replies(connection, 700)) == 700


@pytest.mark.parametrize(
    ("head", "closes"),
    [
        (b"GET /health HTTP/1.0\r\n", True),
        (b"GET /health HTTP/1.0\r\nupgrade: h2c\r\nconnection: upgrade\r\n", True),
        (b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n", True),
        (b"GET /health HTTP/1.1\r\nhost: localhost\r\n", False),
    ],
)
def test_a_connection_is_closed_where_it_is_to_be(server: ServerProcess, head: bytes, closes: bool) -> None:
    with server.connection() as connection:
        connection.sendall(head + b"\r\n")
        replies(connection, 1)
        connection.settimeout(1)
        if closes:
            assert connection.recv(65536) == b""
        else:
            with pytest.raises(TimeoutError):
                connection.recv(65536)


def test_a_request_for_the_head_alone_gets_it_alone(server: ServerProcess) -> None:
    with server.connection() as connection:
        connection.sendall(b"HEAD /health HTTP/1.1\r\nhost: localhost\r\n\r\n" + PLAIN)
        connection.settimeout(5)
        seen = b""
        while not seen.endswith(b"}"):
            seen += connection.recv(65536)
    assert seen.partition(b"\r\n\r\n")[2].startswith(b"HTTP/1.1 200 ")


def test_the_connection_that_was_idle_for_longest_makes_room(server: ServerProcess) -> None:
    with ExitStack() as open_ones:
        kept = []
        for _ in range(MOST):
            connection = open_ones.enter_context(server.connection())
            connection.sendall(PLAIN)
            replies(connection, 1)
            kept.append(connection)
        assert server.get("/health").status == 200
        kept[0].settimeout(5)
        assert kept[0].recv(65536) == b""
        kept[-1].sendall(PLAIN)
        replies(kept[-1], 1)
