"""The log says why a request was refused, in fixed words: nothing that the request made up, neither names nor values, stands there."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from ipr_engine import Engine
from tests.support.local_server import LocalServer
from tests.support.server_configs import CHAT, MESSAGES, RESPONSES, body_of
from tests.support.skips import SERVE

pytest.importorskip("uvicorn", reason=SERVE)

from ipr_engine.server.server_state import REQUEST_LOG

CANARY = "zq-canary-8812"
KEY = {"authorization": "Bearer narrow-canary-key"}
FIRST, MUTE = "gpt-4o-2024-08-06", "claude-3-haiku-20240307"
ENDPOINTS = {"openai": {"base_url": "http://127.0.0.1:9/v1", "formats": [CHAT, RESPONSES]}}
CONFIG = {
    "endpoints": ENDPOINTS,
    "upstreams": {FIRST: "openai"},
    "tenants": [
        {"name": "narrow", "keys_env": ["TEST_NARROW"], "controls": ["tau", "family", "max_latency_ms", "allowed"]}
    ],
    "server": {"log_requests": True, "limits": {"body_bytes": 4096}, "assumed_tokens": None, "hosts": ["localhost"]},
}
TEXT = {"prompt": "why"}
IMAGE = {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": CANARY}}]}]}
ASKED = {"type": "choice", "name": "llm", "instructions": "", "choices": [CANARY]}
JUDGED = "response_format: expected a json_schema with an enum of candidates; ipr-judge only decides: for an answer ask for auto"
CASES: list[tuple[str, Any, dict[str, str], int, str]] = [
    ("/v1/route", TEXT, {"authorization": CANARY}, 401, "the key is missing or not known"),
    ("/v1/route", TEXT, {"host": CANARY}, 403, "host: is not one that this server answers to"),
    ("/v1/route", TEXT, {"origin": f"http://{CANARY}"}, 403, "a page of another site may not ask"),
    ("/v1/route", [CANARY], {}, 400, "body: expected an object of JSON, got list"),
    ("/v1/route", {"prompt": CANARY * 999}, {}, 413, "body: expected at most 4096 bytes"),
    ("/v1/route", {"prompt": [CANARY, 7]}, {}, 400, "prompt: cannot be decided"),
    ("/v1/route", {"messages": [{"role": CANARY, "content": "x"}]}, {}, 400, "prompt: cannot be decided"),
    ("/v1/route", {CANARY: "x"}, {}, 400, "prompt: expected a request with messages, input or prompt"),
    ("/v1/route", IMAGE, {}, 400, "messages: has a part of type image_url, whose tokens cannot be counted"),
    ("/v1/route", {**TEXT, "model": CANARY}, {}, 404, "model: is not known"),
    ("/v1/route", {**TEXT, "model": FIRST}, {}, 404, f"model: {FIRST} is a candidate, not a routed model"),
    ("/v1/route", {**TEXT, "model": "ipr-judge"}, {}, 404, "model: ipr-judge is for /v1/chat/completions alone"),
    (
        "/v1/responses",
        body_of(RESPONSES, model="ipr-judge"),
        {},
        404,
        "model: ipr-judge is for /v1/chat/completions alone",
    ),
    ("/v1/route", TEXT, {"x-ipr-tau": CANARY}, 400, "x-ipr-tau: is wrong"),
    ("/v1/route", {**TEXT, "ipr": {"tau": 7.25}}, {}, 400, "ipr.tau: is wrong"),
    ("/v1/route", {**TEXT, "metadata": {"ipr": {"tau": CANARY}}}, {}, 400, "metadata.ipr.tau: is wrong"),
    ("/v1/route", {**TEXT, "metadata": {"ipr": CANARY}}, {}, 400, "metadata.ipr: is wrong"),
    ("/v1/route", {**TEXT, "ipr": {CANARY: 1}}, {}, 400, "a control is not known"),
    ("/v1/route", {**TEXT, "ipr": {f"tau and {CANARY}": 1}}, {}, 400, "a control is not known"),
    ("/v1/route", TEXT, {f"x-ipr-{CANARY}": "1"}, 400, "a control is not known"),
    ("/v1/route", {**TEXT, "ipr": {"slack": 0.1}}, {}, 403, "ipr.slack: may not be set by this key"),
    ("/v1/route", {**TEXT, "ipr": {"family": [CANARY]}}, {}, 400, "ipr.family: is wrong"),
    (
        "/v1/route",
        {**TEXT, "ipr": {"max_latency_ms": 1}},
        {},
        400,
        "ipr.max_latency_ms: leaves nobody who could answer",
    ),
    ("/v1/decisions", {"input": "x", "questions": [ASKED]}, {}, 400, "choices: one is no candidate"),
    ("/v1/decisions", {"input": "x", "questions": [CANARY]}, {}, 400, "questions[0]: expected an object"),
    (
        "/v1/systemone",
        {"state": "x", "questions": {CANARY: 1}},
        {},
        422,
        "questions: expected a question of type choice",
    ),
    (
        "/v1/systemone",
        {"state": "x", "questions": {CANARY: {"type": "choice", "criteria": CANARY}}},
        {},
        422,
        "questions: criteria: expected an object of 1 to 255 candidates",
    ),
    ("/v1/chat/completions", body_of(CHAT, model=CANARY), {}, 404, "model: is not known"),
    ("/v1/chat/completions", body_of(CHAT, model=MUTE), {}, 404, f"model: {MUTE} is a candidate without an upstream"),
    ("/v1/chat/completions", body_of(CHAT, model="ipr-judge"), {}, 400, JUDGED),
    (
        "/v1/chat/completions",
        body_of(CHAT, model=FIRST),
        {"x-ipr-tau": "0.1"},
        400,
        "x-ipr-tau: stands beside a candidate that is named",
    ),
    ("/v1/chat/completions", {"model": "auto"}, {}, 400, "messages: expected the conversation, got none"),
    ("/v1/messages", body_of(MESSAGES), {}, 400, "no upstream of this server speaks anthropic-messages"),
    ("/v1/chat/completions", body_of(CHAT), {}, 502, f"no upstream answered: {FIRST}=connect"),
]


@pytest.fixture(scope="module")
def server(default_engine: Engine) -> Iterator[LocalServer]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TEST_NARROW", KEY["authorization"].split()[1])
        with LocalServer(default_engine, CONFIG) as server:
            yield server


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[3]}-{case[4][:40]}")
def test_the_line_of_a_refused_request_says_why(
    server: LocalServer, case: tuple[str, Any, dict[str, str], int, str], caplog: pytest.LogCaptureFixture
) -> None:
    path, body, headers, status, why = case
    with caplog.at_level(logging.INFO, REQUEST_LOG):
        reply = server.post(path, body, {**KEY, **headers})
        server.until(lambda: caplog.messages)
    assert (reply.status, len(caplog.messages)) == (status, 1)
    line = json.loads(caplog.messages[0])
    assert line["status"] == status
    assert line["refused"].startswith(why)
    assert CANARY not in caplog.text
    timed = {"at", "ms"}  # numbers of their own, which may hold the digits of the one that was sent
    assert "7.25" not in json.dumps({name: value for name, value in line.items() if name not in timed})


def test_the_line_of_an_answered_request_has_no_such_reason(
    server: LocalServer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, REQUEST_LOG):
        assert server.post("/v1/route", TEXT, KEY).status == 200
        server.until(lambda: caplog.messages)
    assert "refused" not in json.loads(caplog.messages[0])


def test_a_decision_that_comes_too_late_is_told_by_the_keys_of_the_config(
    default_engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    config = {"server": {"log_requests": True, "service": {"budget_us": 1e-3, "limits": {"inline_chars": 0}}}}
    with LocalServer(default_engine, config) as server, caplog.at_level(logging.INFO, REQUEST_LOG):
        reply = server.post("/v1/route", TEXT)
        server.until(lambda: caplog.messages)
    told = "no decision came within 0.001 microseconds, and no fallback could answer; ask again, or see budget_us and fallback"
    assert (reply.status, reply.body["error"]["message"][: len(told)]) == (504, told)
    assert json.loads(caplog.messages[-1])["refused"] == reply.body["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path", "status", "why"),
    [
        ("GET", f"/v1/{CANARY}", 404, "the path is not known"),
        ("GET", "/v1/route", 405, "method: expected POST here"),
    ],
)
def test_a_path_that_is_not_known_has_a_line(
    server: LocalServer, caplog: pytest.LogCaptureFixture, method: str, path: str, status: int, why: str
) -> None:
    with caplog.at_level(logging.INFO, REQUEST_LOG):
        assert server.send(method, path, [], KEY).status == status
    (line,) = map(json.loads, caplog.messages)
    assert (line["path"], line["status"], line["ms"], line["refused"]) == ("other", status, None, why)
    assert CANARY not in caplog.text


def test_a_decision_server_says_why_it_passes_nothing_on(
    default_engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        LocalServer(default_engine, {"server": {"log_requests": True}}) as server,
        caplog.at_level(logging.INFO, REQUEST_LOG),
    ):
        assert server.post("/v1/responses", body_of(RESPONSES)).status == 404
        server.until(lambda: caplog.messages)
    assert json.loads(caplog.messages[0])["refused"].startswith("this server has no upstreams and only decides")
