"""Every mistake in a config is told by its file, its key as the file has it, and what to do; no key of a provider or tenant is repeated."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from ipr_engine.errors import InvalidInputError
from tests.support.skips import SERVE
from tests.support.wrong_configs import SECRET, TEXTS, WHOLE, WRONG, at

pytest.importorskip("uvicorn", reason=SERVE)

from ipr_engine.server import ServerConfig, read_config
from ipr_engine.server.health import Health
from ipr_engine.server.passed_request import PassedRequest
from ipr_engine.server.refused import RefusedError
from ipr_engine.server.request_formats import CHAT, MESSAGES
from ipr_engine.server.request_text import RequestText
from ipr_engine.server.server_config import (
    CoolDown,
    Endpoint,
    Records,
    ShadowBundle,
    Tenant,
    Upstream,
    make_config,
    place_of,
)
from ipr_engine.server.tenants import ANYBODY, Tenants
from ipr_engine.server.upstreams import Target


def told(*paths: Path) -> str:
    with pytest.raises(InvalidInputError) as caught:
        read_config(*paths)
    text = str(caught.value)
    assert SECRET not in text
    assert not any(
        word in text for word in ("function-after", "dataclass", "top:", "Value error", "Extra inputs", "dict")
    )
    return text


def written(path: Path, change: Callable[[dict[str, Any]], None] = lambda _: None) -> Path:
    config = json.loads(json.dumps(WHOLE))
    change(config)
    path.write_text(json.dumps(config).replace("Infinity", ".inf"), "utf-8")
    return path


def test_the_config_that_the_mistakes_are_made_in_is_read(tmp_path: Path) -> None:
    assert read_config(written(tmp_path / "config.yaml")).upstream("gpt") == Upstream(endpoint="openai")


@pytest.mark.parametrize("case", TEXTS)
def test_a_file_that_cannot_be_read_is_told_by_its_line(case: str, tmp_path: Path) -> None:
    text, expected = TEXTS[case]
    path = tmp_path / "config.yaml"
    path.write_text(text)
    found = told(path)
    assert found.startswith(str(path))
    assert expected in found


@pytest.mark.parametrize(("place", "value", "expected"), WRONG, ids=[expected[:60] for _, _, expected in WRONG])
def test_a_mistake_is_told_by_file_and_key(place: str, value: object, expected: str, tmp_path: Path) -> None:
    path = written(tmp_path / "config.yaml", at(place, value))
    found = told(path)
    assert found.startswith(f"{path}: ")
    assert expected in found
    assert "\n" not in found  # one mistake is told once


def test_a_file_of_another_encoding_or_none_is_told(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes("policy: {unsupported: caf\u00e9}".encode("latin-1"))
    assert told(path) == f"{path}: expected UTF-8, byte 25 is none; save it as UTF-8"
    assert told(tmp_path) == f"{tmp_path}: cannot be read: Is a directory"


def test_each_mistake_is_told_with_the_file_that_has_it(tmp_path: Path) -> None:
    first, second = tmp_path / "upstreams.yaml", tmp_path / "config.yaml"
    written(first, at("upstreams/gpt", 4))
    first.write_text(json.dumps({name: json.loads(first.read_text())[name] for name in ("endpoints", "upstreams")}))
    second.write_text("polcy: {}\nserver: {follow: 1}")
    lines = told(first, second).splitlines()
    found = [line.partition(": ")[::2] for line in lines]
    assert {(file, text.partition(":")[0]) for file, text in found} == {
        (str(second), "polcy"),
        (str(first), "upstreams.gpt"),
        (str(second), "server.follow"),
    }
    second.write_text("upstreams: {}")
    assert told(first, second) == f"{second}: upstreams stands in {first} too; give it once"


def test_many_mistakes_are_told_in_part(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("\n".join(f"unknown_{number}: 1" for number in range(9)))
    assert told(path).splitlines()[-1] == "and 4 more"


def test_a_merged_key_may_be_given_anew(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("models:\n  auto: &auto {tau: 0.1, slack: 0.0}\n  cheap: {<<: *auto, tau: 0.4}")
    assert read_config(path).models["cheap"] == {"tau": 0.4, "slack": 0.0}


def test_a_digest_may_be_in_capitals(monkeypatch: pytest.MonkeyPatch) -> None:
    digest = sha256(b"team").hexdigest()
    config = make_config({"tenants": [{"name": "team", "keys_sha256": [digest.upper()]}]})
    assert config.tenants[0].keys_sha256 == (digest,)
    assert Tenants(config.tenants).of([(b"x-api-key", b"team")]).name == "team"


@pytest.mark.parametrize(
    "headers", [[], [(b"authorization", b"Bearer ")], [(b"authorization", b"Bearer")], [(b"x-api-key", b" ")]], ids=str
)
def test_no_key_opens_nothing_whatever_is_configured(headers: list[tuple[bytes, bytes]]) -> None:
    tenant = Tenant(name="team", keys_sha256=("ab" * 32,))
    object.__setattr__(tenant, "keys_sha256", (sha256(b"").hexdigest(),))  # the check at the start refuses it
    with pytest.raises(RefusedError) as refused:
        Tenants([tenant]).of(headers)
    assert refused.value.status == 401


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("TEST_KEY", None, "the environment variable TEST_KEY is not set"),
        ("TEST_KEY", "", "the environment variable TEST_KEY is not set"),
        ("TEST_KEY", f"{SECRET}\n", "holds a key with a blank or a line break at an end"),
        ("TEST_KEY", f"{SECRET}\u00e9", "not of printable ASCII"),
        ("AKIA5CANARY7QWERTZU9", None, "the environment variable named there is not set"),
    ],
)
def test_a_key_that_cannot_be_used_is_told_by_its_field(
    name: str, value: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
    with pytest.raises(InvalidInputError) as caught:
        Tenants([Tenant(name="team", keys_env=(name,))])
    with pytest.raises(InvalidInputError) as other:
        target(Endpoint(base_url="http://h/v1", formats=("openai-chat",), api_key_env=name))
    assert str(caught.value).startswith("tenants.team.keys_env: ")
    assert str(other.value).startswith("endpoints.provider.api_key_env: ")
    for text in map(str, (caught.value, other.value)):
        assert expected in text
        assert SECRET not in text
        assert "AKIA" not in text


def target(endpoint: Endpoint) -> Target:
    return Target("gpt", Upstream(endpoint="provider"), endpoint, Health(CoolDown()))


@pytest.mark.parametrize(
    ("header", "chat", "messages"),
    [
        (None, ("authorization", "Bearer k3y"), ("x-api-key", "k3y")),
        ("Api-Key", ("api-key", "k3y"), ("api-key", "k3y")),
        ("Authorization", ("authorization", "Bearer k3y"), ("authorization", "Bearer k3y")),
    ],
)
def test_the_key_goes_by_the_header_that_the_endpoint_wants(
    header: str | None, chat: tuple[str, str], messages: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEY", "k3y")
    endpoint = Endpoint(
        base_url="http://h/v1",
        formats=("openai-chat", "anthropic-messages"),
        api_key_env="TEST_KEY",
        api_key_header=header,
        headers={"User-Agent": "router"},
    )
    for form, expected in ((CHAT, chat), (MESSAGES, messages)):
        asked = PassedRequest(form, RequestText(b"{}"), {"user-agent": "client"}, "", False, None)
        sent = target(endpoint).headers(asked)
        assert [(name, value) for name, value in sent.items() if "k3y" in value] == [expected]
        assert sent["user-agent"] == "router"


def test_a_key_header_may_not_stand_in_headers_too() -> None:
    with pytest.raises(InvalidInputError, match=r"^api_key_header: stands in headers too"):
        Endpoint(
            base_url="http://h",
            formats=("openai-chat",),
            api_key_env="K",
            api_key_header="X-Team",
            headers={"x-team": "a"},
        )


SEARCH = Tenant(name="search", keys_env=("SEARCH_KEY",), policy={"tau": 0.3, "family": "claude"})
LEVELS = ServerConfig(
    policy={"tau": 0.1, "slack": 0.2, "family": "gpt"},
    models={"auto": {}, "cheap": {"tau": 0.4, "worth": None, "exclude": ["a"]}},
    tenants=(SEARCH,),
)


@pytest.mark.parametrize(
    ("tenant", "model", "option", "expected"),
    [
        (ANYBODY, "auto", "tau", "policy.tau"),
        (ANYBODY, "cheap", "tau", "models.cheap.tau"),
        (SEARCH, "cheap", "tau", "tenants.search.policy.tau"),
        (SEARCH, "cheap", "slack", "policy.slack"),
        (SEARCH, "cheap", "exclude", "models.cheap.exclude"),
        (SEARCH, "auto", "family", "policy.family or tenants.search.policy.family"),  # masks add up
        (ANYBODY, "cheap", "worth", "models.cheap"),  # null says nothing
        (ANYBODY, "auto", "rule", "policy"),
        (SEARCH, "auto", "rule", "tenants.search.policy"),
    ],
)
def test_an_option_is_placed_where_the_config_holds_it(tenant: Tenant, model: str, option: str, expected: str) -> None:
    assert place_of(LEVELS, tenant, model, option) == expected


def test_an_option_that_nothing_says_is_the_models() -> None:
    assert place_of(replace(LEVELS, policy={}), ANYBODY, "auto", "tau") == "models.auto"


def test_a_config_of_python_takes_parts_as_a_document_has_them(tmp_path: Path) -> None:
    document = {
        "endpoints": {"openai": {"base_url": "https://h/v1", "formats": [CHAT.name], "timeouts": {"connect_s": 1}}},
        "upstreams": {"gpt": {"endpoint": "openai", "body": {CHAT.name: {"seed": 1}}}},
        "tenants": [{"name": "team", "keys_sha256": ["ab" * 32], "controls": ["tau"]}],
        "records": {"path": "log"},
        "shadow": {"bundle": "other"},
        "server": {"spans": True, "limits": {"requests": 3}, "cool_down": {"failures": 4}, "hosts": ["h"]},
    }
    config = ServerConfig(**document)
    assert config == make_config(document)
    assert (config.server.spans, config.server.limits.requests) == (True, 3)
    mixed = {"openai": Endpoint(base_url="https://h/v1", formats=[CHAT.name], timeouts={"connect_s": 1})}
    assert replace(config, endpoints=mixed) == config
    assert ServerConfig(records={"path": tmp_path / "log"}).records == Records(path=str(tmp_path / "log"))


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ({"server": {"span": True}}, "server.span: is no key here; known: limits, "),
        ({"server": {"limits": {"requests": "3"}}}, "server.limits.requests: expected a whole number, not text"),
        ({"server": True}, "server: expected an object of limits, "),
        ({"endpoints": {"a": {"formats": [CHAT.name]}}}, "endpoints.a.base_url: is missing; expected text"),
        ({"endpoints": {"a": Tenant(name="a")}}, "endpoints.a: expected an object of base_url, "),
        ({"tenants": {"name": "a"}}, "tenants: expected a list of objects"),
        ({"tenants": [{"name": "a", "keys_env": "A_KEY"}]}, "tenants.a.keys_env: expected a list"),
        ({"records": "log"}, "records: expected an object of path, "),
        ({"shadow": {"bundle": 3}}, "shadow.bundle: expected text"),
        ({"models": {"auto": None}}, "models.auto: has no value; expected an object"),
    ],
)
def test_a_mistake_in_a_config_of_python_is_told_at_once_by_its_key(part: dict[str, Any], expected: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        ServerConfig(**part)
    assert str(caught.value).startswith(expected)


def test_what_only_python_has_stays_as_it_is() -> None:
    price = object()
    assert ServerConfig(policy={"prices": {"gpt": price}}).policy["prices"]["gpt"] is price


def test_paths_in_a_file_are_those_from_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("there", "here"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    config = tmp_path / "there" / "config.yaml"
    config.write_text("records: {path: log, key: ../k.key}\nshadow: {bundle: bundles/other}")
    found = read_config("../there/config.yaml")
    assert (found.records, found.shadow) == (
        Records(path=str(tmp_path / "here/../there/log"), key=str(tmp_path / "here/../there/../k.key")),
        ShadowBundle(bundle=str(tmp_path / "here/../there/bundles/other")),
    )
    config.write_text("records: {path: /dev/null}")
    assert read_config(config).records == Records(path="/dev/null")
    assert make_config({"records": {"path": "log"}}).records == Records(path="log")
