"""What goes on to an upstream is what its client wrote, but for what is the router's or is a key."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from ipr_engine import Engine, parse_request
from ipr_engine.server.long_body import LONG_BODY
from ipr_engine.server.passed_request import passed_query
from ipr_engine.server.request_text import RequestText, field_text
from tests.support.server_configs import CHAT, EVERY, MESSAGES, PATHS, PLAIN_KEY, RESPONSES, SPEAKERS, body_of
from tests.support.server_process import ServerProcess
from tests.support.upstream_stub import UpstreamStub

NAME = EVERY[0]
ASKED = '"messages": [{"role": "user", "content": "What is 2+2?"}]'
FIELDS = {
    "a long whole number": '"seed":12345678901234567890123',
    "one below zero": '"seed" : -98765432109876543210',
    "more digits than a double has": '"top_p": 0.1000000000000000055511151231257827',
    "an exponent": '"temperature": 1E0,"top_p": 1e-7',
    "zero below zero": '"logit_bias": {"1": -0, "2": -0.0}',
    "escapes": r'"user": "\u00e9\/\ud83d\ude00 \\\u00e9"',
    "letters": '"user": "é 😀"',
    "brackets in a text": r'"user": "]}[{\", \"ipr\": {"',
    "a field within": '"tools": [],"extra": {"ipr": {"tau": 9}, "model": "x"}',
    "half a pair": r'"user": "cut \ud83d here"',
    "the other half": r'"user": "cut \ude00 here \\ud83d"',
}


def posted(gateway: ServerProcess, upstream: UpstreamStub, text: str, path: str = PATHS[CHAT], **headers: str) -> Any:
    """Post a text, and return what the upstream saw last."""
    reply = gateway.post(path, text.encode(), headers)
    assert reply.status == 200, reply.content
    return upstream.seen()[-1]


@pytest.mark.parametrize("case", FIELDS)
def test_a_field_goes_on_as_it_is_written(gateway: ServerProcess, upstream: UpstreamStub, case: str) -> None:
    seen = posted(gateway, upstream, f'{{ "model": "{NAME}" , {FIELDS[case]} ,\n{ASKED}}}')
    assert seen["_text"] == f'{{"model":"{NAME}",{FIELDS[case]},{ASKED}}}'


@pytest.mark.parametrize(
    ("written", "goes_on"),
    [
        ('"ipr": {"tau": 0.3}, "n": 1', '"n": 1'),
        (r'"i\u0070r": {"tau": 0.3}, "n": 1', '"n": 1'),
        ('"metadata": {"ipr": {"tau": 0.3}, "a": 1.0 , "b" : "c"}', '"metadata":{"a": 1.0,"b" : "c"}'),
        ('"metadata": {"ipr": "{\\"tau\\": 0.3}"}, "n": 1', '"n": 1'),
        ('"metadata": { "a" : 1.0 }', '"metadata": { "a" : 1.0 }'),
        ('"metadata": null', '"metadata": null'),
        ('"n": 3, "n": 1', '"n": 1'),
    ],
)
def test_what_is_the_routers_does_not_go_on(
    gateway: ServerProcess, upstream: UpstreamStub, written: str, goes_on: str
) -> None:
    seen = posted(gateway, upstream, f'{{"model": "auto", {ASKED}, {written}}}')
    assert seen["_text"] == f'{{"model":"{seen["model"]}",{ASKED},{goes_on}}}'


def test_a_long_request_goes_on_as_it_is_written(gateway: ServerProcess, upstream: UpstreamStub) -> None:
    text = f'{{"model":"{NAME}",{ASKED},"user":"{LONG_BODY * "x"}","seed":12345678901234567890123}}'
    assert posted(gateway, upstream, text)["_text"] == text


def test_half_a_pair_is_decided_on_as_a_letter_that_is_none(
    gateway: ServerProcess, upstream: UpstreamStub, default_engine: Engine
) -> None:
    reply = gateway.post(PATHS[CHAT], rb'{"model":"auto","messages":[{"role":"user","content":"cut \ud83d here"}]}')
    said = parse_request(body_of(CHAT, "cut \ufffd here"))
    expected = default_engine.route(said, tau=0.2, allowed=SPEAKERS[CHAT])
    assert (reply.status, reply.told["candidate"]) == (200, expected.model)
    assert float(reply.told["quality"]) == pytest.approx(expected.quality, abs=1e-4)


def test_a_query_goes_on(gateway: ServerProcess, upstream: UpstreamStub) -> None:
    asked = f"{PATHS[MESSAGES]}?beta=true&api-key={PLAIN_KEY}&x=a%20b"
    reply = gateway.post(asked, body_of(MESSAGES, model=NAME))
    assert (reply.status, upstream.seen()[0]["_path"]) == (200, f"{PATHS[MESSAGES]}?beta=true&x=a%20b")


@pytest.mark.parametrize(
    ("query", "passed"),
    [
        (b"", ""),
        (b"beta=true", "beta=true"),
        (b"api-version=2024-10-21&key=1", "api-version=2024-10-21"),
        (b"API_KEY=1&access_token=2&sig=3&code=4&Authorization=5&%6bey=6&subscription-key=7", ""),
        (b"a=1&b=\xff&c=#d&e", "a=1&e"),
    ],
)
def test_a_key_of_a_query_does_not(query: bytes, passed: str) -> None:
    assert passed_query(query) == passed


def test_each_candidate_and_tenant_has_an_idempotency_key_of_its_own(
    gateway: ServerProcess, upstream: UpstreamStub
) -> None:
    told: dict[str, str] = {"idempotency-key": "order-1"}
    models = [one for one in (EVERY[0], EVERY[2]) for _ in range(2)]
    for model in models:
        assert gateway.post(PATHS[RESPONSES], body_of(RESPONSES, model=model), told).status == 200
    narrow = {**told, "authorization": f"Bearer {PLAIN_KEY}"}
    assert gateway.post(PATHS[RESPONSES], body_of(RESPONSES, model=EVERY[0]), narrow).status == 200
    keys = [one["_headers"]["idempotency-key"] for one in upstream.seen()]
    assert keys[0] == keys[1] != keys[2] == keys[3]
    assert len({*keys}) == 3
    assert "order-1" not in keys
    assert gateway.post(PATHS[RESPONSES], body_of(RESPONSES, model=EVERY[0])).status == 200
    assert "idempotency-key" not in upstream.seen()[-1]["_headers"]


NAMES = ("a", 'b"', "ipr", "model", "metadata", "c\\", "é")
TEXTS = ("", "'a\"b", "\\", "{[}]", "é\n", "x,y:z", '"ipr"', '\\"')


def made(chance: random.Random, depth: int = 0) -> Any:
    kind = chance.randrange(9 if depth < 4 else 6)
    if kind > 7:
        return {chance.choice(NAMES): made(chance, depth + 1) for _ in range(chance.randrange(4))}
    if kind > 5:
        return [made(chance, depth + 1) for _ in range(chance.randrange(4))]
    return chance.choice([chance.choice(TEXTS), chance.randrange(-(10**6), 10**30), 1.5, -0.0, 1e300, None, True])


def test_any_object_goes_on_but_for_what_is_the_routers(request: pytest.FixtureRequest) -> None:
    chance, model = random.Random(request.node.nodeid), {"model": field_text("model", "m")}
    for _ in range(3000):
        said = {chance.choice(NAMES): made(chance) for _ in range(chance.randrange(6))}
        marks = chance.choice([(",", ":"), (" , ", " : ")])
        text = json.dumps(said, indent=chance.choice([None, 1]), ensure_ascii=chance.random() < 0.5, separators=marks)
        expected = {name: value for name, value in said.items() if name != "ipr"} | {"model": "m"}
        metadata = expected.get("metadata")
        if isinstance(metadata, dict) and metadata.pop("ipr", expected) is not expected and not metadata:
            del expected["metadata"]
        assert json.loads(RequestText(text.encode()).with_fields(model)) == expected
