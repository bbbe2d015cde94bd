"""A request that names a candidate gets it where the server and the tenant let it; what is said of a choice is refused there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from ipr_engine import Engine
from tests.support import skips
from tests.support.bundles import NAMES
from tests.support.local_server import LocalServer
from tests.support.server_configs import CHAT, MESSAGES, NOT_CONFIGURED, PATHS, PROMPTS, REFUSING, RESPONSES, body_of
from tests.support.server_process import ServerProcess
from tests.support.upstream_stub import UpstreamStub

pytest.importorskip("uvicorn", reason=skips.SERVE)
OPEN, CLOSED, ALIASED, TENANTS, MUTE = NAMES[:5]
TENANT = {"authorization": "Bearer key-of-a-tenant"}


@pytest.fixture
def server(engine: Engine, provider: UpstreamStub, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalServer]:
    """A gateway whose policy leaves one candidate out, whose alias another, and whose tenant a third."""
    monkeypatch.setenv("TEST_A_TENANT", TENANT["authorization"].partition(" ")[2])
    provider.reset()
    stub = {"base_url": f"{provider.url}/v1"}
    config = {
        "endpoints": {"stub": {**stub, "formats": [CHAT]}, "other": {**stub, "formats": [MESSAGES]}},
        "upstreams": {**dict.fromkeys((OPEN, CLOSED, ALIASED, TENANTS), "stub"), MUTE: "other"},
        "policy": {"rule": "minmax", "exclude": [CLOSED]},
        "models": {"auto": {"exclude": [ALIASED]}},
        "tenants": [{"name": "tenant", "keys_env": ["TEST_A_TENANT"], "policy": {"exclude": [TENANTS]}}],
    }
    with LocalServer(engine, config) as made:
        yield made


def test_masks_of_the_server_and_the_tenant_hold_and_an_alias_has_none(
    server: LocalServer, provider: UpstreamStub
) -> None:
    statuses = {}
    for name in (OPEN, CLOSED, ALIASED, TENANTS, MUTE):
        reply = server.post(PATHS[CHAT], body_of(CHAT, model=name), TENANT)
        statuses[name] = reply.status
        assert (reply.status == 200) == (reply.told.get("candidate") == name)
        assert reply.told.get("cause") == ("named" if reply.status == 200 else None)
    assert statuses == {OPEN: 200, CLOSED: 404, ALIASED: 200, TENANTS: 404, MUTE: 400}
    assert [one["model"] for one in provider.seen()] == [OPEN, ALIASED]


def test_models_lists_who_may_be_named(server: LocalServer) -> None:
    listed = [one["id"] for one in server.get("/v1/models", TENANT).body["data"]]
    assert listed == ["auto", "ipr-judge", OPEN, ALIASED, MUTE]


def test_models_tells_who_may_be_chosen_for_a_routed_name(server: LocalServer) -> None:
    listed = {one["id"]: one.get("candidates") for one in server.get("/v1/models", TENANT).body["data"]}
    assert listed == {"auto": [OPEN, MUTE], "ipr-judge": [OPEN, MUTE], OPEN: None, ALIASED: None, MUTE: None}


def test_models_of_a_decision_server_tells_who_may_be_chosen(engine: Engine) -> None:
    config = {
        "policy": {"rule": "minmax", "exclude": [CLOSED]},
        "models": {"all": {}, "few": {"allowed": [OPEN, CLOSED]}},
    }
    with LocalServer(engine, config) as made:
        listed = {one["id"]: one["candidates"] for one in made.get("/v1/models").body["data"]}
    but_one = [name for name in engine.bundle.names if name != CLOSED]
    assert listed == {"all": but_one, "few": [OPEN], "ipr-judge": but_one}


@pytest.mark.parametrize(
    "said",
    [
        {"tau": 0.2},
        {"exclude": ["any"]},
        {"tokens_in": 7},
        {"billed_tokens": 7},
        {"extra_usd": 0.1},
        {"cached_tokens": 7},
        {"tokens_out": 7},
        {"explain": True},
    ],
)
def test_what_is_said_of_a_choice_is_refused_where_one_is_named(
    server: LocalServer, provider: UpstreamStub, said: dict[str, Any]
) -> None:
    reply = server.post(PATHS[CHAT], body_of(CHAT, model=OPEN, ipr=said), TENANT)
    assert (reply.status, reply.body["error"]["param"]) == (400, f"ipr.{next(iter(said))}")
    assert provider.seen() == []


def test_an_alias_that_leaves_one_out_does_not_close_it(gateway: ServerProcess) -> None:
    reply = gateway.post(PATHS[CHAT], body_of(CHAT, model=REFUSING))
    assert (reply.status, reply.told["attempts"]) == (502, f"{REFUSING}=connect")


CHOICE = {"type": "choice", "instructions": "who", "choices": list(NAMES[:2])}
ENUM = {"type": "object", "properties": {"who": {"enum": list(NAMES[:2])}}, "required": ["who"]}
NOT_EXPLAINED: dict[str, dict[str, Any]] = {
    PATHS[CHAT]: body_of(CHAT),
    PATHS[RESPONSES]: body_of(RESPONSES),
    PATHS[MESSAGES]: body_of(MESSAGES),
    "/v1/decisions": {"input": "hi", "questions": [CHOICE]},
    "/v1/systemone": {"state": "hi", "questions": {"who": {"type": "choice", "criteria": dict.fromkeys(NAMES[:2])}}},
    "judge": {
        **body_of(CHAT, model="ipr-judge"),
        "response_format": {"type": "json_schema", "json_schema": {"name": "who", "schema": ENUM}},
    },
}


@pytest.mark.parametrize("asked", NOT_EXPLAINED)
def test_explain_is_refused_where_nobody_reads_it(server: LocalServer, provider: UpstreamStub, asked: str) -> None:
    path = PATHS[CHAT] if asked == "judge" else asked
    for how, headers in (({"ipr": {"explain": True}}, {}), ({}, {"x-ipr-explain": "true"})):
        reply = server.post(path, {**NOT_EXPLAINED[asked], **how}, {**TENANT, **headers})
        assert (reply.status, "/v1/route" in reply.body["error"]["message"]) == (400, True)
    assert provider.seen() == []
    said = server.post(path, {**NOT_EXPLAINED[asked], "ipr": {"explain": False}}, TENANT)
    assert (said.status == 400) == (path == PATHS[RESPONSES])  # which nobody speaks here
    assert "explain" not in said.content.decode()


def test_an_explanation_names_what_keeps_a_candidate_out(server: LocalServer, gateway: ServerProcess) -> None:
    asked = {"prompt": PROMPTS[0], "ipr": {"explain": True, "tau": 0.2}}
    rows = {row["name"]: row for row in server.post("/v1/route", asked, TENANT).body["explanation"]["candidates"]}
    why = {name: row["excluded_because"] for name, row in rows.items()}
    by_name = "excluded by name"
    assert why == {OPEN: None, CLOSED: by_name, ALIASED: by_name, TENANTS: by_name, MUTE: None}
    rows = {row["name"]: row for row in gateway.post("/v1/route", asked).body["explanation"]["candidates"]}
    assert rows[NOT_CONFIGURED]["excluded_because"] == rows[NOT_CONFIGURED]["state"] == "upstream: none is configured"
    assert rows[REFUSING]["excluded_because"] == by_name
    assert json.dumps(rows).count('"chosen"') == len(rows) + 1  # one state, and a field each
