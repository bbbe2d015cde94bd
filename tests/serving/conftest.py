"""Bundles that the serving engines of these tests are of."""

from __future__ import annotations

import pytest

from ipr_engine import Bundle
from tests.support.serving_encoders import sibling_bundles


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Bundle]:
    """Four bundles on one encoder, each with its own heads, prices and order of candidates."""
    return sibling_bundles(tmp_path_factory.mktemp("serving"), 4)
