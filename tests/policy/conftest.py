"""An engine without path rows and the same with them; a file that asks about another one overrides `engine`."""

from __future__ import annotations

import pytest

from ipr_engine import Engine
from tests.support.calibration_data import make_engine
from tests.support.path_rows import with_path


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return make_engine(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def engine(plain: Engine) -> Engine:
    return with_path(plain)
