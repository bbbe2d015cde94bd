"""What is billed by assumption is counted where it keeps nobody waiting."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from ipr_engine import Engine, parse_request
from ipr_engine.integrations.seat import Seat
from ipr_engine.request.assumed import LONG, assumed_bill, assumed_bill_beside
from tests.support import skips
from tests.support.local_server import LocalServer

PICTURE: Any = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
LENGTHS = pytest.mark.parametrize(("characters", "aside"), [(10, False), (LONG - 9, False), (LONG, True)])


def body(characters: int, **more: Any) -> dict[str, Any]:
    """Return a request of an image, and of two texts that are so long together."""
    first = {"role": "user", "content": characters // 2 * "y"}
    parts = [{"type": "text", "text": (characters - characters // 2) * "x"}, PICTURE]
    return {"messages": [first, {"role": "user", "content": parts}], **more}


@pytest.fixture
def counted_in(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> set[threading.Thread]:
    """The threads in which tokens were counted."""
    threads: set[threading.Thread] = set()
    kind = type(engine.loaded.encoder)
    counts = kind.count_tokens

    def count_tokens(self: Any, text: str) -> int:
        threads.add(threading.current_thread())
        return counts(self, text)

    monkeypatch.setattr(kind, "count_tokens", count_tokens)
    return threads


@LENGTHS
def test_a_long_text_is_counted_in_a_thread(
    engine: Engine, counted_in: set[threading.Thread], characters: int, aside: bool
) -> None:
    request = parse_request(body(characters))
    found = asyncio.run(assumed_bill_beside(engine.loaded.encoder, request, 1000))
    assert (threading.current_thread() in counted_in, len(counted_in)) == (not aside, 1)
    assert found == assumed_bill(engine.loaded.encoder, request, 1000)


@LENGTHS
def test_the_event_loop_of_a_server_goes_on(
    engine: Engine, counted_in: set[threading.Thread], characters: int, aside: bool
) -> None:
    pytest.importorskip("starlette", reason=skips.SERVE)
    with LocalServer(engine, {"policy": {"tau": 0.3, "rule": "minmax"}}) as server:
        counted_in.clear()
        reply = server.post("/v1/route", body(characters))
    assert (reply.status, reply.body["assumed_tokens"]) == (200, 1000)
    assert (threading.current_thread() in counted_in) == (not aside)


@LENGTHS
def test_the_event_loop_of_a_gateway_goes_on(
    engine: Engine, counted_in: set[threading.Thread], characters: int, aside: bool
) -> None:
    seat = Seat(None, {"tau": 0.3, "rule": "minmax"}, bundle=engine)
    counted_in.clear()
    try:
        asyncio.run(seat.decide(body(characters), seat.policy()))
    finally:
        assert (threading.current_thread() in counted_in) == (not aside)
