"""A request that nobody can answer is refused with the reason of each candidate, in the words of `excluded`."""

from __future__ import annotations

from typing import Any

import pytest

from ipr_engine import Engine
from tests.support import skips
from tests.support.bundles import NAMES
from tests.support.local_server import LocalServer
from tests.support.server_configs import CHAT, MESSAGES, PATHS, body_of

pytest.importorskip("starlette", reason=skips.SERVE)
TOO_LONG: dict[str, Any] = {"billed_tokens": 10**8}
ENDPOINTS = {
    "chat": {"base_url": "http://127.0.0.1:9/v1", "formats": [CHAT]},
    "messages": {"base_url": "http://127.0.0.1:9/v1", "formats": [MESSAGES]},
}


def test_a_mask_of_the_servers_is_told_in_its_own_words(engine: Engine) -> None:
    config = {
        "endpoints": ENDPOINTS,
        "upstreams": {NAMES[0]: "chat", NAMES[1]: "messages", NAMES[2]: "chat"},
        "policy": {"rule": "minmax", "tau": 0.3},
        "models": {"auto": {"exclude": [NAMES[2]]}},
    }
    with LocalServer(engine, config) as server:
        decided = server.post("/v1/route", {"prompt": "why python"}).body["excluded"]
        reply = server.post(PATHS[CHAT], body_of(CHAT, ipr=TOO_LONG))
    assert reply.status == 400
    why = dict(one.split(": ", 1) for one in reply.body["error"]["message"].removeprefix("messages: ").split("; "))
    assert why.keys() == set(engine.bundle.names)
    assert "over its context window of 8192" in why.pop(NAMES[0])
    assert why.pop(NAMES[1]) == f"format: its upstream speaks {MESSAGES}, not {CHAT}"
    assert why == {name: decided[name] for name in why}
    assert why[NAMES[2]] == "excluded by name"
    assert set(why.values()) == {"excluded by name", "upstream: none is configured"}
