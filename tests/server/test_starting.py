"""What is wrong with a config is told before anything is served: by the name of its key, without a value."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ipr_engine import Engine
from ipr_engine.bundle.load import DEFAULT_BUNDLE
from ipr_engine.cli import main
from tests.support.bundles import make_bundle
from tests.support.http_calls import free_port
from tests.support.server_configs import CHAT, KEYS, gateway_config
from tests.support.skips import SERVE

pytest.importorskip("uvicorn", reason=SERVE)

from ipr_engine.server import ServerConfig, app
from ipr_engine.server.server_config import ShadowBundle

CONFIG = gateway_config("http://127.0.0.1:9", "http://127.0.0.1:9")
CANARY = "canary-s3cret"
ENDPOINT = {"base_url": f"http://user:{CANARY}@host/v1", "formats": [CHAT]}
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a candidate that the bundle has not": (
        {"upstreams": CONFIG["upstreams"] | {"gpt-9": "openai"}},
        "upstreams.gpt-9: the bundle has no such candidate",
    ),
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
        "tenants.b: a key of it is one of tenants.a, too",
    ),
    "a model that nobody may answer": ({"models": {"none": {"family": "nobody"}}}, "models.none"),
    "a limit of the engine that is unknown": (
        {"server": {"service": {"limits": {"max_bat": 4}}}},
        "server.service.limits.max_bat: is no key here",
    ),
    "a limit of the engine without a value": (
        {"server": {"service": {"limits": {"max_batch": None}}}},
        "server.service.limits.max_batch: has no value; expected a whole number",
    ),
    "a limit of the engine that is no whole number": (
        {"server": {"service": {"limits": {"max_batch": 0.5}}}},
        "server.service.limits.max_batch: expected a whole number",
    ),
    "a limit of the engine out of range": (
        {"server": {"service": {"limits": {"max_batch": 0}}}},
        "server.service.limits.max_batch: expected",
    ),
    "a fallback that the bundle has not": ({"server": {"service": {"fallback": "gpt-9"}}}, "server.service.fallback: "),
    "a shadow that is not there": (
        {"shadow": {"bundle": "/nowhere"}},
        "shadow.bundle: /nowhere: expected a bundle folder",
    ),
    "a shadow's option out of range": (
        {"shadow": {"bundle": str(DEFAULT_BUNDLE), "policy": {"tau": 2.0}}},
        "shadow.policy.tau: expected a value in [0, 1]",
    ),
    "records in a folder that is not there": (
        {"records": {"path": "/nowhere/log"}},
        "records.path: cannot append to /nowhere/log: No such file or directory; expected a file that can be written, in a folder",
    ),
    "records under a key that is not there": (
        {"records": {"path": "/nowhere/log", "key": "/nowhere/key"}},
        "records.key: cannot read /nowhere/key: No such file or directory; make one with `ipr key FILE`",
    ),
    "a part of an option": (
        {"policy": {"prices": {"gpt-4o-2024-08-06": [-1, 2]}}},
        "policy.prices['gpt-4o-2024-08-06'].input_usd_per_1m: expected a value from 0",
    ),
}


def told(config: dict[str, Any], folder: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return what `ipr serve` says of a config that it does not take."""
    path = folder / "config.yaml"
    path.write_text(json.dumps(config))
    port = () if "--port" in arguments else ("--port", str(free_port()))
    assert main(["serve", "--config", str(path), *port, *arguments]) == 1
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
    found = told(CONFIG | change, tmp_path, capsys)
    assert found.startswith(f"ipr serve: {tmp_path / 'config.yaml'}: ")
    assert named in found


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


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--tau", "2"), "--tau: expected a value in [0, 1], got 2.0"),
        (("--tau", "0.1", "--preset", "cost"), "--preset: is given beside --tau; give one of them"),
        (("--allow", "nobody"), "--allow: unknown 'nobody'"),
        (
            ("--price", "gpt-4o-2024-08-06=-1,2"),
            "--price['gpt-4o-2024-08-06'].input_usd_per_1m: expected a value from 0",
        ),
        (("--cost-weight", "joy=2"), "--cost-weight: unknown 'joy'"),
        (("--bundle", "/nowhere"), "--bundle: /nowhere: expected a bundle folder or a root with CURRENT"),
        (("--device", "tpu"), "--device: expected 'cpu', 'cuda' or 'cuda:N', got 'tpu'"),
        (("--threads", "0"), "--threads: expected an int from 1 to 1024"),
    ],
    ids=lambda given: given[0] if isinstance(given, tuple) else "",
)
def test_what_a_flag_brings_about_is_told_by_the_flag(
    arguments: tuple[str, ...], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--port", str(free_port()), *arguments]) == 1
    assert capsys.readouterr().err.startswith(f"ipr serve: {expected}")


def test_a_policy_of_flags_and_of_a_file_is_told_by_the_file_that_has_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "upstreams.yaml"
    other.write_text("endpoints: {}")
    found = told({"policy": {"tau": 0.1}}, tmp_path, capsys, "--upstreams", str(other), "--allow", "gpt")
    assert found == f"ipr serve: --allow: {tmp_path / 'config.yaml'} has a policy too; give it once\n"


def test_a_flag_and_a_key_are_both_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = told({"models": {"a": {"family": "GPT"}}}, tmp_path, capsys, "--family", "Claude")
    assert found.startswith(f"ipr serve: {tmp_path / 'config.yaml'}: --family or models.a.family: nobody is left")


def test_what_a_shadow_cannot_decide_is_told_and_nothing_ends(
    default_engine: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shadow = make_bundle(tmp_path, models=3)
    config = ServerConfig(policy={"family": "GPT"}, shadow=ShadowBundle(bundle=str(shadow)))
    made = app(default_engine, config)
    assert made.state.ipr.shadow.problem.startswith("policy.family: unknown 'GPT'")
    assert "the shadow bundle cannot decide a request: policy.family: unknown 'GPT'" in caplog.text
