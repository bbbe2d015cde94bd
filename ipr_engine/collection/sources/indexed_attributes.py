"""`indexed_request` and `indexed_reply` read calls of OpenLLMetry, an attribute a field of a message: `gen_ai.prompt.0.content`.

The layout: `SpanAttributes.LLM_PROMPTS`, `LLM_COMPLETIONS` and `LLM_REQUEST_FUNCTIONS` of opentelemetry-semantic-conventions-ai, as
opentelemetry-instrumentation-openai 0.40 sets them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ipr_engine.collection.sources.strict_json import json_or_text, maybe_json

PROMPTS = "gen_ai.prompt."
_REPLIES = "gen_ai.completion."
_FUNCTIONS = "llm.request.functions."
_FILTERED = "FILTERED"  # stands for what a provider withheld


def indexed_request(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a call asked, as a request of chat completions."""
    messages: list[dict[str, Any]] = []
    for message in _indexed(attributes, PROMPTS):
        kept: dict[str, Any] = {name: message[name] for name in ("role", "tool_call_id") if name in message}
        if "content" in message:
            kept["content"] = json_or_text(message["content"])  # parts are JSON text
        calls = [
            {
                "id": call.get("id"),
                "type": "function",
                "function": {key: call.get(key) for key in ("name", "arguments")},
            }
            for call in _indexed(message, "tool_calls.")
        ]
        messages.append({**kept, **({"tool_calls": calls} if calls else {})})
    tools = []
    for function in _indexed(attributes, _FUNCTIONS):
        schema = maybe_json(function.get("parameters"), "JSON in the parameters of a function")
        named: dict[str, Any] = {name: function[name] for name in ("name", "description") if function.get(name)}
        if isinstance(schema, Mapping):
            named["parameters"] = schema
        tools.append({"type": "function", "function": named})
    return {"messages": messages, **({"tools": tools} if tools else {})}


def indexed_reply(attributes: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the first answer of a call as a chat completion; None where there is none."""
    first = next(iter(_indexed(attributes, _REPLIES)), None)
    if first is None or first.get("content") == _FILTERED:
        return None
    return {"choices": [{"finish_reason": first.get("finish_reason"), "message": {"content": first.get("content")}}]}


def _indexed(attributes: Mapping[str, Any], prefix: str) -> list[dict[str, Any]]:
    """Return the attributes `<prefix><index>.<name>` as an object an index, by index."""
    found: dict[int, dict[str, Any]] = {}
    for key, value in attributes.items():
        index, _, name = key.removeprefix(prefix).partition(".")
        if key.startswith(prefix) and name and index.isascii() and index.isdecimal() and len(index) < 7:
            found.setdefault(int(index), {})[name] = value
    return [found[index] for index in sorted(found)]
