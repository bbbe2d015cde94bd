"""These functions say which headers of a client go on to an upstream, which of an upstream's come back, and what its own say of a reply."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from email.utils import parsedate_to_datetime
from time import time
from typing import Any

PASSED_ON = frozenset(
    {b"accept", b"anthropic-version", b"anthropic-beta", b"openai-beta", b"idempotency-key", b"user-agent", b"x-request-id",
     b"traceparent", b"tracestate"}
)  # fmt: skip
"""Headers of a client that its upstream gets; its key is not among them."""
PASSED_BACK = frozenset(
    {"content-type", "content-encoding", "request-id", "x-request-id", "retry-after", "openai-processing-ms", "openai-version",
     "cf-ray"}
)  # fmt: skip
"""Headers of an upstream that the client gets, and all that begin with one of `LIMITS_PASSED_BACK`."""
LIMITS_PASSED_BACK = ("x-ratelimit-", "anthropic-ratelimit-")


def passed_on(client: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return the headers of a client that its upstream gets; one in several lines is one of several values.

    What is not UTF-8 stays out: aiohttp writes headers as UTF-8, and would write other bytes than came.
    """
    sent: dict[bytes, bytes] = {}
    for name, value in client:
        if name in PASSED_ON:
            sent[name] = b"%b, %b" % (sent[name], value) if name in sent else value
    found = {}
    for name, value in sent.items():
        try:
            found[name.decode()] = value.decode()
        except UnicodeDecodeError:
            continue
    return found


def passed_back(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    kept = []
    for name, value in headers.items():
        low = name.lower()
        known = low in PASSED_BACK or low.startswith(LIMITS_PASSED_BACK)
        if known and value.isascii() and value.isprintable():  # no server may pass on another
            kept.append((low.encode(), value.encode()))
    return kept


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of a retry-after header, or until the day it states; None where there is none."""
    said = headers.get("retry-after", "")
    try:
        seconds = float(said)
    except ValueError:
        try:
            seconds = max(0.0, parsedate_to_datetime(said).timestamp() - time())
        except (ValueError, OverflowError):
            return None
    return seconds if 0 <= seconds < float("inf") else None


def lasts_until_closed(response: Any) -> bool:
    """Return whether a reply says neither its length nor, by chunks, where it ends."""
    chunked = "chunked" in response.headers.get("transfer-encoding", "").lower()
    return not chunked and response.content_length is None


def is_readable(headers: Mapping[str, str]) -> bool:
    """Return whether a reply is not compressed, as it was asked for."""
    return headers.get("content-encoding", "identity").lower() == "identity"
