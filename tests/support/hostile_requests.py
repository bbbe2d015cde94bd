"""A `HostileRequests` makes requests that no client should send: real ones of every endpoint, changed at random."""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ipr_engine.policy.policy_spec import PolicySpec
from ipr_engine.request.route_request import REQUEST_OPTIONS
from tests.support.server_configs import (
    CHAT,
    EVERY,
    MESSAGES,
    NARROW_KEY,
    OPENAI,
    PATHS,
    PLAIN_KEY,
    PROMPTS,
    RESPONSES,
    TEAM_KEY,
    body_of,
)

CANARY = "zq-canary-hostile-88e2"
_SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
_JUDGED = {"type": "object", "properties": {"target": {"enum": [*OPENAI, *EVERY]}}, "required": ["target"]}
_IMAGE = "data:image/png;base64,iVBORw0KGgo="
_CHOICES = [{"value": name} for name in (*OPENAI, EVERY[0])]
_OPTIONS = (*PolicySpec.__dataclass_fields__, *REQUEST_OPTIONS, "explain", "unknown")
REAL: tuple[tuple[str, dict[str, Any]], ...] = (
    *((PATHS[form], body_of(form, PROMPTS[1])) for form in (CHAT, RESPONSES, MESSAGES)),
    *((PATHS[form], body_of(form, PROMPTS[0], stream=True)) for form in (CHAT, RESPONSES, MESSAGES)),
    (PATHS[CHAT], body_of(CHAT, n=2, tools=[{"type": "function", "function": {"name": "f", "parameters": _SCHEMA}}])),
    (
        PATHS[CHAT],
        body_of(CHAT, response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": _SCHEMA}}),
    ),
    (
        PATHS[CHAT],
        {
            "model": "auto",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {
                    "role": "user",
                    "content": [{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": _IMAGE}}],
                },
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
                },
                {"role": "tool", "tool_call_id": "c", "content": "rain"},
            ],
            "stream_options": {"include_usage": True},
        },
    ),
    (
        PATHS[RESPONSES],
        {
            "model": "auto",
            "instructions": "Be brief.",
            "input": [
                {
                    "type": "message",
                    "role": "user",
                    "content": [{"type": "input_text", "text": "What?"}, {"type": "input_image", "image_url": _IMAGE}],
                },
                {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c", "output": "rain"},
            ],
            "tools": [{"type": "function", "name": "f", "parameters": _SCHEMA}],
            "reasoning": {"effort": "low"},
        },
    ),
    (PATHS[RESPONSES], {"model": EVERY[0], "input": "hi", "previous_response_id": "resp_1"}),
    (
        PATHS[MESSAGES],
        {
            "model": "auto",
            "max_tokens": 64,
            "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "image",
                            "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="},
                        }
                    ],
                },
                {
                    "role": "assistant",
                    "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {"city": "Bern"}}],
                },
                {
                    "role": "user",
                    "content": [
                        {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "rain"}]}
                    ],
                },
            ],
            "tools": [{"name": "f", "input_schema": _SCHEMA}],
            "output_config": {"effort": "low"},
        },
    ),
    ("/v1/route", {"prompt": PROMPTS[1], "ipr": {"tau": 0.3, "explain": True}}),
    (
        "/v1/route",
        {"messages": [{"role": "user", "content": "hi"}], "metadata": {"ipr": {"billed_tokens": 7, "tokens_out": 9.5}}},
    ),
    (
        "/v1/decisions",
        {
            "model": "auto",
            "input": "hi",
            "questions": [{"type": "choice", "name": "q", "instructions": "who", "choices": _CHOICES}],
            "tau": 0.1,
        },
    ),
    (
        "/v1/systemone",
        {
            "model": "auto",
            "state": {"ticket": [1, 2]},
            "questions": {"q": {"type": "choice", "criteria": dict.fromkeys(OPENAI)}},
        },
    ),
    (
        PATHS[CHAT],
        {
            "model": "ipr-judge",
            "messages": [{"role": "user", "content": "hi"}],
            "response_format": {"type": "json_schema", "json_schema": {"schema": _JUDGED}},
        },
    ),
)
"""Paths and bodies, all of them answered with 200."""
PLACES = tuple(dict.fromkeys(path for path, _ in REAL))
_TEXTS = (
    "",
    " ",
    "\x00",
    "\u2028",
    "\U0001f600" * 9,
    "\ufffe",
    "a" * 70000,
    CANARY,
    "auto",
    "__proto__",
    "%s%n{0}",
    "-1",
    "nan",
    "1e400",
    "user",
    "[]",
)
_NUMBERS = (0, -1, 1, 2**31, 2**53 + 1, 2**63, 2**64, 10**30, -(10**400), 0.5, -0.0, 1e308, 5e-324)
_RAW = (
    b"NaN",
    b"Infinity",
    b"-Infinity",
    b"1e999",
    b"-1e999",
    b'"\\ud800"',
    b'"\\udfff\\ud800"',
    b"01",
    b"1.",
    b"tru",
    b'"\xff"',
    b'"\x01"',
    b"{}{}",
    b"/**/1",
    b"'a'",
    b"1" * 5000,
    b'{"a":1,"a":2}',
    b'{"model":"auto","model":7}',
)
_MARK = "@@raw@@"
_MARKED = re.compile(b'"@@raw@@(\\d+|deep\\d+[{[])"')


