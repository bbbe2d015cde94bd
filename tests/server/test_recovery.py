"""A candidate that failed comes back as soon as it answers anew, and not before."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from ipr_engine import Engine, parse_request
from tests.support.server_configs import CALLED, CHAT, PATHS, SPEAKERS, body_of
from tests.support.server_process import ServerProcess, until
from tests.support.upstream_stub import UpstreamStub

ANSWER = '{"choices": [{"message": {"role": "assistant", "content": "Four."}}]}'
CHUNKS = ('data: {"choices": [{"delta": {"content": "Four."}, "finish_reason": null}]}\n\n', "data: [DONE]\n\n")


@pytest.fixture
def first(default_engine: Engine) -> str:
    """The candidate that is chosen."""
    name = default_engine.route(parse_request(body_of(CHAT)), tau=0.2, allowed=SPEAKERS[CHAT]).model
    assert name not in CALLED
    return name


def asked(gateway: ServerProcess, *, stream: bool = False) -> dict[str, str]:
    reply = gateway.post(PATHS[CHAT], body_of(CHAT, stream=stream))
    assert reply.status == 200
    return reply.told


def state(gateway: ServerProcess, name: str) -> float:
    found: float = gateway.get("/ready").body["upstreams"][name]
    return found


def slow(stream: bool) -> list[str | float]:
    """Return an answer whose beginning comes at once and whose rest takes a while, less than a test's cool-down lasts."""
    kind, parts = ("text/event-stream", CHUNKS) if stream else ("application/json", (ANSWER[:9], ANSWER[9:]))
    head = f"HTTP/1.1 200 -\r\ncontent-type: {kind}\r\ncontent-length: {sum(map(len, parts))}\r\n\r\n"
    return [head + parts[0], 1.2, parts[1]]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_the_end_of_an_older_answer_does_not_end_a_cool_down(
    gateway: ServerProcess, upstream: UpstreamStub, first: str, stream: bool
) -> None:
    upstream.fail(first, "raw", pieces=slow(stream), times=1)
    with ThreadPoolExecutor(1) as pool:
        older = pool.submit(asked, gateway, stream=stream)
        until(lambda: upstream.seen())
        upstream.fail(first, "status", status=429, headers={"retry-after": "60"}, times=1)
        assert asked(gateway)["attempts"].startswith(f"{first}=status_429, ")
        assert older.result()["candidate"] == first
    assert state(gateway, first) == 0
    assert asked(gateway)["attempts"].startswith(f"{first}=cooling, ")
    assert len([one for one in upstream.seen() if one["model"] == first]) == 2


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_it_is_asked_again_once_the_answer_to_a_probe_begins(
    gateway: ServerProcess, upstream: UpstreamStub, first: str, stream: bool
) -> None:
    upstream.fail(first, "status", status=503, times=2)
    for _ in range(2):
        asked(gateway)
    until(lambda: state(gateway, first) == 0.5)
    upstream.fail(first, "raw", pieces=slow(stream), times=1)
    with ThreadPoolExecutor(1) as pool:
        probe = pool.submit(asked, gateway, stream=stream)
        until(lambda: state(gateway, first) == 1)
        assert asked(gateway)["candidate"] == first
        assert not probe.done()
        assert probe.result()["candidate"] == first


def test_who_asks_for_no_time_is_asked_again_at_once(
    gateway: ServerProcess, upstream: UpstreamStub, first: str
) -> None:
    upstream.fail(first, "status", status=429, headers={"retry-after": "0"}, times=1)
    assert asked(gateway)["attempts"].startswith(f"{first}=status_429, ")
    assert state(gateway, first) == 1
    assert asked(gateway)["candidate"] == first
