"""A client's leaving ends what is asked for it, also where it is not read because a request of its waits; half of it gone is gone."""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

import pytest

from tests.support.server_configs import CHAT, EVERY, PATHS, TEAM_KEY, body_of
from tests.support.server_process import ServerProcess, until
from tests.support.upstream_stub import UpstreamStub

NAME = EVERY[0]
HEALTH = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"


def asked(body: dict[str, Any]) -> bytes:
    content = json.dumps(body).encode()
    head = f"POST {PATHS[CHAT]} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TEAM_KEY}\r\n"
    return f"{head}content-length: {len(content)}\r\n\r\n".encode() + content


LONG = asked(body_of(CHAT, prompt=200_000 * "x"))


def waits(upstream: UpstreamStub) -> bool:
    return [one["_ended"] for one in upstream.seen()] == [None]


def has_left(upstream: UpstreamStub) -> bool:
    return [one["_ended"] for one in upstream.seen()] == ["left"]


BEHIND = {
    "nothing": b"",
    "a request": HEALTH,
    "a request and a part": HEALTH + HEALTH[:20],
    "a long one": LONG,
    "a part": LONG[:100_000],
}


@pytest.mark.parametrize(
    ("how", "resets", "at_once"), [("hang", False, True), ("hang", True, False), ("stall", False, False)]
)
@pytest.mark.parametrize("case", BEHIND)
def test_a_client_that_leaves_is_noticed_whatever_it_had_sent(
    gateway: ServerProcess, upstream: UpstreamStub, case: str, how: str, resets: bool, at_once: bool
) -> None:
    behind = BEHIND[case]
    upstream.fail(NAME, how, seconds=20)
    begun = asked(body_of(CHAT, model=NAME, stream=how == "stall"))
    with gateway.connection() as connection:
        connection.sendall(begun + behind if at_once else begun)
        until(lambda: waits(upstream))
        if not at_once:
            connection.sendall(behind)
        if resets:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    until(lambda: has_left(upstream), 5.0)
    until(lambda: gateway.metrics()["ipr_in_flight"] == 0)
    assert "Error" not in gateway.printed()


def test_who_stays_gets_every_reply(gateway: ServerProcess, upstream: UpstreamStub) -> None:
    upstream.fail(NAME, "pace", seconds=3)
    with gateway.connection() as connection:
        connection.sendall(asked(body_of(CHAT, model=NAME)) + LONG + HEALTH)
        seen = b""
        while not seen.endswith(b'{"status":"ok"}'):
            piece = connection.recv(65536)
            assert piece, seen
            seen += piece
    assert seen.count(b"HTTP/1.1 200 ") == 3


@pytest.mark.parametrize("behind", [b"", HEALTH])
def test_a_client_that_will_send_nothing_more_has_left(
    gateway: ServerProcess, upstream: UpstreamStub, behind: bytes
) -> None:
    upstream.fail(NAME, "hang", seconds=20)
    with gateway.connection() as connection:
        connection.sendall(asked(body_of(CHAT, model=NAME)) + behind)
        until(lambda: waits(upstream))
        connection.shutdown(socket.SHUT_WR)
        until(lambda: has_left(upstream), 5.0)
        connection.settimeout(5)
        try:
            assert connection.recv(65536) == b""
        except ConnectionResetError:
            assert behind  # what it had sent was not read
