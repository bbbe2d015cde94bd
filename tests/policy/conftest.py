"""Engines without path rows, with them, and with figures to weigh; a file that asks about another one overrides `engine`."""

from __future__ import annotations

import pytest

from ipr_engine import Bundle, Engine
from tests.support.calibration_data import make_engine
from tests.support.path_rows import with_path
from tests.support.weighed_bundles import figures_of, weighed_bundle


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return make_engine(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def engine(plain: Engine) -> Engine:
    return with_path(plain)


@pytest.fixture(scope="module")
def weighed(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle whose candidates state no figures, for `weighed_engine` or for figures of a test's own."""
    return weighed_bundle(tmp_path_factory.mktemp("weighed"))


@pytest.fixture
def weighed_engine(weighed: Bundle) -> Engine:
    """An engine of `weighed` with figures of every candidate, for one test to refresh."""
    made = Engine(weighed)
    made.update_performance(figures_of(made.bundle.names))
    return made
