"""This file reads what a server replies to one call: an `Answered`, or a `Failed` with the reason; no text of it is in a reason."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from typing import Any

from ipr_engine._validate import lone_surrogate
from ipr_engine.collection.bill import TokenUsage
from ipr_engine.collection.provider import NO_KEY

RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529})
FREE = frozenset({400, 401, 402, 403, 404, 405, 409, 410, 413, 415, 422, 425, 429, 451, 500, 503, 529})
"""Statuses of requests that got no answer by the provider's own word, which none bills; a gateway's 502 or 504 may hide one."""
OF_THE_CANDIDATE = frozenset({401, 402, 403, 404})
"""Statuses that every further call would get too."""
QUOTA = frozenset({"insufficient_quota", "billing_hard_limit_reached", "quota_exceeded", "credit_balance_too_low"})
FILTERS = frozenset({"content_filter", "content_policy_violation", "responsibleaipolicyviolation"})
_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_.]{0,63}\Z")
_FINISH = re.compile(r"[a-z_]{1,32}\Z")
_CUT = frozenset({"max_tokens", "max_output_tokens", "model_length", "max_length"})
_REFUSED = frozenset(
    {
        "safety",
        "refusal",
        "content_filtered",
        "guardrail_intervened",
        "recitation",
        "blocklist",
        "prohibited_content",
        "spii",
    }
)
_BROKEN_OFF = frozenset({"error", "abort", "aborted", "cancelled", "timeout", "malformed_function_call"})
"""Words by which providers say that an answer was cut, refused, or ended by a fault of theirs, beside OpenAI's own."""
MOST_TOKENS = 2**53


@dataclass(frozen=True, kw_only=True)
class Answered:
    """An `Answered` is a whole answer.

    Attributes:
        text: what it says; calls of tools as the JSON {"tool_calls": [{"name": ..., "arguments": ...}]}.
        finish_reason: "stop", "length" (cut at max_tokens), "content_filter" (refused), or another word of the provider's.
        usage: None where the provider reports none. model: what it says has answered.
        billed: whether it may be; a request that a filter refused before anything was generated is not.
    """

    text: str = field(repr=False)
    finish_reason: str | None
    usage: TokenUsage | None
    model: str | None = None
    billed: bool = True


@dataclass(frozen=True, kw_only=True)
class Failed:
    """A `Failed` is a call without an answer.

    Attributes:
        reason: one word or two, such as "http_503" or "not_json". status: of HTTP; None where there was none.
        billed: whether its provider may bill it all the same.
        retry: whether the same call may succeed later. wait_s: how long its server asks to wait.
        stops: whether the candidate's other calls would fail likewise.
    """

    reason: str
    status: int | None = None
    billed: bool = True
    retry: bool = False
    wait_s: float | None = None
    stops: bool = False


def read_reply(status: int, headers: Mapping[str, str], content: bytes) -> Answered | Failed:
    """Return what a reply of chat completions says."""
    if status >= 400:
        return _refused(status, headers, content)
    if not 200 <= status < 300:
        return Failed(reason=f"http_{status}", status=status, billed=False)
    try:
        document = json.loads(content, parse_constant=_no_number)
        return _answered(document)
    except _WrongReplyError as error:
        return Failed(reason=error.args[0], status=status, stops=error.args[0] == "quota")
    except (ValueError, RecursionError):
        kind = "html" if content.lstrip()[:1] == b"<" else "not_json"
        return Failed(reason=kind, status=status, retry=kind == "html")


def without_secrets(result: Answered | Failed, key: str, body: Mapping[str, Any]) -> Answered | Failed:
    """Return what a reply says where it repeats no key; a failure's code is left out where it may be a key's or the request's own."""
    secret = "" if key == NO_KEY else key
    if isinstance(result, Failed):
        code = result.reason.partition(" ")[2]
        repeated = code and (
            (secret and secret.lower() in code) or code in json.dumps(body, ensure_ascii=False).lower()
        )
        return replace(result, reason=result.reason.partition(" ")[0]) if repeated else result
    said = (result.text, result.model or "", result.finish_reason or "")
    return Failed(reason="repeats_key", status=200) if secret and any(secret in text for text in said) else result


