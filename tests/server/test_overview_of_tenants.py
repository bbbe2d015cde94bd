"""What a tenant is shown is its own: no counts of others' requests, and no state of upstreams that it cannot reach."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ipr_engine import Engine
from tests.support.bundles import NAMES, make_siblings
from tests.support.local_server import LocalServer
from tests.support.server_configs import CHAT, PATHS, body_of
from tests.support.skips import SERVE

pytest.importorskip("uvicorn", reason=SERVE)

LOUD, QUIET = {"authorization": "Bearer loud-key"}, {"authorization": "Bearer quiet-key"}
TENANTS = [
    {"name": "loud", "keys_env": ["TEST_LOUD"]},
    {"name": "quiet", "keys_env": ["TEST_QUIET"], "policy": {"allowed": list(NAMES[1:3])}},
]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A gateway whose upstreams refuse connections, with a shadow."""
    monkeypatch.setenv("TEST_LOUD", "loud-key")
    monkeypatch.setenv("TEST_QUIET", "quiet-key")
    first, second = make_siblings(tmp_path, 2)
    return {
        "bundle": str(first),
        "endpoints": {"nowhere": {"base_url": "http://127.0.0.1:9/v1", "formats": [CHAT]}},
        "upstreams": dict.fromkeys(NAMES[:4], "nowhere"),
        "policy": {"rule": "minmax", "tau": 0.3},
        "shadow": {"bundle": str(second)},
        "tenants": TENANTS,
        "server": {"cool_down": {"failures": 1, "seconds": 30}},
    }


def test_a_tenant_sees_nothing_of_what_others_asked(config: dict[str, Any]) -> None:
    with LocalServer(Engine.load(config.pop("bundle")), config) as server:
        nothing = server.get("/ipr/overview", QUIET).body
        for number in range(3):
            assert server.post(PATHS[CHAT], body_of(CHAT, prompt=f"why {number}"), LOUD).status == 502
            assert server.post("/v1/route", {"prompt": f"why {number}"}, LOUD).status == 200
        server.until(lambda: any(name.startswith("ipr_shadow_total") for name in server.metrics()))
        loud, seen = (server.get("/ipr/overview", key).body for key in (LOUD, QUIET))
    assert [one["candidate"] for one in seen["upstreams"]] == list(NAMES[1:3])
    assert {one["attempts"] for one in seen["upstreams"] + loud["upstreams"]} == {None}
    assert {one["state"] for one in seen["upstreams"]} == {0.0}  # an upstream is down for everybody
    assert seen["shadow"] is loud["shadow"] is None
    assert sum(n for *_, n in loud["totals"]["routed"]) == 3
    assert seen["totals"]["routed"] == []
    for one in (nothing, seen):  # whatever else there is tells no difference
        one["totals"].pop("replies")
        for changing in ("now", "upstreams"):
            del one[changing]
    assert json.dumps(seen) == json.dumps(nothing)


def test_where_nobody_has_a_key_everything_is_told(config: dict[str, Any]) -> None:
    config = {**config, "tenants": []}
    with LocalServer(Engine.load(config.pop("bundle")), config) as server:
        assert server.post(PATHS[CHAT], body_of(CHAT)).status == 502
        server.until(lambda: any(name.startswith("ipr_shadow_total") for name in server.metrics()))
        seen = server.get("/ipr/overview").body
    assert [one["candidate"] for one in seen["upstreams"]] == list(NAMES[:4])
    assert {"connect": 1} in [one["attempts"] for one in seen["upstreams"]]
    assert sum(seen["shadow"]["choices"].values()) == 1
