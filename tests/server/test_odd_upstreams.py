"""What an upstream sends in place of an answer is followed by the next candidate or passed on, counted as it was, and ends no worker."""

from __future__ import annotations

import time
from http.client import IncompleteRead
from typing import Any

import pytest

from ipr_engine import Engine, parse_request
from tests.support import upstream_replies
from tests.support.http_calls import events
from tests.support.server_configs import (
    CALLED,
    CHAT,
    EVERY,
    MESSAGES,
    PATHS,
    RESPONSES,
    SPEAKERS,
    body_of,
)
from tests.support.server_process import ServerProcess, until
from tests.support.upstream_replies import sent
from tests.support.upstream_stub import UpstreamStub

ELSEWHERE = "http://127.0.0.1:9/elsewhere"
OF_THE_KEY = "the key ends in 07"


CLOSED = "HTTP/1.1 200 -\r\ncontent-type: {}\r\n\r\n"
"""The head of a reply that says neither its length nor where it ends: the end of the connection is its end."""
ODD: dict[str, tuple[list[str | float], str]] = {
    "a redirect": ([sent("302", location=ELSEWHERE)], "status_302"),
    "a permanent redirect": ([sent("308", location=ELSEWHERE)], "status_308"),
    "a wrong key": ([sent("401", OF_THE_KEY)], "status_401"),
    "an answer without a byte": ([sent("200", "")], "broken"),
    "no content": (["HTTP/1.1 204 -\r\n\r\n"], "broken"),
    "events, and none of them": ([sent("200", "", **{"content-type": "text/event-stream"})], "broken"),
    "a status below all": ([sent("099")], "broken"),
    "an answer that is to come": ([sent("199")], "broken"),
    "a status above all": ([sent("999")], "broken"),
    "a status just above all": ([sent("600")], "broken"),
    "a status of letters": ([sent("abc")], "broken"),
    "no HTTP": (["220 ready\r\n"], "broken"),
    "half a head": (["HTTP/1.1 200 -\r\ncontent-le"], "broken"),
    "a head without an end": (["HTTP/1.1 200 -\r\nx-long: " + 70_000 * "x"], "broken"),
    "less than is stated": (["HTTP/1.1 200 -\r\ncontent-length: 100\r\n\r\n{}"], "broken"),
    "half an answer that ends with its connection": ([CLOSED.format("application/json") + '{"choices": [{'], "broken"),
    "a client that left, it says": ([sent("499")], "status_499"),
    "compressed chunks": (["HTTP/1.1 200 -\r\ntransfer-encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"], "broken"),
    "a coding without chunks": (["HTTP/1.1 200 -\r\ntransfer-encoding: gzip\r\n\r\n{}"], "broken"),
    "a wrong chunk": (["HTTP/1.1 200 -\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"], "broken"),
}
FAULTS_OF_THE_REQUEST = ("400", "404", "413", "422")


def ranked(engine: Engine) -> list[str]:
    return list(engine.route(parse_request(body_of(CHAT)), tau=0.2, allowed=SPEAKERS[CHAT]).ranked)


def of(counted: dict[str, float], name: str, **labels: str) -> list[float]:
    """Return the samples of this name that have these labels."""
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    return [value for sample, value in counted.items() if sample.startswith(name) and all(w in sample for w in wanted)]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("case", ODD)
def test_the_next_one_answers(
    gateway: ServerProcess, upstream: UpstreamStub, default_engine: Engine, case: str, stream: bool
) -> None:
    pieces, outcome = ODD[case]
    first, second = ranked(default_engine)[:2]
    upstream.fail(CALLED.get(first, first), "raw", pieces=pieces)
    workers, before = gateway.workers(), gateway.metrics()
    reply = gateway.post(PATHS[CHAT], body_of(CHAT, stream=stream))
    assert (reply.status, reply.told["candidate"], reply.told["cause"]) == (200, second, "fallback")
    assert reply.told["attempts"] == f"{first}={outcome}, {second}=ok"
    assert ELSEWHERE not in str(reply.headers)
    counted = gateway.counted(before)
    assert of(counted, "ipr_upstream_attempts_total", candidate=first, outcome=outcome) == [1]
    assert of(counted, "ipr_served_total") == of(counted, "ipr_served_total", candidate=second, cause="fallback") == [1]
    assert of(counted, "ipr_cost_usd_total") == of(counted, "ipr_cost_usd_total", candidate=second)
    assert gateway.workers() == workers


