"""`from_responses` makes a request of OpenAI Responses one of OpenAI chat completions, where both say the same.

The form: platform.openai.com, API reference, "Create a model response".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ipr_engine.collection.sources.asked_row import UnaskableError
from ipr_engine.data.tables import shown_cell
from ipr_engine.prompts import kind_of

# How the API works, not what it answers.
_CALL = (
    "max_output_tokens",
    "max_tool_calls",
    "truncation",
    "include",
    "background",
    "reasoning",
    "text",
    "stream_options",
)
_TEXTS = ("input_text", "output_text", "text")


def is_responses(request: Mapping[str, Any]) -> bool:
    return request.get("messages") is None and ("input" in request or "instructions" in request)


def from_responses(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request as one of chat completions.

    Raises:
        UnaskableError: something in it has no form there: reasoning, items that OpenAI keeps, tools that it runs.
    """
    made = {
        name: value
        for name, value in request.items()
        if name not in ("input", "instructions", "tools", "tool_choice", *_CALL)
    }
    messages: list[dict[str, Any]] = []
    instructions = request.get("instructions")
    if instructions:
        if not isinstance(instructions, str):
            raise UnaskableError("instructions: expected a text; a list of items has no form in chat completions")
        messages.append({"role": "system", "content": instructions})
    given = request.get("input")
    if isinstance(given, str):
        messages.append({"role": "user", "content": given})
    elif isinstance(given, list):
        for place, item in enumerate(given):
            _add_item(messages, item, f"input[{place}]")
    else:
        raise UnaskableError(f"input: expected a text or a list of items, got {kind_of(given)}")
    made["messages"] = messages
    tools = request.get("tools")
    if tools:
        if not isinstance(tools, list):
            raise UnaskableError(f"tools: expected a list, got {kind_of(tools)}")
        made["tools"] = [_tool(tool, f"tools[{place}]") for place, tool in enumerate(tools)]
    choice = request.get("tool_choice")
    if isinstance(choice, Mapping):
        if choice.get("type") != "function":
            raise UnaskableError("tool_choice: has no form in chat completions")
        choice = {"type": "function", "function": {"name": choice.get("name")}}
    if choice is not None and tools:
        made["tool_choice"] = choice
    return made | _response_format(request.get("text"))


def _add_item(messages: list[dict[str, Any]], item: Any, where: str) -> None:
    """Add what an item says to the messages before it."""
    if not isinstance(item, Mapping):
        raise UnaskableError(f"{where}: expected an item such as {{role, content}}, got {kind_of(item)}")
    kind = item.get("type")
    if kind in (None, "message"):
        messages.append({"role": item.get("role"), "content": _content(item.get("content"), f"{where}.content")})
    elif kind == "function_call":
        call = {
            "id": item.get("call_id"),
            "type": "function",
            "function": {"name": item.get("name"), "arguments": item.get("arguments")},
        }
        # calls made together are items of their own here, and one message there
        if messages and messages[-1]["role"] == "assistant":
            messages[-1].setdefault("tool_calls", []).append(call)
        else:
            messages.append({"role": "assistant", "tool_calls": [call]})
    elif kind == "function_call_output":
        said = _content(item.get("output"), f"{where}.output")
        messages.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": said})
    else:
        raise UnaskableError(f"{where}: an item of type {shown_cell(kind)} has no form in chat completions")


def _content(content: Any, where: str) -> Any:
    if not isinstance(content, list):
        return content
    parts = [_part(part, f"{where}[{place}]") for place, part in enumerate(content)]
    return parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else parts


def _part(part: Any, where: str) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind in _TEXTS:
        return {"type": "text", "text": part.get("text")}
    if kind == "input_image" and part.get("image_url") and not part.get("file_id"):
        detail = {"detail": part["detail"]} if part.get("detail") else {}
        return {"type": "image_url", "image_url": {"url": part["image_url"], **detail}}
    raise UnaskableError(f"{where}: a part of type {shown_cell(kind)} has no form in chat completions")


def _tool(tool: Any, where: str) -> dict[str, Any]:
    if not isinstance(tool, Mapping) or tool.get("type") != "function":
        raise UnaskableError(f"{where}: a tool that OpenAI runs cannot be asked of another")
    if "function" in tool:
        return dict(tool)
    named = ("name", "description", "parameters", "strict")
    return {"type": "function", "function": {name: tool[name] for name in named if tool.get(name) is not None}}


def _response_format(text: Any) -> dict[str, Any]:
    form = text.get("format") if isinstance(text, Mapping) else None
    kind = form.get("type") if isinstance(form, Mapping) else None
    if not isinstance(form, Mapping) or kind in (None, "text"):
        return {}
    if kind == "json_object":
        return {"response_format": {"type": kind}}
    if kind != "json_schema":
        raise UnaskableError(f"text.format: one of type {shown_cell(kind)} has no form in chat completions")
    schema = {name: form[name] for name in ("name", "description", "schema", "strict") if form.get(name) is not None}
    return {"response_format": {"type": kind, "json_schema": schema}}
