"""These functions make what a provider answers, whole or as events, in three formats; `upstream_stub` sends it.

An answer names the model and, where the request holds a tool's result, repeats it. A request with tools and no result yet is
answered by a call of its first tool.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

WORDS = ("Answered", " by", " {model}", ".")
ARGUMENTS = '{"city": "Bern"}'
USAGE = {"prompt_tokens": 10, "completion_tokens": len(WORDS), "total_tokens": 10 + len(WORDS)}
Body = Mapping[str, Any]


def reply(path: str, body: Body) -> dict[str, Any] | None:
    """Return the whole reply to a request of this path; None where the path is not known."""
    if path.endswith("/embeddings"):
        data = [{"object": "embedding", "index": 0, "embedding": [0.0, 1.0]}]
        return {
            "object": "list",
            "model": body["model"],
            "data": data,
            "usage": {"prompt_tokens": 1, "total_tokens": 1},
        }
    if path.endswith("/responses"):
        return _response(body, "completed", [_item(body)])
    if path.endswith("/messages"):
        return _message(body)
    if path.endswith("/chat/completions"):
        return _completion(body)
    if path.endswith("/completions"):
        choice = {"index": 0, "text": _said(body), "finish_reason": "stop", "logprobs": None}
        return {**_head(body, "text_completion"), "choices": [choice], "usage": USAGE}
    return None


def events(path: str, body: Body) -> list[bytes]:
    """Return the events of a streamed reply, each as it is sent."""
    if path.endswith("/responses"):
        return _typed(_response_events(body))
    if path.endswith("/messages"):
        return _typed(_message_events(body))
    chunks = []
    for delta in _deltas(body):
        finish = delta.pop("finish", None)
        choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
        chunks.append({**_head(body, "chat.completion.chunk"), "choices": choices})
    if (body.get("stream_options") or {}).get("include_usage"):
        chunks.append({**_head(body, "chat.completion.chunk"), "choices": [], "usage": USAGE})
    return [*(f"data: {json.dumps(chunk)}\n\n".encode() for chunk in chunks), b"data: [DONE]\n\n"]


def _typed(found: list[dict[str, Any]]) -> list[bytes]:
    return [f"event: {one['type']}\ndata: {json.dumps(one)}\n\n".encode() for one in found]


def _head(body: Body, kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-stub", "object": kind, "created": 1, "model": body["model"]}


def _words(body: Body) -> list[str]:
    result = _result(body)
    return [f"The tool said {result}."] if result else [word.format(model=body["model"]) for word in WORDS]


def _said(body: Body) -> str:
    return "".join(_words(body))


def _result(body: Body) -> str | None:
    """Return the result of a tool that the last turn holds; None where it holds none."""
    turns = body.get("messages") or body.get("input")
    last = turns[-1] if isinstance(turns, list) and turns else None
    if not isinstance(last, Mapping):
        return None
    if last.get("role") == "tool":
        return str(last.get("content"))
    if last.get("type") == "function_call_output":
        return str(last.get("output"))
    parts = last.get("content")
    for part in parts if isinstance(parts, list) else ():
        if isinstance(part, Mapping) and part.get("type") == "tool_result":
            return str(part.get("content"))
    return None


def _tool(body: Body) -> str | None:
    """Return the name of the tool to call; None where none is to be called."""
    tools = body.get("tools")
    if not isinstance(tools, list) or not tools or not isinstance(tools[0], Mapping) or _result(body) is not None:
        return None
    tool = tools[0].get("function") or tools[0]
    return str(tool.get("name")) if isinstance(tool, Mapping) else None


def _completion(body: Body) -> dict[str, Any]:
    name = _tool(body)
    message: dict[str, Any] = {"role": "assistant", "content": None if name else _said(body)}
    if name:
        function = {"name": name, "arguments": ARGUMENTS}
        message["tool_calls"] = [{"id": "call_stub", "index": 0, "type": "function", "function": function}]
    choices = [{"index": 0, "message": message, "finish_reason": "tool_calls" if name else "stop"}]
    return {**_head(body, "chat.completion"), "choices": choices, "usage": USAGE}


def _deltas(body: Body) -> list[dict[str, Any]]:
    name = _tool(body)
    if name:
        function = {"name": name, "arguments": ARGUMENTS}
        call = {"id": "call_stub", "index": 0, "type": "function", "function": function}
        return [{"role": "assistant", "tool_calls": [call]}, {"finish": "tool_calls"}]
    return [{"role": "assistant", "content": ""}, *({"content": word} for word in _words(body)), {"finish": "stop"}]


def _item(body: Body) -> dict[str, Any]:
    name = _tool(body)
    if name:
        call = {"type": "function_call", "id": "fc_stub", "call_id": "call_stub", "name": name, "arguments": ARGUMENTS}
        return {**call, "status": "completed"}
    text = {"type": "output_text", "text": _said(body), "annotations": []}
    return {"type": "message", "id": "msg_stub", "role": "assistant", "status": "completed", "content": [text]}


def _response(body: Body, status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
    usage = {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": len(WORDS),
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 10 + len(WORDS),
    }
    made = {"id": "resp_stub", "object": "response", "created_at": 1, "status": status, "model": body["model"]}
    settings: dict[str, Any] = {
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "tools": [],
    }
    settings |= {"parallel_tool_calls": True, "temperature": 1.0, "tool_choice": "auto", "top_p": 1.0}
    return {**made, **settings, "output": output, "usage": usage if status == "completed" else None}


def _response_events(body: Body) -> list[dict[str, Any]]:
    item = _item(body)
    found: list[dict[str, Any]] = [{"type": "response.created", "response": _response(body, "in_progress", [])}]
    if item["type"] == "message":
        begun, part = {**item, "status": "in_progress", "content": []}, {**item["content"][0], "text": ""}
        at = {"item_id": item["id"], "output_index": 0, "content_index": 0}
        found += [
            {"type": "response.output_item.added", "output_index": 0, "item": begun},
            {"type": "response.content_part.added", **at, "part": part},
            *({"type": "response.output_text.delta", **at, "delta": word, "logprobs": []} for word in _words(body)),
            {"type": "response.output_text.done", **at, "text": _said(body), "logprobs": []},
            {"type": "response.content_part.done", **at, "part": item["content"][0]},
        ]
    else:
        begun, at = {**item, "status": "in_progress", "arguments": ""}, {"item_id": item["id"], "output_index": 0}
        found += [
            {"type": "response.output_item.added", "output_index": 0, "item": begun},
            {"type": "response.function_call_arguments.delta", **at, "delta": ARGUMENTS},
            {"type": "response.function_call_arguments.done", **at, "name": item["name"], "arguments": ARGUMENTS},
        ]
    found.append({"type": "response.output_item.done", "output_index": 0, "item": item})
    found.append({"type": "response.completed", "response": _response(body, "completed", [item])})
    return [{**one, "sequence_number": number} for number, one in enumerate(found)]


def _message(body: Body) -> dict[str, Any]:
    name = _tool(body)
    content: dict[str, Any] = {"type": "text", "text": _said(body)}
    if name:
        content = {"type": "tool_use", "id": "toolu_stub", "name": name, "input": json.loads(ARGUMENTS)}
    return {
        "id": "msg_stub",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": [content],
        "stop_reason": "tool_use" if name else "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 10, "output_tokens": len(WORDS)},
    }


def _message_events(body: Body) -> list[dict[str, Any]]:
    whole = _message(body)
    block = whole["content"][0]
    if block["type"] == "text":
        begun: dict[str, Any] = {"type": "text", "text": ""}
        deltas = [{"type": "text_delta", "text": word} for word in _words(body)]
    else:
        begun = {**block, "input": {}}
        deltas = [{"type": "input_json_delta", "partial_json": ARGUMENTS}]
    ended = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    return [
        {"type": "message_start", "message": {**whole, "content": [], "stop_reason": None}},
        {"type": "content_block_start", "index": 0, "content_block": begun},
        *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": ended, "usage": {"output_tokens": len(WORDS)}},
        {"type": "message_stop"},
    ]


def sent(status: str, body: str = "{}", **headers: str) -> str:
    """Return a reply as it is sent."""
    said = {"content-type": "application/json", "content-length": str(len(body)), **headers}
    return f"HTTP/1.1 {status} -\r\n" + "".join(f"{name}: {value}\r\n" for name, value in said.items()) + "\r\n" + body
