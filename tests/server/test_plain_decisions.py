"""A plain request of `/v1/route` is answered in one step, and as the way of all endpoints answers it; every other goes that way."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from ipr_engine import Engine
from ipr_engine.policy.calibrated import DriftEvidence
from ipr_engine.request.controls import EVERY_CONTROL
from tests.support import skips
from tests.support.asgi_calls import AsgiApp
from tests.support.both_ways import HOST, ROUTE, BothWays, as_json, ready
from tests.support.bundles import make_bundle
from tests.support.hostile_requests import REAL, HostileRequests
from tests.support.http_calls import nobody
from tests.support.server_configs import KEYS, NARROW_KEY, PROMPTS, TEAM_KEY, gateway_config

pytest.importorskip("orjson", reason=skips.SERVE)
from ipr_engine.server import app
from ipr_engine.server.server_config import ServerConfig, make_config
from ipr_engine.server.server_state import REQUEST_LOG

USER = {"role": "user", "content": "Why is the sky blue? Ĝis é 日本 😀"}
SYSTEM = {"role": "system", "content": "Be brief."}
PLAIN: list[Any] = [
    {"prompt": PROMPTS[1]},
    {"input": PROMPTS[1], "instructions": "Be brief."},
    {"messages": [USER]},
    {"messages": [SYSTEM, USER, {"role": "assistant", "content": "Light."}, USER], "max_tokens": 300},
    {"model": "auto", "messages": [USER], "max_completion_tokens": 1, "temperature": 0.5, "stream": True, "user": "u"},
    {"model": None, "messages": [{**USER, "name": "ann"}], "max_tokens": None, "tools": None, "ip r": {"tau": 0.3}},
    {"messages": [{"role": "user", "content": 'the name "ipr" in quotes, and \\u0069'}]},
]
CONTROLLED: list[Any] = [
    {"prompt": PROMPTS[1], "ipr": None},
    {"prompt": PROMPTS[1], "ipr": {"tau": 0.9}},
    {"prompt": PROMPTS[1], "ipr": {"tau": 0.3, "exclude": ["gpt-4o-mini-2024-07-18"]}},
    {"prompt": PROMPTS[1], "metadata": {"ipr": {"tau": 0.9}, "a": "b"}},
    {"prompt": PROMPTS[1], "metadata": {"ipr": '{"tau": 0.9}'}},
    {"prompt": PROMPTS[1], "metadata": {"a": "b"}},
    {"prompt": PROMPTS[1], "metadata": None, "tau": None},
]
"""What they say of their decision is options of a policy."""
OTHERS: list[Any] = [
    *({"prompt": PROMPTS[1], name: 0.3} for name in EVERY_CONTROL),
    {"prompt": PROMPTS[1], "ipr": {"tau": 0.9, "explain": True}},
    {"prompt": PROMPTS[1], "ipr": {"billed_tokens": 70}},
    {"prompt": PROMPTS[1], "ipr": {"tau": 7}},
    {"prompt": PROMPTS[1], "ipr": {"tau": 0.9}, "metadata": {"ipr": {"tau": 0.8}}},
    {"prompt": PROMPTS[1], "ipr": 7},
    {"prompt": PROMPTS[1], "ipr": {"unknown": 0.3}},
    {"prompt": PROMPTS[1], "ipr": {"tau": 0.1, "cost_weights": {"usd": 1, "seconds": 0.1}}},
    {"prompt": PROMPTS[1], "model": "unknown"},
    {"prompt": PROMPTS[1], "model": ""},
    {"prompt": PROMPTS[1], "model": 7},
    {"prompt": PROMPTS[1], "model": "gpt-4o-mini-2024-07-18"},
    {"prompt": PROMPTS[1], "input": PROMPTS[1]},
    {"prompt": ""},
    {"prompt": " \u200b"},
    {"prompt": {"id": "pmpt_1"}},
    {"prompt": PROMPTS[1], "max_tokens": -1},
    {"prompt": PROMPTS[1], "max_tokens": 10**9},
    {"prompt": PROMPTS[1], "max_tokens": 1e2},
    {"prompt": PROMPTS[1], "n": 2},
    {"messages": [USER], "tools": [{"type": "function", "function": {"name": "f"}}]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]},
    {"messages": [SYSTEM]},
    {"prompt": "word " * 20_000},
    {"prompt": PROMPTS[1], "user": "u" * 70_000},
    {},
    [USER],
    "text",
    None,
]
BROKEN = [
    b"",
    b"{",
    b'{"prompt": "\xff"}',
    b'{"prompt": "\\ud800 half"}',
    b'{"prompt": "a", "ipr": {"tau": 0.3, "tau": 0.4}}',
    b'{"prompt": "a", "\\u0069pr": {"tau": 0.3, "tau": 0.4}}',
    b'{"prompt": "a", "metadata": {"ipr": {}}, "metadata": {}}',
]
TWICE = [b'{"prompt": "a", "prompt": "why?"}', b' {"messages":[],"messages":[{"role":"user","content":"hi"}]}\n']


def test_both_ways_answer_alike() -> None:
    async def ask() -> None:
        async with AsgiApp(app()) as application:
            both = BothWays(await ready(application))
            for body in PLAIN:
                reply = await both.ask(as_json(body))
                assert (reply.plainly, reply.status) == (True, 200), body
                reply = await both.ask(json.dumps(body).encode())  # with escapes
                assert reply.plainly, body
            for body in CONTROLLED:
                first = await both.ask(as_json(body))  # by the other way too, which compiles its policy
                assert (first.plainly, first.status) == (True, 200), body
            chosen = [json.loads((await both.ask(as_json(body))).content)["tau"] for body in CONTROLLED]
            assert set(chosen) == {0.1, 0.3, 0.9}
            for body in TWICE:
                assert (await both.ask(body)).plainly
            for body in OTHERS:
                assert not (await both.ask(as_json(body))).plainly, body
            for body in BROKEN:
                assert not (await both.ask(body)).plainly, body

    asyncio.run(ask())


def test_a_request_whose_headers_ask_for_more_or_are_of_a_page_is_not_plain() -> None:
    async def ask() -> None:
        async with AsgiApp(app()) as application:
            both, body = BothWays(await ready(application)), as_json(PLAIN[0])
            assert (await both.ask(body)).plainly
            assert (await both.ask(body, (HOST, (b"x-ipr-tau", b"0.9")))).plainly
            for headers in (
                ((b"x-ipr-tau", b"much"),),
                ((b"x-ipr-tau", b"0.9"), (b"x-ipr-tau", b"0.8")),
                ((b"x-ipr-explain", b"true"),),
                ((b"x-ipr-unknown", b"0.9"),),
                ((b"origin", b"http://elsewhere"),),
                ((b"origin", b"http://127.0.0.1:8000"),),
                ((b"sec-fetch-site", b"cross-site"),),
            ):
                assert not (await both.ask(body, (HOST, *headers))).plainly, headers
            for query in ("trial=true", "trial=false", "format=chat", "tau=0.3"):
                assert not (await both.ask(body, path=f"{ROUTE}?{query}")).plainly, query

    asyncio.run(ask())


@pytest.fixture
def keyed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The config of a gateway with tenants; nobody listens behind it."""
    for name, key in KEYS.items():
        monkeypatch.setenv(name, key)
    return gateway_config(nobody(), nobody())


