"""`chat_body` makes the part of a logged request that every candidate is asked: OpenAI chat completions, whatever API it was sent to.

How a model is called (model, limits of tokens, temperature, ...) is a candidate's own matter and left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from ipr_engine._files import sha256_hex
from ipr_engine.collection.sources.anthropic_body import from_anthropic, is_anthropic
from ipr_engine.collection.sources.asked_row import UnaskableError
from ipr_engine.collection.sources.responses_body import from_responses, is_responses
from ipr_engine.collection.sources.whole_text import require_whole
from ipr_engine.data.tables import shown_cell
from ipr_engine.errors import InvalidInputError
from ipr_engine.prompts import kind_of, parse_request

_KEPT = (
    "messages",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "functions",
    "function_call",
    "response_format",
    "stop",
)
# How a model is called: a candidate's own matter, or of no effect on what it answers.
_CALL = frozenset(
    [
        "model",
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "seed",
        "presence_penalty",
        "frequency_penalty",
        "repetition_penalty",
        "logit_bias",
        "logprobs",
        "top_logprobs",
        "n",
        "stream",
        "stream_options",
        "user",
        "metadata",
        "store",
        "service_tier",
        "reasoning_effort",
        "reasoning",
        "verbosity",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "prediction",
        "timeout",
        "extra_headers",
        "extra_body",
        "extra_query",
        "modalities",
        "drop_params",
        "max_retries",
        "litellm_metadata",
    ]
)
# What a candidate of another provider cannot be asked: field -> why.
_NEVER = {
    "previous_response_id": "continues a conversation that one provider keeps",
    "conversation": "continues a conversation that one provider keeps",
    "audio": "asks for sound",
    "web_search_options": "has the provider search the web",
    "prompt": "names a prompt that one provider keeps, or is no chat",
    "input": "has both input and messages",
}
_CANONICAL = json.JSONEncoder(sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_MESSAGE = ("role", "content", "name", "tool_calls", "tool_call_id", "function_call", "refusal")
_PARTS = ("text", "image_url", "input_audio", "file", "video_url", "refusal")


class ChatBody(NamedTuple):
    """A `ChatBody` is what every candidate is asked.

    Attributes:
        body: of OpenAI chat completions, without model and limits.
        encoded: the text that is routed. digest: 16 bytes that are equal for equal bodies.
        left_out: fields of the request, of no known meaning, that are not in the body.
    """

    body: dict[str, Any]
    encoded: str
    digest: bytes
    left_out: tuple[str, ...]

    def __repr__(self) -> str:
        """Show the digest alone: what is printed into a log shall hold no prompt."""
        return f"ChatBody({self.digest.hex()})"


def chat_body(request: Mapping[str, Any]) -> ChatBody:
    """Return what a logged request asks.

    Raises:
        UnaskableError: it cannot be asked of another model as it was, is not whole, or is no request; says why.
    """
    require_whole(request, "the request")
    if is_responses(request):
        request = from_responses(request)
    elif is_anthropic(request):
        request = from_anthropic(request)
    for name, why in _NEVER.items():
        if request.get(name) not in (None, "", [], {}):
            raise UnaskableError(f"{name}: {why}, which no other candidate can be asked")
    modalities = request.get("modalities")
    if isinstance(modalities, list) and set(map(str, modalities)) - {"text"}:
        raise UnaskableError("modalities: asks for more than text")
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages:
        raise UnaskableError(f"messages: expected a list of messages, got {kind_of(messages)}")
    left_out = {
        shown_cell(name)
        for name, value in request.items()
        if name not in _KEPT and name not in _CALL and value is not None
    }
    body = {name: request[name] for name in _KEPT if request.get(name) not in (None, [])}
    body["messages"] = [_message(message, f"messages[{place}]", left_out) for place, message in enumerate(messages)]
    if "tools" in body:
        body["tools"] = _tools(body["tools"])
    text = _canonical(body)
    problem = ""
    try:
        parsed = parse_request(body, where="request")
    except InvalidInputError as error:
        problem = str(error)
    if problem:
        raise UnaskableError(problem)
    if not parsed.encoded.strip() and not parsed.uncountable:
        raise UnaskableError("messages: asks nothing: there is no text in them")
    return ChatBody(body, parsed.encoded, bytes.fromhex(sha256_hex(text)[:32]), tuple(sorted(left_out)))


def _message(message: Any, where: str, left_out: set[str]) -> dict[str, Any]:
    """Return a message with what chat completions know of it."""
    if not isinstance(message, Mapping):
        raise UnaskableError(f"{where}: expected a message such as {{role, content}}, got {kind_of(message)}")
    role = message.get("role")
    if role not in _ROLES:
        raise UnaskableError(f"{where}.role: expected one of {', '.join(_ROLES)}, got {shown_cell(role)}")
    left_out |= {
        f"{shown_cell(name)} of a message"
        for name, value in message.items()
        if name not in _MESSAGE and name != "cache_control" and value not in (None, [], {}, "")
    }
    kept = {name: message[name] for name in _MESSAGE if message.get(name) is not None}
    if isinstance(kept.get("content"), list):
        kept["content"] = [_part(part, f"{where}.content[{place}]") for place, part in enumerate(kept["content"])]
    if role == "assistant" and "tool_calls" in kept and "content" not in kept:
        kept["content"] = None
    return kept


def _part(part: Any, where: str) -> Any:
    if not isinstance(part, Mapping):
        raise UnaskableError(f"{where}: expected a part such as {{type, text}}, got {kind_of(part)}")
    kind = part.get("type")
    if kind not in _PARTS:
        raise UnaskableError(f"{where}.type: expected one of {', '.join(_PARTS)}, got {shown_cell(kind)}")
    file = part.get("file")
    if isinstance(file, Mapping) and file.get("file_id") is not None:
        raise UnaskableError(f"{where}.file: names a file that one provider keeps (file_id)")
    return {name: value for name, value in part.items() if name != "cache_control"}


def _tools(tools: Any) -> list[Any]:
    """Return tools without what caches them; those that a provider runs itself cannot be asked of another."""
    if not isinstance(tools, list):
        raise UnaskableError(f"tools: expected a list, got {kind_of(tools)}")
    kept = []
    for place, tool in enumerate(tools):
        kind = tool.get("type") if isinstance(tool, Mapping) else None
        if kind not in ("function", "custom"):
            raise UnaskableError(
                f"tools[{place}]: expected a function, got {shown_cell(kind)}, which its provider runs"
            )
        kept.append({name: value for name, value in tool.items() if name != "cache_control"})
    return kept


def _canonical(body: Mapping[str, Any]) -> bytes:
    """Return a body as bytes that are equal for equal bodies."""
    problem = ""
    try:
        return _CANONICAL.encode(body).encode()
    except UnicodeEncodeError:
        problem = "holds a lone surrogate; expected Unicode text"
    except (ValueError, TypeError):
        problem = "holds what JSON cannot: a number beyond float64, a date or bytes"
    except RecursionError:
        problem = "is nested too deeply"
    raise UnaskableError(f"the request {problem}")
