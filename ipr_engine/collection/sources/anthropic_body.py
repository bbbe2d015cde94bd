"""`from_anthropic` makes a request of Anthropic Messages one of OpenAI chat completions, where both say the same.

The form: docs.claude.com, API reference, "Create a Message".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ipr_engine.collection.sources.asked_row import UnaskableError
from ipr_engine.data.tables import shown_cell
from ipr_engine.prompts import kind_of

_OWN_PARTS = frozenset(
    (
        "tool_use",
        "tool_result",
        "image",
        "document",
        "thinking",
        "redacted_thinking",
        "search_result",
        "server_tool_use",
    )
)
_NEVER = ("mcp_servers", "container", "context_management", "output_format", "output_config")
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_MOST_STOPS = 4  # of OpenAI chat completions


def is_anthropic(request: Mapping[str, Any]) -> bool:
    """Return whether a request has a form that only Anthropic's has: `system` beside messages, its tools, or its parts."""
    if request.get("system") is not None or request.get("stop_sequences") is not None:
        return True
    tools, messages = request.get("tools"), request.get("messages")
    if isinstance(tools, list) and any(isinstance(tool, Mapping) and "input_schema" in tool for tool in tools):
        return True
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, Mapping) else None
        for part in content if isinstance(content, list) else ():
            if isinstance(part, Mapping) and isinstance(part.get("type"), str) and part["type"] in _OWN_PARTS:
                return True
    return False


def from_anthropic(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request as one of chat completions.

    Raises:
        UnaskableError: something in it has no form there: thinking, documents, tools that Anthropic runs, a tool's error.
    """
    for name in _NEVER:
        if request.get(name):
            raise UnaskableError(f"{name}: has no form in chat completions")
    made: dict[str, Any] = {
        name: value
        for name, value in request.items()
        if name not in ("system", "messages", "tools", "tool_choice", "stop_sequences", "thinking", *_NEVER)
    }
    messages: list[dict[str, Any]] = []
    if request.get("system"):
        messages.append({"role": "system", "content": _texts(request["system"], "system")})
    given = request.get("messages")
    if not isinstance(given, list):
        raise UnaskableError(f"messages: expected a list of messages, got {kind_of(given)}")
    for place, message in enumerate(given):
        messages += _turn(message, f"messages[{place}]")
    made["messages"] = messages
    if request.get("tools"):
        made["tools"] = [
            _tool(tool, f"tools[{place}]") for place, tool in enumerate(_listed(request["tools"], "tools"))
        ]
    if request.get("tool_choice") is not None:
        made |= _tool_choice(request["tool_choice"])
    stops = request.get("stop_sequences")
    if stops:
        if len(_listed(stops, "stop_sequences")) > _MOST_STOPS:
            raise UnaskableError(f"stop_sequences: chat completions take {_MOST_STOPS}, got {len(stops)}")
        made["stop"] = stops
    return made


def _turn(message: Any, where: str) -> list[dict[str, Any]]:
    """Return a message as those of chat completions: results of tools are messages of their own there."""
    if not isinstance(message, Mapping):
        raise UnaskableError(f"{where}: expected a message such as {{role, content}}, got {kind_of(message)}")
    role, content = message.get("role"), message.get("content")
    if not isinstance(content, list):
        return [dict(message)]
    beside = {name: value for name, value in message.items() if name != "content"}
    parts: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for place, part in enumerate(content):
        here = f"{where}.content[{place}]"
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "tool_use" and role == "assistant":
            calls.append(
                {
                    "id": part.get("id"),
                    "type": "function",
                    "function": {"name": part.get("name"), "arguments": json.dumps(part.get("input", {}))},
                }
            )
        elif kind == "tool_result" and role == "user":
            if part.get("is_error"):
                raise UnaskableError(f"{here}: the error of a tool has no form in chat completions")
            if parts:
                raise UnaskableError(f"{here}: the result of a tool after a text has no form in chat completions")
            said = _texts(part.get("content") or "", here)
            results.append({"role": "tool", "tool_call_id": part.get("tool_use_id"), "content": said})
        elif kind == "image":
            parts.append(_image(part.get("source"), here))
        elif kind in ("text", "image_url"):
            parts.append(dict(part))
        else:
            raise UnaskableError(f"{here}: a part of type {shown_cell(kind)} has no form in chat completions")
    if parts:
        beside["content"] = parts
    if calls:
        beside["tool_calls"] = calls
    return [*results, *([beside] if parts or calls or not results else [])]


def _texts(value: Any, where: str) -> Any:
    """Return a text, or text parts as chat completions have them."""
    if isinstance(value, str):
        return value
    parts = _listed(value, where)
    if not all(isinstance(part, Mapping) and part.get("type") == "text" for part in parts):
        raise UnaskableError(f"{where}: only text has a form in chat completions")
    return [{"type": "text", "text": part.get("text")} for part in parts]


def _image(source: Any, where: str) -> dict[str, Any]:
    kind = source.get("type") if isinstance(source, Mapping) else None
    if kind == "url":
        url = source.get("url")
    elif kind == "base64":
        url = f"data:{source.get('media_type')};base64,{source.get('data')}"
    else:
        raise UnaskableError(f"{where}: an image of {shown_cell(kind)} has no form in chat completions")
    return {"type": "image_url", "image_url": {"url": url}}


def _tool(tool: Any, where: str) -> dict[str, Any]:
    if not isinstance(tool, Mapping) or tool.get("type") not in (None, "custom", "function"):
        raise UnaskableError(f"{where}: a tool that Anthropic runs cannot be asked of another")
    if "input_schema" not in tool:
        return dict(tool)
    described = {"description": tool["description"]} if tool.get("description") else {}
    function = {"name": tool.get("name"), **described, "parameters": tool["input_schema"]}
    return {"type": "function", "function": function}


def _tool_choice(choice: Any) -> dict[str, Any]:
    if not isinstance(choice, Mapping):
        return {"tool_choice": choice}
    one_at_a_time = {"parallel_tool_calls": False} if choice.get("disable_parallel_tool_use") else {}
    kind = choice.get("type")
    if kind == "tool":
        return {"tool_choice": {"type": "function", "function": {"name": choice.get("name")}}, **one_at_a_time}
    if isinstance(kind, str) and kind in _CHOICES:
        return {"tool_choice": _CHOICES[kind], **one_at_a_time}
    return {"tool_choice": dict(choice), **one_at_a_time}


def _listed(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise UnaskableError(f"{where}: expected a list, got {kind_of(value)}")
    return value
