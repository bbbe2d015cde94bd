"""A `DecisionEndpoints` answers who should be asked, and asks nobody: `/v1/route`, and the judge's chat completion."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

from ipr_engine.decision import Explanation
from ipr_engine.prompts import TURNS
from ipr_engine.server.asked_controls import EVERY, controls_of
from ipr_engine.server.asked_query import query_of
from ipr_engine.server.chooser import NOT_ROUTED, Chooser, asked_as, require_whole
from ipr_engine.server.decided import AskedRequest, Decided
from ipr_engine.server.decision_json import decision_dict, decision_json
from ipr_engine.server.exchange import JSON, Exchange
from ipr_engine.server.json_text import json_text
from ipr_engine.server.judge_schema import JUDGE, filled
from ipr_engine.server.long_body import read_beside
from ipr_engine.server.policy_book import require_known
from ipr_engine.server.refused import RefusedError
from ipr_engine.server.server_config import Tenant
from ipr_engine.server.told import Told

NO_UPSTREAMS = "this server has no upstreams and only decides: ask /v1/route, or start it with --upstreams"
_TURNS = frozenset(TURNS)


class DecisionEndpoints:
    """A `DecisionEndpoints` answers with decisions."""

    def __init__(self, chooser: Chooser) -> None:
        self._chooser = chooser

    async def route(self, exchange: Exchange, tenant: Tenant, told: Told) -> None:
        """Answer `POST /v1/route`: the decision for a whole request, who is next, and why where `explain` is asked for."""
        query = query_of(exchange)
        body = await exchange.json(self._chooser.limits)
        controls = controls_of(exchange.headers, body, tenant.controls, bare=EVERY)
        model = told.asked = self._chooser.alias(body)
        if _TURNS.isdisjoint(body):
            raise RefusedError(400, "prompt: expected a request with messages, input or prompt", "prompt")
        question = AskedRequest(body, controls, tenant, model, query.form, long=exchange.is_long)
        decided = await self._chooser.decide(question, told, counts=not query.trial)
        written = decision_json(decided)
        if controls.explain:  # the taus at which the choice changes take milliseconds
            found = await asyncio.to_thread(_explained, decided)
            written = written[:-1] + b',"explanation":' + orjson.dumps(found) + b"}"
        await exchange.reply(200, written, [JSON])

    async def judge(self, exchange: Exchange, tenant: Tenant, told: Told, body: dict[str, Any]) -> None:
        """Answer a chat completion whose json_schema has an enum of candidates: the enum is filled by the decision."""
        controls = controls_of(exchange.headers, body, tenant.controls, bare=EVERY)
        config, names = self._chooser.config, self._chooser.names
        told.asked = require_known(body.get("model"), (JUDGE, *config.models), names, NOT_ROUTED)
        model = self._chooser.default if told.asked == JUDGE else told.asked
        require_whole(body)
        if body.get("n") not in (None, 1):
            raise RefusedError(400, "n: there is one decision; leave it out", "n")
        form = body.get("response_format")
        schema = (
            form.get("json_schema", {}).get("schema")
            if isinstance(form, dict) and isinstance(form.get("json_schema"), dict)
            else None
        )
        if form is None and not config.upstreams and told.asked != JUDGE:  # a chat, as any client sends it
            raise RefusedError(404, NO_UPSTREAMS)
        if not isinstance(schema, dict):
            only = "without upstreams only decisions are made here"
            if config.upstreams:
                only = f"{JUDGE} only decides: for an answer ask for {' or '.join(config.models)}"
            wrong = f"response_format: expected a json_schema with an enum of candidates; {only}"
            raise RefusedError(400, wrong, "response_format")
        controls.require_no_explain()
        long = exchange.is_long
        choices, fill = await read_beside(filled, schema, names) if long else filled(schema, names)
        if body.get("messages") is None:
            raise RefusedError(400, "messages: expected the conversation, got none", "messages")
        question = AskedRequest({"messages": body["messages"]}, controls, tenant, model, long=long)
        decided = await self._chooser.among(question, choices, told, "response_format")
        said = asked_as(choices, decided.decision.model), decided.decision.cause
        content = json_text(await read_beside(fill, *said) if long else fill(*said)).decode()
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


def _explained(decided: Decided) -> dict[str, Any]:
    """Return every candidate of a decision, with what kept it out, whoever said so. It takes milliseconds."""
    found = Explanation(decided.decision).to_dict()
    found["decision"]["excluded"] |= decided.asked.exclusions
    for row in found["candidates"]:
        why = decided.asked.exclusions.get(row["name"])
        if why is not None and not row["chosen"]:
            row["excluded_because"] = row["state"] = why
    return found
