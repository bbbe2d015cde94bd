"""This file reads what the head of an upstream's reply says, and how a reply ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from time import time
from typing import Any

PASSED_BACK = frozenset(
    {"content-type", "content-encoding", "request-id", "x-request-id", "retry-after", "openai-processing-ms", "openai-version",
     "cf-ray"}
)  # fmt: skip
"""Headers of an upstream that the client gets, and all that begin with one of `LIMITS_PASSED_BACK`."""
LIMITS_PASSED_BACK = ("x-ratelimit-", "anthropic-ratelimit-")

CHUNKS = ("chunked", "identity")


def end_with_connection(response: Any, error: type[Exception]) -> None:
    """Let who reads a body hear of the end of its connection: aiohttp tells nobody of one that it ends for a fault in the chunks."""
    content = response.content
    if content.is_eof() or content.exception() is not None:
        return

    def end(_: object) -> None:
        if not content.is_eof() and content.exception() is None:
            content.set_exception(error("the connection ended before the body"))

    connection = response.connection
    closed = None if connection is None or connection.protocol is None else connection.protocol.closed
    if closed is None:  # it has ended already
        end(None)
        return
    closed.remove_done_callback(_heard)  # of a reply before, on the same connection
    closed.add_done_callback(_heard)
    closed.add_done_callback(end)
    content.on_eof(lambda: closed.remove_done_callback(end))  # the connection is kept, for others


def _heard(closed: asyncio.Future[None]) -> None:
    """Take the error that ended a connection: asyncio writes a line for one that nobody takes."""
    if not closed.cancelled():
        closed.exception()


def lasts_until_closed(response: Any) -> bool:
    """Return whether a reply says neither its length nor, by chunks, where it ends."""
    chunked = "chunked" in response.headers.get("transfer-encoding", "").lower()
    return not chunked and response.content_length is None


def is_coded(headers: Mapping[str, str]) -> bool:
    """Return whether a reply came in a transfer coding beside chunks: it is not undone, and who gets the reply would not know of it."""
    return headers.get("transfer-encoding", "chunked").strip().lower() not in CHUNKS


def is_readable(headers: Mapping[str, str]) -> bool:
    """Return whether a reply is not compressed, as it was asked for."""
    return headers.get("content-encoding", "identity").lower() == "identity"


def is_cut(body: bytearray) -> bool:
    """Return whether this is no whole JSON: what is unusual, NaN say, may stand in it."""
    try:
        json.loads(body)
    except ValueError:
        return True
    except RecursionError:
        return False
    return False


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