@pytest.mark.parametrize("case", ODD)
def test_where_nobody_else_may_answer_it_is_a_bad_gateway(
    gateway: ServerProcess, upstream: UpstreamStub, case: str
) -> None:
    pieces, outcome = ODD[case]
    upstream.fail(EVERY[0], "raw", pieces=pieces)
    before = gateway.metrics()
    reply = gateway.post(PATHS[CHAT], body_of(CHAT, model=EVERY[0]))
    assert (reply.status, reply.told["attempts"]) == (502, f"{EVERY[0]}={outcome}")
    assert not any(secret in f"{reply.content!r}{reply.headers}" for secret in (OF_THE_KEY, ELSEWHERE))
    counted = gateway.counted(before)
    assert of(counted, "ipr_served_total") == of(counted, "ipr_cost_usd_total") == []
    assert of(counted, "ipr_requests_total", status="502") == [1]


@pytest.mark.parametrize("status", FAULTS_OF_THE_REQUEST)
def test_a_fault_of_the_request_comes_as_it_is_and_costs_nothing(
    gateway: ServerProcess, upstream: UpstreamStub, default_engine: Engine, status: str
) -> None:
    first = ranked(default_engine)[0]
    said = '{"error": {"message": "the tools are malformed", "of": "the upstream"}}'
    upstream.fail(CALLED.get(first, first), "raw", pieces=[sent(status, said, **{"x-request-id": "7"})])
    before, routed = gateway.metrics(), gateway.get("/ipr/overview").body["totals"]["routed"]
    for _ in range(3):  # it is no failure of the upstream either: nobody is passed over
        reply = gateway.post(PATHS[CHAT], body_of(CHAT))
        assert (reply.status, reply.content.decode(), reply.told["candidate"]) == (int(status), said, first)
        assert reply.headers["x-request-id"] == "7"
    assert len(upstream.seen()) == 3
    counted = gateway.counted(before)
    assert of(counted, "ipr_upstream_attempts_total") == [3]
    assert of(counted, "ipr_upstream_attempts_total", candidate=first, outcome=f"status_{status}") == [3]
    assert of(counted, "ipr_requests_total", status=status) == [3]
    assert of(counted, "ipr_served_total") == of(counted, "ipr_cost_usd_total") == of(counted, "ipr_saved_usd") == []
    page = gateway.get("/ipr/overview").body
    assert (page["recent"]["decisions"][-1]["served"], page["totals"]["routed"]) == (first, routed)


@pytest.mark.parametrize("value", ["a\x01b", "a\x7fb", "a\xffb", "a\tb"])
def test_a_header_that_no_server_may_send_is_left_out(
    gateway: ServerProcess, upstream: UpstreamStub, value: str
) -> None:
    said = '{"id": "1"}'
    upstream.fail(EVERY[0], "raw", pieces=[sent("200", said, **{"x-request-id": value, "cf-ray": "7"})])
    workers = gateway.workers()
    reply = gateway.post(PATHS[CHAT], body_of(CHAT, model=EVERY[0]))
    assert (reply.status, reply.content.decode(), reply.headers["cf-ray"]) == (200, said, "7")
    assert "x-request-id" not in reply.headers
    assert gateway.workers() == workers


@pytest.mark.parametrize("status", ["422", "503"])
def test_an_error_in_two_segments_comes_whole(gateway: ServerProcess, upstream: UpstreamStub, status: str) -> None:
    said = '{"error": {"message": "' + 3000 * "long " + '"}}'
    whole = sent(status, said)
    pieces = [whole[:-9000], 0.15, whole[-9000:]]
    upstream.fail(EVERY[0], "raw", pieces=pieces)
    reply = gateway.post(PATHS[CHAT], body_of(CHAT, model=EVERY[0]))
    assert (reply.status, reply.content.decode()) == (int(status), said)


