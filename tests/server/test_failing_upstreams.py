"""An upstream that fails without a text, refuses a prompt or says nothing at all is told, and passed over, by what is known of it."""

from __future__ import annotations

import json
import time

import pytest

from ipr_engine import Engine, parse_request
from tests.support.server_configs import CALLED, CHAT, EVERY, HASTY, HASTY_S, PATHS, SPEAKERS, TEAM_KEY, body_of
from tests.support.server_process import ServerProcess
from tests.support.upstream_replies import sent
from tests.support.upstream_stub import UpstreamStub

SHORT: dict[str, list[str | float]] = {
    "long": [sent("429", 70_000 * "x", **{"retry-after": "7", "x-ratelimit-limit-requests": "5"})],
    "late": [sent("503", 3 * "x", **{"content-length": "9", "retry-after": "7"}), 1.5],
    "cut": [sent("429", 3 * "x", **{"content-length": "9", "retry-after": "7"})],
    "none": [sent("503", "", **{"retry-after": "7"})],
    "coded": ["HTTP/1.1 429 -\r\nretry-after: 7\r\ncontent-encoding: gzip\r\ntransfer-encoding: gzip\r\n\r\nx"],
}


@pytest.mark.parametrize("case", SHORT)
def test_an_error_whose_text_is_not_passed_on_keeps_its_status_and_when_to_ask_again(
    gateway: ServerProcess, upstream: UpstreamStub, case: str
) -> None:
    upstream.fail(EVERY[0], "raw", pieces=SHORT[case])
    reply = gateway.post(PATHS[CHAT], body_of(CHAT, model=EVERY[0]))
    status = 503 if case in ("late", "none") else 429
    assert (reply.status, reply.headers["retry-after"]) == (status, "7")
    assert reply.headers.get("x-ratelimit-limit-requests") == ("5" if case == "long" else None)
    assert "content-encoding" not in reply.headers
    assert reply.body["error"]["message"] == f"no upstream answered: {EVERY[0]}=status_{status}"


def test_an_answer_of_403_makes_nobody_cool(
    gateway: ServerProcess, upstream: UpstreamStub, default_engine: Engine
) -> None:
    first, second = default_engine.route(parse_request(body_of(CHAT)), tau=0.2, allowed=SPEAKERS[CHAT]).ranked[:2]
    upstream.fail(CALLED.get(first, first), "raw", pieces=[sent("403", "no such prompts")], times=3)
    for _ in range(3):
        reply = gateway.post(PATHS[CHAT], body_of(CHAT))
        assert reply.told["attempts"] == f"{first}=status_403, {second}=ok"
    assert gateway.post(PATHS[CHAT], body_of(CHAT)).told["candidate"] == first


def test_clients_that_give_up_on_a_silent_upstream_make_it_cool(gateway: ServerProcess, upstream: UpstreamStub) -> None:
    upstream.fail(HASTY, "hang")
    for _ in range(30):  # each waits for less than the upstream may take
        connection = gateway.connection()
        body = json.dumps(body_of(CHAT, model="hasty")).encode()
        head = f"POST {PATHS[CHAT]} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TEAM_KEY}\r\n"
        connection.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        time.sleep(0.4 * HASTY_S)
        connection.close()
        if gateway.metrics()[f'ipr_upstream_up{{candidate="{HASTY}"}}'] == 0:
            break
    reply = gateway.post(PATHS[CHAT], body_of(CHAT, model="hasty"))
    assert reply.told["attempts"] == f"{HASTY}=cooling, {EVERY[0]}=ok"
