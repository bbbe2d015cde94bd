"""Servers that the tests of this room share: real processes on loopback, and the provider that they ask."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from ipr_engine import Engine
from tests.support.chromium import PROGRAM, Chromium
from tests.support.http_calls import nobody
from tests.support.page_readings import LEFT_OUT, LIVE, PROMPTS, TAU, WIDE, asking
from tests.support.server_configs import CALLED, CHAT, KEYS, PATHS, SPEAKERS, TEAM_KEY, body_of, gateway_config
from tests.support.server_process import ServerProcess
from tests.support.skips import CHROMIUM, SERVE
from tests.support.upstream_stub import UpstreamStub


@pytest.fixture(scope="session")
def provider() -> Iterator[UpstreamStub]:
    if find_spec("uvicorn") is None:
        pytest.skip(SERVE)
    with UpstreamStub() as stub:
        yield stub


@pytest.fixture(scope="session")
def gateway(provider: UpstreamStub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A gateway of the default bundle; calls send the key of the tenant `team`."""
    folder = tmp_path_factory.mktemp("gateway")
    config = gateway_config(provider.url, nobody())
    authorization = {"authorization": f"Bearer {TEAM_KEY}"}
    with ServerProcess(folder, config, environment=KEYS, headers=authorization) as server:
        yield server


@pytest.fixture
def upstream(provider: UpstreamStub, gateway: ServerProcess) -> Iterator[UpstreamStub]:
    """The provider behind `gateway`, which has seen nothing; afterwards whoever failed is healthy again."""
    provider.reset()
    yield provider
    failed = list(provider.failed)
    provider.reset()
    for called in failed:
        candidate = next((name for name, other in CALLED.items() if other == called), called)
        form = next(form for form, speakers in SPEAKERS.items() if candidate in speakers)
        reply = gateway.post(PATHS[form], body_of(form, model=candidate))
        assert reply.status == 200, reply.content


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    if PROGRAM is None:
        pytest.skip(CHROMIUM)
    if find_spec("uvicorn") is None:
        pytest.skip(SERVE)
    with Chromium(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture(scope="module")
def served(
    default_engine: Engine, provider: UpstreamStub, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A gateway that has routed PROMPTS; nobody failed."""
    names = [name for name in default_engine.bundle.names if name != LEFT_OUT]
    config = {
        "endpoints": {"provider": {"base_url": f"{provider.url}/v1", "formats": [CHAT]}},
        "upstreams": dict.fromkeys(names, "provider"),
        "policy": {"tau": TAU},
    }
    with ServerProcess(tmp_path_factory.mktemp("served"), config) as server:
        for prompt in PROMPTS:
            reply = server.post("/v1/chat/completions", asking(prompt))
            assert reply.status == 200
        yield server


@pytest.fixture
def page(browser: Chromium, served: ServerProcess) -> Iterator[Chromium]:
    browser.open(f"{served.url}/", WIDE)
    browser.until(LIVE)
    yield browser
    assert browser.complaints == []
