"""A long body is read beside the event loop, and only once it is known how much there is to read in it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sized
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ipr_engine.prompts import TURNS
from ipr_engine.server.given_once import require_once
from ipr_engine.server.json_text import json_of
from ipr_engine.server.refused import RefusedError

LONG_BODY = 65_536
"""Bytes from which on a body is read in a thread: less takes no longer than the way there and back."""
MOST_VALUES = 2**18
"""Values of one body. Each takes some 64 bytes of memory, of which two in the body are enough."""
MOST_TURNS, MOST_PARTS, MOST_TOOLS = 16_384, 32_768, 4_096
"""Messages or items of one request, parts of all of them, and its tools: more than anybody has."""
_WINDOW = 2**20
_COMMA, _LIST, _OBJECT, _QUOTE, _ESCAPE = (ord(one) for one in ',[{"\\')
_LANE = ThreadPoolExecutor(1, "ipr-long-bodies")  # one: threads that wait for the GIL would keep the event loop waiting
Made = TypeVar("Made")
Bytes = npt.NDArray[np.uint8]


async def read_beside(work: Callable[..., Made], *arguments: Any) -> Made:
    """Do what takes long for a long body, after what others have asked for, while the event loop goes on."""
    return await asyncio.get_running_loop().run_in_executor(_LANE, work, *arguments)


def read_long(body: bytes) -> Any:
    """Return what the JSON of a long body says.

    Raises:
        RefusedError: it holds more than a request has, or a control twice. orjson.JSONDecodeError: it is no JSON.
    """
    if len(body) > 2 * MOST_VALUES and _values(body) > MOST_VALUES:
        raise RefusedError(
            400, f"body: expected at most {MOST_VALUES} values in all of its lists and objects, got more"
        )
    found = json_of(body)
    if isinstance(found, dict):
        _check_counts(found)
        require_once(body, found)
    return found


def _values(body: bytes) -> int:
    """Return how many values lists and objects hold, about: commas and opening brackets outside of texts. Too many are not counted on."""
    read = np.frombuffer(body, np.uint8)
    windows = [read[begin : begin + _WINDOW] for begin in range(0, len(read), _WINDOW)]
    anywhere = sum(int(np.count_nonzero(_separates(window))) for window in windows)
    if anywhere <= MOST_VALUES:  # as mostly: texts need not be told apart
        return anywhere
    found, in_text, escapes = 0, False, False
    for window in windows:
        quotes = window == _QUOTE
        escaped = _escaped(window, escapes)
        quotes &= ~escaped[:-1]
        escapes = bool(escaped[-1])
        within = (np.cumsum(quotes, dtype=np.uint32) & 1).astype(np.bool_) ^ in_text
        found += int(np.count_nonzero(_separates(window) & ~within))
        in_text = bool(within[-1])
        if found > MOST_VALUES:
            break
    return found


def _separates(window: Bytes) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = (window == _COMMA) | (window == _LIST) | (window == _OBJECT)
    return found


def _escaped(window: Bytes, first: bool) -> npt.NDArray[np.bool_]:
    """Return (bytes + 1,) whether a backslash escapes each byte, and the one behind the window. first: whether the first one is."""
    escaped = np.zeros(len(window) + 1, np.bool_)
    at = np.flatnonzero(window == _ESCAPE)
    if first:
        escaped[0] = True
        at = at[1:] if at.size and at[0] == 0 else at
    if at.size:
        begins = np.flatnonzero(np.diff(at, prepend=-2) != 1)  # of each run of backslashes: every other one escapes
        lengths = np.diff(begins, append=at.size)
        within = np.arange(at.size) - np.repeat(begins, lengths)
        escaped[at[within % 2 == 0] + 1] = True
    return escaped


def _check_counts(body: dict[str, Any]) -> None:
    """Refuse a request of more messages, parts or tools than any has."""
    for name in TURNS:
        turns = body.get(name)
        if isinstance(turns, list):
            _check_count(name, turns, MOST_TURNS, "messages")
            held = [turn.get("content") for turn in turns if isinstance(turn, dict)]
            parts = sum(len(content) for content in held if isinstance(content, list))
            if parts > MOST_PARTS:
                raise RefusedError(400, f"{name}: expected at most {MOST_PARTS} parts in all of it, got {parts}", name)
    for name in ("tools", "functions"):
        _check_count(name, body.get(name), MOST_TOOLS, "tools")


def _check_count(name: str, held: object, most: int, what: str) -> None:
    if isinstance(held, Sized) and not isinstance(held, str) and len(held) > most:
        raise RefusedError(400, f"{name}: expected at most {most} {what}, got {len(held)}", name)
