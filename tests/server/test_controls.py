"""What a request asks of its decision is done, or refused with the control's name; it is never ignored."""

from __future__ import annotations

from typing import Any

import pytest

from ipr_engine import Engine
from tests.support.http_calls import Reply
from tests.support.server_configs import CHAT, EVERY, MESSAGES, OPENAI, PATHS, PROMPTS, RESPONSES, SPEAKERS, body_of
from tests.support.server_process import ServerProcess
from tests.support.upstream_stub import UpstreamStub

FORMS = (CHAT, RESPONSES, MESSAGES)
PROMPT = PROMPTS[1]
EVERY_SPEAKER = {name for names in SPEAKERS.values() for name in names}
CONTROLS: dict[str, tuple[str, Any]] = {
    "tau": ("0.9", 0.9),
    "quality-share": ("0.97", 0.97),
    "max-usd-per-1k": ("0.9", 0.9),
    "preset": ("cost", "cost"),
    "rule": ("minmax", "minmax"),
    "allowed": ("llama-3.1-70b-instruct, gemini-1.5-flash", ["llama-3.1-70b-instruct", "gemini-1.5-flash"]),
    "exclude": ("gpt-4o-mini-2024-07-18", ["gpt-4o-mini-2024-07-18"]),
    "family": ("Llama", ["Llama"]),
    "requires": ("vision", ["vision"]),
}
"""A header, its value there, and as the engine takes it."""


@pytest.mark.parametrize("name", CONTROLS)
def test_a_control_does_what_it_does_for_the_engine(gateway: ServerProcess, default_engine: Engine, name: str) -> None:
    said, value = CONTROLS[name]
    option = name.replace("-", "_")
    options = {option: value}
    mask = name in ("allowed", "exclude", "family", "requires")
    if mask or name == "rule":
        options["tau"] = 0.2
    policy = default_engine.policy(**options)
    allowed = [one for one in SPEAKERS[CHAT] if one in policy.allowed] if mask else SPEAKERS[CHAT]
    expected = default_engine.route(PROMPT, **{**options, "allowed": allowed})
    of_header = gateway.post(PATHS[CHAT], body_of(CHAT, PROMPT), {f"x-ipr-{name}": said})
    of_body = gateway.post(PATHS[CHAT], body_of(CHAT, PROMPT, metadata={"ipr": {option: value}}))
    of_field = gateway.post(PATHS[CHAT], body_of(CHAT, PROMPT, ipr={option: value}))
    for reply in (of_header, of_body, of_field):
        assert (reply.status, reply.told["candidate"]) == (200, expected.model)
        assert reply.told["tau"] == f"{expected.policy.tau:.6g}"


def test_metadata_may_hold_controls_as_text(gateway: ServerProcess, upstream: UpstreamStub) -> None:
    reply = gateway.post(PATHS[CHAT], body_of(CHAT, metadata={"ipr": '{"tau": 1}', "job": "7"}))
    assert reply.told["tau"] == "1"
    (seen,) = upstream.seen()
    assert seen["metadata"] == {"job": "7"}
    assert "x-ipr-tau" not in seen["_headers"]


