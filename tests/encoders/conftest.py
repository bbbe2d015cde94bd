"""One small transformer, its export and MiniLM's, made once for all files that read them; who damages one copies it first."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import skips
from tests.support.transformer_folders import make_sentence_transformer
from tests.support.wordpieces import minilm_json


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence transformer of 600 positions."""
    return make_sentence_transformer(tmp_path_factory.mktemp("model"), max_position_embeddings=600)


@pytest.fixture(scope="session")
def exported(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export of `model_folder` with its int8 graph, 48 tokens."""
    from ipr_engine.encoders.export import export_encoder

    return export_encoder(model_folder, tmp_path_factory.mktemp("export") / "out", max_tokens=48, int8=True).folder


@pytest.fixture(scope="session")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export of all-MiniLM-L6-v2, 128 tokens."""
    from ipr_engine.encoders.export import export_encoder

    path = minilm_json()
    if path is None:
        pytest.skip(skips.MINILM)
    return export_encoder(path.parent, tmp_path_factory.mktemp("minilm") / "out", max_tokens=128).folder