def bearer(key: str) -> tuple[bytes, bytes]:
    return b"authorization", f"Bearer {key}".encode()


def test_each_tenant_and_each_model_has_its_policy(keyed: dict[str, Any]) -> None:
    async def ask() -> None:
        keyed["server"]["hosts"] = ["127.0.0.1"]
        async with AsgiApp(app(None, make_config(keyed))) as application:
            both, chosen = BothWays(await ready(application)), set()
            for key in (TEAM_KEY, NARROW_KEY):
                for model in keyed["models"]:
                    for _ in range(2):
                        reply = await both.ask(as_json({**PLAIN[2], "model": model}), (HOST, bearer(key)))
                        assert reply.plainly is (reply.status == 200)
                    chosen.add(json.loads(reply.content).get("model"))
            assert len(chosen) > 2
            elsewhere = b"host", b"elsewhere"
            for headers in (
                (HOST,),
                (HOST, bearer("other")),
                (elsewhere, bearer(TEAM_KEY)),
                (elsewhere, HOST, bearer(TEAM_KEY)),
            ):
                reply = await both.ask(as_json(PLAIN[2]), headers)
                assert not reply.plainly
                assert reply.status in {401, 403}

    asyncio.run(ask())


def test_hostile_requests_are_answered_alike(keyed: dict[str, Any]) -> None:
    bodies = [body for path, body in REAL if path != "/v1/systemone"]

    async def ask() -> None:
        plain = 0
        async with AsgiApp(app(None, make_config(keyed))) as application:
            both = BothWays(await ready(application))
            for body in bodies:
                plain += (await both.ask(as_json(body), (HOST, bearer(TEAM_KEY)))).plainly
            for hostile in islice(iter(HostileRequests(7).one, None), 1500):
                headers = tuple(one for one in hostile.headers if one[0].lower() != b"content-length")
                plain += (await both.ask(b"".join(hostile.pieces), headers)).plainly
        assert plain > 50

    asyncio.run(ask())


def counted(text: bytes) -> list[str]:
    """Return the figures of /metrics, but for times, when something began, and what is asked beside."""
    lines = [line for line in text.decode().splitlines() if not line.startswith("#")]
    of_times = re.compile(r"seconds(?!_count)|_created|ipr_in_flight|/metrics|/ready")
    return [line for line in lines if of_times.search(line) is None]


