"""A provider that charges, for the tests of this room."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.paid_server import PaidServer
from tests.support.skips import COLLECT


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PaidServer]:
    for module in ("openai", "aiohttp", "aiolimiter"):
        pytest.importorskip(module, reason=COLLECT)
    with PaidServer(tmp_path_factory.mktemp("paid") / "taken") as running:
        yield running
