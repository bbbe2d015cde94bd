"""What is wrong with a config is told before anything is served: by the name of its key, without a value."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ipr_engine.cli import main
from tests.support.server_configs import CHAT, KEYS, gateway_config
from tests.support.skips import SERVE

pytest.importorskip("uvicorn", reason=SERVE)

CONFIG = gateway_config("http://127.0.0.1:9", "http://127.0.0.1:9")
CANARY = "canary-s3cret"
ENDPOINT = {"base_url": f"http://user:{CANARY}@host/v1", "formats": [CHAT]}
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a candidate that the bundle has not": ({"upstreams": CONFIG["upstreams"] | {"gpt-9": "openai"}}, "gpt-9"),
    "an endpoint that is not there": ({"upstreams": {"gpt-4o-2024-08-06": "elsewhere"}}, "elsewhere"),
    "an option out of range": ({"policy": {"tau": 2.0}}, "tau"),
    "an option that is unknown": ({"policy": {"tua": 0.2}}, "tua"),
    "a key in an address": ({"endpoints": {"openai": ENDPOINT}, "upstreams": {}}, "base_url"),
    "a key where a variable is expected": (
        {
            "endpoints": {"openai": {"base_url": "http://h/v1", "formats": [CHAT], "api_key_env": f"sk-{CANARY}"}},
            "upstreams": {},
        },
        "api_key_env",
    ),
    "a key in a header": (
        {
            "endpoints": {"openai": {"base_url": "http://h", "formats": [CHAT], "headers": {"Authorization": CANARY}}},
            "upstreams": {},
        },
        "headers",
    ),
    "a format that nobody speaks": (
        {"endpoints": {"openai": {"base_url": "http://h", "formats": ["xml"]}}, "upstreams": {}},
        "formats",
    ),
    "a key of the config that is unknown": ({"unknown": CANARY}, "unknown"),
    "a limit of the wrong type": ({"server": {"limits": {"body_bytes": CANARY}}}, "body_bytes"),
    "a tenant without a key": ({"tenants": [{"name": "team"}]}, "team"),
    "two tenants with one key": (
        {"tenants": [{"name": "a", "keys_env": ["TEST_TEAM"]}, {"name": "b", "keys_env": ["TEST_TEAM"]}]},
        "two keys",
    ),
    "a model that nobody may answer": ({"models": {"none": {"family": "nobody"}}}, "models.none"),
    "a limit of the engine that is unknown": (
        {"server": {"service": {"limits": {"max_bat": 4}}}},
        "server.service.limits: expected",
    ),
    "a limit of the engine out of range": (
        {"server": {"service": {"limits": {"max_batch": 0}}}},
        "server.service.limits.max_batch: expected",
    ),
    "a fallback that the bundle has not": ({"server": {"service": {"fallback": "gpt-9"}}}, "server.service.fallback: "),
    "a shadow that is not there": ({"shadow": {"bundle": "/nowhere"}}, "/nowhere"),
}


def told(config: dict[str, Any], folder: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return what `ipr serve` says of a config that it does not take."""
    path = folder / "config.yaml"
    path.write_text(json.dumps(config))
    assert main(["serve", "--config", str(path), *arguments]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert CANARY not in printed.err
    return printed.err


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_config_is_told_by_the_name_of_its_key(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, key in KEYS.items():
        monkeypatch.setenv(name, key)
    change, named = WRONG[case]
    assert named in told(CONFIG | change, tmp_path, capsys)


@pytest.mark.parametrize("missing", ["TEST_PROVIDER_KEY", "TEST_TEAM"])
def test_a_key_that_is_not_in_the_environment_is_told(
    missing: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, key in KEYS.items():
        monkeypatch.setenv(name, key)
    monkeypatch.delenv(missing)
    assert missing in told(CONFIG, tmp_path, capsys)


@pytest.mark.parametrize("arguments", [("--workers", "0"), ("--port", "0"), ("--port", "70000"), ("--tau", "0.2")])
def test_a_wrong_flag_is_told(arguments: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert arguments[0] in told({"policy": {"tau": 0.1}}, tmp_path, capsys, *arguments)
