"""A provider of LiteLLM's is asked by its SDK, once a call: nothing is retried, logged or fetched by it."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import os
from types import SimpleNamespace

import pytest

from tests.support.paid_server import PaidServer
from tests.support.skips import GATEWAYS

pytest.importorskip("litellm", reason=GATEWAYS)

from ipr_engine.collection import bounded_reply
from ipr_engine.collection.callers import make_caller
from ipr_engine.collection.provider import Provider, ProviderLimits
from tests.support.raw_server import completion, http, raw_server


@pytest.fixture(scope="module")
def paid(tmp_path_factory):
    with PaidServer(tmp_path_factory.mktemp("paid") / "taken") as running:
        yield running


def ask(paid, model, text="Hello?", of="openai", **limits):
    provider = Provider(base_url=paid.base_url, sdk="litellm", limits=ProviderLimits(**{"timeout_s": 10.0, **limits}))

    async def once():
        caller = make_caller("others", provider)
        try:
            body = {"model": f"{of}/{model}", "messages": [{"role": "user", "content": text}], "max_tokens": 5}
            return await caller.ask(body)
        finally:
            await caller.close()

    return asyncio.run(once())


def test_an_answer_comes_with_what_is_billed(paid):
    answered = ask(paid, "plain")
    assert answered.text.startswith("The answer is")
    assert (answered.usage.output_tokens, answered.finish_reason) == (6, "stop")
    assert ask(paid, "cut").finish_reason == "length"


def test_a_call_is_sent_once(paid):
    before = paid.calls()
    failed = ask(paid, "flaky", "One more?!")
    assert failed.reason == "http_503"
    assert sum((paid.calls() - before).values()) == 1


def test_no_usage_is_none(paid):
    assert ask(paid, "silent").usage is None


@pytest.mark.parametrize(
    ("model", "reason", "retry"),
    [
        ("wrong", "http_400 invalid_request", False),
        ("locked", "http_401 invalid_request", False),
        ("limited-9", "http_429 rate_limit_exceeded", True),
        ("broke", "http_429 insufficient_quota", False),
        ("bare", "no_choices", False),
    ],
)
def test_a_failure_has_its_reason(paid, model, reason, retry):
    failed = ask(paid, model, "A secret prompt")
    assert (failed.reason, failed.retry) == (reason, retry)


def test_a_refusal_is_an_answer(paid):
    assert ask(paid, "filtered").finish_reason == "content_filter"


def test_a_time_out_is_one(paid):
    assert ask(paid, "slow-5", timeout_s=0.5).reason == "timeout"


def endless():
    piece = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    return itertools.chain([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"], itertools.repeat(piece))


def packed(body, headers):
    """Write a reply that is packed, though it is asked for unpacked."""
    assert headers["accept-encoding"] == "identity"
    content = gzip.compress(http(completion(body)).partition(b"\r\n\r\n")[2])
    bomb = gzip.compress(b" " * 2**22)
    return {
        "packed": lambda: [http(content, "200 OK", "Content-Encoding: gzip")],
        "bomb": lambda: [http(bomb, "200 OK", "Content-Encoding: gzip")],
        "other-packing": lambda: [http(content, "200 OK", "Content-Encoding: br")],
        "endless": endless,
    }[body["model"]]()


@pytest.mark.parametrize(
    ("of", "model", "reason"),
    [
        ("openai", "endless", "too_long"),
        ("openai", "bomb", "too_long"),
        ("openai", "other-packing", "packed"),
        ("mistral", "endless", "too_long"),
        ("groq", "endless", "too_long"),
    ],
)
def test_a_reply_is_read_within_a_bound(monkeypatch, of, model, reason):
    monkeypatch.setattr(bounded_reply, "MOST_REPLY_BYTES", 2**20)
    with raw_server(packed) as address:
        failed = ask(SimpleNamespace(base_url=address), model, of=of)
    assert (failed.reason, failed.retry, failed.billed) == (reason, False, True)


def test_what_is_packed_all_the_same_is_read_and_connections_go_on():
    with raw_server(packed) as address:
        for _ in range(2):
            assert ask(SimpleNamespace(base_url=address), "packed").text == "The answer is 4."


def test_no_table_of_prices_is_fetched():
    assert os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] == "True"
