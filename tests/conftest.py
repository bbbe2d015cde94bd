from __future__ import annotations

import zlib

import numpy as np
import pytest

from ipr_engine.decide import available_isas


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Seeded by the test's own id, so that a failure is reproduced by running that test."""
    return np.random.default_rng(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture(params=available_isas())
def isa(request: pytest.FixtureRequest) -> str:
    return request.param
