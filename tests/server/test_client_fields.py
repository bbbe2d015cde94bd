"""An error names the field that the client sent, as it stands there, and what to do; nothing of the body but names of fields is told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ipr_engine import Engine
from tests.support.local_server import LocalServer
from tests.support.server_configs import CHAT, MESSAGES, PATHS, RESPONSES, body_of
from tests.support.skips import SERVE

pytest.importorskip("uvicorn", reason=SERVE)

FIRST, CLAUDE = "gpt-4o-2024-08-06", "claude-3-haiku-20240307"
NOWHERE = "http://127.0.0.1:9/v1"
CONFIG: dict[str, Any] = {
    "endpoints": {
        "openai": {"base_url": NOWHERE, "formats": [CHAT, RESPONSES]},
        "anthropic": {"base_url": NOWHERE, "formats": [MESSAGES]},
    },
    "upstreams": {FIRST: "openai", CLAUDE: "anthropic"},
    "tenants": [
        {"name": "open", "keys_env": ["TEST_OPEN"]},
        {"name": "claude-only", "keys_env": ["TEST_CLAUDE"], "policy": {"family": "claude"}},
    ],
    "models": {"auto": {}, "claudes": {"family": "claude"}},
}
OPEN, CLAUDES = {"authorization": "Bearer open-key"}, {"authorization": "Bearer claude-key"}
SAID = [{"role": "user", "content": "why"}]
CHOICE = {"type": "choice", "name": "llm", "instructions": "", "choices": ["zymurgy"]}
CRITERIA = {"type": "choice", "criteria": {"zymurgy": None}}
KNOWN = {"llm": {"type": "choice", "criteria": {FIRST: None}}}
JUDGED = {"type": "json_schema", "json_schema": {"schema": {"enum": [FIRST]}}}
PLACES: list[tuple[str, dict[str, Any], str | None, str]] = [
    ("/v1/route", {"messages": []}, "messages", "messages: expected a string or a non-empty list"),
    ("/v1/route", {"prompt": ["a", "b"]}, "prompt[0]", "prompt[0]: expected a message"),
    ("/v1/route", {"messages": [{"role": "user", "content": 3}]}, "messages[0].content", "messages[0].content: expected"),
    ("/v1/route", {"input": [{"role": "zymurgy", "content": "x"}]}, "input[0].role", "input[0].role: expected one of"),
    ("/v1/route", {"messages": SAID, "tools": 3}, "tools", "tools: expected a list of tool definitions"),
    ("/v1/route", {"messages": SAID, "max_tokens": -1}, "max_tokens", "max_tokens: expected a whole number"),
    ("/v1/route", {"prompt": ""}, "prompt", "prompt: expected text, got 0 bytes without one token"),
    ("/v1/route", {"messages": [{"role": "user", "content": ""}]}, "messages", "messages: expected at least one user message"),
    ("/v1/route", {"messages": SAID, "input": "x"}, None, "body: expected one of messages, input, prompt"),
    ("/v1/route", {"messages": SAID, "ipr": {"billed_tokens": 10**9}}, "messages", "messages: claude-3-5-sonnet-20241022: "),
    ("/v1/chat/completions", {"model": "auto", "messages": []}, "messages", "messages: expected"),
    ("/v1/responses", {"model": "auto", "input": []}, "input", "input: expected"),
    ("/v1/decisions", {"input": [{"role": 1}], "questions": [CHOICE]}, "questions[0].choices", "questions[0].choices: 'zymurgy'"),
    ("/v1/decisions", {"input": [{"role": "user", "content": 4}], "questions": [{**CHOICE, "choices": [FIRST]}]},
     "input[0].content", "input[0].content: expected a string"),
    ("/v1/systemone", {"state": "x", "questions": {"llm": CRITERIA}}, "questions.llm.criteria", "questions.llm.criteria: 'zymurgy'"),
    ("/v1/systemone", {"state": {"messages": [{"role": "user", "content": 4}]}, "questions": KNOWN},
     "state.messages[0].content", "state.messages[0].content: expected"),
    ("/v1/chat/completions", {"model": "ipr-judge", "response_format": JUDGED},
     "messages", "messages: expected the conversation, got none"),
]  # fmt: skip
BARE: list[tuple[str, dict[str, Any], str]] = [
    ("/v1/route", {"prompt": "x", "tau": 0.3}, "tau"),
    ("/v1/route", {"prompt": "x", "quality_share": 0.9}, "quality_share"),
    ("/v1/route", {"prompt": "x", "allowed": [FIRST]}, "allowed"),
    ("/v1/route", {"prompt": "x", "explain": True}, "explain"),
    ("/v1/route", {"prompt": "x", "tokens_in": {}}, "tokens_in"),
    ("/v1/chat/completions", body_of(CHAT, tau=0.3), "tau"),
    ("/v1/chat/completions", body_of(CHAT, model="ipr-judge", exclude=[FIRST]), "exclude"),
    ("/v1/responses", body_of(RESPONSES, tau=0.3), "tau"),
    ("/v1/decisions", {"input": "x", "questions": [CHOICE], "quality_share": 0.9}, "quality_share"),
    ("/v1/systemone", {"state": "x", "questions": {"llm": CRITERIA}, "quality_share": 0.9}, "quality_share"),
]


@pytest.fixture(scope="module")
def server(default_engine: Engine) -> Iterator[LocalServer]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TEST_OPEN", "open-key")
        environment.setenv("TEST_CLAUDE", "claude-key")
        with LocalServer(default_engine, CONFIG) as server:
            yield server


@pytest.mark.parametrize(("path", "body", "param", "said"), PLACES, ids=[f"{one[0]} {one[3][:40]}" for one in PLACES])
def test_an_error_names_the_clients_own_field(
    server: LocalServer, path: str, body: dict[str, Any], param: str | None, said: str
) -> None:
    reply = server.post(path, body, OPEN)
    error = reply.body["error"]
    status = 422 if "criteria" in (param or "") else 400  # as systemone's own format has it
    assert (reply.status, error["field" if path == "/v1/systemone" else "param"]) == (status, param)
    assert error["message"].startswith(said)
    assert "['" not in error["message"].split(": ", 1)[0]


@pytest.mark.parametrize(("path", "body", "name"), BARE, ids=[f"{one[0]} {one[2]}" for one in BARE])
def test_a_control_beside_the_requests_fields_is_refused_and_told_where_it_belongs(
    server: LocalServer, path: str, body: dict[str, Any], name: str
) -> None:
    reply = server.post(path, body, OPEN)
    error = reply.body["error"]
    assert (reply.status, error["field" if path == "/v1/systemone" else "param"]) == (400, name)
    assert error["message"] == f'{name}: is a control; put it under ipr: {{"ipr": {{"{name}": ...}}}}'


def test_a_control_that_says_nothing_and_other_names_are_let_be(server: LocalServer) -> None:
    assert server.post("/v1/route", {"prompt": "x", "tau": None, "user": "me"}, OPEN).status == 200
    passed_on = server.post(PATHS[CHAT], body_of(CHAT, requires=["x"], slack=1), OPEN)
    assert passed_on.status == 502  # it went to the upstream, where nobody listens
    assert server.post("/v1/messages", body_of(MESSAGES, tau=0.2), OPEN).status == 400


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"a": 1,\n  "zymurgy": }', "which it is not at line 2, column 14"),
        (b'{"zymurgy"', "which it is not at line 1, column 11"),
        ('{"é": "ü",\n"zymurgy\xff"}'.encode("latin-1"), "which is no UTF-8 at line 1, column 3"),
        ('{"é": "ü",\n"zymurgy'.encode() + b'\xff"}', "which is no UTF-8 at line 2, column 9"),
        (b" \n", "got nothing"),
        (b"", "got nothing"),
    ],
)
def test_broken_json_is_told_by_its_place_and_never_its_text(server: LocalServer, body: bytes, said: str) -> None:
    reply = server.send("POST", "/v1/route", [body], OPEN)
    assert reply.status == 400
    assert reply.body["error"]["message"] == f"body: expected an object of JSON in UTF-8, {said}"
    assert b"zymurgy" not in reply.content


@pytest.mark.parametrize(
    ("method", "path", "allowed"), [("GET", "/v1/route", "POST"), ("POST", "/v1/models", "GET or HEAD")]
)
def test_a_wrong_method_is_told_the_right_one(server: LocalServer, method: str, path: str, allowed: str) -> None:
    reply = server.send(method, path, [], OPEN)
    assert (reply.status, reply.body["error"]["message"]) == (405, f"method: expected {allowed} here")


def test_a_candidate_has_one_reason_in_one_reply(server: LocalServer) -> None:
    found = server.post("/v1/route", {"prompt": "x", "ipr": {"explain": True}}, OPEN).body
    assert found["excluded"] == found["explanation"]["decision"]["excluded"]
    assert "upstream: none is configured" in found["excluded"].values()


@pytest.mark.parametrize("form", [RESPONSES, MESSAGES])
def test_the_judge_says_where_it_answers(server: LocalServer, form: str) -> None:
    assert "ipr-judge" in [one["id"] for one in server.get("/v1/models", OPEN).body["data"]]
    reply = server.post(PATHS[form], body_of(form, model="ipr-judge"), OPEN)
    assert reply.status == 404
    assert reply.body["error"]["message"].startswith(
        "model: ipr-judge is for /v1/chat/completions alone; ask for one of"
    )


@pytest.mark.parametrize(
    ("key", "model", "whose"),
    [
        (CLAUDES, "auto", "tenant claude-only"),
        (OPEN, "claudes", "model claudes"),
        (CLAUDES, "claudes", "tenant claude-only and model claudes"),
    ],
)
@pytest.mark.parametrize("ipr", [{}, {"tau": 0.3}, {"exclude": [FIRST]}], ids=str)
def test_who_closed_a_format_is_told_and_no_control_is_blamed(
    server: LocalServer, key: dict[str, str], model: str, whose: str, ipr: dict[str, Any]
) -> None:
    reply = server.post(PATHS[CHAT], body_of(CHAT, model=model, ipr=ipr), key)
    assert (reply.status, reply.body["error"]["param"]) == (400, None)
    said = f"nobody whom the policy of {whose} leaves speaks openai-chat; ask at /v1/messages"
    assert reply.body["error"]["message"] == said


def test_a_control_that_closes_a_format_is_blamed_itself(server: LocalServer) -> None:
    reply = server.post(PATHS[CHAT], body_of(CHAT, ipr={"family": "claude"}), OPEN)
    assert (reply.status, reply.body["error"]["param"]) == (400, "ipr.family")


def test_the_start_counts_whom_each_tenant_reaches_and_warns_of_nobody(server: LocalServer) -> None:
    lines = server.state.summary()
    assert (
        "tenant open, model auto: candidates by format: /v1/chat/completions 1, /v1/responses 1, /v1/messages 1"
        in lines
    )
    nobody = "nobody is left at /v1/chat/completions and /v1/responses, and each such request is refused"
    assert [line for line in lines if line.startswith("warning")] == [
        f"warning: tenant claude-only, model auto: {nobody}",
        f"warning: tenants open, claude-only, model claudes: {nobody}",
    ]


def test_who_may_not_be_named_is_told_so_whatever_it_speaks_and_no_error_lists_candidates(server: LocalServer) -> None:
    reply = server.post(PATHS[MESSAGES], body_of(MESSAGES, model=FIRST), CLAUDES)
    assert reply.status == 404
    assert "is not open to this key: family is GPT" in reply.body["error"]["message"]
    for model in ("zymurgy", "gemini-1.5-pro"):
        said = server.post(PATHS[CHAT], body_of(CHAT, model=model), CLAUDES).body["error"]["message"]
        assert FIRST not in said
        assert said.endswith("auto, claudes; GET /v1/models lists all that may be asked for"), said


def test_a_control_of_the_body_alone_is_told_so_as_a_header(server: LocalServer) -> None:
    reply = server.post("/v1/route", {"prompt": "x"}, {**OPEN, "x-ipr-cost-weights": "usd=1"})
    assert reply.body["error"]["message"] == "x-ipr-cost-weights: stands in the body alone: ipr.cost_weights"


def test_models_tell_the_aim_that_holds_where_nobody_names_one(server: LocalServer) -> None:
    listed = {one["id"]: one for one in server.get("/v1/models", OPEN).body["data"]}
    decided = server.post("/v1/route", {"prompt": "x", "model": "auto"}, OPEN).body
    assert listed["auto"]["policy"] == {"tau": decided["tau"]} == {"tau": 0.1}
