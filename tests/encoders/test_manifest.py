"""encoder.json: what an export says of itself, verified file by file, and the torch tier that runs on it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ipr_engine.encoders.manifest import MANIFEST, is_export, read_export
from ipr_engine.errors import (
    BundleFormatError,
    BundleHashError,
    BundleNotFoundError,
    BundleValueError,
    BundleVersionError,
)
from tests.support.transformer_folders import (
    import_torch,
    library_ids,
    make_bare_transformer,
    make_export_without_graph,
    plain_embedding,
)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return make_bare_transformer(tmp_path_factory.mktemp("source"))


@pytest.fixture
def export(source, tmp_path):
    return make_export_without_graph(source, tmp_path / "export")


def edit(folder, **changed):
    document = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**document, **changed}))
    return document


def test_what_was_written_is_read(export, source):
    read = read_export(export)
    assert (read.architecture, read.dim, read.max_tokens, read.name, read.revision) == ("bert", 32, 48, "tiny", None)
    assert read.spec.tokenizer == (source / "tokenizer.json").read_bytes()
    assert read.file("weights") == export / "model.safetensors"
    assert is_export(export)
    assert not is_export(source)


def test_the_identity_is_that_of_the_model_whatever_the_tier(export, source):
    import_torch()
    from ipr_engine.encoders.torch import TorchEncoder

    ours = TorchEncoder.from_export(export)
    theirs = TorchEncoder.from_folder(source, pooling="mean", normalize=True, max_tokens=48, dtype="float16")
    assert ours.identity == theirs.identity == read_export(export).spec.identity(48)
    want = plain_embedding(source, library_ids(source, "what is the story"))
    np.testing.assert_allclose(ours.encode(["what is the story"]).x[0], want, atol=1e-5)


def test_a_role_that_is_absent_is_named(export):
    with pytest.raises(BundleNotFoundError, match=r"files\.onnx: this export has none .*export the model again"):
        read_export(export).file("onnx")


def test_a_changed_file_is_refused(export):
    data = (export / "model.safetensors").read_bytes()
    (export / "model.safetensors").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(BundleHashError, match=r"model\.safetensors"):
        read_export(export)
    (export / "model.safetensors").unlink()
    with pytest.raises(BundleNotFoundError, match=r"model\.safetensors"):
        read_export(export)


@pytest.mark.parametrize(
    ("changed", "error", "named"),
    [
        ({"schema_version": 9}, BundleVersionError, "schema_version"),
        ({"pooling": "max"}, BundleFormatError, "pooling"),
        ({"dim": 0}, BundleValueError, "dim"),
        ({"special": {"before": [-1], "after": []}}, BundleValueError, r"special\.before\[0\]"),
        ({"files": {}}, BundleFormatError, "files"),
        ({"extra": 1}, BundleFormatError, "extra"),
    ],
)
def test_a_field_that_cannot_be_is_named(export, changed, error, named):
    edit(export, **changed)
    with pytest.raises(error, match=named):
        read_export(export)


def test_the_source_hashes_are_those_of_the_files(export):
    document = edit(export)
    edit(export, source={**document["source"], "config_sha256": "0" * 64})
    with pytest.raises(BundleValueError, match=r"source\.config_sha256"):
        read_export(export)
