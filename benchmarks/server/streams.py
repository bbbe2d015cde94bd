"""`streams` asks one URL for streams, and tells of each how it ended: h2load reads no events."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any, NamedTuple

import aiohttp

from .h2load import Load

WHOLE, TOLD, BROKEN = "whole", "told", "broken"
"""How a stream ended: with its last event; with an event that tells of an error; otherwise, half an event included."""
JSON = {"content-type": "application/json"}


class Stream(NamedTuple):
    """A `Stream` is one that was asked for: its HTTP status (0: none came), microseconds until its end, and how it ended."""

    status: int
    us: int
    end: str


def streams(url: str, body: bytes, load: Load) -> list[Stream]:
    """Return all that were asked for. body: of a chat completion that is streamed."""
    return asyncio.run(_asked(url, body, load))


async def _asked(url: str, body: bytes, load: Load) -> list[Stream]:
    connector = aiohttp.TCPConnector(limit=load.clients)
    async with aiohttp.ClientSession(connector=connector, headers=JSON) as session:
        shares = [load.requests // load.clients + (n < load.requests % load.clients) for n in range(load.clients)]
        pause_s = load.clients / load.rate if load.rate else 0.0
        found = await asyncio.gather(*(_one_by_one(session, url, body, share, pause_s) for share in shares))
    return [stream for one in found for stream in one]


async def _one_by_one(session: Any, url: str, body: bytes, requests: int, pause_s: float) -> list[Stream]:
    found, due = [], time.monotonic()
    for _ in range(requests):
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        due += pause_s
        found.append(await _read(session, url, body))
    return found


async def _read(session: Any, url: str, body: bytes) -> Stream:
    begun, status, end = time.perf_counter(), 0, BROKEN
    try:
        async with session.post(url, data=body) as response:
            status = response.status
            end = end_of(await response.read())
    except aiohttp.ClientError:
        end = BROKEN
    return Stream(status, round(1e6 * (time.perf_counter() - begun)), end)


def end_of(content: bytes) -> str:
    """Return how a stream of chat completions ended, one of WHOLE, TOLD and BROKEN."""
    *events, rest = content.split(b"\n\n")
    said = [event.removeprefix(b"data: ") for event in events]
    if rest or not said:
        return BROKEN
    last = said.pop() if said[-1] == b"[DONE]" else None
    try:
        read = [json.loads(one) for one in said]
    except ValueError:
        return BROKEN
    if last is not None:
        return WHOLE
    return TOLD if "error" in read[-1] else BROKEN
