"""A `QuestionEndpoints` answers questions whose choices are candidates: OpenAI's `/v1/decisions`, and `/v1/systemone`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ipr_engine.prompts import TURNS
from ipr_engine.server.asked_controls import EVERY, controls_of
from ipr_engine.server.asked_query import query_of
from ipr_engine.server.chooser import Chooser, asked_as, require_whole
from ipr_engine.server.decided import AskedRequest, Decided
from ipr_engine.server.decision_json import decision_dict
from ipr_engine.server.exchange import Exchange
from ipr_engine.server.json_text import json_text
from ipr_engine.server.judge_schema import MOST_CHOICES
from ipr_engine.server.refused import RefusedError
from ipr_engine.server.server_config import Tenant
from ipr_engine.server.told import Told

MOST_QUESTIONS = 400
MOST_OF_SYSTEMONE, WRONG_OF_SYSTEMONE = 128, 422
OTHER_TYPES = ("predicate", "score")
"""Types of a question that the format has, and that no candidate answers."""
OF_BODY = ("tau", "allowed", "exclude")
"""Controls that both take as fields of their own, as extra fields of an SDK's call."""


class QuestionEndpoints:
    """A `QuestionEndpoints` answers with a distribution: 1 for the candidate that is decided, since a decision is no draw."""

    def __init__(self, chooser: Chooser) -> None:
        self._chooser = chooser

    async def decisions(self, exchange: Exchange, tenant: Tenant, told: Told) -> None:
        """Answer `POST /v1/decisions`. Questions of another type than choice are refused, one by one, as the format has it."""
        body = await exchange.json(self._chooser.limits)
        question = self._question(exchange, body, tenant, told)
        if body.get("input") is None:
            raise RefusedError(400, "input: expected a text or a list of items", "input")
        questions = body.get("questions")
        if not isinstance(questions, list) or not 1 <= len(questions) <= MOST_QUESTIONS:
            raise RefusedError(400, f"questions: expected a list of 1 to {MOST_QUESTIONS}", "questions")
        choices: dict[int, list[str]] = {}
        for number, one in enumerate(questions):
            where = f"questions[{number}]"
            if not isinstance(one, dict):
                raise RefusedError(400, f"{where}: expected an object", where)
            if one.get("type") == "choice":
                choices[number] = _labels(one.get("choices"), f"{where}.choices")
            elif one.get("type") not in OTHER_TYPES:
                known = f"expected choice, or {' or '.join(OTHER_TYPES)}, which get a refusal"
                raise RefusedError(400, f"{where}.type: {known}", f"{where}.type")
        wanted = [(f"questions[{number}].choices", among) for number, among in choices.items()]
        asked = question._replace(prompt=body["input"], within="input")
        made = await self._chooser.each(exchange, asked, wanted, told)
        decided = dict(zip(choices, made, strict=True))
        answers = [
            {"type": "refusal", "name": one.get("name")}
            if number not in decided
            else _choice(one.get("name"), choices[number], decided[number])
            for number, one in enumerate(questions)
        ]
        tokens = made[0].decision.billed_tokens if made else 0
        usage = {
            "input_tokens": tokens,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": 0,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": tokens,
        }
        found = {"model": question.model, "answers": answers, "usage": usage, "ipr": _raw(choices, made)}
        await exchange.json_reply(200, found)

    async def systemone(self, exchange: Exchange, tenant: Tenant, told: Told) -> None:
        """Answer `POST /v1/systemone`."""
        body = await exchange.json(self._chooser.limits)
        question = self._question(exchange, body, tenant, told)
        prompt = _state(body.get("state"))
        questions = body.get("questions")
        if not isinstance(questions, dict) or not 1 <= len(questions) <= MOST_OF_SYSTEMONE:
            raise RefusedError(
                WRONG_OF_SYSTEMONE, f"questions: expected an object of 1 to {MOST_OF_SYSTEMONE} questions", "questions"
            )
        choices: dict[str, list[str]] = {}
        for id, one in questions.items():
            where = f"questions.{id[:64]}"
            if not isinstance(one, dict) or one.get("type") != "choice":
                wrong = "expected a question of type choice, whose criteria are candidates"
                raise RefusedError(WRONG_OF_SYSTEMONE, f"{where}: {wrong}", where, why=f"questions: {wrong}")
            criteria = one.get("criteria")
            if not isinstance(criteria, dict) or not 1 <= len(criteria) <= MOST_CHOICES:
                wrong = f"criteria: expected an object of 1 to {MOST_CHOICES} candidates"
                raise RefusedError(WRONG_OF_SYSTEMONE, f"{where}.{wrong}", where, why=f"questions: {wrong}")
            choices[id] = list(criteria)
            _require_different(choices[id], f"{where}.criteria", WRONG_OF_SYSTEMONE)
        wanted = [(f"questions.{id[:64]}.criteria", among) for id, among in choices.items()]
        asked = question._replace(prompt=prompt, within="state")
        made = await self._chooser.each(exchange, asked, wanted, told, WRONG_OF_SYSTEMONE)
        answers = {}
        for (id, among), decided in zip(choices.items(), made, strict=True):
            chosen = asked_as(among, decided.decision.model)
            probabilities = {one: float(one == chosen) for one in among}
            answers[id] = {"type": "choice", "choice": chosen, "confidence": 1.0, "probabilities": probabilities}
        usage = {"input_tokens": made[0].decision.billed_tokens, "output_tokens": 0}
        found = {"model": question.model, "answers": answers, "usage": usage, "ipr": _raw(choices, made)}
        await exchange.json_reply(200, found)

    def _question(self, exchange: Exchange, body: dict[str, Any], tenant: Tenant, told: Told) -> AskedRequest:
        """Return what both ask, without their prompt."""
        query_of(exchange, ())
        controls = controls_of(exchange.headers, body, tenant.controls, OF_BODY, bare=EVERY)
        controls.require_no_explain()
        require_whole(body)
        model = told.asked = self._chooser.alias(body)
        return AskedRequest(None, controls, tenant, model, long=exchange.is_long)


