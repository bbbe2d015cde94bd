"""A `DecisionEndpoints` answers who should be asked, and asks nobody: `/v1/route`, and the formats of routers and judges."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from ipr_engine.decision import Explanation
from ipr_engine.prompts import TURNS
from ipr_engine.request.controls import Controls
from ipr_engine.server.asked_controls import controls_of
from ipr_engine.server.decided import Decided, Question
from ipr_engine.server.decider import Decider
from ipr_engine.server.decision_json import decision_dict, decision_json
from ipr_engine.server.exchange import JSON, Exchange
from ipr_engine.server.json_text import json_text
from ipr_engine.server.judge_schema import filled
from ipr_engine.server.policy_book import require_known
from ipr_engine.server.refused import RefusedError
from ipr_engine.server.server_config import ServerConfig, Tenant
from ipr_engine.server.told import Told

JUDGE = "ipr-judge"
"""The model of a chat completion that is answered by a decision: one of the candidates in its json_schema's enum."""
MOST_QUESTIONS = 400
MOST_CHOICES = 255
OF_BODY = ("tau", "allowed", "exclude")
"""Controls that `/v1/decisions` and `/v1/systemone` take as fields of their own, as extra fields of an SDK's call."""


class DecisionEndpoints:
    """A `DecisionEndpoints` answers with decisions."""

    def __init__(self, config: ServerConfig, decider: Decider) -> None:
        self._config = config
        self._decider = decider
        self._limits = config.server.limits
        self._default = next(iter(config.models))

    async def route(self, exchange: Exchange, tenant: Tenant, told: Told) -> None:
        """Answer `POST /v1/route`: the decision for a whole request, who is next, and why where `explain` is asked for."""
        body = await exchange.json(self._limits)
        controls = controls_of(exchange.headers, body, tenant.controls)
        model = told.asked = self._alias(body)
        if not any(body.get(name) is not None for name in TURNS):
            raise RefusedError(400, "prompt: expected a request with messages, input or prompt", "prompt")
        decided = await self._decide(Question(body, controls, tenant, model), told)
        written = decision_json(decided)
        if controls.explain:  # the taus at which the choice changes take milliseconds
            found = await asyncio.to_thread(lambda: Explanation(decided.decision).to_dict())
            written = written[:-1] + b',"explanation":' + orjson.dumps(found) + b"}"
        await exchange.reply(200, written, [JSON])

    async def decisions(self, exchange: Exchange, tenant: Tenant, told: Told) -> None:
        """Answer `POST /v1/decisions` (OpenAI): a question of type choice is decided among the candidates it names."""
        body = await exchange.json(self._limits)
        controls = controls_of(exchange.headers, body, tenant.controls, OF_BODY)
        model = told.asked = self._alias(body)
        prompt = body.get("input")
        if prompt is None:
            raise RefusedError(400, "input: expected a text or a list of items", "input")
        questions = body.get("questions")
        if not isinstance(questions, list) or not 1 <= len(questions) <= MOST_QUESTIONS:
            raise RefusedError(400, f"questions: expected a list of 1 to {MOST_QUESTIONS}", "questions")
        answers: list[dict[str, Any]] = []
        last = None
        for number, question in enumerate(questions):
            where = f"questions[{number}]"
            if not isinstance(question, dict):
                raise RefusedError(400, f"{where}: expected an object", where)
            name = question.get("name")
            if question.get("type") != "choice":
                answers.append({"type": "refusal", "name": name})
                continue
            choices = _labels(question.get("choices"), f"{where}.choices")
            last = await self._among(prompt, choices, controls, tenant, model, told)
            chosen = _asked_as(choices, last.decision.model)
            answers.append(
                {
                    "type": "choice",
                    "name": name,
                    "choice": chosen,
                    "confidence": 1.0,
                    "probabilities": [{"value": one, "probability": float(one == chosen)} for one in choices],
                }
            )
        tokens = 0 if last is None else last.decision.billed_tokens
        usage = {
            "input_tokens": tokens,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": 0,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": tokens,
        }
        found = {
            "model": model,
            "answers": answers,
            "usage": usage,
            "ipr": None if last is None else decision_dict(last),
        }
        await exchange.json_reply(200, found)

    async def systemone(self, exchange: Exchange, tenant: Tenant, told: Told) -> None:
        """Answer `POST /v1/systemone`: a question of type choice is decided among the candidates that are its criteria."""
        body = await exchange.json(self._limits)
        controls = controls_of(exchange.headers, body, tenant.controls, OF_BODY)
        model = told.asked = self._alias(body)
        prompt = _state(body.get("state"))
        questions = body.get("questions")
        if not isinstance(questions, dict) or not 1 <= len(questions) <= 128:
            raise RefusedError(422, "questions: expected an object of 1 to 128 questions", "questions")
        answers: dict[str, Any] = {}
        last = None
        for id, question in questions.items():
            where = f"questions.{id[:64]}"
            if not isinstance(question, dict) or question.get("type") != "choice":
                raise RefusedError(
                    422, f"{where}: expected a question of type choice, whose criteria are candidates", where
                )
            criteria = question.get("criteria")
            if not isinstance(criteria, dict) or not 1 <= len(criteria) <= MOST_CHOICES:
                raise RefusedError(
                    422, f"{where}.criteria: expected an object of 1 to {MOST_CHOICES} candidates", where
                )
            choices = list(criteria)
            last = await self._among(prompt, choices, controls, tenant, model, told)
            chosen = _asked_as(choices, last.decision.model)
            probabilities = {one: float(one == chosen) for one in choices}
            answers[id] = {"type": "choice", "choice": chosen, "confidence": 1.0, "probabilities": probabilities}
        tokens = 0 if last is None else last.decision.billed_tokens
        usage = {"input_tokens": tokens, "output_tokens": 0}
        found = {
            "model": model,
            "answers": answers,
            "usage": usage,
            "ipr": None if last is None else decision_dict(last),
        }
        await exchange.json_reply(200, found)

    async def judge(self, exchange: Exchange, tenant: Tenant, told: Told, body: dict[str, Any]) -> None:
        """Answer a chat completion whose json_schema has an enum of candidates: the enum is filled by the decision."""
        controls = controls_of(exchange.headers, body, tenant.controls)
        told.asked = require_known(body.get("model"), (JUDGE, *self._config.models))
        model = self._default if told.asked == JUDGE else told.asked
        if body.get("stream"):
            raise RefusedError(400, "stream: a decision comes whole; leave it out", "stream")
        form = body.get("response_format")
        schema = (
            form.get("json_schema", {}).get("schema")
            if isinstance(form, dict) and isinstance(form.get("json_schema"), dict)
            else None
        )
        if not isinstance(schema, dict):
            raise RefusedError(
                400,
                "response_format: expected a json_schema with an enum of candidates; without upstreams only decisions are made here",
                "response_format",
            )
        names = self._decider.engine.bundle.names
        choices, fill = filled(schema, names)
        question = {"messages": body.get("messages")}
        decided = await self._among(question, choices, controls, tenant, model, told)
        content = json_text(fill(_asked_as(choices, decided.decision.model), decided.decision.cause)).decode()
        tokens = decided.decision.billed_tokens
        found = {
            "id": f"chatcmpl-{decided.id}",
            "object": "chat.completion",
            "created": int(told.begun),
            "model": told.asked,
            "choices": [{"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens},
            "ipr": decision_dict(decided),
        }
        await exchange.json_reply(200, found)

    def _alias(self, body: Mapping[str, Any]) -> str:
        """Return the routed model that a decision is asked for; it may be left out."""
        model = body.get("model")
        return self._default if model is None else require_known(model, self._config.models)

    async def _among(
        self, prompt: Any, choices: Sequence[str], controls: Controls, tenant: Tenant, model: str, told: Told
    ) -> Decided:
        """Decide among the candidates that a question names."""
        known = {name.casefold() for name in self._decider.engine.bundle.names}
        unknown = [one for one in choices if one.casefold() not in known]
        if unknown:
            raise RefusedError(
                400,
                f"choices: {unknown[0][:128]!r} is no candidate; known: {', '.join(self._decider.engine.bundle.names)}",
                "choices",
            )
        among = tuple({one.casefold(): one for one in choices}.values())
        return await self._decide(Question(prompt, controls, tenant, model, among=among), told)

    async def _decide(self, question: Question, told: Told) -> Decided:
        decided = await self._decider.decide(question)
        told.decided = decided
        self._decider.answered(decided, decided.decision.model, decided.decision.cause)
        return decided


def _labels(choices: object, where: str) -> list[str]:
    """Return the values of a question's choices."""
    if not isinstance(choices, list) or not 1 <= len(choices) <= MOST_CHOICES:
        raise RefusedError(400, f"{where}: expected a list of 1 to {MOST_CHOICES} candidates", where)
    values = [one.get("value") if isinstance(one, dict) else one for one in choices]
    found = [value for value in values if isinstance(value, str)]
    if len(found) < len(values):
        raise RefusedError(400, f"{where}: expected objects with a text as value", where)
    return found


def _asked_as(choices: Sequence[str], name: str) -> str:
    """Return the candidate as the question spells it."""
    return next(one for one in choices if one.casefold() == name.casefold())


def _state(state: object) -> Any:
    """Return what is decided on of systemone's state: a text, a conversation, or else its JSON."""
    if state is None or state in ("", [], {}):
        raise RefusedError(422, "state: expected a text, an object or a list", "state")
    if isinstance(state, str):
        return state
    if isinstance(state, dict) and any(state.get(name) is not None for name in TURNS):
        return state
    if isinstance(state, list) and all(isinstance(item, dict) and "role" in item for item in state):
        return state
    return json_text(state).decode()
