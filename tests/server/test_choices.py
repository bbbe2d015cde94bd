"""What a gateway chooses is what the engine chooses, and its headers tell that decision's figures."""

from __future__ import annotations

from typing import Any

import pytest

from ipr_engine import Decision, Engine, parse_request
from tests.support.server_configs import (
    ANTHROPIC,
    CALLED,
    CHAT,
    MESSAGES,
    NOT_CONFIGURED,
    OPENAI,
    PATHS,
    PROMPTS,
    REFUSING,
    RESPONSES,
    SPEAKERS,
    body_of,
)
from tests.support.server_process import ServerProcess
from tests.support.upstream_stub import UpstreamStub

FORMS = (CHAT, RESPONSES, MESSAGES)
TURNS = [
    {"role": "user", "content": "What is the weather in Bern?"},
    {"role": "assistant", "content": "I cannot know."},
    {"role": "user", "content": [{"type": "text", "text": "Then explain how weather is forecast."}]},
]
TOOL = {"name": "weather", "description": "The weather.", "parameters": {"type": "object", "properties": {}}}
WHOLE: dict[str, dict[str, Any]] = {
    CHAT: {"model": "auto", "messages": TURNS, "tools": [{"type": "function", "function": TOOL}], "n": 2},
    RESPONSES: {"model": "auto", "instructions": "Be brief.", "input": "Explain rain.", "max_output_tokens": 64},
    MESSAGES: {"model": "auto", "system": "Be brief.", "messages": TURNS, "max_tokens": 64},
}
"""Requests of which more than one prompt is read."""


def decided(engine: Engine, form: str, body: dict[str, Any], **options: Any) -> Decision:
    """Decide as the model `auto` does."""
    return engine.route(parse_request(body), **{"tau": 0.2, "allowed": SPEAKERS[form], **options})


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("tau", [None, 0.0, 1.0])
def test_choice_equals_the_engines(
    gateway: ServerProcess, upstream: UpstreamStub, default_engine: Engine, form: str, prompt: str, tau: float | None
) -> None:
    asked = {} if tau is None else {"tau": tau}
    expected = decided(default_engine, form, body_of(form, prompt), **asked)
    reply = gateway.post(PATHS[form], body_of(form, prompt, metadata={"ipr": asked}))
    served = CALLED.get(expected.model, expected.model)
    assert (reply.status, reply.body["model"]) == (200, served)
    assert [one["model"] for one in upstream.seen()] == [served]


@pytest.mark.parametrize("form", FORMS)
def test_the_whole_request_is_decided_on(gateway: ServerProcess, default_engine: Engine, form: str) -> None:
    expected = decided(default_engine, form, WHOLE[form])
    assert gateway.post(PATHS[form], WHOLE[form]).told["candidate"] == expected.model
    told = gateway.post("/v1/route", WHOLE[form] | {"ipr": {"allowed": list(SPEAKERS[form])}}).body
    known = expected.to_dict()
    same = ("model", "ranked", "cost_usd", "quality", "billed_tokens", "tau", "rule", "support", "promise")
    assert {name: told[name] for name in same} == {name: known[name] for name in same}


@pytest.mark.parametrize("form", FORMS)
def test_headers_are_the_decisions_figures(gateway: ServerProcess, default_engine: Engine, form: str) -> None:
    expected = decided(default_engine, form, body_of(form))
    reply = gateway.post(PATHS[form], body_of(form))
    told = reply.told
    best = expected.bundle.names.index(expected.policy.promise.best)
    saved = expected.usd_of(best) - expected.cost_usd
    assert len(told.pop("decision-id")) == 24
    assert told == {
        "candidate": expected.model,
        "model": CALLED.get(expected.model, expected.model),
        "cause": expected.cause,
        "tau": "0.2",
        "quality": f"{expected.quality:.4f}",
        "cost-usd": f"{expected.cost_usd:.6g}",
        "saved-usd": f"{saved:.6g}",
        "support": f"{expected.support:.3f}",
        "bundle": expected.bundle_hash[:16],
    }