def test_an_error_whose_text_does_not_come_is_that_error(
    gateway: ServerProcess, upstream: UpstreamStub, default_engine: Engine
) -> None:
    first, second = ranked(default_engine)[:2]
    upstream.fail(CALLED.get(first, first), "raw", pieces=["HTTP/1.1 503 -\r\ncontent-length: 100\r\n\r\n{", 30.0])
    begun = time.monotonic()
    reply = gateway.post(PATHS[CHAT], body_of(CHAT))
    assert (reply.status, reply.told["attempts"]) == (200, f"{first}=status_503, {second}=ok")
    assert time.monotonic() - begun < 10
    until(lambda: upstream.seen()[0]["_ended"] == "left")


def test_who_is_cut_twice_is_passed_over(
    gateway: ServerProcess, upstream: UpstreamStub, default_engine: Engine
) -> None:
    first, second = ranked(default_engine)[:2]
    upstream.fail(CALLED.get(first, first), "cut")
    asked: Any = body_of(CHAT, stream=True)
    for _ in range(2):
        reply = gateway.post(PATHS[CHAT], asked)
        assert (reply.told["candidate"], "error" in events(reply.content)[-1]) == (first, True)
    reply = gateway.post(PATHS[CHAT], asked)
    assert reply.told["attempts"] == f"{first}=cooling, {second}=ok"
    assert reply.content.endswith(b"data: [DONE]\n\n")
    up = f'ipr_upstream_up{{candidate="{first}"}}'
    assert gateway.metrics()[up] == 0
    until(lambda: gateway.metrics()[up] == 0.5)  # time alone brings it there


def test_a_stream_that_ends_well_forgets_the_one_that_was_cut(
    gateway: ServerProcess, upstream: UpstreamStub, default_engine: Engine
) -> None:
    first = ranked(default_engine)[0]
    for _ in range(2):
        upstream.fail(CALLED.get(first, first), "cut", times=1)
        for _ in range(2):
            assert gateway.post(PATHS[CHAT], body_of(CHAT, stream=True)).told["candidate"] == first
    assert gateway.metrics()[f'ipr_upstream_up{{candidate="{first}"}}'] == 1


EVENTS = "text/event-stream"
CHUNK = 'data: {"choices": [{"delta": {"content": "Four."}, "finish_reason": null}]}\n\n'
GOOD: dict[str, tuple[str, str]] = {
    "no [DONE], and a reason why it finished": (CHAT, CHUNK + CHUNK.replace("null", '"stop"')),
    "[DONE] alone": (CHAT, CHUNK + "data: [DONE]\n\n"),
    "[DONE] without a blank line": (CHAT, CHUNK + "data:[DONE]"),
    "an error of its own": (CHAT, CHUNK + 'data: {"error": {"message": "no room left"}}\n\n'),
    "an error event of Messages": (
        MESSAGES,
        'event: error\ndata: {"type": "error", "error": {"type": "overloaded_error"}}\n\n',
    ),
    "an incomplete response": (RESPONSES, 'event: response.incomplete\ndata: {"type":"response.incomplete"}\n\n'),
    "a last event longer than what is kept": (
        RESPONSES,
        'data: {"type":"response.completed","text":"' + 200_000 * "x" + '"}\n\n',
    ),
    "a last event that passes in parts": (
        RESPONSES,
        'data: {"type":"response.completed","text":"' + 2_000_000 * "x" + '"}\n\n',
    ),
}


def streamed(form: str) -> list[str]:
    """Return the events of a whole stream."""
    found = upstream_replies.events(PATHS[form], body_of(form, model=EVERY[0], stream=True))
    return [event.decode() for event in found]