def lines_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the lines of requests, but for what differs each time."""
    lines = (record.getMessage() for record in caplog.records if record.name == REQUEST_LOG)
    varies = re.compile(r'"(?:id|ms|at)": ?[^,}]*|[0-9a-f]{24}|[\d.]+ ?ms')
    return [varies.sub("", line) for line in lines if ROUTE in line]


@pytest.mark.parametrize("shadowed", [False, True], ids=["alone", "with a shadow"])
def test_both_ways_are_counted_and_told_alike(
    keyed: dict[str, Any], caplog: pytest.LogCaptureFixture, shadowed: bool, tmp_path: Path
) -> None:
    if shadowed:
        keyed["shadow"] = {"bundle": str(make_bundle(tmp_path, models=3))}

    async def ask(shortly: bool) -> tuple[list[str], Any, list[str]]:
        caplog.clear()
        caplog.set_level(logging.INFO, REQUEST_LOG)
        async with AsgiApp(app(None, make_config(keyed))) as application:
            await ready(application)
            headers = [HOST, bearer(TEAM_KEY)]
            for body in PLAIN:  # the first of them compiles the policy
                reply = await application.call("POST", ROUTE, headers, [as_json(body)])
            for body in PLAIN:
                reply = await application.call("POST", ROUTE, headers, [as_json(body)], shortly=shortly)
                assert reply.plainly is shortly
            await asyncio.sleep(0.5 if shadowed else 0)
            figures = await application.call("GET", "/metrics", [HOST], [])
            overview = json.loads((await application.call("GET", "/ipr/overview", headers, [])).content)
            for one in overview["recent"]["decisions"]:
                del one["id"], one["at"]
            return counted(figures.content), overview["recent"], lines_of(caplog)

    (counts, recent, said), (of_others, known, heard) = asyncio.run(ask(True)), asyncio.run(ask(False))
    assert counts == of_others
    assert recent == known
    assert len(recent["decisions"]) + recent["unread"] == 2 * len(PLAIN)
    assert said == heard
    assert len(said) == 2 * len(PLAIN)


@pytest.fixture
def narrow(tmp_path: Path) -> Engine:
    """An engine whose candidates have context windows, the smallest of which holds its longest answer and some hundred tokens."""
    return Engine.load(make_bundle(tmp_path, models=5, context_windows=[4500, 4600, None, 8000, 9000]))


def test_a_request_that_a_window_may_keep_from_somebody_is_not_plain(narrow: Engine) -> None:
    async def ask() -> None:
        config = make_config({"policy": {"tau": 0.4}})
        async with AsgiApp(app(narrow, config)) as application:
            both, plainly = BothWays(await ready(application)), []
            for words in (1, 3, 300, 320, 330, 397, 700, 1000, 1600, 4001):
                for stated in (None, 0, 1, 40, 1000, 4000, 5000):
                    body = {"prompt": "why " * words, "max_tokens": stated}
                    plainly.append((await both.ask(as_json(body))).plainly)
            assert set(plainly) == {True, False}

    asyncio.run(ask())


def test_what_changes_while_it_serves_is_heeded_at_once(narrow: Engine) -> None:
    other = Engine.load().bundle

    async def ask() -> None:
        made = app(narrow, ServerConfig())
        async with AsgiApp(made) as application:
            both, body = BothWays(await ready(application)), as_json(PLAIN[0])
            assert (await both.ask(body)).plainly
            narrow.mark_stale(DriftEvidence(kind="stated", message="the product changed"))
            assert not (await both.ask(body)).plainly
            narrow.mark_stale(None)
            assert (await both.ask(body)).plainly
            allowed = {"allow_other_encoder": True, "allow_fewer_candidates": True, "allow_fewer_outputs": True}
            await made.state.ipr.engine.swap(other, **allowed)
            for _ in range(2):
                reply = await both.ask(body)
                assert json.loads(reply.content)["bundle"] == other.hash
            assert reply.plainly
            made.state.ipr.in_flight = made.state.ipr.most_in_flight
            refused = await application.call("POST", ROUTE, [HOST], [body], shortly=True)
            assert (refused.status, refused.plainly) == (503, False)

    asyncio.run(ask())


@pytest.mark.parametrize("server", [{"service": {"cache_entries": 8}}, {"spans": False}], ids=str)
def test_what_a_cache_or_a_record_must_see_goes_the_way_of_all(server: dict[str, Any], tmp_path: Path) -> None:
    async def ask(config: dict[str, Any]) -> list[bool]:
        async with AsgiApp(app(None, make_config(config))) as application:
            both = BothWays(await ready(application))
            return [(await both.ask(as_json(PLAIN[0]))).plainly for _ in range(3)]

    plain = "cache_entries" not in server.get("service", {})
    assert asyncio.run(ask({"server": server})) == [plain] * 3
    assert asyncio.run(ask({"server": server, "records": {"path": str(tmp_path / "r.jsonl")}})) == [False] * 3
