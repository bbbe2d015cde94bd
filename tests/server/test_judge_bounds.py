"""What a judge's schema can ask for is bounded: the work of reading it, and the answer that is made."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import unquote

import pytest

from tests.support import skips
from tests.support.asgi_calls import AsgiApp

pytest.importorskip("uvicorn", reason=skips.SERVE)
from ipr_engine import Engine
from ipr_engine.server import ServerConfig, app, decision_endpoints, json_schema
from ipr_engine.server.json_schema import MOST_MADE, MOST_PARTS
from ipr_engine.server.judge_schema import filled
from ipr_engine.server.long_body import LONG_BODY
from ipr_engine.server.refused import RefusedError

NAMES = ("big", "small", "tiny")
WHO = {"type": "string", "enum": ["big", "SMALL"]}


def nested(levels: int, item: Any, least: int = 4096) -> Any:
    for _ in range(levels):
        item = {"type": "array", "minItems": least, "items": item}
    return item


def beside(field: Any) -> Any:
    """Return what a field gets beside the enum."""
    return filled({"properties": {"who": WHO, "other": field}, "required": ["other"]}, NAMES)[1]("big", "why")["other"]


def many(field: Any) -> Any:
    """Return a schema of which 3000 fields are the same."""
    names = [str(n) for n in range(3000)]
    return {
        "$defs": {"one": field},
        "properties": {"who": WHO, **{name: {"$ref": "#/$defs/one"} for name in names}},
        "required": ["who", *names],
    }


FAILING = {"properties": {"a": {"const": "x" * 4096}, "b": False}, "required": ["a", "b"]}
TOO_LONG = {
    "lists of the enum": nested(4, WHO),
    "lists beside it": {"properties": {"who": WHO, "other": nested(4, {})}, "required": ["other"]},
    "texts": many({"type": "string", "minLength": 4096}),
    "names": many({"required": ["n" * 1000]}),
    **{
        f"{kind} of {what}": many({kind: [value] if kind == "enum" else value})
        for kind in ("const", "default", "enum")
        for what, value in (("a text", "x" * 4096), ("a list", [1] * 2048))
    },
    "alternatives that fail": {
        "properties": {"who": WHO, "other": {"anyOf": 300 * [FAILING]}},
        "required": ["other"],
    },
}


@pytest.mark.parametrize("case", TOO_LONG)
def test_the_answer_that_is_made_is_bounded(case: str) -> None:
    choices, fill = filled(TOO_LONG[case], NAMES)
    with pytest.raises(RefusedError, match=f"expected an answer of at most {MOST_MADE} bytes of JSON") as caught:
        fill("big", "why")
    assert (choices, caught.value.status, caught.value.param) == (["big", "SMALL"], 400, "response_format")


def test_a_long_answer_within_the_bound_is_made() -> None:
    assert filled(nested(2, WHO, 300), NAMES)[1]("big", "") == 300 * [300 * ["big"]]
    items = {"type": "array", "minItems": 4096, "prefixItems": [{"const": 1}], "items": {"type": "null"}}
    assert beside(items) == [1, *(4095 * [None])]


def test_what_many_references_lead_to_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    monkeypatch.setattr(json_schema, "unquote", lambda text: read.append(text) or unquote(text))
    assert filled(many({"$ref": "#/$defs/%74wo"}) | {"$defs": {"one": {"$ref": "#/$defs/%74wo"}, "two": {}}}, NAMES)
    assert sorted(read) == ["#/$defs/%74wo", "#/$defs/one"]


class Counted(str):
    """A `Counted` text tells how often it is folded."""

    __slots__ = ()
    folded = 0

    def casefold(self) -> str:
        Counted.folded += 1
        return super().casefold()


def test_an_enum_is_compared_once_and_a_text_that_is_too_long_is_not() -> None:
    filled(many({"enum": [Counted("big"), "nobody"]}), NAMES)
    assert Counted.folded == 1
    filled(many({"enum": [Counted("bigger than any")]}), NAMES)
    assert Counted.folded == 1


N = 20_000
NAMED = {f"name {n}": {} for n in range(N)}
WORK: dict[str, Any] = {
    "parts of one": {"allOf": [{"properties": {f"{key}{n}": {} for n in range(6000)}} for key in "ab"]},
    "alternatives of a wide one": {"anyOf": N * [{}], **NAMED},
    "alternatives that fail": {"properties": {"who": WHO, "o": {"anyOf": N * [False], **NAMED}}, "required": ["o"]},
    "a chain to a wide one": {
        "$defs": {f"d{n}": {"$ref": f"#/$defs/d{n + 1}", "required": ["a"]} for n in range(5000)} | {"d5000": {}},
        "$ref": "#/$defs/d0",
        **NAMED,
    },
    "references known at each": {
        "$defs": {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(5000)} | {"d5000": {"properties": NAMED}},
        "properties": {"a": {"$ref": "#/$defs/d0"}},
    },
    "long names": many({"allOf": [{"properties": {"n" * 2**20: {}}}, {"properties": {2**20 * "n": {}}}]}),
}


@pytest.mark.parametrize("case", WORK)
def test_no_product_of_two_parts_is_worked_off(case: str) -> None:
    begun = time.thread_time()
    with pytest.raises(RefusedError, match=f"expected (at most {MOST_PARTS} parts|one enum)"):
        filled(WORK[case], NAMES)[1]("big", "why")
    assert time.thread_time() - begun < 1


KEYWORDS = (
    *("type", "const", "default", "enum", "anyOf", "oneOf", "allOf", "$ref", "properties", "required", "items"),
    *("prefixItems", "minItems", "maxItems", "uniqueItems", "minLength", "maxLength", "minimum", "maximum"),
    *("exclusiveMinimum", "exclusiveMaximum", "multipleOf", *json_schema.UNREAD),
)
ODD: list[Any] = [
    *(None, True, False, 0, -1, 0.5, 5e-324, 1e308, -1e308, 2**64 - 1, -(2**63), 10**400, -(10**400)),
    *("", "a", "#", "#/required/0", "\u0663", "x" * 9000, [], [None], [[]], [{}], [False], ["a", 1], {}, {"a": None}),
]


@pytest.mark.parametrize("kind", ["string", "integer", "number", "array", "object", None])
@pytest.mark.parametrize("keyword", KEYWORDS)
def test_a_keyword_of_any_type_is_refused_or_heeded(keyword: str, kind: str | None) -> None:
    for value in ODD:
        for field in ({"type": kind, keyword: value}, {"allOf": [{keyword: value}, {keyword: [value]}]}):
            with contextlib.suppress(RefusedError):
                json.dumps(beside(field))


@pytest.mark.parametrize("size", [0, LONG_BODY])
def test_a_long_schema_is_read_and_filled_beside_the_event_loop(
    monkeypatch: pytest.MonkeyPatch, default_engine: Engine, size: int
) -> None:
    threads: list[str] = []
    names = list(default_engine.bundle.names)

    def watched(schema: Any, among: Sequence[str]) -> tuple[list[str], Callable[[str, str], Any]]:
        threads.append(threading.current_thread().name)
        choices, fill = filled(schema, among)

        def filling(chosen: str, cause: str) -> Any:
            threads.append(threading.current_thread().name)
            return fill(chosen, cause)

        return choices, filling

    monkeypatch.setattr(decision_endpoints, "filled", watched)

    async def asked() -> int:
        headers = [(b"host", b"localhost")]
        async with AsgiApp(app(None, ServerConfig())) as called:
            while (await called.call("GET", "/ready", headers, [], leaves=False)).status != 200:
                await asyncio.sleep(0.01)
            body = {
                "model": "ipr-judge",
                "messages": [{"role": "user", "content": "hi"}],
                "response_format": {"type": "json_schema", "json_schema": {"schema": {"enum": names}}},
            }
            written = json.dumps(body).encode().ljust(size)
            return (await called.call("POST", "/v1/chat/completions", headers, [written], leaves=False)).status

    assert asyncio.run(asked()) == 200
    in_lane = [name.startswith("ipr-long-bodies") for name in threads]
    assert in_lane == 2 * [size > 0]
