"""A bundle that some prompts do not fit into, and an engine of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipr_engine import Engine
from tests.support.bundles import make_bundle

WINDOWS = [1000, None, 100_000, None, 1000]


@pytest.fixture(scope="session")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("audit"), models=5, dim=16, context_windows=WINDOWS)


@pytest.fixture(scope="module")
def engine(path: Path) -> Engine:
    return Engine.load(path)