WRONG: dict[str, tuple[dict[str, str], dict[str, Any], str]] = {
    "tau that is no number": ({"x-ipr-tau": "cheap"}, {}, "x-ipr-tau"),
    "tau out of range": ({"x-ipr-tau": "1.5"}, {}, "x-ipr-tau"),
    "tau out of range in the body": ({}, {"tau": 1.5}, "metadata.ipr.tau"),
    "tau that is NaN": ({"x-ipr-tau": "nan"}, {}, "x-ipr-tau"),
    "tau of another type": ({}, {"tau": [0.2]}, "metadata.ipr.tau"),
    "unknown header": ({"x-ipr-tua": "0.2"}, {}, "x-ipr-tua"),
    "unknown name": ({}, {"tua": 0.2}, "metadata.ipr.tua"),
    "unknown candidate": ({"x-ipr-allowed": "gpt-9"}, {}, "x-ipr-allowed"),
    "nobody allowed": ({"x-ipr-allowed": ""}, {}, "x-ipr-allowed"),
    "everybody excluded": ({}, {"exclude": list(EVERY_SPEAKER)}, "metadata.ipr.exclude"),
    "nobody left of a header and the body": (
        {"x-ipr-allowed": EVERY[0]},
        {"exclude": [EVERY[0]]},
        "metadata.ipr.exclude",
    ),
    "unknown preset": ({"x-ipr-preset": "cheapest"}, {}, "x-ipr-preset"),
    "unknown rule": ({"x-ipr-rule": "best"}, {}, "x-ipr-rule"),
    "given twice": ({"x-ipr-tau": "0.2"}, {"tau": 0.2}, "metadata.ipr.tau"),
    "two aims": ({"x-ipr-tau": "0.2"}, {"preset": "cost"}, "metadata.ipr.preset"),
    "an option that another does not go with": ({"x-ipr-worth": "0.1"}, {"rule": "path"}, "x-ipr-worth"),
    "prices, which are the server's": ({}, {"prices": {}}, "metadata.ipr.prices"),
    "explain that is no switch": ({"x-ipr-explain": "maybe"}, {}, "x-ipr-explain"),
    "billed tokens of another type": ({}, {"billed_tokens": "many"}, "metadata.ipr.billed_tokens"),
    "tokens of nobody": ({}, {"tokens_in": {"gpt-9": 7}}, "metadata.ipr.tokens_in"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_control_is_refused_by_name(
    gateway: ServerProcess, upstream: UpstreamStub, form: str, case: str
) -> None:
    headers, controls, name = WRONG[case]
    body = body_of(form, metadata={"ipr": controls}) if controls else body_of(form)
    reply = gateway.post(PATHS[form], body, headers)
    assert reply.status == 400, reply.content
    error = reply.body["error"]
    assert error["message"].startswith(f"{name}: ")
    assert error["type"] == "invalid_request_error"
    if form != MESSAGES:
        assert error["param"] == name
    assert upstream.seen() == []


@pytest.mark.parametrize("controls", [7, [], "tau", '["tau"]'])
def test_controls_that_are_no_object_are_refused(gateway: ServerProcess, controls: object) -> None:
    for place in ({"metadata": {"ipr": controls}}, {"ipr": controls}):
        reply = gateway.post(PATHS[CHAT], body_of(CHAT, **place))
        assert (reply.status, "ipr" in reply.body["error"]["message"]) == (400, True)


def test_a_named_model_takes_no_controls_of_a_choice(gateway: ServerProcess, upstream: UpstreamStub) -> None:
    reply = gateway.post(PATHS[CHAT], body_of(CHAT, model=OPENAI[0]), {"x-ipr-tau": "0.2"})
    assert (reply.status, upstream.seen()) == (400, [])
    assert "tau" in reply.body["error"]["message"]


@pytest.mark.parametrize("form", FORMS)
def test_an_unknown_model_is_not_found(gateway: ServerProcess, upstream: UpstreamStub, form: str) -> None:
    reply = gateway.post(PATHS[form], body_of(form, model="gpt-9"))
    error = reply.body["error"]
    assert (reply.status, error["type"], upstream.seen()) == (404, "not_found_error", [])
    assert "gpt-9" in error["message"]
    assert "auto" in error["message"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("model", [None, 7, "", ["auto"], {}])
def test_a_request_needs_a_model(gateway: ServerProcess, form: str, model: object) -> None:
    reply = gateway.post(PATHS[form], body_of(form) | {"model": model})
    assert (reply.status, reply.body["error"]["message"].split(":")[0]) == (400, "model")


def test_a_conversation_that_the_provider_keeps_is_refused(gateway: ServerProcess, upstream: UpstreamStub) -> None:
    reply = gateway.post(PATHS[RESPONSES], body_of(RESPONSES, previous_response_id="resp_1"))
    assert (reply.status, reply.body["error"]["param"], upstream.seen()) == (400, "previous_response_id", [])
    billed = body_of(RESPONSES, previous_response_id="resp_1", ipr={"billed_tokens": 9})
    assert (gateway.post(PATHS[RESPONSES], billed).status, upstream.seen()) == (400, [])
    named = gateway.post(PATHS[RESPONSES], body_of(RESPONSES, model=EVERY[0], previous_response_id="resp_1"))
    assert (named.status, upstream.seen()[0]["previous_response_id"]) == (200, "resp_1")


def test_a_prompt_that_the_provider_keeps_is_refused(gateway: ServerProcess, upstream: UpstreamStub) -> None:
    stored = {"model": "auto", "prompt": {"id": "pmpt_1", "variables": {"city": "Bern"}}}
    for more in ({}, {"input": "why"}, {"ipr": {"billed_tokens": 9}}):
        reply = gateway.post(PATHS[RESPONSES], stored | more)
        assert (reply.status, reply.body["error"]["param"], upstream.seen()) == (400, "prompt", [])
    named = gateway.post(PATHS[RESPONSES], stored | {"model": EVERY[0], "input": "why"})
    assert (named.status, upstream.seen()[0]["prompt"]["id"]) == (200, "pmpt_1")


@pytest.mark.parametrize("model", ["auto", EVERY[0]])
def test_an_answer_that_nobody_could_fetch_is_refused(
    gateway: ServerProcess, upstream: UpstreamStub, model: str
) -> None:
    reply = gateway.post(PATHS[RESPONSES], body_of(RESPONSES, model=model, background=True))
    assert (reply.status, reply.body["error"]["param"], upstream.seen()) == (400, "background", [])
    assert gateway.post(PATHS[RESPONSES], body_of(RESPONSES, model=model, background=False)).status == 200


def image(form: str, url: str) -> dict[str, Any]:
    """Return a request of a format with one image."""
    if form == MESSAGES:
        part = {"type": "image", "source": {"type": "url", "url": url}}
    elif form == RESPONSES:
        part = {"type": "input_image", "image_url": url}
    else:
        part = {"type": "image_url", "image_url": {"url": url}}
    text = {"type": "input_text" if form == RESPONSES else "text", "text": "What is this?"}
    turns = [{"role": "user", "content": [text, part]}]
    return {"model": "auto", **({"input": turns} if form == RESPONSES else {"messages": turns, "max_tokens": 9})}


@pytest.mark.parametrize("form", FORMS)
def test_an_image_is_billed_by_assumption_and_told(gateway: ServerProcess, default_engine: Engine, form: str) -> None:
    before = gateway.metrics()
    reply = gateway.post(PATHS[form], image(form, "https://example.org/cat.png"))
    assert (reply.status, reply.told["assumed-tokens"]) == (200, "1000")
    assert (
        "vision"
        in default_engine.bundle.candidates[default_engine.bundle.names.index(reply.told["candidate"])].features
    )
    counted = gateway.counted(before)
    assert [value for name, value in counted.items() if name.startswith("ipr_assumed_parts_total")] == [1]


def refused(reply: Reply) -> str:
    assert reply.status == 400
    message: str = reply.body["error"]["message"]
    return message


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'"text"', b'{"model": "auto"', b"\xff\xfe", b'{"a": NaN}']
)
def test_a_body_that_is_no_object_is_refused(gateway: ServerProcess, form: str, body: bytes) -> None:
    assert refused(gateway.post(PATHS[form], body)).startswith("body")


@pytest.mark.parametrize("form", FORMS)
def test_a_request_without_turns_is_refused(gateway: ServerProcess, form: str) -> None:
    assert refused(gateway.post(PATHS[form], {"model": "auto"})).split(":")[0] in ("messages", "input")
    turns = "input" if form == RESPONSES else "messages"
    for wrong in ([], 7, [7], [{"role": "user"}], [[]]):
        assert refused(gateway.post(PATHS[form], {"model": "auto", turns: wrong}))