def test_saved_is_counted_against_the_best_single_candidate(gateway: ServerProcess, default_engine: Engine) -> None:
    before = gateway.metrics()
    replies = [gateway.post(PATHS[CHAT], body_of(CHAT, prompt)) for prompt in PROMPTS]
    counted = gateway.counted(before)
    expected = [decided(default_engine, CHAT, body_of(CHAT, prompt)) for prompt in PROMPTS]
    best = default_engine.bundle.names.index(expected[0].policy.promise.best)
    saved = sum(one.usd_of(best) - one.cost_usd for one in expected)
    assert {reply.status for reply in replies} == {200}
    assert counted['ipr_saved_usd{tenant="team"}'] == pytest.approx(saved, abs=1e-12)
    spent = [value for name, value in counted.items() if name.startswith("ipr_cost_usd_total{")]
    assert sum(spent) == pytest.approx(sum(one.cost_usd for one in expected), abs=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_who_cannot_speak_the_format_is_left_out_and_counted(gateway: ServerProcess, form: str) -> None:
    before = gateway.metrics()
    assert gateway.post(PATHS[form], body_of(form)).status == 200
    counted = gateway.counted(before)
    masked = {name.split('"')[1] for name in counted if name.startswith("ipr_masked_total{") and form in name}
    assert masked == {CHAT: {*ANTHROPIC}, RESPONSES: {*ANTHROPIC, REFUSING}, MESSAGES: {*OPENAI, REFUSING}}[form]


def test_who_speaks_what_is_listed_at_the_start(gateway: ServerProcess) -> None:
    listed = dict(line.strip().split(": ", 1) for line in gateway.printed().splitlines() if line.startswith("  "))
    assert listed[NOT_CONFIGURED] == "no upstream, never chosen"
    for form, speakers in SPEAKERS.items():
        assert {name for name, said in listed.items() if form in said.split()} - {REFUSING} == set(speakers)


@pytest.mark.parametrize("form", FORMS)
def test_a_named_model_passes_without_a_decision(gateway: ServerProcess, upstream: UpstreamStub, form: str) -> None:
    name = "llama-3.1-8b-instruct"
    before = gateway.metrics()
    reply = gateway.post(PATHS[form], body_of(form, model=name))
    assert (reply.status, reply.body["model"]) == (200, CALLED[name])
    assert reply.told == {"candidate": name, "model": CALLED[name], "cause": "named"}
    assert [one["model"] for one in upstream.seen()] == [CALLED[name]]
    counted = gateway.counted(before)
    assert not [sample for sample in counted if sample.startswith(("ipr_decisions_total", "ipr_cost_usd"))]
    assert counted[f'ipr_served_total{{candidate="{name}",cause="named"}}'] == 1


def test_a_named_model_must_speak_the_format(gateway: ServerProcess, upstream: UpstreamStub) -> None:
    reply = gateway.post(PATHS[MESSAGES], body_of(MESSAGES, model=OPENAI[0]))
    assert reply.status == 400
    assert "openai-chat" in reply.body["error"]["message"]
    assert upstream.seen() == []


@pytest.mark.parametrize("form", FORMS)
def test_a_request_goes_upstream_as_it_came(gateway: ServerProcess, upstream: UpstreamStub, form: str) -> None:
    body = WHOLE[form] | {"metadata": {"ipr": {"tau": 0.3}, "job": "7"}, "temperature": 0.25, "unknown": [1.5, None]}
    assert gateway.post(PATHS[form], body).status == 200
    (seen,) = upstream.seen()
    sent = {name: value for name, value in seen.items() if name[0] != "_"}
    assert sent == body | {"model": seen["model"], "metadata": {"job": "7"}}
    assert seen["_path"] == PATHS[form]


def test_models_are_listed(gateway: ServerProcess) -> None:
    listed = {one["id"]: one for one in gateway.get("/v1/models").body["data"]}
    assert set(listed) >= {"auto", "best", "refusing", *OPENAI}
    assert listed[OPENAI[0]]["context_length"] == 128000
    assert NOT_CONFIGURED not in listed
