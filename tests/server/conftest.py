"""Servers that the tests of this room share: real processes on loopback, and the provider that they ask."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from tests.support.http_calls import free_port
from tests.support.server_configs import CALLED, KEYS, PATHS, SPEAKERS, TEAM_KEY, body_of, gateway_config
from tests.support.server_process import ServerProcess
from tests.support.skips import SERVE
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
    config = gateway_config(provider.url, f"http://127.0.0.1:{free_port()}")
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