@dataclass(frozen=True)
class Hostile:
    """A `Hostile` is one request. leaves: its client leaves before the body has come."""

    method: str
    path: str
    headers: list[tuple[bytes, bytes]]
    pieces: list[bytes]
    leaves: bool


class HostileRequests:
    """A `HostileRequests` makes the same requests of the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def many(self, count: int) -> Iterator[Hostile]:
        for _ in range(count):
            yield self.one()

    def one(self) -> Hostile:
        choose = self._random
        path, real = choose.choice(REAL)
        body: Any = copy.deepcopy(real)
        for _ in range(choose.choice((0, 1, 1, 1, 2, 2, 3, 8))):
            body = self._changed(body)
        content = self._written(body)
        if choose.random() < 0.15:
            content = self._torn(content)
        if choose.random() < 0.1:
            path = choose.choice((*PLACES, "/", "/ipr/overview", "/v1", "/metrics", "/\x00", "/v1/models"))
        method = "POST" if choose.random() < 0.97 else choose.choice(("GET", "PUT", "HEAD", "OPTIONS", "BREW"))
        pieces = [content]
        if choose.random() < 0.2:
            cut = sorted(choose.randrange(len(content) + 1) for _ in range(choose.randrange(1, 5)))
            pieces = [content[begin:end] for begin, end in zip([0, *cut], [*cut, len(content)], strict=True)]
        return Hostile(method, path, self._headers(content), pieces, choose.random() < 0.02)

    def _headers(self, content: bytes) -> list[tuple[bytes, bytes]]:
        choose = self._random
        key = choose.choices((TEAM_KEY, NARROW_KEY, PLAIN_KEY, CANARY), (90, 4, 4, 2))[0]
        found = [(b"host", b"x"), (b"authorization", f"Bearer {key}".encode())]
        if choose.random() < 0.1:
            found.append(
                (b"content-length", choose.choice((str(len(content)).encode(), b"-1", b"9" * 30, b"\xb2", b"x")))
            )
        if choose.random() < 0.05:
            found.append(
                (
                    choose.choice(
                        (
                            b"sec-fetch-site",
                            b"traceparent",
                            b"x-request-id",
                            b"anthropic-beta",
                            b"user-agent",
                            b"accept",
                        )
                    ),
                    self._bytes(),
                )
            )
        while choose.random() < 0.15:
            name = choose.choice((*_OPTIONS, "")).replace("_", "-").encode()
            values = (
                b"0.2",
                b"1",
                b"true",
                EVERY[0].encode(),
                b"Llama",
                b"path",
                b"cost",
                self._bytes(),
                self._bytes(),
            )
            found.append((b"x-ipr-" + name, choose.choice(values)))
        return found

    def _bytes(self) -> bytes:
        """Return a header's value: no line ends there, which no server lets through."""
        choose = self._random
        said = choose.choice((*_TEXTS, "nan", "inf", "1e400", ",,,", "0x1", "1_0", "١", "a,b," * 99)).encode()
        return said.replace(b"\x00", b"\xff")[: choose.choice((8, 64, 4096))]

    def _value(self, depth: int = 0) -> Any:
        choose = self._random
        kind = choose.choice((0, 0, 1, 1, 2, 3, 4, *((5, 6, 7, 8) if depth < 3 else ())))
        if kind == 0:
            return choose.choice(_TEXTS)
        if kind == 1:
            return choose.choice(_NUMBERS)
        if kind == 2:
            return choose.choice((None, True, False, [], {}))
        if kind == 3:
            return f"{_MARK}{choose.randrange(len(_RAW))}"
        if kind == 4:
            return f"{_MARK}deep{choose.choice((3, 100, 200, 260, 600, 1100, 20000))}{choose.choice('[{')}"
        if kind in (5, 6):
            return [self._value(depth + 1) for _ in range(choose.randrange(4))]
        if kind == 7:
            return {str(self._value(3)): self._value(depth + 1) for _ in range(choose.randrange(4))}
        return copy.deepcopy(choose.choice(REAL)[1])

    def _changed(self, body: Any) -> Any:
        """Return a body with one change, at a place of it chosen at random."""
        choose = self._random
        if choose.random() < 0.25 and isinstance(body, dict):
            return self._controlled(body)
        places: list[tuple[Any, Any]] = []
        _walk(body, places)
        if not places or choose.random() < 0.02:
            return self._value()
        owner, key = choose.choice(places)
        what = choose.randrange(5)
        if what == 0:
            del owner[key]
        elif what == 1 and isinstance(owner, dict):
            owner[str(self._value(3))] = owner.pop(key)
        elif what == 2:
            other, place = choose.choice(places)
            owner[key] = copy.deepcopy(other[place])
        elif what == 3 and isinstance(owner[key], str):
            owner[key] = owner[key] + choose.choice(_TEXTS)
        else:
            owner[key] = self._value()
        return body

    def _controlled(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return a body with controls, most of them wrong."""
        choose = self._random
        controls: Any = {}
        for _ in range(choose.randrange(1, 4)):
            sane = (
                0.2,
                1.0,
                [EVERY[0]],
                "Llama",
                {EVERY[0]: 5},
                {EVERY[0]: [5, 10.0]},
                [[1.0]],
                11 * [3.0],
                True,
                "fixed",
            )
            controls[choose.choice(_OPTIONS)] = choose.choice((*sane, self._value(), self._value()))
        if choose.random() < 0.1:
            controls = self._value()
        if choose.random() < 0.2:
            controls = self._written(controls).decode("utf-8", "replace")
        if choose.random() < 0.5:
            return {**body, "ipr": controls}
        return {**body, "metadata": {"ipr": controls, "job": "7"}}

    def _written(self, body: Any) -> bytes:
        """Return the JSON of a body, with what JSON has no words for in the place of its marks."""
        content = json.dumps(body, ensure_ascii=self._random.random() < 0.5).encode("utf-8", "surrogatepass")
        return _MARKED.sub(lambda found: _raw(found[1].decode()), content)

    def _torn(self, content: bytes) -> bytes:
        choose, torn = self._random, bytearray(content)
        for _ in range(choose.randrange(1, 6)):
            at = choose.randrange(len(torn) + 1)
            what = choose.randrange(4)
            if what == 0:
                torn[at : at + choose.randrange(1, 9)] = b""
            elif what == 1:
                torn[at:at] = choose.choice(
                    (b"\x00", b"{", b"}", b"[", b'"', b",", b"\xff\xfe", b"\xef\xbb\xbf", b"\\u")
                )
            elif what == 2 and at < len(torn):
                torn[at] = choose.randrange(256)
            else:
                torn = torn[:at] if choose.random() < 0.3 else torn
        return bytes(torn)


def _walk(node: Any, places: list[tuple[Any, Any]]) -> None:
    for key in range(len(node)) if isinstance(node, list) else list(node) if isinstance(node, dict) else ():
        places.append((node, key))
        _walk(node[key], places)


def _raw(mark: str) -> bytes:
    if not mark.startswith("deep"):
        return _RAW[int(mark)]
    depth, bracket = int(mark[4:-1]), mark[-1]
    return depth * b"[" + depth * b"]" if bracket == "[" else depth * b'{"a":' + b"1" + depth * b"}"
