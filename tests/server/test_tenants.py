"""Who asks is known by a key, and may do what its tenant may."""

from __future__ import annotations

import json
from hashlib import sha256

import pytest

from ipr_engine import Engine
from ipr_engine.server.refused import RefusedError
from ipr_engine.server.server_config import Tenant
from ipr_engine.server.tenants import MOST_KEYS, Tenants
from tests.support.local_server import LocalServer
from tests.support.server_configs import (
    CHAT,
    EVERY,
    MESSAGES,
    NARROW_KEY,
    OPENAI,
    PATHS,
    PLAIN_KEY,
    PROMPTS,
    PROVIDER_KEY,
    RESPONSES,
    TEAM_KEY,
    body_of,
)
from tests.support.server_process import ServerProcess, until
from tests.support.upstream_stub import UpstreamStub

FORMS = (CHAT, RESPONSES, MESSAGES)
ASKED = {
    **{PATHS[form]: body_of(form) for form in FORMS},
    "/v1/route": {"prompt": "hi"},
    "/v1/decisions": {"model": "auto", "input": "hi", "questions": []},
    "/v1/systemone": {"model": "auto", "state": "hi", "questions": {}},
}


@pytest.mark.parametrize("path", ASKED)
@pytest.mark.parametrize(
    "key", [None, "", "Bearer", "Bearer wrong", f"Basic {TEAM_KEY}", TEAM_KEY, f"Bearer {TEAM_KEY}x"]
)
def test_without_a_known_key_nobody_is_answered(
    gateway: ServerProcess, upstream: UpstreamStub, path: str, key: str | None
) -> None:
    reply = gateway.post(path, ASKED[path], {"authorization": key})
    assert (reply.status, reply.body["error"]["type"]) == (401, "authentication_error")
    assert upstream.seen() == []


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {TEAM_KEY}"},
        {"authorization": f"bearer {TEAM_KEY}"},
        {"authorization": None, "x-api-key": TEAM_KEY},
        {"authorization": f"Bearer {TEAM_KEY}", "x-api-key": "junk"},
        {"authorization": "Bearer junk", "x-api-key": TEAM_KEY},
        {"authorization": f"Bearer {TEAM_KEY}", "x-api-key": TEAM_KEY},
    ],
)
def test_a_key_comes_as_clients_send_it(
    gateway: ServerProcess, upstream: UpstreamStub, headers: dict[str, str]
) -> None:
    assert gateway.post(PATHS[MESSAGES], body_of(MESSAGES), headers).status == 200
    (seen,) = upstream.seen()
    assert TEAM_KEY not in str(seen)  # the provider gets the server's key alone
    assert seen["_headers"]["x-api-key"] == PROVIDER_KEY


def test_keys_of_different_tenants_are_refused(gateway: ServerProcess, upstream: UpstreamStub) -> None:
    both = {"authorization": f"Bearer {TEAM_KEY}", "x-api-key": NARROW_KEY}
    reply = gateway.post(PATHS[MESSAGES], body_of(MESSAGES), both)
    assert (reply.status, "different tenants" in reply.body["error"]["message"]) == (401, True)
    assert upstream.seen() == []


def test_so_many_keys_of_one_request_are_looked_at_and_no_more() -> None:
    known = Tenants([Tenant(name="team", keys_sha256=(sha256(b"good").hexdigest(),))])
    junk = [(b"x-api-key", b"junk%d" % number) for number in range(MOST_KEYS)]
    assert known.of([*junk[1:], (b"authorization", b"Bearer good")]).name == "team"
    assert known.of([*junk[:1] * 9, (b"authorization", b"Bearer good")]).name == "team"
    for headers in ([*junk, (b"authorization", b"Bearer good")], junk, []):
        with pytest.raises(RefusedError) as caught:
            known.of(headers)
        assert caught.value.status == 401


def test_models_are_told_to_tenants_alone(gateway: ServerProcess) -> None:
    assert gateway.get("/v1/models", {"authorization": None}).status == 401
    assert gateway.get("/v1/models").status == 200


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics"])
def test_probes_need_no_key(gateway: ServerProcess, path: str) -> None:
    assert gateway.get(path, {"authorization": None}).status == 200


NARROW = {"authorization": f"Bearer {NARROW_KEY}"}


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_tenants_mask_adds_up(gateway: ServerProcess, prompt: str) -> None:
    for tau in ("0", "1"):
        reply = gateway.post(PATHS[CHAT], body_of(CHAT, prompt), {**NARROW, "x-ipr-tau": tau})
        assert reply.status == 200
        assert reply.told["candidate"] in EVERY


def test_a_model_that_a_tenant_may_not_use_is_not_there_for_it(gateway: ServerProcess, upstream: UpstreamStub) -> None:
    assert gateway.post(PATHS[CHAT], body_of(CHAT, model=OPENAI[0]), NARROW).status == 404
    assert upstream.seen() == []
    assert gateway.post(PATHS[CHAT], body_of(CHAT, model=EVERY[0]), NARROW).status == 200


