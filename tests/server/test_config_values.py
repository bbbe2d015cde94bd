"""Whatever stands at a key of a config is taken, or told by that key and in the words of YAML; nothing of Python is told."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ipr_engine import Engine
from ipr_engine.errors import IprError
from ipr_engine.policy.policy_spec import ABOUT
from tests.support.server_configs import CHAT, PROVIDER_KEY, TEAM_KEY
from tests.support.skips import SERVE

pytest.importorskip("uvicorn", reason=SERVE)

from ipr_engine.server import app
from ipr_engine.server.server_config import make_config

FIRST, SECOND = "gpt-4o-2024-08-06", "gpt-4o-mini-2024-07-18"
OF_PYTHON = re.compile(
    r"\b(?:dict|tuple|int|str|bool|NoneType|None|True|False|Engine|Limits|mapping|Error)\b|\blist \["
)
VALUES: dict[str, Any] = {
    "null": None,
    "an empty list": [],
    "a list": [1],
    "a list of null": [None],
    "text": "text",
    "an empty text": "",
    "below zero": -1,
    "zero": 0,
    "a share": 0.5,
    "too many digits": 10**400,
    "too long": 10**30,
    "no number": float("nan"),
    "infinity": float("inf"),
    "true": True,
    "an empty object": {},
    "an object": {"a": 1},
}


def whole(folder: Path) -> dict[str, Any]:
    """Return a config that has every key but those of a policy."""
    endpoint = {
        "base_url": "http://h/v1",
        "formats": [CHAT],
        "api_key_env": "TEST_PROVIDER_KEY",
        "api_key_header": "api-key",
        "headers": {"x-team": "search"},
        "timeouts": {"connect_s": 2, "first_byte_s": 3, "whole_s": 4, "idle_s": 5},
    }
    upstream = {"endpoint": "openai", "model": "gpt", "body": {CHAT: {"temperature": 0}}}
    tenant = {
        "name": "team",
        "keys_sha256": ["ab" * 32],
        "keys_env": ["TEST_TEAM"],
        "policy": {},
        "controls": ["tau"],
        "tags": {"centre": "42"},
    }
    sizes = {
        "head_bytes": 65536,
        "body_bytes": 4096,
        "reply_bytes": 4096,
        "requests": 4,
        "connections": 4,
        "policies": 4,
    }
    service = {
        "fallback": [FIRST],
        "cache_entries": 4,
        "limits": {"max_batch": 4, "max_wait_us": 100, "wait_fraction": 0.25, "inline_chars": 0},
        "budget_us": 100,
    }
    server = {
        "limits": {**sizes, "head_s": 1, "body_s": 1},
        "cool_down": {"failures": 2, "seconds": 1, "most_seconds": 30},
        "assumed_tokens": 1000,
        "service": service,
        "follow_s": 5,
        "hosts": ["h"],
        "log_requests": True,
        "spans": False,
    }
    return {
        "endpoints": {"openai": endpoint},
        "upstreams": {FIRST: "openai", SECOND: upstream},
        "policy": {},
        "models": {"auto": {}},
        "tenants": [tenant],
        "records": {"path": str(folder / "log"), "keep_prompts": True, "keep_x": False, "min_words": 3},
        "server": server,
    }


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every key and item."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*at, key)
        yield from places(item, (*at, key))


KEYS = list(places(whole(Path())))
OPTIONS = [("policy", name) for name in ABOUT]


@pytest.mark.parametrize("place", [*KEYS, *OPTIONS], ids=lambda place: ".".join(map(str, place)))
def test_a_value_is_taken_or_told_by_its_key(
    place: tuple[Any, ...], tmp_path: Path, default_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_PROVIDER_KEY", PROVIDER_KEY)
    monkeypatch.setenv("TEST_TEAM", TEAM_KEY)
    monkeypatch.chdir(tmp_path)  # a record's file may be called anything
    for what, value in VALUES.items():
        config = json.loads(json.dumps(whole(tmp_path)))
        held = config
        for part in place[:-1]:
            held = held[part]
        held[place[-1]] = value
        try:
            app(default_engine, make_config(config))
        except IprError as error:
            text = str(error)
            top = "endpoints|upstreams" if place[0] in ("endpoints", "upstreams") else place[0]
            assert re.match(rf"(config: )?({top})\b", text), (what, text)
            assert OF_PYTHON.search(re.sub(r"'.*?'", "", text.replace("or a Price", ""))) is None, (what, text)


def test_nested_options_are_told_by_their_place(default_engine: Engine) -> None:
    for policy, expected in (
        ({"prices": {FIRST: [-1, 2]}}, f"policy.prices['{FIRST}'].input_usd_per_1m: expected a value from 0"),
        ({"cost_weights": {"usd": -1}}, "policy.cost_weights['usd']: expected a value from 0"),
        (
            {"cost_weights": {"usd": 1}, "performance": {FIRST: {"ttft_s": -1}}},
            f"policy.performance['{FIRST}'].ttft_s: ",
        ),
    ):
        with pytest.raises(IprError) as caught:
            app(default_engine, make_config({"policy": policy}))
        assert str(caught.value).startswith(expected)