def _choice(name: object, choices: list[str], decided: Decided) -> dict[str, Any]:
    chosen = asked_as(choices, decided.decision.model)
    probabilities = [{"value": one, "probability": float(one == chosen)} for one in choices]
    return {"type": "choice", "name": name, "choice": chosen, "confidence": 1.0, "probabilities": probabilities}


def _raw(asked: Iterable[int | str], made: list[Decided]) -> dict[str, Any] | None:
    """Return the decision whole; of several, each of them with its questions; None where no question was decided."""
    each: dict[str, tuple[Decided, list[int | str]]] = {}
    for question, decided in zip(asked, made, strict=True):
        each.setdefault(decided.id, (decided, []))[1].append(question)
    told = [(decision_dict(decided), questions) for decided, questions in each.values()]
    if len(told) > 1:
        return {"decisions": [{"questions": questions, **decision} for decision, questions in told]}
    return told[0][0] if told else None


def _labels(choices: object, where: str) -> list[str]:
    """Return the values of a question's choices."""
    if not isinstance(choices, list) or not 1 <= len(choices) <= MOST_CHOICES:
        raise RefusedError(400, f"{where}: expected a list of 1 to {MOST_CHOICES} candidates", where)
    values = [one.get("value") if isinstance(one, dict) else one for one in choices]
    found = [value for value in values if isinstance(value, str)]
    if len(found) < len(values):
        raise RefusedError(400, f"{where}: expected objects with a text as value", where)
    _require_different(found, where, 400)
    return found


def _require_different(choices: list[str], where: str, status: int) -> None:
    """Refuse a candidate that is named twice: the probabilities of a question's choices add up to 1."""
    if len({one.casefold() for one in choices}) < len(choices):
        raise RefusedError(status, f"{where}: expected different candidates, got one twice", where)


def _state(state: object) -> Any:
    """Return what is decided on of systemone's state: a text, a conversation, or else its JSON."""
    if state is None or state in ("", [], {}):
        raise RefusedError(WRONG_OF_SYSTEMONE, "state: expected a text, an object or a list", "state")
    if isinstance(state, str):
        return state
    if isinstance(state, dict) and any(state.get(name) is not None for name in TURNS):
        return state
    if isinstance(state, list) and all(isinstance(item, dict) and "role" in item for item in state):
        return state
    return json_text(state).decode()
