"""An upstream that refuses the server's own key is told once, by candidate, status and where the config names the key."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from ipr_engine import Engine
from tests.support.local_server import LocalServer
from tests.support.server_configs import CHAT, PATHS, PROVIDER_KEY, body_of
from tests.support.skips import SERVE
from tests.support.upstream_stub import UpstreamStub

pytest.importorskip("uvicorn", reason=SERVE)

from ipr_engine.server.refused_keys import AGAIN_S, RefusedKeys

NAME, OTHER = "gpt-4o-2024-08-06", "gpt-4o-mini-2024-07-18"
LOG = "ipr_engine.server.refused_keys"


@pytest.fixture
def server(default_engine: Engine, provider: UpstreamStub, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalServer]:
    monkeypatch.setenv("TEST_PROVIDER_KEY", PROVIDER_KEY)
    provider.reset()
    endpoint = {"base_url": f"{provider.url}/v1", "formats": [CHAT], "api_key_env": "TEST_PROVIDER_KEY"}
    with LocalServer(
        default_engine, {"endpoints": {"stub": endpoint}, "upstreams": dict.fromkeys((NAME, OTHER), "stub")}
    ) as made:
        yield made
    provider.reset()


@pytest.mark.parametrize(
    ("status", "why"),
    [
        (401, "it does not know the server's own key"),
        (402, "the account of the server's own key cannot pay"),
        (403, "the server's own key may not ask it, or not for what a prompt asks"),
    ],
)
def test_a_refused_key_is_told_once_and_its_end(
    server: LocalServer, provider: UpstreamStub, caplog: pytest.LogCaptureFixture, status: int, why: str
) -> None:
    provider.fail(NAME, "status", status=status, times=3, message=f"{PROVIDER_KEY} may not")
    with caplog.at_level(logging.INFO, LOG):
        for _ in range(3):
            assert server.post(PATHS[CHAT], body_of(CHAT, model=NAME)).status == 502
        ready = server.get("/ready")
        assert (ready.status, ready.body["refused_keys"]) == (200, {NAME: status})
        told = f"the upstream of {NAME} answers {status}: {why}; see endpoints.stub.api_key_env"
        assert caplog.messages == [told]
        assert server.post(PATHS[CHAT], body_of(CHAT, model=OTHER)).status == 200  # says nothing of the first
        assert caplog.messages == [told]
        assert server.post(PATHS[CHAT], body_of(CHAT, model=NAME)).status == 200
        assert "refused_keys" not in server.get("/ready").body
        assert caplog.messages == [told, f"the upstream of {NAME} takes the server's own key again"]
    assert PROVIDER_KEY not in caplog.text
    assert server.metrics()[f'ipr_upstream_attempts_total{{candidate="{NAME}",outcome="status_{status}"}}'] == 3


@pytest.mark.parametrize("refuses", [(NAME,), (OTHER,)], ids=["first", "last"])
def test_where_all_fail_the_client_gets_what_concerns_it(
    server: LocalServer, provider: UpstreamStub, refuses: tuple[str, ...]
) -> None:
    for name in (NAME, OTHER):
        if name in refuses:
            provider.fail(name, "status", status=401)
        else:
            provider.fail(name, "status", status=429, headers={"retry-after": "3"}, message="slow down")
    reply = server.post(PATHS[CHAT], body_of(CHAT, ipr={"tau": 0.0, "allowed": [NAME, OTHER]}))
    assert (reply.status, reply.headers["retry-after"]) == (429, "3")
    assert "slow down" in reply.content.decode()


def test_who_refuses_some_requests_is_not_told_of_each(caplog: pytest.LogCaptureFixture) -> None:
    now = [1000.0]
    keys = RefusedKeys(lambda: now[0])
    with caplog.at_level(logging.WARNING, LOG):
        for _ in range(5):
            keys.answered(NAME, 403, "there")
            keys.answered(NAME, 200, "there")
        assert len(caplog.messages) == 1
        keys.answered(NAME, 401, "there")  # another status is news
        keys.answered(NAME, 200, "there")
        now[0] += AGAIN_S
        keys.answered(NAME, 401, "there")
        assert len(caplog.messages) == 3


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_status_that_says_nothing_of_the_key_ends_nothing(status: int) -> None:
    keys = RefusedKeys()
    keys.answered(NAME, 401, "there")
    keys.answered(NAME, status, "there")
    assert keys.statuses == {NAME: 401}
