"""A `RequestFormat` is one of the three wire formats of LLM requests: where it is asked for, and how its errors look."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from ipr_engine.server.stream_tail import StreamTail

_KINDS = MappingProxyType(
    {
        400: "invalid_request_error",
        401: "authentication_error",
        403: "permission_error",
        404: "not_found_error",
        408: "timeout_error",
        413: "request_too_large",
        429: "rate_limit_error",
        503: "overloaded_error",
        504: "timeout_error",
    }
)


@dataclass(frozen=True)
class RequestFormat:
    """A `RequestFormat` says how requests of one kind look.

    Attributes:
        name: what upstreams and errors call it.
        path: where clients post it. upstream_path: what is appended to an upstream's `base_url`.
        turns: the fields of which one holds the conversation.
        errors: whose form errors have.
        typed_events: whether each streamed event names its type, as those of Responses and Messages do.
        numbered_events: whether each has a `sequence_number`, too.
        ends: what stands in the last events of a stream that is whole, or that failed and says so; quotes in a text are escaped there.
    """

    name: str
    path: str
    upstream_path: str
    turns: tuple[str, ...]
    errors: Literal["openai", "anthropic", "systemone"] = "openai"
    typed_events: bool = False
    numbered_events: bool = False
    ends: re.Pattern[bytes] = re.compile(b"")

    def error(self, status: int, message: str, param: str | None = None) -> dict[str, Any]:
        """Return the body of an error as clients of this format read it."""
        kind = _KINDS.get(status, "invalid_request_error" if status < 500 else "api_error")
        if self.errors == "anthropic":
            return {"type": "error", "error": {"type": kind, "message": message}}
        if self.errors == "systemone":
            return {"error": {"message": message, "field": param, "type": kind}}
        return {"error": {"message": message, "type": kind, "param": param, "code": None}}

    def stream_error(self, message: str, passed: StreamTail) -> bytes:
        """Return the event that ends a stream which broke, after its last whole event.

        passed: what came before it: a numbered event has the next number.
        """
        body: dict[str, Any]
        if self.errors == "anthropic":
            body = self.error(502, message)
        elif self.typed_events:
            body = {"type": "error", "code": "upstream_failed", "message": message, "param": None}
            if self.numbered_events:
                body["sequence_number"] = passed.next_number()
        else:
            body = {"error": {"message": message, "type": "api_error", "param": None, "code": "upstream_failed"}}
        event = b"event: error\n" if self.typed_events else b""
        return event + b"data: " + json.dumps(body).encode() + b"\n\n"


CHAT = RequestFormat(
    "openai-chat",
    "/v1/chat/completions",
    "/chat/completions",
    ("messages",),
    # some servers leave out [DONE]
    ends=re.compile(rb'data: ?\[DONE\]|"finish_reason"\s*:\s*"|"error"\s*:\s*[{"]'),
)
RESPONSES = RequestFormat(
    "openai-responses",
    "/v1/responses",
    "/responses",
    ("input", "prompt", "previous_response_id"),
    typed_events=True,
    numbered_events=True,
    ends=re.compile(rb'"type"\s*:\s*"(?:response\.(?:completed|incomplete|failed|cancelled)|error)"'),
)
MESSAGES = RequestFormat(
    "anthropic-messages",
    "/v1/messages",
    "/messages",
    ("messages",),
    errors="anthropic",
    typed_events=True,
    ends=re.compile(rb'"type"\s*:\s*"(?:message_stop|error)"'),
)
SYSTEMONE = RequestFormat("systemone", "/v1/systemone", "", ("state",), errors="systemone")
"""A form of decisions alone: no upstream speaks it."""
FORMATS = MappingProxyType({one.name: one for one in (CHAT, RESPONSES, MESSAGES)})
