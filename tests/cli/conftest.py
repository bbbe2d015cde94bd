"""A bundle for commands that only read one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.bundles import make_bundle


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four candidates on a 16-d table."""
    return make_bundle(tmp_path_factory.mktemp("cli"), models=4, dim=16)
