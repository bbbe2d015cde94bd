"""One request of any size is read while others are answered, and what no request holds is refused in words."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import skips
from tests.support.asgi_calls import AsgiApp
from tests.support.local_server import LocalServer

pytest.importorskip("uvicorn", reason=skips.SERVE)

from ipr_engine import Engine
from ipr_engine.request.controls import MOST_ENTRIES, MOST_TEXT
from ipr_engine.server import ServerConfig, app, long_body
from ipr_engine.server.json_schema import MOST_PARTS
from ipr_engine.server.judge_schema import MOST_CHOICES, filled
from ipr_engine.server.long_body import LONG_BODY, MOST_TOOLS, MOST_TURNS, MOST_VALUES, read_long
from ipr_engine.server.refused import RefusedError

TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
TEXT = {"type": "text", "text": "a"}
SAID = {"role": "user", "content": "a"}


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with LocalServer(None, {}) as server:
        yield server


def nested(depth: int) -> list[Any]:
    made: list[Any] = []
    for _ in range(depth):
        made = [made]
    return made


TOO_MUCH: dict[str, tuple[dict[str, Any], str]] = {
    "objects": ({"prompt": "x", "y": (MOST_VALUES + 1) * [{}]}, f"body: expected at most {MOST_VALUES} values"),
    "numbers": ({"prompt": "x", "y": (MOST_VALUES + 1) * [1]}, f"body: expected at most {MOST_VALUES} values"),
    "messages": ({"messages": (MOST_TURNS + 1) * [SAID]}, f"messages: expected at most {MOST_TURNS} messages"),
    "items": ({"input": (MOST_TURNS + 1) * [SAID]}, f"input: expected at most {MOST_TURNS} messages"),
    "parts": (
        {"messages": [{"role": "user", "content": 20_000 * [TEXT]}] * 2},
        "messages: expected at most 32768 parts",
    ),
    "tools": ({"prompt": "x", "tools": (MOST_TOOLS + 1) * [TOOL]}, f"tools: expected at most {MOST_TOOLS} tools"),
    "allowed": (
        {"ipr": {"allowed": (MOST_ENTRIES + 1) * ["a"]}},
        f"ipr.allowed: expected at most {MOST_ENTRIES} entries",
    ),
    "exclude": (
        {"ipr": {"exclude": (MOST_ENTRIES + 1) * ["a"]}},
        f"ipr.exclude: expected at most {MOST_ENTRIES} entries",
    ),
    "by candidate": (
        {"ipr": {"extra_usd": {str(i): 1 for i in range(MOST_ENTRIES + 1)}}},
        f"ipr.extra_usd: expected at most {MOST_ENTRIES} entries",
    ),
    "in lists": (
        {"ipr": {"extra_usd": [MOST_ENTRIES * [1]]}},
        f"ipr.extra_usd: expected at most {MOST_ENTRIES} entries",
    ),
    "deep": ({"ipr": {"extra_usd": nested(900)}}, "ipr.extra_usd: expected lists and objects nested at most 4 deep"),
    "controls as a text": (
        {"metadata": {"ipr": json.dumps({"tau": 0.2}).ljust(MOST_TEXT + 1)}},
        f"metadata.ipr: expected an object, or its JSON of at most {MOST_TEXT} characters",
    ),
}


@pytest.mark.parametrize("case", TOO_MUCH)
def test_what_no_request_holds_is_refused(server: LocalServer, case: str) -> None:
    body, expected = TOO_MUCH[case]
    reply = server.post("/v1/route", body if {"prompt", "messages", "input"} & set(body) else {"prompt": "x", **body})
    assert (reply.status, reply.body["error"]["message"][: len(expected)]) == (400, expected)


def test_a_judges_enum_and_schema_are_bounded(default_engine: Engine) -> None:
    names = default_engine.bundle.names
    many = [names[n % len(names)] for n in range(MOST_CHOICES + 2)]
    with pytest.raises(RefusedError, match=f"an enum of at most {MOST_CHOICES} candidates, got {len(many)}"):
        filled({"enum": many}, names)
    # what many references lead to is read again and again
    held = {"$defs": {"big": {"enum": [*(100_000 * [names[0]]), "nobody"]}}}
    with pytest.raises(RefusedError, match="response_format: expected"):
        filled({**held, "properties": {str(n): {"$ref": "#/$defs/big"} for n in range(5000)}}, names)
    wide = {"$defs": {"big": {"required": [str(n) for n in range(20_000)]}}}
    every = [{"$ref": f"#/$defs/{place}"} for place in ("big", "%62ig", "b%69g", "bi%67")]
    with pytest.raises(RefusedError, match=f"expected at most {MOST_PARTS} parts"):
        filled({**wide, "allOf": every}, names)


@pytest.mark.parametrize("text", ["1,2,3,", '[{"a": 1}, ', "\\", '\\"', '",{['], ids=repr)
def test_a_text_of_many_commas_and_brackets_is_one_value(text: str) -> None:
    body = {"messages": [{"role": "user", "content": text * MOST_VALUES}]}
    assert read_long(json.dumps(body).encode()) == body


def test_values_are_counted_outside_of_texts_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_body, "_WINDOW", 7)  # so that texts and escapes go over its edges
    random_ = random.Random(7)
    pieces = ["\\", '"', ",", "[", "{", "a"]
    for _ in range(300):
        held = ["".join(random_.choices(pieces, k=random_.randrange(9))) for _ in range(random_.randrange(1, 9))]
        body = json.dumps({"prompt": held}, separators=(",", ":")).encode()
        values = 2 + len(held) - 1
        monkeypatch.setattr(long_body, "MOST_VALUES", values)
        assert read_long(body) == {"prompt": held}
        monkeypatch.setattr(long_body, "MOST_VALUES", values - 1)
        with pytest.raises(RefusedError):
            read_long(body)


@pytest.mark.parametrize("path", ["/v1/route", "/v1/decisions", "/v1/systemone"])
def test_a_long_body_is_decided_as_a_short_one(server: LocalServer, path: str, default_engine: Engine) -> None:
    names = default_engine.bundle.names
    asked: dict[str, Any] = {"messages": [{"role": "system", "content": "be brief"}, SAID], "tools": 3 * [TOOL]}
    if path == "/v1/decisions":
        asked = {"input": [SAID], "questions": [{"type": "choice", "name": "a", "choices": list(names)}]}
    elif path == "/v1/systemone":
        asked = {"state": [SAID], "questions": {"a": {"type": "choice", "criteria": dict.fromkeys(names)}}}
    written = json.dumps(asked).encode()
    short, long = (server.send("POST", path, [written.ljust(size)]) for size in (0, LONG_BODY))
    assert (short.status, long.status) == (200, 200)
    told, other = short.body, long.body
    for reply in (told, other):
        reply.pop("id", None)
        reply.get("ipr", {}).pop("id", None)
    assert other == told


def test_a_control_that_stands_twice_in_a_long_body_is_refused(server: LocalServer) -> None:
    written = b'{"prompt": "x", "ipr": {"tau": 0.1, "tau": 0.2}}'
    short, long = (server.send("POST", "/v1/route", [written.ljust(size)]) for size in (0, LONG_BODY))
    assert (long.status, long.body) == (400, short.body)


@pytest.mark.parametrize("written", [b"{", b'["', b"[]", b'{"prompt": "\xff"}'])
def test_what_is_no_request_is_told_of_a_long_body_too(server: LocalServer, written: bytes) -> None:
    told = [server.send("POST", "/v1/route", [written.ljust(size)]) for size in (0, LONG_BODY)]
    assert [reply.status for reply in told] == [400, 400]
    # where it is broken depends on what follows
    short, long = (reply.body["error"]["message"].partition(", which")[0] for reply in told)
    assert long == short


def test_others_are_answered_while_a_long_body_is_read() -> None:
    tools = [
        {"type": "function", "function": {"name": str(i), "parameters": {"p": list(range(50))}}} for i in range(4000)
    ]
    body = json.dumps({"prompt": "x", "tools": tools}).encode()
    headers = [(b"host", b"localhost")]

    async def asked() -> int:
        async with AsgiApp(app(None, ServerConfig())) as called:
            while (await called.call("GET", "/ready", headers, [], leaves=False)).status != 200:
                await asyncio.sleep(0.01)
            long = asyncio.ensure_future(called.call("POST", "/v1/route", headers, [body], leaves=False))
            answered = 0
            while not long.done():
                assert (await called.call("GET", "/health", headers, [], leaves=False)).status == 200
                await asyncio.sleep(0)
                answered += 1
            assert (await long).status in (200, 400)
            return answered

    assert asyncio.run(asked()) > 5
