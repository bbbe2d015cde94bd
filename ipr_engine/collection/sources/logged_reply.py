"""`logged_answer` reads what a model answered out of a log: a chat completion, a Response, an Anthropic message, a message or a text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ipr_engine._validate import lone_surrogate
from ipr_engine.collection.question import LoggedAnswer
from ipr_engine.collection.sources.whole_text import is_whole

_ANTHROPIC_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_RESPONSES_REASONS = {"max_output_tokens": "length", "content_filter": "content_filter"}


def logged_answer(
    reply: Any, usage: Mapping[str, Any], *, cost_usd: Any = None, seconds: float | None = None
) -> LoggedAnswer | None:
    """Return an answer with what it cost; None where there is no text: tool calls alone, an error, or an answer that was cut or masked.

    Args:
        usage: the log's own counts, as `input_tokens` and `output_tokens`; what is None there is taken from the reply.
        cost_usd, seconds: as logged. What is no finite number >= 0 counts as not logged.
    """
    text, reason = _text_and_reason(reply)
    if text is None or not is_whole(text) or lone_surrogate(text) is not None:
        return None
    own = reply.get("usage") if isinstance(reply, Mapping) else None
    own = own if isinstance(own, Mapping) else {}
    counts = [
        next(
            (
                count
                for value in (usage.get(ours), own.get(ours), own.get(theirs))
                if (count := whole(value)) is not None
            ),
            None,
        )
        for ours, theirs in (("input_tokens", "prompt_tokens"), ("output_tokens", "completion_tokens"))
    ]
    cost, taken = amount(cost_usd), amount(seconds)
    return LoggedAnswer(
        text=text,
        finish_reason=reason,
        input_tokens=counts[0],
        output_tokens=counts[1],
        cost_usd=cost,
        seconds=taken,
    )


def whole(value: Any) -> int | None:
    """Return a logged count, text of digits too; None where it is none."""
    found = amount(value)
    return None if found is None or found != int(found) else int(found)


def amount(value: Any) -> float | None:
    """Return a logged number >= 0, text of one too; None where it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) and found >= 0 else None


def seconds_between(start: Any, end: Any) -> float | None:
    """Return the time between two logged moments, both in seconds since 1970 or both in ISO 8601; None where they are not."""
    moments = [_moment(start), _moment(end)]
    if moments[0] is None or moments[1] is None:
        return None
    return amount(moments[1] - moments[0])


def _moment(value: Any) -> float | None:
    found = amount(value)
    if found is not None or not isinstance(value, str):
        return found
    try:
        # both ends are read alike: a time without a zone is as good as any
        return datetime.fromisoformat(value.replace("Z", "+00:00")).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def _text_and_reason(reply: Any) -> tuple[str | None, str | None]:
    """Return the text of a reply, and why it ended."""
    if isinstance(reply, str):
        return reply or None, None
    if isinstance(reply, list):
        said = [item for item in reply if isinstance(item, Mapping) and item.get("role", "assistant") == "assistant"]
        return _text_and_reason(said[-1]) if said else (None, None)
    if not isinstance(reply, Mapping):
        return None, None
    choices = reply.get("choices")
    if isinstance(choices, list):
        first = choices[0] if choices and isinstance(choices[0], Mapping) else {}
        message = first.get("message")
        text = _content(message.get("content")) if isinstance(message, Mapping) else _content(first.get("text"))
        return text, _word(first.get("finish_reason"))
    if isinstance(reply.get("output"), list):
        details = reply.get("incomplete_details")
        why = details.get("reason") if isinstance(details, Mapping) else None
        messages = [item for item in reply["output"] if isinstance(item, Mapping) and item.get("type") == "message"]
        texts = [text for item in messages if (text := _content(item.get("content"))) is not None]
        reason = _RESPONSES_REASONS.get(why, why) if isinstance(why, str) else _word(reply.get("status"))
        return "".join(texts) or None, "stop" if reason == "completed" else reason
    stop = reply.get("stop_reason")
    reason = _ANTHROPIC_REASONS.get(stop, stop) if isinstance(stop, str) else _word(reply.get("finish_reason"))
    return _content(reply.get("content")), reason


def _content(content: Any) -> str | None:
    """Return the text of a message's content; None where it has none."""
    if isinstance(content, str):
        return content or None
    if not isinstance(content, list):
        return None
    parts = [part for part in content if isinstance(part, Mapping) and part.get("type") in ("text", "output_text")]
    return "".join(part["text"] for part in parts if isinstance(part.get("text"), str)) or None


def _word(value: Any) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= 40 else None
