"""Who sends on though its request was refused reads why: the connection is read, and dropped, for a while before it ends."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.support.server_process import ServerProcess, until

MOST = 16
HEAD_S = 2.0
BODY_BYTES = 65536
SENT = 5_000_000
POST = b"POST /v1/route HTTP/1.1\r\nhost: localhost\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    limits = {"head_s": HEAD_S, "body_s": HEAD_S, "connections": MOST, "body_bytes": BODY_BYTES}
    with ServerProcess(tmp_path_factory.mktemp("lingering"), {"server": {"limits": limits}}) as serving:
        yield serving


def all_of(connection: socket.socket) -> bytes:
    """Return what comes until the connection ends, and that it ends well."""
    seen = b""
    while piece := connection.recv(65536):
        seen += piece
    return seen


LENGTH = b"content-length: %d\r\n" % SENT
REFUSED: dict[str, tuple[bytes, bytes]] = {
    "a head that is too long": (POST + b"x-long: ", b"431"),
    "a body that is too long": (POST + LENGTH + b"\r\n", b"413"),
    "one of a connection that is to end": (POST + LENGTH + b"connection: close\r\n\r\n", b"413"),
    "one of HTTP/1.0": (POST.replace(b"1.1", b"1.0") + LENGTH + b"\r\n", b"413"),
    "a body for an unknown path": (
        POST.replace(b"route", b"rout") + b"connection: close\r\n" + LENGTH + b"\r\n",
        b"404",
    ),
    "what is no request": (b"\x16\x03\x01", b"400"),
    "a wrong chunk": (POST + b"transfer-encoding: chunked\r\n\r\nzz\r\n", b"400"),
    "a tunnel": (b"CONNECT localhost:1 HTTP/1.1\r\nhost: localhost:1\r\n\r\n", b"405"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_who_sends_on_reads_why_it_was_refused(server: ServerProcess, case: str) -> None:
    begun, status = REFUSED[case]
    with server.connection() as connection:
        connection.sendall(begun)
        time.sleep(0.1)
        for _ in range(0, SENT, 50_000):
            connection.sendall(50_000 * b"x")
        assert all_of(connection).startswith(b"HTTP/1.1 " + status)
    assert "Error" not in server.printed()


def test_a_body_that_came_too_late_is_told_so(server: ServerProcess) -> None:
    with server.connection() as connection:
        connection.sendall(POST + LENGTH.replace(b"5000000", b"50000") + b"connection: close\r\n\r\n")
        end = time.monotonic() + 1.5 * HEAD_S
        while time.monotonic() < end:
            connection.sendall(b"x")
            time.sleep(0.05)
        assert all_of(connection).startswith(b"HTTP/1.1 408 ")


def test_a_client_of_too_many_may_have_sent_its_request(server: ServerProcess) -> None:
    with ExitStack() as open_ones:
        for _ in range(MOST):
            one = open_ones.enter_context(server.connection())
            one.sendall(POST + b"expect: 100-continue\r\ncontent-length: 9\r\n\r\n")
            assert one.recv(4096).startswith(b"HTTP/1.1 100 ")  # its body is waited for
        over = [open_ones.enter_context(server.connection()) for _ in range(3)]
        for one in over:
            for _ in range(0, SENT, 50_000):
                one.sendall(50_000 * b"x")
        for one in over:
            assert all_of(one).startswith(b"HTTP/1.1 503 ")


def test_nobody_is_read_for_ever(server: ServerProcess) -> None:
    with server.connection() as connection:
        connection.sendall(b"GARBAGE\r\n\r\n")
        assert all_of(connection).startswith(b"HTTP/1.1 400 ")
        begun = time.monotonic()
        with suppress(ConnectionResetError, BrokenPipeError):
            while time.monotonic() < begun + 10 * HEAD_S:
                connection.sendall(b"x")
                time.sleep(0.05)
    assert HEAD_S / 2 < time.monotonic() - begun < 3 * HEAD_S


def test_nobody_sends_for_ever(server: ServerProcess) -> None:
    sent = 0
    with server.connection() as connection, suppress(ConnectionResetError, BrokenPipeError):
        connection.sendall(b"GARBAGE\r\n\r\n")
        while sent < 1 << 30:
            sent += connection.send((1 << 20) * b"x")
        pytest.fail("it reads on and on")


def test_who_lingers_keeps_nobody_out(server: ServerProcess) -> None:
    with ExitStack() as open_ones:
        for _ in range(3 * MOST):
            connection = open_ones.enter_context(server.connection())
            connection.sendall(b"GARBAGE\r\n\r\n")
            assert all_of(connection).startswith(b"HTTP/1.1 400 ")
        assert server.get("/health").status == 200


@pytest.mark.parametrize("resets", [False, True])
def test_who_leaves_meanwhile_leaves_no_line_in_the_log(server: ServerProcess, resets: bool) -> None:
    for number in range(50):
        with server.connection() as connection:
            connection.sendall(b"GARBAGE\r\n\r\n" + 100_000 * b"x")
            if number % 2:
                time.sleep(0.01)
            if resets:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert server.get("/health").status == 200
    assert "Error" not in server.printed()


def test_who_lingers_does_not_keep_the_server_from_stopping(tmp_path: Path) -> None:
    with ServerProcess(tmp_path, {}) as server, server.connection() as connection:
        connection.sendall(b"GARBAGE\r\n\r\n")
        assert all_of(connection).startswith(b"HTTP/1.1 400 ")
        server.process.terminate()
        assert until(lambda: server.process.poll() == 0, 15.0)
