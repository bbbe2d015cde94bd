"""What is counted is what was done: no figure of a request that cannot be enters a sum, and what is refused counts once."""

from __future__ import annotations

import math
from typing import Any

import pytest

from ipr_engine import Engine
from tests.support import skips
from tests.support.bundles import NAMES
from tests.support.local_server import LocalServer
from tests.support.server_configs import CHAT, PATHS, body_of
from tests.support.server_process import ServerProcess
from tests.support.upstream_stub import UpstreamStub

pytest.importorskip("uvicorn", reason=skips.SERVE)
CONFIG = {"policy": {"rule": "minmax", "tau": 0.3}}
MONEY = ("ipr_cost_usd_total", "ipr_saved_usd", "ipr_shadow_cost_usd", "ipr_shadow_quality")
THAT_CANNOT_BE: list[dict[str, Any]] = [
    {"extra_usd": 1e38},
    {"extra_usd": -1e38},
    {"extra_usd": 1e308},
    {"extra_usd": {NAMES[1]: 1.0}},
    {"extra_usd": [[1e38, -1e38, 0, 0, 0]]},
    {"tokens_in": 1e30},
    {"tokens_in": {NAMES[1]: 1e38}},
    {"tokens_out": 1e30},
    {"tokens_out": 1e38, "tokens_in": 1e38},
]


def money(figures: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if name.startswith(MONEY)}


@pytest.mark.parametrize("given", THAT_CANNOT_BE, ids=str)
def test_a_cost_that_nobody_pays_enters_no_sum(
    engine: Engine, bundle_folder: Any, provider: UpstreamStub, given: dict[str, Any]
) -> None:
    provider.reset()
    config = {
        **CONFIG,
        "endpoints": {"stub": {"base_url": f"{provider.url}/v1", "formats": [CHAT]}},
        "upstreams": dict.fromkeys(NAMES[:5], "stub"),
        "shadow": {"bundle": str(bundle_folder), "policy": {"tau": 0.9}},
    }
    with LocalServer(engine, config) as server:
        assert server.post("/v1/route", {"prompt": "why python"}).status == 200
        shadow = "ipr_shadow_total"
        server.until(lambda: sum(v for n, v in server.metrics().items() if n.startswith(shadow)) == 1)
        before = server.metrics()
        replies = [
            server.post("/v1/route", {"prompt": "why python", "ipr": given}),
            server.post(PATHS[CHAT], body_of(CHAT, "why python", ipr=given)),
        ]
        decided = [reply for reply in replies if reply.status == 200]
        server.until(lambda: sum(v for n, v in server.counted(before).items() if n.startswith(shadow)) == len(decided))
        assert {reply.status for reply in replies} <= {200, 400}
        assert money(server.metrics()) == money(before)
        assert all(math.isfinite(value) for value in server.metrics().values())
        assert server.post("/v1/route", {"prompt": "why python"}).status == 200  # and the next one counts
        assert money(server.counted(before))


def test_a_gateways_sums_stay_where_they_are(gateway: ServerProcess, upstream: UpstreamStub) -> None:
    before = gateway.metrics()
    for given in ({"extra_usd": 1e38}, {"extra_usd": -1e38}, {"tokens_in": 1e30}):
        assert gateway.post(PATHS[CHAT], body_of(CHAT, ipr=given)).status in (200, 400)
    assert money(gateway.metrics()) == money(before)


def test_what_cannot_be_decided_counts_once_and_is_told(engine: Engine) -> None:
    few = {**CONFIG, "models": {"auto": {}, "small": {"allowed": [NAMES[0]]}}}
    with LocalServer(engine, few) as server:
        before = server.metrics()
        reply = server.post("/v1/route", {"model": "small", "prompt": "why", "ipr": {"billed_tokens": 10**8}})
        counted = server.counted(before)
    assert (reply.status, reply.body["error"]["param"]) == (400, "prompt")
    assert f"prompt: {NAMES[0]}: prompt of about " in reply.body["error"]["message"]
    assert "over its context window of 8192" in reply.body["error"]["message"]
    decided = {name: value for name, value in counted.items() if name.startswith("ipr_decisions_total")}
    assert list(decided.values()) == [1]
    assert 'cause="failed"' in next(iter(decided))
    assert not money(counted)
