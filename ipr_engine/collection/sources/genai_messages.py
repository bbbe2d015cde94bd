"""Messages of OpenTelemetry's conventions for generative AI as those of OpenAI chat completions.

The layouts: `gen-ai-input-messages.json`, `gen-ai-output-messages.json`, `gen-ai-tool-definitions.json` of the conventions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ipr_engine.collection.sources.asked_row import SourceReport, UnaskableError
from ipr_engine.data.tables import shown_cell
from ipr_engine.prompts import kind_of

_SOUNDS = {"audio/wav": "wav", "audio/x-wav": "wav", "audio/mpeg": "mp3", "audio/mp3": "mp3"}
_REASONS = {"tool_call": "tool_calls"}


def chat_messages(messages: Any, report: SourceReport) -> list[dict[str, Any]]:
    """Return input messages as those of chat completions.

    Raises:
        UnaskableError: a part has no form there.
    """
    if not isinstance(messages, list):
        raise UnaskableError(f"messages: expected a list, got {kind_of(messages)}")
    made: list[dict[str, Any]] = []
    for place, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(message.get("parts"), list):
            raise UnaskableError(f"messages[{place}]: expected a message with parts, got {kind_of(message)}")
        made += _turn(message, f"messages[{place}]", report)
    return made


def chat_tools(definitions: Any) -> list[dict[str, Any]]:
    """Return definitions of functions as tools of chat completions.

    Raises:
        UnaskableError: a provider runs one of them itself.
    """
    made = []
    for place, tool in enumerate(definitions if isinstance(definitions, list) else ()):
        if not isinstance(tool, Mapping) or tool.get("type") != "function":
            raise UnaskableError(f"tools[{place}]: expected a function; a provider runs others itself")
        named = ("name", "description", "parameters")
        function = {name: tool[name] for name in named if tool.get(name) is not None}
        made.append({"type": "function", "function": tool.get("function") or function})
    return made


def reply_of(messages: Any) -> dict[str, Any] | None:
    """Return the first output message as a chat completion; None where there is none."""
    message = messages[0] if isinstance(messages, list) and messages else None
    if not isinstance(message, Mapping):
        return None
    parts = message.get("parts")
    texts = [
        part["content"]
        for part in (parts if isinstance(parts, list) else ())
        if isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("content"), str)
    ]
    reason = message.get("finish_reason")
    reason = _REASONS.get(reason, reason) if isinstance(reason, str) else None
    return {"choices": [{"finish_reason": reason, "message": {"content": "".join(texts)}}]}


def _turn(message: Mapping[str, Any], where: str, report: SourceReport) -> list[dict[str, Any]]:
    """Return one message as those of chat completions: every result of a tool is a message there."""
    content: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for place, part in enumerate(message["parts"]):
        here = f"{where}.parts[{place}]"
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text":
            content.append({"type": "text", "text": part.get("content")})
        elif kind == "reasoning":
            report.note("reasoning of earlier turns, which is left out")
        elif kind == "tool_call":
            function = {"name": part.get("name"), "arguments": _text(part.get("arguments"))}
            calls.append({"id": part.get("id"), "type": "function", "function": function})
        elif kind == "tool_call_response":
            said = _text(part.get("response", part.get("result")))
            results.append({"role": "tool", "tool_call_id": part.get("id"), "content": said})
        elif kind in ("uri", "blob"):
            content.append(_medium(part, here))
        else:
            raise UnaskableError(f"{here}: a part of type {shown_cell(kind)} has no form in chat completions")
    role = message.get("role")
    if results:
        if content or calls:
            raise UnaskableError(f"{where}: results of tools beside other parts have no form in chat completions")
        return results
    only = content[0]["text"] if len(content) == 1 and content[0]["type"] == "text" else content
    return [{"role": role, **({"content": only} if content else {}), **({"tool_calls": calls} if calls else {})}]


def _medium(part: Mapping[str, Any], where: str) -> dict[str, Any]:
    kind, data = part.get("mime_type"), part.get("content")
    if part.get("modality") == "image":
        url = part.get("uri") if part.get("type") == "uri" else f"data:{kind or 'image/png'};base64,{data}"
        return {"type": "image_url", "image_url": {"url": url}}
    if part.get("type") == "blob" and isinstance(kind, str) and kind in _SOUNDS:
        return {"type": "input_audio", "input_audio": {"data": data, "format": _SOUNDS[kind]}}
    raise UnaskableError(
        f"{where}: {shown_cell(part.get('modality'))} of {shown_cell(kind)} has no form in chat completions"
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
