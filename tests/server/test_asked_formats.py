"""`/v1/route?format=` decides among those whom a request of that format can reach; a trial is left out of what is counted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ipr_engine import Engine
from tests.support.local_server import LocalServer
from tests.support.server_configs import CHAT, MESSAGES, RESPONSES
from tests.support.skips import SERVE

pytest.importorskip("uvicorn", reason=SERVE)

OPENAI = ("gpt-4o-2024-08-06", "gpt-4o-mini-2024-07-18")
SONNET = "claude-3-5-sonnet-20241022"
NOWHERE = "http://127.0.0.1:9/v1"
CONFIG: dict[str, Any] = {
    "endpoints": {
        "openai": {"base_url": NOWHERE, "formats": [CHAT, RESPONSES]},
        "anthropic": {"base_url": NOWHERE, "formats": [MESSAGES]},
    },
    "upstreams": {**dict.fromkeys(OPENAI, "openai"), SONNET: "anthropic"},
}
PROMPT = {"prompt": "Prove that there are infinitely many primes.", "ipr": {"tau": 0.0}}
REACH = {"chat": set(OPENAI), "responses": set(OPENAI), "messages": {SONNET}, CHAT: set(OPENAI), MESSAGES: {SONNET}}


@pytest.fixture(scope="module")
def server(default_engine: Engine) -> Iterator[LocalServer]:
    with LocalServer(default_engine, CONFIG) as server:
        yield server


@pytest.mark.parametrize("form", REACH)
def test_a_format_is_applied_as_the_gateway_applies_it(server: LocalServer, default_engine: Engine, form: str) -> None:
    before = server.metrics()
    decided = server.post(f"/v1/route?format={form}", PROMPT).body
    alone = default_engine.route(PROMPT["prompt"], tau=0.0, allowed=sorted(REACH[form]))
    assert decided["model"] == alone.model
    assert set(decided["ranked"]) == REACH[form]
    left_out = {*OPENAI, SONNET} - REACH[form]
    assert {name for name, why in decided["excluded"].items() if why.startswith("format: ")} == left_out
    masked = {name.split('"')[1] for name in server.counted(before) if name.startswith("ipr_masked_total")}
    assert masked == left_out


def test_without_a_format_every_candidate_with_an_upstream_may_be_chosen(server: LocalServer) -> None:
    assert set(server.post("/v1/route", PROMPT).body["ranked"]) == {*OPENAI, SONNET}


@pytest.mark.parametrize(
    ("query", "param", "said"),
    [
        ("format=html", "format", "format: expected one of chat, responses, messages, got 'html'"),
        ("format=", "format", "format: expected one of chat, responses, messages, got ''"),
        ("fromat=chat", "fromat", "query: expected format or trial alone, got 'fromat'"),
        ("trial=1", "trial", "trial: expected true or false, got '1'"),
        ("trial=true&trial=false", "trial", "trial: is given twice; give it once"),
        ("format=%FF%00", "format", "format: expected one of chat"),
    ],
)
def test_a_wrong_query_is_refused(server: LocalServer, query: str, param: str, said: str) -> None:
    reply = server.post(f"/v1/route?{query}", PROMPT)
    assert (reply.status, reply.body["error"]["param"]) == (400, param)
    assert reply.body["error"]["message"].startswith(said)


def test_a_server_without_upstreams_takes_a_format_and_leaves_nobody_out(default_engine: Engine) -> None:
    with LocalServer(default_engine, {}) as server:
        decided = server.post("/v1/route?format=messages", PROMPT).body
    assert decided["excluded"] == {}
    assert decided["model"] == default_engine.route(PROMPT["prompt"], tau=0.0).model


def test_a_trial_is_answered_and_not_counted_as_traffic(server: LocalServer) -> None:
    seen, before = server.get("/ipr/overview").body, server.metrics()
    decided = server.post("/v1/route?trial=true&format=chat", PROMPT)
    assert (decided.status, decided.body["model"] in OPENAI) == (200, True)
    counted = server.counted(before)
    assert counted['ipr_requests_total{path="/v1/route",status="200",tenant="anybody"}'] == 1
    of_traffic = ("ipr_cost_usd", "ipr_saved_usd", "ipr_support", "ipr_masked", "ipr_shadow", "ipr_served")
    assert [name for name in counted if name.startswith(of_traffic)] == []
    after = server.get("/ipr/overview").body
    for part in ("routed", "cost_usd", "saved_usd"):
        assert after["totals"][part] == seen["totals"][part]
    assert after["recent"] == seen["recent"]
    assert server.post("/v1/route?trial=false", PROMPT).status == 200
    assert server.get("/ipr/overview").body["totals"]["cost_usd"] > seen["totals"]["cost_usd"]


@pytest.mark.parametrize("form", ["chat", "messages"])
def test_the_overview_tells_of_those_whom_a_format_reaches(
    server: LocalServer, default_engine: Engine, form: str
) -> None:
    seen = server.get(f"/ipr/overview?format={form}").body
    assert seen["formats"] == [CHAT, RESPONSES, MESSAGES]
    assert seen["format"] == {"chat": CHAT, "messages": MESSAGES}[form]
    assert {one["name"] for one in seen["candidates"] if one["out"] is None} == REACH[form]
    promise = default_engine.policy(tau=0.1, allowed=sorted(REACH[form])).promise
    assert promise is not None
    assert seen["models"]["auto"]["usd_per_1k"] == pytest.approx(1000 * promise.cost_usd)
    assert [tau for tau, *_ in seen["curve"]] == [step / 100 for step in range(101)]


def test_the_overview_has_the_first_format_where_none_is_asked_for_and_none_where_all_speak_alike(
    server: LocalServer, default_engine: Engine
) -> None:
    assert server.get("/ipr/overview").body["format"] == CHAT
    assert server.get("/ipr/overview?format=x").status == 400
    alike = {**CONFIG, "upstreams": dict.fromkeys(OPENAI, "openai")}
    alike["endpoints"] = {"openai": CONFIG["endpoints"]["openai"]}
    with LocalServer(default_engine, alike) as other:
        seen = other.get("/ipr/overview").body
        assert (seen["formats"], seen["format"]) == ([], None)