def closed(form: str, gateway: ServerProcess, upstream: UpstreamStub, said: str, **headers: str) -> bytes:
    """Return what becomes of a stream that ends with its connection, its pieces apart."""
    head = CLOSED.format(EVENTS)[:-2] + "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n"
    pieces = [head + said[: len(said) // 2], 0.05, said[len(said) // 2 :]]
    upstream.fail(EVERY[0], "raw", pieces=pieces)
    return gateway.post(PATHS[form], body_of(form, model=EVERY[0], stream=True)).content


@pytest.mark.parametrize("form", PATHS)
def test_a_stream_that_ends_with_its_connection_is_whole_where_its_events_say_so(
    gateway: ServerProcess, upstream: UpstreamStub, form: str
) -> None:
    said, before = "".join(streamed(form)), gateway.metrics()
    assert closed(form, gateway, upstream, said) == said.encode()
    assert of(gateway.counted(before), "ipr_streams_cut_total") == []


@pytest.mark.parametrize("case", GOOD)
def test_a_stream_is_not_cut_where_it_may_be_whole(gateway: ServerProcess, upstream: UpstreamStub, case: str) -> None:
    form, said = GOOD[case]
    before = gateway.metrics()
    assert closed(form, gateway, upstream, said) == said.encode()
    assert of(gateway.counted(before), "ipr_streams_cut_total") == []


@pytest.mark.parametrize("kept", [1, 2])
@pytest.mark.parametrize("form", PATHS)
def test_a_stream_that_ends_with_its_connection_before_its_last_event_is_cut(
    gateway: ServerProcess, upstream: UpstreamStub, form: str, kept: int
) -> None:
    said, before = "".join(streamed(form)[:kept]), gateway.metrics()
    reply = closed(form, gateway, upstream, said)
    assert reply.startswith(said.encode())
    error = events(reply[len(said) :])[-1]
    assert EVERY[0] in (error["error"]["message"] if form != RESPONSES else error["message"])
    counted = gateway.counted(before)
    assert of(counted, "ipr_streams_cut_total", candidate=EVERY[0]) == [1]
    assert of(counted, "ipr_upstream_attempts_total", candidate=EVERY[0], outcome="cut") == [1]


@pytest.mark.parametrize("size", [0, 100_000])
@pytest.mark.parametrize("form", PATHS)
def test_a_stream_that_ends_with_its_connection_inside_its_last_event_is_cut(
    gateway: ServerProcess, upstream: UpstreamStub, form: str, size: int
) -> None:
    first, last = (
        streamed(form)[0],
        {
            CHAT: 'data: {"choices": [{"delta": {}, "finish_reason": "stop"}], "x": "',
            RESPONSES: 'event: response.completed\ndata: {"type": "response.completed", "x": "',
            MESSAGES: 'event: message_stop\ndata: {"type": "message_stop", "x": "',
        }[form],
    )
    for rest in (size * "x", size * "x" + '"}', size * "x" + '"}\n'):
        before = gateway.metrics()
        reply = closed(form, gateway, upstream, first + last + rest)
        assert reply.startswith(first.encode())
        assert b"finish_reason" not in reply[len(first) :]  # nobody gets half an event
        assert "error" in events(reply)[-1] or events(reply)[-1]["type"] == "error"
        assert of(gateway.counted(before), "ipr_streams_cut_total", candidate=EVERY[0]) == [1]
        upstream.reset()
        gateway.post(PATHS[form], body_of(form, model=EVERY[0]))  # it is up again


def test_a_stream_that_ends_inside_of_an_event_that_passes_in_parts_breaks_off(
    gateway: ServerProcess, upstream: UpstreamStub
) -> None:
    before = gateway.metrics()
    with pytest.raises(IncompleteRead):
        closed(RESPONSES, gateway, upstream, 'data: {"type":"response.completed","text":"' + 2_000_000 * "x")
    assert of(gateway.counted(before), "ipr_streams_cut_total", candidate=EVERY[0]) == [1]


def test_a_number_that_no_client_can_count_on_from_ends_a_stream_as_any_other(
    gateway: ServerProcess, upstream: UpstreamStub
) -> None:
    before = gateway.metrics()
    said = 'data: {"type":"x","sequence_number":6}\n\ndata: {"type":"x","sequence_number":' + 5000 * "1" + "}\n\n"
    error = events(closed(RESPONSES, gateway, upstream, said)[len(said) :])[-1]
    assert (error["type"], error["sequence_number"]) == ("error", 7)
    counted = gateway.counted(before)
    assert of(counted, "ipr_streams_cut_total", candidate=EVERY[0]) == [1]
    assert of(counted, "ipr_upstream_attempts_total", candidate=EVERY[0], outcome="cut") == [1]


def test_text_that_speaks_of_an_end_is_none(gateway: ServerProcess, upstream: UpstreamStub) -> None:
    said = 'data: {"type":"response.output_text.delta","delta":"{\\"type\\": \\"response.completed\\"}"}\n\n'
    assert "error" in closed(RESPONSES, gateway, upstream, said).decode()


def test_a_compressed_stream_is_not_read(gateway: ServerProcess, upstream: UpstreamStub) -> None:
    said, before = "\x1f\x8b of events", gateway.metrics()
    assert closed(CHAT, gateway, upstream, said, **{"content-encoding": "gzip"}) == said.encode("latin-1")
    assert of(gateway.counted(before), "ipr_streams_cut_total") == []


@pytest.mark.parametrize("said", ['{"id": "1"}', '{"id": NaN}', " {} \n"])
def test_a_whole_answer_that_ends_with_its_connection_is_one(
    gateway: ServerProcess, upstream: UpstreamStub, said: str
) -> None:
    upstream.fail(EVERY[0], "raw", pieces=[CLOSED.format("application/json") + said])
    reply = gateway.post(PATHS[CHAT], body_of(CHAT, model=EVERY[0]))
    assert (reply.status, reply.content.decode()) == (200, said)


WHOLE = "HTTP/1.1 200 -\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
FRAMED: dict[str, str] = {
    "a size that is none": "zz\r\nfoo\r\n",
    "a size that is too short": f"{len(CHUNK) - 1:x}\r\n{CHUNK}\r\n",
    "an end inside a chunk": f"{len(CHUNK):x}\r\n{CHUNK[:9]}",
    "no last chunk": "",
}


@pytest.mark.parametrize("pause", [0.0, 0.15], ids=["at once", "after a while"])
@pytest.mark.parametrize("case", FRAMED)
def test_a_stream_whose_chunks_are_wrong_is_cut_at_once(
    gateway: ServerProcess, upstream: UpstreamStub, case: str, pause: float
) -> None:
    head = WHOLE.replace("application/json", EVENTS)
    good = f"{len(CHUNK):x}\r\n{CHUNK}\r\n"
    upstream.fail(EVERY[0], "raw", pieces=[head, 0.05, good, pause, FRAMED[case]], times=1)
    before, begun = gateway.metrics(), time.monotonic()
    reply = gateway.post(PATHS[CHAT], body_of(CHAT, model=EVERY[0], stream=True))
    assert time.monotonic() - begun < 5  # not after idle_s
    assert EVERY[0] in events(reply.content)[-1]["error"]["message"]
    assert of(gateway.counted(before), "ipr_streams_cut_total", candidate=EVERY[0]) == [1]


@pytest.mark.parametrize("case", FRAMED)
def test_an_answer_whose_chunks_are_wrong_is_broken_at_once(
    gateway: ServerProcess, upstream: UpstreamStub, default_engine: Engine, case: str
) -> None:
    first, second = ranked(default_engine)[:2]
    upstream.fail(CALLED.get(first, first), "raw", pieces=[WHOLE, "2\r\n{ \r\n", 0.15, FRAMED[case]], times=1)
    begun = time.monotonic()
    reply = gateway.post(PATHS[CHAT], body_of(CHAT))
    assert time.monotonic() - begun < 5  # not after whole_s
    assert (reply.status, reply.told["attempts"]) == (200, f"{first}=broken, {second}=ok")
