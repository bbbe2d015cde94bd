"""This file prices one call: what it cost by the tokens that its provider reports, and the most that it can cost before it is sent."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ipr_engine.bundle.price import Price, PriceTier

NANO = 1_000_000_000
"""Money is counted in whole nano-USD, rounded up, so that sums are exact and a cap is one."""
MOST_USD = 1e9
"""The most that a budget can be."""
FRAME_TOKENS = 256
"""A provider's own frame around a request: special tokens, a system prompt of its chat template, a date."""
MESSAGE_TOKENS = 16
"""The frame around one message."""


@dataclass(frozen=True, kw_only=True)
class TokenUsage:
    """A `TokenUsage` is what a provider reports of one call, in its own tokens.

    Attributes:
        input_tokens, output_tokens: all that are billed. cached_tokens: of the input, what its cache had.
        reasoning_tokens: of the output, what is reasoning.
    """

    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0


def call_usd(price: Price, usage: TokenUsage, images: int = 0) -> float:
    """Return what a call cost, in USD."""
    level = max((one for one in price.levels if one.above_tokens < max(usage.input_tokens, 1)), key=_edge)
    read = level.input_usd_per_1m if level.cached_read_usd_per_1m is None else level.cached_read_usd_per_1m
    reasoning = level.output_usd_per_1m if price.reasoning_usd_per_1m is None else price.reasoning_usd_per_1m
    fresh, answer = usage.input_tokens - usage.cached_tokens, usage.output_tokens - usage.reasoning_tokens
    tokens = fresh * level.input_usd_per_1m + usage.cached_tokens * read
    tokens += answer * level.output_usd_per_1m + usage.reasoning_tokens * reasoning
    return price.fixed_usd + images * price.per_image_usd + tokens / 1e6


def most_call_usd(price: Price, input_tokens: int, output_tokens: int, images: int = 0) -> float:
    """Return the most that a call of at most so many tokens can cost, in USD, whichever price of a price list it meets."""
    most = 0.0
    for level in price.levels:
        if level.above_tokens >= max(input_tokens, 1):
            continue
        given = max(level.input_usd_per_1m, level.cached_read_usd_per_1m or 0.0, level.cached_write_usd_per_1m or 0.0)
        made = max(level.output_usd_per_1m, price.reasoning_usd_per_1m or 0.0)
        most = max(most, input_tokens * given + output_tokens * made)
    return price.fixed_usd + images * price.per_image_usd + most / 1e6


def most_input_tokens(body: Mapping[str, Any], part_tokens: int = 0, uncountable: int = 0) -> int:
    """Return the most input tokens that a request can be billed for: a token is at least one byte of its text, and a frame is added.

    Args:
        part_tokens: of each part that has no text, an image, say. uncountable: how many of these there are.
    """
    messages = [_without_parts(message) for message in body.get("messages") or ()]
    written = len(json.dumps({**body, "messages": messages}, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    return written + FRAME_TOKENS + MESSAGE_TOKENS * len(messages) + part_tokens * uncountable


def _without_parts(message: Any) -> Any:
    """Return a message without the bytes of its images and sounds, which are not billed as text."""
    content = message.get("content") if isinstance(message, Mapping) else None
    if not isinstance(content, (list, tuple)):
        return message
    return {**message, "content": [part if _is_text(part) else _without_data(part) for part in content]}


def _is_text(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") in ("text", "refusal")


def _without_data(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: "" if key in ("data", "url", "file_data") else _without_data(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_data(part) for part in value]
    return value


def nanousd(usd: float) -> int:
    """Return USD as whole nano-USD, rounded up; more than `MOST_USD` are that many, which SQLite can hold."""
    return math.ceil(min(usd, MOST_USD) * NANO)


def usd(nano: int) -> float:
    return nano / NANO


def _edge(level: PriceTier) -> int:
    return level.above_tokens
