"""In whatever state a server is, a request that may be plain is answered as the way of all endpoints answers it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from ipr_engine import Bundle, Engine
from ipr_engine.bundle import with_calibrations
from ipr_engine.policy.in_use import PoliciesInUse
from ipr_engine.serving.decision_writer import DecisionWriter
from tests.support import skips
from tests.support.asgi_calls import AsgiApp, ShortCall
from tests.support.both_ways import HOST, ROUTE, BothWays, as_json, ready, told
from tests.support.bundles import make_bundle, make_siblings
from tests.support.calibration_maps import make_map
from tests.support.serving_encoders import queued_engine

pytest.importorskip("orjson", reason=skips.SERVE)
from ipr_engine.server import app
from ipr_engine.server.server_config import make_config

PLAIN = {"prompt": "Prove that there are infinitely many primes."}
TOOLS = {**PLAIN, "tools": [{"type": "function", "function": {"name": "f"}}]}


def test_a_swap_in_the_middle_mixes_no_bundles_up(tmp_path: Path) -> None:
    first, second = make_siblings(tmp_path, 2)  # the same names, in another order

    async def ask() -> None:
        engine = Engine.load(first)
        made = app(engine, make_config({"policy": {"tau": 0.4}}))
        async with AsgiApp(made) as application:
            both, body = BothWays(await ready(application)), as_json(PLAIN)
            assert (await both.ask(body)).plainly
            decider, waiting = made.state.ipr.decider, [second]

            def numbers() -> Iterator[int]:
                for number in count(100):
                    if waiting:  # a request has its policy by now
                        engine.swap(waiting.pop())
                    yield number

            decider.numbers = numbers()
            reply = await application.call("POST", ROUTE, [HOST], [body], shortly=True)
            assert (reply.plainly, reply.status, json.loads(reply.content)["bundle"]) == (False, 200, second.name)
            assert told(reply) == told(await application.call("POST", ROUTE, [HOST], [body]))

    asyncio.run(ask())


def test_a_bundle_that_serves_again_is_asked_the_short_way_again(tmp_path: Path) -> None:
    (first,) = make_siblings(tmp_path, 1)
    bundle = Engine.load(first).bundle
    calibrated = with_calibrations(bundle, [make_map(bundle)], activate=False)

    async def ask() -> None:
        engine = Engine.load(first)
        made = app(engine, make_config({"policy": {"tau": 0.4}}))
        async with AsgiApp(made) as application:
            both, body = BothWays(await ready(application)), as_json(PLAIN)
            assert (await both.ask(body)).plainly
            engine.swap(calibrated)  # nobody asks meanwhile
            engine.swap(first)  # what it is calibrated by is another, so its drift flag is
            assert (await both.ask(body)).plainly  # the other way compiled it before

    asyncio.run(ask())


def test_a_policy_that_does_not_suit_the_next_bundle_is_not_tried_with_every_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    five, three = (
        make_bundle(tmp_path / str(models), models=models, context_windows=[None] * models) for models in (5, 3)
    )
    followed = []
    follow = PoliciesInUse.follow
    monkeypatch.setattr(PoliciesInUse, "follow", lambda *asked: followed.append(asked) or follow(*asked))

    async def ask() -> None:
        engine = Engine.load(five)
        made = app(engine, make_config({"policy": {"tau": 0.4, "allowed": list(engine.bundle.names[3:])}}))
        async with AsgiApp(made) as application:
            both, body = BothWays(await ready(application)), as_json(PLAIN)
            assert (await both.ask(body)).plainly
            await made.state.ipr.engine.swap(three, allow_fewer_candidates=True)
            for _ in range(3):
                assert (await both.ask(body)).status == 503
            assert not followed

    asyncio.run(ask())


@pytest.mark.parametrize("name", ["is_full", "seen"])
def test_who_reads_or_sends_slowly_goes_the_way_of_all(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    async def ask() -> None:
        async with AsgiApp(app()) as application:
            both, body = BothWays(await ready(application)), as_json(PLAIN)
            assert (await both.ask(body)).plainly
            monkeypatch.setattr(ShortCall, name, True if name == "is_full" else lambda *_: None)
            assert not (await both.ask(body)).plainly

    asyncio.run(ask())


def test_a_body_that_is_too_long_is_not_plain() -> None:
    async def ask() -> None:
        async with AsgiApp(app(None, make_config({"server": {"limits": {"body_bytes": 1024}}}))) as application:
            both = BothWays(await ready(application))
            await both.ask(as_json(PLAIN))
            body = as_json(PLAIN)
            assert (await both.ask(body + b" " * (1024 - len(body)))).plainly
            assert (await both.ask(body + b" " * (1025 - len(body)))).status == 413

    asyncio.run(ask())


def test_a_server_that_is_closed_answers_nobody() -> None:
    async def ask() -> None:
        made = app()
        async with AsgiApp(made) as application:
            both, body = BothWays(await ready(application)), as_json(PLAIN)
            assert (await both.ask(body)).plainly
            await made.state.ipr.engine.close()
            assert (await both.ask(body)).status == 503

    asyncio.run(ask())


def test_prompts_that_are_encoded_in_python_are_queued(tmp_path: Path) -> None:
    engine, _ = queued_engine(Bundle.load(make_bundle(tmp_path)))

    async def ask() -> None:
        async with AsgiApp(app(engine, make_config({"policy": {"tau": 0.4}}))) as application:
            both = BothWays(await ready(application))
            assert [(await both.ask(as_json(PLAIN))).plainly for _ in range(2)] == [False, False]

    asyncio.run(ask())


def test_a_client_that_left_is_counted_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ShortCall, "reply", lambda *_: False)

    async def ask() -> None:
        async with AsgiApp(app()) as application:
            await ready(application)
            for body in (PLAIN, PLAIN, TOOLS):
                await application.call("POST", ROUTE, [HOST], [as_json(body)], shortly=True)
            figures = (await application.call("GET", "/metrics", [HOST], [])).content.decode()
        (line,) = [line for line in figures.splitlines() if line.startswith("ipr_requests_total") and ROUTE in line]
        assert 'status="499"' in line
        assert line.endswith(" 3.0")

    asyncio.run(ask())


def test_what_nobody_expected_is_told_without_the_prompt_and_answered_by_the_way_of_all(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(_: DecisionWriter, request: object, *__: object) -> None:
        raise ValueError(request)

    async def ask() -> None:
        async with AsgiApp(app()) as application:
            both, body = BothWays(await ready(application)), as_json(PLAIN)
            assert (await both.ask(body)).plainly
            monkeypatch.setattr(DecisionWriter, "write", fails)
            reply = await both.ask(body)
            assert (reply.plainly, reply.status) == (False, 200)

    asyncio.run(ask())
    assert f"{ROUTE}, answered in one step, failed: ValueError" in caplog.text
    assert PLAIN["prompt"] not in caplog.text


def test_headers_may_be_lists(tmp_path: Path) -> None:
    async def ask() -> None:
        async with AsgiApp(app(Engine.load(make_bundle(tmp_path)))) as application:
            await ready(application)
            headers: Any = [list(HOST), [b"x-ipr-tau", b"0.25"]]  # as some servers have them
            reply = await application.call("POST", ROUTE, headers, [as_json(PLAIN)])
            assert (reply.status, json.loads(reply.content)["tau"]) == (200, 0.25)

    asyncio.run(ask())
