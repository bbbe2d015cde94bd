"""A whole bundle, and a copy of it to damage."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.bundles import make_bundle


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("original"), hidden=6, rank=2, table_rows=30, table_weights=True)


@pytest.fixture
def copy(original: Path, tmp_path: Path) -> Path:
    """A copy under another name: its own hash is free, everything inside is verified."""
    return Path(shutil.copytree(original, tmp_path / "copy"))
