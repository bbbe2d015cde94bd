"""A bundle on a transformer, and the CPU's engine of it, which the GPU's is compared with.

Fixtures import tests.support.gpu_engines themselves: without torch or triton it skips the file that imports it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from ipr_engine import Engine


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gpu")


@pytest.fixture(scope="module")
def export(root: Path) -> Path:
    from tests.support.gpu_engines import make_export

    return make_export(root)


@pytest.fixture(scope="module")
def folder(root: Path, export: Path) -> Path:
    from tests.support.gpu_engines import make_bundle

    return make_bundle(root, export, models=5, hidden=8, rank=2)


@pytest.fixture(scope="module")
def cpu(folder: Path) -> Engine:
    from tests.support.gpu_engines import cpu_engine

    return cpu_engine(folder)


@pytest.fixture(scope="module")
def engine(folder: Path) -> Engine:
    from tests.support.gpu_engines import gpu_engine

    return gpu_engine(folder, batches=(1, 4))