def wait_asked(headers: Mapping[str, str], now: float) -> float | None:
    """Return how many seconds a server asks to wait, by `retry-after-ms` or `retry-after` in seconds or as a date. now: since 1970."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        text = headers.get(name)
        if text is None:
            continue
        try:
            seconds = float(text) * unit
        except ValueError:
            try:
                seconds = parsedate_to_datetime(text).timestamp() - now
            except (ValueError, TypeError, OverflowError):
                continue
        if math.isfinite(seconds):
            return max(0.0, seconds)
    return None


class _WrongReplyError(Exception):
    """A reply is not what chat completions are; its argument is the reason."""


def _no_number(word: str) -> None:
    raise _WrongReplyError("not_a_number")  # NaN, Infinity


def _refused(status: int, headers: Mapping[str, str], content: bytes) -> Answered | Failed:
    import time

    codes = _codes(content)
    if status in (400, 403) and codes & FILTERS:
        return Answered(text="", finish_reason="content_filter", usage=None, billed=False)
    code = min(codes, default="")
    reason = f"http_{status}" + (f" {code}" if code else "")
    quota = bool(codes & QUOTA)
    return Failed(
        reason=reason,
        status=status,
        billed=status not in FREE,
        retry=status in RETRIED and not quota,
        wait_s=wait_asked(headers, time.time()),
        stops=quota or status in OF_THE_CANDIDATE,
    )


def _codes(content: bytes) -> frozenset[str]:
    """Return the words by which an error's body names itself; never its message, which may hold a key or a prompt."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return frozenset()
    error = document.get("error") if isinstance(document, dict) else None
    if not isinstance(error, dict):
        return frozenset()
    inner = error.get("innererror")
    words = [error.get("code"), error.get("type"), inner.get("code") if isinstance(inner, dict) else None]
    return frozenset(word.lower() for word in words if isinstance(word, str) and _CODE.match(word))


def _answered(document: Any) -> Answered:
    if not isinstance(document, dict):
        raise _WrongReplyError("not_an_object")
    if document.get("error"):
        codes = _codes(json.dumps(document).encode())
        raise _WrongReplyError("quota" if codes & QUOTA else "error_in_200")
    choices = document.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise _WrongReplyError("no_choices")
    message, finish = choices[0].get("message"), choices[0].get("finish_reason")
    if not isinstance(message, dict):
        raise _WrongReplyError("no_message")
    text, refused = _text(message)
    if lone_surrogate(text) is not None:
        raise _WrongReplyError("not_unicode")
    reason = _finish(finish)
    if refused:
        reason = "content_filter"
    model = document.get("model")
    return Answered(
        text=text,
        finish_reason=reason,
        usage=_usage(document.get("usage")),
        model=model if isinstance(model, str) and len(model) <= 200 and model.isprintable() else None,
    )


def _finish(given: Any) -> str | None:
    """Return how an answer ended, in OpenAI's words where it has one for it."""
    word = given.lower().replace("-", "_") if isinstance(given, str) else ""
    if word in _BROKEN_OFF:
        raise _WrongReplyError("broken_off")
    if word in _CUT:
        return "length"
    if word in _REFUSED:
        return "content_filter"
    return word if _FINISH.match(word) else None


def _text(message: dict[str, Any]) -> tuple[str, bool]:
    """Return an answer's text, and whether it is a refusal."""
    content, refusal, calls = message.get("content"), message.get("refusal"), message.get("tool_calls")
    if isinstance(content, list):  # parts, as some servers write them
        parts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
        content = "".join(part for part in parts if isinstance(part, str))
    if isinstance(refusal, str) and refusal:
        return refusal, True
    if isinstance(calls, list) and calls:
        named = [one.get("function") for one in calls if isinstance(one, dict)]
        told = [{"name": one.get("name"), "arguments": one.get("arguments")} for one in named if isinstance(one, dict)]
        return json.dumps({"tool_calls": told, **({"content": content} if content else {})}, ensure_ascii=False), False
    if content is None:
        return "", False
    if not isinstance(content, str):
        raise _WrongReplyError("no_text")
    return content, False


def _usage(usage: Any) -> TokenUsage | None:
    if usage is None:
        return None
    if not isinstance(usage, dict):
        raise _WrongReplyError("wrong_usage")
    given, made = _tokens(usage.get("prompt_tokens")), _tokens(usage.get("completion_tokens"))
    cached = _detail(usage.get("prompt_tokens_details"), "cached_tokens")
    reasoning = _detail(usage.get("completion_tokens_details"), "reasoning_tokens")
    if cached > given or reasoning > made:
        raise _WrongReplyError("wrong_usage")
    if given == 0:  # no request has no tokens: nothing is reported
        return None
    return TokenUsage(input_tokens=given, output_tokens=made, cached_tokens=cached, reasoning_tokens=reasoning)


def _detail(details: Any, name: str) -> int:
    value = details.get(name) if isinstance(details, dict) else None
    return 0 if value is None else _tokens(value)


def _tokens(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        raise _WrongReplyError("wrong_usage")
    if not 0 <= value <= MOST_TOKENS or value != int(value):
        raise _WrongReplyError("wrong_usage")
    return int(value)
