"""Who should be asked is answered in the formats of routers and judges: the choice is the engine's."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ipr_engine import Engine
from tests.support.server_configs import ANTHROPIC, CHAT, EVERY, OPENAI, PATHS, PROMPTS
from tests.support.server_process import ServerProcess

AMONG = (*OPENAI, ANTHROPIC[0], EVERY[0])
TAU = 0.05


def schema(**properties: Any) -> dict[str, Any]:
    whole = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "json_schema", "json_schema": {"name": "decision", "strict": True, "schema": whole}}


def judged(gateway: ServerProcess, prompt: str, form: Any) -> Any:
    turns = [{"role": "user", "content": prompt}]
    body = {"model": "ipr-judge", "messages": turns, "response_format": form, "ipr": {"tau": TAU}}
    return gateway.post(PATHS[CHAT], body)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_every_endpoint_chooses_as_the_engine(gateway: ServerProcess, default_engine: Engine, prompt: str) -> None:
    expected = default_engine.route(prompt, tau=TAU, allowed=AMONG)
    route = gateway.post("/v1/route", {"prompt": prompt, "ipr": {"tau": TAU, "allowed": list(AMONG)}})
    assert (route.body["model"], route.body["ranked"]) == (expected.model, list(expected.ranked))
    question = {"type": "choice", "name": "who", "instructions": "who", "choices": [{"value": one} for one in AMONG]}
    decisions = gateway.post("/v1/decisions", {"model": "auto", "input": prompt, "questions": [question], "tau": TAU})
    (answer,) = decisions.body["answers"]
    assert answer["choice"] == expected.model
    assert {one["value"]: one["probability"] for one in answer["probabilities"]} == {
        one: float(one == expected.model) for one in AMONG
    }
    criteria = dict.fromkeys(AMONG)
    asked = {
        "model": "auto",
        "state": prompt,
        "questions": {"who": {"type": "choice", "criteria": criteria}},
        "tau": TAU,
    }
    systemone = gateway.post("/v1/systemone", asked)
    assert systemone.body["answers"]["who"]["choice"] == expected.model
    judge = judged(gateway, prompt, schema(target={"enum": list(AMONG)}))
    assert json.loads(judge.body["choices"][0]["message"]["content"]) == {"target": expected.model}
    for reply in (decisions, systemone, judge):
        assert reply.body["ipr"]["cost_usd"] == expected.cost_usd


def test_a_route_explains_every_candidate(gateway: ServerProcess, default_engine: Engine) -> None:
    reply = gateway.post("/v1/route", {"prompt": PROMPTS[0]}, {"x-ipr-explain": "true"})
    told = reply.body["explanation"]
    known = json.loads(json.dumps(default_engine.explain(PROMPTS[0], tau=0.2).to_dict()))
    assert set(told) == set(known)
    assert all(name in json.dumps(told) for name in default_engine.bundle.names)


def test_a_schema_is_filled_as_it_asks(gateway: ServerProcess) -> None:
    nested = {
        "type": "object",
        "properties": {"target": {"type": "string", "enum": list(AMONG)}},
        "required": ["target"],
    }
    form = schema(decision=nested, reason={"type": "string"}, sure={"type": "boolean"}, version={"const": 3})
    filled = json.loads(judged(gateway, PROMPTS[0], form).body["choices"][0]["message"]["content"])
    assert filled["decision"]["target"] in AMONG
    assert set(filled) == {"decision", "reason", "sure", "version"}
    assert (filled["version"], filled["sure"]) == (3, False)
    assert filled["reason"]


@pytest.mark.parametrize(
    "form",
    [
        None,
        {},
        {"type": "json_schema"},
        schema(),
        schema(target={"enum": ["gpt-9"]}),
        schema(a={"enum": list(AMONG)}, b={"enum": list(AMONG)}),
    ],
)
def test_a_schema_without_one_enum_of_candidates_is_refused(gateway: ServerProcess, form: Any) -> None:
    reply = judged(gateway, PROMPTS[0], form)
    assert (reply.status, reply.body["error"]["param"]) == (400, "response_format")


@pytest.mark.parametrize(("more", "param"), [({"n": 2}, "n"), ({"stream": True}, "stream"), ({"tau": 0.2}, "tau")])
def test_the_judge_refuses_what_it_would_not_heed(gateway: ServerProcess, more: dict[str, Any], param: str) -> None:
    form = schema(target={"enum": list(AMONG)})
    body = {"model": "ipr-judge", "messages": [{"role": "user", "content": "hi"}], "response_format": form}
    assert gateway.post(PATHS[CHAT], {**body, "n": 1, "stream": False}).status == 200
    reply = gateway.post(PATHS[CHAT], {**body, **more})
    assert (reply.status, reply.body["error"]["param"]) == (400, param)


def test_a_question_that_is_no_choice_is_refused_in_its_place(gateway: ServerProcess) -> None:
    questions = [
        {"type": "predicate", "name": "hard", "instructions": "is it hard"},
        {"type": "choice", "name": "who", "instructions": "who", "choices": [{"value": one} for one in AMONG]},
    ]
    reply = gateway.post("/v1/decisions", {"model": "auto", "input": PROMPTS[0], "questions": questions})
    assert [(one["type"], one["name"]) for one in reply.body["answers"]] == [("refusal", "hard"), ("choice", "who")]


CHOICE = {"type": "choice", "instructions": "who", "choices": [{"value": EVERY[0]}]}
WRONG: list[tuple[str, dict[str, Any], int, str]] = [
    ("/v1/route", {}, 400, "prompt"),
    ("/v1/route", {"prompt": "hi", "model": "gpt-9"}, 404, "gpt-9"),
    ("/v1/route", {"prompt": "hi", "messages": [{"role": "user", "content": "hi"}]}, 400, "prompt"),
    ("/v1/decisions", {"questions": [CHOICE]}, 400, "input"),
    ("/v1/decisions", {"input": "hi"}, 400, "questions"),
    ("/v1/decisions", {"input": "hi", "questions": 401 * [CHOICE]}, 400, "questions"),
    ("/v1/decisions", {"input": "hi", "questions": [7]}, 400, "questions[0]"),
    ("/v1/decisions", {"input": "hi", "questions": [{**CHOICE, "choices": [{"value": "gpt-9"}]}]}, 400, "gpt-9"),
    ("/v1/decisions", {"input": "hi", "questions": [{**CHOICE, "choices": 256 * [EVERY[0]]}]}, 400, "choices"),
    ("/v1/decisions", {"input": "hi", "questions": [CHOICE], "allowed": 5}, 400, "allowed"),
    ("/v1/decisions", {"input": "hi", "questions": [CHOICE], "allowed": ["gpt-9"]}, 400, "allowed"),
    ("/v1/decisions", {"input": "hi", "questions": [CHOICE], "tau": 0.1, "ipr": {"tau": 0.1}}, 400, "ipr"),
    (
        "/v1/decisions",
        {"input": "hi", "questions": [{**CHOICE, "choices": [EVERY[0], EVERY[1], EVERY[0].upper()]}]},
        400,
        "twice",
    ),
    ("/v1/decisions", {"input": "hi", "questions": [CHOICE, {**CHOICE, "type": "chioce"}]}, 400, "questions[1].type"),
    ("/v1/decisions", {"input": "hi", "questions": [{"choices": CHOICE["choices"]}]}, 400, "questions[0].type"),
    ("/v1/decisions", {"input": "hi", "questions": [CHOICE], "stream": True}, 400, "stream"),
    ("/v1/systemone", {"state": "hi", "stream": True}, 400, "stream"),
    (
        "/v1/systemone",
        {"state": "hi", "questions": {"q": {"type": "choice", "criteria": {EVERY[0]: None, EVERY[0].upper(): None}}}},
        422,
        "questions.q.criteria",
    ),
    ("/v1/systemone", {"questions": {"q": {"type": "choice", "criteria": {EVERY[0]: None}}}}, 422, "state"),
    ("/v1/systemone", {"state": "hi", "questions": []}, 422, "questions"),
    ("/v1/systemone", {"state": "hi", "questions": {"q": {"type": "noul"}}}, 422, "q"),
    ("/v1/systemone", {"state": "hi", "questions": {"q": {"type": "choice", "criteria": {}}}}, 422, "criteria"),
]


@pytest.mark.parametrize(("path", "body", "status", "named"), WRONG)
def test_what_is_wrong_is_named(
    gateway: ServerProcess, path: str, body: dict[str, Any], status: int, named: str
) -> None:
    reply = gateway.post(path, body)
    assert reply.status == status
    assert named in reply.body["error"]["message"]
    assert ("field" if path == "/v1/systemone" else "param") in reply.body["error"]
