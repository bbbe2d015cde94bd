"""A candidate that fails before its first byte is followed by the next of `ranked`, and is passed over for a while."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ipr_engine import Engine, parse_request
from tests.support.http_calls import Reply
from tests.support.server_configs import (
    CALLED,
    CHAT,
    EVERY,
    HASTY,
    HASTY_S,
    MESSAGES,
    PATHS,
    PROVIDER_KEY,
    REFUSING,
    RESPONSES,
    SPEAKERS,
    body_of,
)
from tests.support.server_process import ServerProcess, until
from tests.support.upstream_stub import UpstreamStub

FORMS = (CHAT, RESPONSES, MESSAGES)
HELD = {"seconds": HASTY_S + 5}


def ranked(engine: Engine, form: str, **options: Any) -> list[str]:
    return list(engine.route(parse_request(body_of(form)), tau=0.2, allowed=SPEAKERS[form], **options).ranked)


def ask(gateway: ServerProcess, form: str = CHAT, **more: Any) -> Reply:
    return gateway.post(PATHS[form], body_of(form, **more))


@pytest.mark.parametrize("form", FORMS)
def test_who_is_asked_next_is_next_in_ranked(
    gateway: ServerProcess, upstream: UpstreamStub, default_engine: Engine, form: str
) -> None:
    order = ranked(default_engine, form)
    for name in order[:-1]:
        upstream.fail(CALLED.get(name, name), "status", status=500)
    reply = ask(gateway, form)
    assert (reply.status, reply.told["candidate"], reply.told["cause"]) == (200, order[-1], "fallback")
    assert reply.body["model"] == CALLED.get(order[-1], order[-1])
    assert [one["model"] for one in upstream.seen()] == [CALLED.get(name, name) for name in order]
    assert reply.told["attempts"] == ", ".join([*(f"{name}=status_500" for name in order[:-1]), f"{order[-1]}=ok"])


FAILURES: dict[str, tuple[str, dict[str, Any], str]] = {
    "429": ("status", {"status": 429, "times": 1}, "status_429"),
    "500": ("status", {"status": 500, "times": 1}, "status_500"),
    "503": ("status", {"status": 503, "times": 1}, "status_503"),
    "401": ("status", {"status": 401, "times": 1}, "status_401"),
    "408": ("status", {"status": 408, "times": 1}, "status_408"),
    "a reply that is cut": ("cut", {"times": 1}, "broken"),
    "no word, twice": ("close", {"times": 2}, "broken"),  # once it is tried again
}


@pytest.mark.parametrize("case", FAILURES)
def test_what_fails_before_the_first_byte_is_followed_by_the_next(
    gateway: ServerProcess, upstream: UpstreamStub, default_engine: Engine, case: str
) -> None:
    first, second = ranked(default_engine, CHAT)[:2]
    how, what, outcome = FAILURES[case]
    upstream.fail(first, how, **what)
    reply = ask(gateway)
    assert (reply.status, reply.told["candidate"]) == (200, second)
    assert reply.told["attempts"] == f"{first}={outcome}, {second}=ok"


def test_a_connection_that_closes_without_a_word_is_tried_once_more(
    gateway: ServerProcess, upstream: UpstreamStub, default_engine: Engine
) -> None:
    first = ranked(default_engine, CHAT)[0]
    upstream.fail(first, "close", times=1)
    reply = ask(gateway)
    assert (reply.status, reply.told["candidate"], "attempts" in reply.told) == (200, first, False)


@pytest.mark.parametrize("stream", [False, True])
def test_what_has_no_first_byte_in_time_goes_to_the_next(
    gateway: ServerProcess, upstream: UpstreamStub, stream: bool
) -> None:
    upstream.fail(HASTY, "hang", times=1, **HELD)
    reply = ask(gateway, model="hasty", stream=stream)
    assert (reply.status, reply.told["attempts"]) == (200, f"{HASTY}=timeout, {EVERY[0]}=ok")
    assert EVERY[0].encode() in reply.content
    held = until(lambda: next((one for one in upstream.seen() if one["model"] == HASTY and one["_ended"]), None))
    assert held["_ended"] == "left"


def test_a_connection_that_is_refused_goes_to_the_next(gateway: ServerProcess, upstream: UpstreamStub) -> None:
    reply = ask(gateway, model="refusing")
    assert (reply.status, reply.told["candidate"], reply.told["cause"]) == (200, EVERY[0], "fallback")
    assert reply.told["attempts"] == f"{REFUSING}=connect, {EVERY[0]}=ok"


@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_what_is_the_requests_own_fault_is_not_asked_again(
    gateway: ServerProcess, upstream: UpstreamStub, default_engine: Engine, status: int
) -> None:
    first = ranked(default_engine, CHAT)[0]
    upstream.fail(first, "status", status=status, message="the tools are malformed")
    reply = ask(gateway)
    assert (reply.status, reply.body["error"]["message"]) == (status, "the tools are malformed")
    assert len(upstream.seen()) == 1


def test_what_the_last_one_says_is_the_answer_where_all_fail(gateway: ServerProcess, upstream: UpstreamStub) -> None:
    name = EVERY[0]
    upstream.fail(name, "status", status=429, headers={"retry-after": "1", "x-ratelimit-limit-requests": "5"})
    reply = ask(gateway, model=name)
    assert (reply.status, reply.body["error"]["message"]) == (429, "told to fail")
    assert (reply.headers["retry-after"], reply.headers["x-ratelimit-limit-requests"]) == ("1", "5")
    assert reply.told["attempts"] == f"{name}=status_429"


@pytest.mark.parametrize("form", FORMS)
def test_where_nobody_answers_the_error_has_the_formats_form(
    gateway: ServerProcess, upstream: UpstreamStub, form: str
) -> None:
    upstream.fail(HASTY, "hang", **HELD)
    late = ask(gateway, form, model=HASTY)
    upstream.fail(HASTY, "close")
    broken = ask(gateway, form, model=HASTY)
    assert (late.status, broken.status) == (504, 502)
    for reply in (late, broken):
        error = reply.body["error"]
        assert HASTY in error["message"]
        assert reply.body.get("type") == ("error" if form == MESSAGES else None)
        assert ("param" in error) == (form != MESSAGES)


def test_what_an_upstream_says_of_the_servers_key_is_not_passed_on(
    gateway: ServerProcess, upstream: UpstreamStub
) -> None:
    upstream.fail(EVERY[0], "status", status=401, message=f"Incorrect API key provided: {PROVIDER_KEY}")
    reply = ask(gateway, model=EVERY[0])
    assert reply.status == 502
    assert PROVIDER_KEY.encode() not in reply.content
    assert f"{EVERY[0]}=status_401" in reply.body["error"]["message"]


def test_who_fails_twice_is_passed_over_and_then_probed_by_one(
    gateway: ServerProcess, upstream: UpstreamStub, default_engine: Engine
) -> None:
    first, second = ranked(default_engine, CHAT)[:2]
    upstream.fail(first, "status", status=503)
    before = gateway.metrics()
    for _ in range(2):
        assert ask(gateway).told["attempts"] == f"{first}=status_503, {second}=ok"
    assert gateway.metrics()[f'ipr_upstream_up{{candidate="{first}"}}'] == 0
    passed_over = ask(gateway)
    assert passed_over.told["attempts"] == f"{first}=cooling, {second}=ok"
    assert (passed_over.told["candidate"], passed_over.told["cause"]) == (second, "fallback")
    upstream.fail(first, "pace", seconds=0.8)
    asked = len([one for one in upstream.seen() if one["model"] == first])
    until(lambda: gateway.get("/ready").body["upstreams"][first] == 0.5)  # which is to be probed
    with ThreadPoolExecutor(6) as pool:
        replies = list(pool.map(lambda _: ask(gateway), range(6)))
    served = sorted(reply.told["candidate"] for reply in replies)
    assert served == sorted([first, *5 * [second]])
    assert len([one for one in upstream.seen() if one["model"] == first]) == asked + 1
    assert ask(gateway).told["candidate"] == first
    counted = gateway.counted(before)
    assert gateway.metrics()[f'ipr_upstream_up{{candidate="{first}"}}'] == 1
    assert counted[f'ipr_upstream_attempts_total{{candidate="{first}",outcome="status_503"}}'] == 2
    assert counted[f'ipr_upstream_attempts_total{{candidate="{first}",outcome="ok"}}'] == 2
    assert counted[f'ipr_served_total{{candidate="{second}",cause="fallback"}}'] == 8


def test_a_retry_after_is_kept_to(gateway: ServerProcess, upstream: UpstreamStub, default_engine: Engine) -> None:
    first, second = ranked(default_engine, CHAT)[:2]
    upstream.fail(first, "status", status=429, times=1, headers={"retry-after": "60"})
    assert ask(gateway).told["attempts"] == f"{first}=status_429, {second}=ok"
    assert ask(gateway).told["attempts"] == f"{first}=cooling, {second}=ok"
    assert len([one for one in upstream.seen() if one["model"] == first]) == 1


def test_who_is_passed_over_is_asked_where_nobody_else_can_answer(
    gateway: ServerProcess, upstream: UpstreamStub
) -> None:
    upstream.fail(EVERY[0], "status", status=503, times=3)
    statuses = [ask(gateway, model=EVERY[0]).status for _ in range(4)]
    assert statuses == [503, 503, 503, 200]