@pytest.mark.parametrize(
    ("key", "header", "value"), [(NARROW_KEY, "x-ipr-allowed", EVERY[0]), (PLAIN_KEY, "x-ipr-tau", "0.2")]
)
def test_a_control_that_a_tenant_may_not_set_is_forbidden(
    gateway: ServerProcess, upstream: UpstreamStub, key: str, header: str, value: str
) -> None:
    option = header.removeprefix("x-ipr-")
    body = body_of(CHAT)
    authorization = {"authorization": f"Bearer {key}"}
    of_header = gateway.post(PATHS[CHAT], body, {**authorization, header: value})
    of_body = gateway.post(PATHS[CHAT], {**body, "ipr": {option: value}}, authorization)
    for reply in (of_header, of_body):
        assert (reply.status, reply.body["error"]["type"]) == (403, "permission_error")
        assert option in reply.body["error"]["message"]
    assert upstream.seen() == []


@pytest.mark.parametrize("key", [NARROW_KEY, PLAIN_KEY])
@pytest.mark.parametrize(
    "said",
    [{"tokens_in": 7}, {"extra_usd": 1.0}, {"billed_tokens": 7}, {"cached_tokens": 7}, {"tokens_out": 7}],
    ids=str,
)
def test_what_is_given_of_a_prompt_is_a_control_too(
    gateway: ServerProcess, upstream: UpstreamStub, key: str, said: dict[str, float]
) -> None:
    authorization = {"authorization": f"Bearer {key}"}
    for path, body in (
        (PATHS[CHAT], body_of(CHAT, ipr=said)),
        (PATHS[CHAT], body_of(CHAT, metadata={"ipr": said})),
        (PATHS[MESSAGES], body_of(MESSAGES, ipr=said)),
        ("/v1/route", {"prompt": "hi", "ipr": said}),
    ):
        reply = gateway.post(path, body, authorization)
        assert (reply.status, reply.body["error"]["type"]) == (403, "permission_error")
        assert next(iter(said)) in reply.body["error"]["message"]
        assert gateway.post(path, body).status == 200  # the other tenant may
    assert len(upstream.seen()) == 3


def test_a_tenant_may_give_what_its_controls_name(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_GIVES", "key-of-one-that-gives")
    tenant = {"name": "gives", "keys_env": ["TEST_GIVES"], "controls": ["tokens_in"]}
    authorization = {"authorization": "Bearer key-of-one-that-gives"}
    with LocalServer(engine, {"policy": {"rule": "minmax"}, "tenants": [tenant]}) as server:
        given = server.post("/v1/route", {"prompt": "hi", "ipr": {"tokens_in": 77}}, authorization)
        assert (given.status, given.body["tokens_in"]) == (200, 77)
        for said in ({"tau": 0.1}, {"extra_usd": 1.0}, {"tokens_in": 77, "billed_tokens": 77}):
            refused = server.post("/v1/route", {"prompt": "hi", "ipr": said}, authorization)
            assert refused.status == 403
            assert "what may be: tokens_in" in refused.body["error"]["message"]


def test_what_a_tenant_may_not_set_it_may_not_set_of_a_decision(gateway: ServerProcess) -> None:
    plain = {"authorization": f"Bearer {PLAIN_KEY}"}
    question = {"type": "choice", "instructions": "who", "choices": [{"value": EVERY[0]}, {"value": EVERY[1]}]}
    asked = {"model": "auto", "input": "hi", "questions": [question]}
    assert gateway.post("/v1/decisions", asked, plain).status == 200
    assert gateway.post("/v1/decisions", {**asked, "tau": 0.2}, plain).status == 403


def test_tenants_are_told_apart_in_metrics_and_logs(gateway: ServerProcess) -> None:
    before = gateway.metrics()
    printed = len(gateway.printed())
    gateway.post(PATHS[CHAT], body_of(CHAT), NARROW)
    counted = gateway.counted(before)
    assert counted[f'ipr_requests_total{{path="{PATHS[CHAT]}",status="200",tenant="narrow"}}'] == 1
    gateway.post(PATHS[CHAT], body_of(CHAT))
    told = until(lambda: lines if len(lines := gateway.printed()[printed:].splitlines()) == 2 else None)
    narrow, team = (json.loads(line) for line in told)
    assert (narrow["tenant"], narrow["status"], "tags" in narrow) == ("narrow", 200, False)
    assert (team["tenant"], team["tags"]) == ("team", {"cost_centre": "42"})


def test_a_page_of_another_site_is_refused(gateway: ServerProcess, upstream: UpstreamStub) -> None:
    reply = gateway.post(PATHS[CHAT], body_of(CHAT), {"sec-fetch-site": "cross-site"})
    assert (reply.status, upstream.seen()) == (403, [])
