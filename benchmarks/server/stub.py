"""`stub` is an upstream that answers at once: chat completions, whole or streamed, each piece with the time at which it was written."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

Message = dict[str, Any]
PIECES = 4
PAUSE_S = 0.01  # between two pieces of a stream


async def stub(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """Answer one request; ASGI."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    asked = json.loads(await body_of(receive) or b"{}")
    if asked.get("stream"):
        await _start(send, b"text/event-stream")
        for number in range(PIECES):
            if number:
                await asyncio.sleep(PAUSE_S)
            piece = {"choices": [{"index": 0, "delta": {"content": f"{time.time():.6f}"}}]}
            await send({"type": "http.response.body", "body": _event(piece), "more_body": True})
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})
        return
    message = {"role": "assistant", "content": "391"}
    reply = {
        "id": "chatcmpl-stub",
        "object": "chat.completion",
        "created": 0,
        "model": asked.get("model"),
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 20, "completion_tokens": 1, "total_tokens": 21},
    }
    written = json.dumps(reply).encode()
    await _start(send, b"application/json", (b"content-length", str(len(written)).encode()))
    await send({"type": "http.response.body", "body": written})


async def body_of(receive: Callable[[], Awaitable[Message]]) -> bytes:
    """Read a request's body."""
    body: bytes = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


async def _start(send: Callable[[Message], Awaitable[None]], kind: bytes, *headers: tuple[bytes, bytes]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind), *headers]})


def _event(piece: Message) -> bytes:
    return b"data: " + json.dumps(piece).encode() + b"\n\n"
