"""A stream passes byte for byte, as it comes; one that breaks ends with an error event, and nothing is asked again."""

from __future__ import annotations

import http.client
import json
import urllib.request
from typing import Any

import pytest

from ipr_engine.server.whole_events import MOST_HELD
from tests.support.http_calls import events
from tests.support.server_configs import CALLED, CHAT, EVERY, HASTY, MESSAGES, PATHS, RESPONSES, body_of
from tests.support.server_process import ServerProcess, until
from tests.support.upstream_stub import UpstreamStub

FORMS = (CHAT, RESPONSES, MESSAGES)
NAME = EVERY[0]


def straight(upstream: UpstreamStub, form: str, body: dict[str, Any], served: str) -> bytes:
    """Return what the provider itself answers."""
    content = json.dumps({**body, "model": served}).encode()
    request = urllib.request.Request(upstream.url + PATHS[form], content, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_an_answer_passes_byte_for_byte(
    gateway: ServerProcess, upstream: UpstreamStub, form: str, stream: bool
) -> None:
    body = body_of(form, stream=stream)
    reply = gateway.post(PATHS[form], body)
    candidate = reply.told["candidate"]
    assert reply.content == straight(upstream, form, body, CALLED.get(candidate, candidate))
    assert reply.headers["content-type"] == ("text/event-stream" if stream else "application/json")


@pytest.mark.parametrize("form", FORMS)
def test_a_piece_is_not_held_back(gateway: ServerProcess, upstream: UpstreamStub, form: str) -> None:
    whole = straight(upstream, form, body_of(form, stream=True), NAME)
    upstream.reset()
    upstream.fail(NAME, "pace", seconds=0.1)
    with gateway.streamed(PATHS[form], body_of(form, model=NAME, stream=True)) as answer:
        first = answer.read1()
        assert [one["_ended"] for one in upstream.seen()] == [None]  # the rest is not there yet
        rest = answer.read()
    assert first.endswith(b"\n\n")
    assert first + rest == whole


@pytest.mark.parametrize("form", FORMS)
def test_a_stream_that_breaks_ends_with_an_error_event(
    gateway: ServerProcess, upstream: UpstreamStub, form: str
) -> None:
    whole = straight(upstream, form, body_of(form, stream=True), NAME)
    upstream.reset()
    upstream.fail(NAME, "cut")
    before = gateway.metrics()
    reply = gateway.post(PATHS[form], body_of(form, model=NAME, stream=True))
    assert reply.status == 200
    assert len(upstream.seen()) == 1  # nothing is asked again
    passed, between, error = reply.content.rpartition(b"data: " if form == CHAT else b"event: error\n")
    assert whole.startswith(passed)
    assert passed.endswith(b"\n\n")
    error = between + error
    (told,) = events(error)
    message = told["error"]["message"] if form != RESPONSES else told["message"]
    assert NAME in message
    assert told.get("type") == (None if form == CHAT else "error")
    counted = gateway.counted(before)
    assert counted[f'ipr_streams_cut_total{{candidate="{NAME}",tenant="team"}}'] == 1
    assert counted[f'ipr_upstream_attempts_total{{candidate="{NAME}",outcome="cut"}}'] == 1


def test_a_stream_that_stalls_ends_with_an_error_event(gateway: ServerProcess, upstream: UpstreamStub) -> None:
    upstream.fail(HASTY, "stall")
    reply = gateway.post(PATHS[CHAT], body_of(CHAT, model=HASTY, stream=True))
    assert HASTY in events(reply.content)[-1]["error"]["message"]
    assert not reply.content.endswith(b"data: [DONE]\n\n")


def test_a_long_answer_is_passed_on_as_it_comes(gateway: ServerProcess, upstream: UpstreamStub) -> None:
    upstream.fail(NAME, "pad", size=3 << 20)  # the server keeps one of 1 MiB
    reply = gateway.post(PATHS[CHAT], body_of(CHAT, model=NAME))
    assert (reply.status, len(reply.body["padding"])) == (200, 3 << 20)
    assert reply.told["candidate"] == NAME


@pytest.mark.parametrize("form", FORMS)
def test_a_client_that_leaves_cancels_upstream(gateway: ServerProcess, upstream: UpstreamStub, form: str) -> None:
    upstream.fail(NAME, "pace", seconds=0.8)
    sample = f'ipr_requests_total{{path="{PATHS[form]}",status="499",tenant="team"}}'
    before = gateway.metrics().get(sample, 0)
    with gateway.streamed(PATHS[form], body_of(form, model=NAME, stream=True)) as answer:
        assert answer.read1()
    until(lambda: [one["_ended"] for one in upstream.seen()] == ["left"])
    until(lambda: gateway.metrics()[sample] == before + 1)


@pytest.mark.parametrize("length", [10, 70_000, 300_000, 1_000_000])
def test_a_client_that_leaves_before_the_first_byte_cancels_upstream(
    gateway: ServerProcess, upstream: UpstreamStub, length: int
) -> None:
    upstream.fail(NAME, "hang", seconds=5)
    before = gateway.metrics()
    content = json.dumps(body_of(CHAT, length // 5 * "word ", model=NAME)).encode()
    with gateway.connection() as connection:
        head = (
            f"POST {PATHS[CHAT]} HTTP/1.1\r\nhost: localhost\r\nauthorization: {gateway.headers['authorization']}\r\n"
        )
        connection.sendall(f"{head}content-length: {len(content)}\r\n\r\n".encode() + content)
        until(lambda: upstream.seen())
    until(lambda: upstream.seen()[0]["_ended"] == "left")
    counted = until(lambda: {name: grown for name, grown in gateway.counted(before).items() if "499" in name})
    assert list(counted.values()) == [1]
    left = f'ipr_upstream_attempts_total{{candidate="{NAME}",outcome="left"}}'
    assert gateway.counted(before)[left] == 1


def test_a_client_that_leaves_at_the_last_event_has_its_answer(gateway: ServerProcess, upstream: UpstreamStub) -> None:
    """As the openai package does."""
    told = ['data: {"choices": []}\n\n', "data: [DONE]\n\n"]
    chunks = [f"{len(event):x}\r\n{event}\r\n" for event in told]
    head = "HTTP/1.1 200 -\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    upstream.fail(NAME, "raw", pieces=[head, *chunks, 3.0, "0\r\n\r\n"])
    before = gateway.metrics()
    with gateway.streamed(PATHS[CHAT], body_of(CHAT, model=NAME, stream=True)) as answer:
        seen = b""
        while b"[DONE]" not in seen:
            seen += answer.read1()
    replies = f'ipr_requests_total{{path="{PATHS[CHAT]}",status="200",tenant="team"}}'
    counted = until(lambda: (found := gateway.counted(before)).get(replies) and found)
    assert counted[f'ipr_upstream_attempts_total{{candidate="{NAME}",outcome="ok"}}'] == 1
    assert not [name for name in counted if "499" in name or "left" in name or "cut" in name]


def test_each_attempt_has_one_outcome(gateway: ServerProcess, upstream: UpstreamStub) -> None:
    for how in ("cut", "stall"):
        before = gateway.metrics()
        upstream.fail(HASTY, how)
        gateway.post(PATHS[CHAT], body_of(CHAT, model=HASTY, stream=True))
        counted = gateway.counted(before)
        tried = {name: value for name, value in counted.items() if name.startswith("ipr_upstream_attempts_total")}
        assert tried == {f'ipr_upstream_attempts_total{{candidate="{HASTY}",outcome="cut"}}': 1}


CHUNKED = "HTTP/1.1 200 -\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(text: str) -> str:
    return f"{len(text):x}\r\n{text}\r\n"


@pytest.mark.parametrize("form", FORMS)
def test_half_an_event_is_not_passed_on(gateway: ServerProcess, upstream: UpstreamStub, form: str) -> None:
    whole = straight(upstream, form, body_of(form, stream=True), NAME).decode()
    first = whole[: whole.index("\n\n") + 2]
    upstream.fail(NAME, "raw", pieces=[CHUNKED, chunk(first), 0.05, chunk(whole[len(first) : len(first) + 30])])
    reply = gateway.post(PATHS[form], body_of(form, model=NAME, stream=True)).content.decode()
    assert reply.startswith(first)
    assert reply[len(first) :].startswith("event: error\n" if form != CHAT else 'data: {"error"')
    assert len(events(reply.encode())) == 2


def test_a_comment_is_not_held_back(gateway: ServerProcess, upstream: UpstreamStub) -> None:
    upstream.fail(NAME, "raw", pieces=[CHUNKED, chunk(": thinking\n"), 3.0, chunk("data: [DONE]\n\n"), "0\r\n\r\n"])
    with gateway.streamed(PATHS[CHAT], body_of(CHAT, model=NAME, stream=True)) as answer:
        assert answer.read1() == b": thinking\n"
        assert [one["_ended"] for one in upstream.seen()] == [None]
        assert answer.read() == b"data: [DONE]\n\n"


def test_what_breaks_off_inside_an_event_too_long_to_hold_ends_with_its_connection(
    gateway: ServerProcess, upstream: UpstreamStub
) -> None:
    half = "data: " + MOST_HELD * "x"
    upstream.fail(NAME, "raw", pieces=[CHUNKED, chunk("data: {}\n\n"), 0.05, chunk(half)])
    before = gateway.metrics()
    asked = gateway.streamed(PATHS[CHAT], body_of(CHAT, model=NAME, stream=True))
    with asked as answer, pytest.raises(http.client.IncompleteRead) as caught:
        answer.read()
    assert b"error" not in caught.value.partial
    assert gateway.counted(before)[f'ipr_streams_cut_total{{candidate="{NAME}",tenant="team"}}'] == 1
