"""ipr export-encoder: what it writes computes what the float32 model computes; what it cannot tell or export it refuses."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from ipr_engine.cli import main
from ipr_engine.encoders.export import export_encoder
from ipr_engine.encoders.export.check import check_standard_graph
from ipr_engine.encoders.export.standard_graph import write_standard_graph
from ipr_engine.encoders.manifest import read_export
from ipr_engine.encoders.torch import TorchEncoder
from ipr_engine.errors import BackendUnavailableError, BundleFormatError, BundleNotFoundError, InvalidInputError
from tests.support import skips
from tests.support.transformer_folders import MODES, make_bare_transformer, make_sentence_transformer, write_pooling

for package in ("torch", "transformers", "onnx", "onnxruntime"):
    pytest.importorskip(package, reason=skips.EXPORT)

PROMPTS = ["what is the story", "x", "Write Python code, and prove it.", "why to explain in " * 9, "naïve 東京 q9"]


def run_graph(path, **inputs):
    import onnxruntime

    return onnxruntime.InferenceSession(str(path)).run(["embedding"], inputs)[0]


def assert_same_directions(x, want, least=0.99999):
    cosines = (x * want).sum(axis=1) / (np.linalg.norm(x, axis=1) * np.linalg.norm(want, axis=1))
    assert cosines.min() >= least


def assert_graph_equals_model(export, folder, **how):
    """model.onnx on rows alone and padded, against the torch tier on the original folder; the other files by the manifest."""
    reference = TorchEncoder.from_folder(folder, max_tokens=export.max_tokens, **how)
    rows = reference.ids(PROMPTS)
    want = np.concatenate([reference.embed([ids]) for ids in rows])
    assert check_standard_graph(export.files["onnx"], rows, want, export.spec.pad_id) >= 0.99999
    alone = run_graph(
        export.files["onnx"], input_ids=rows[2][None], attention_mask=np.ones((1, len(rows[2])), np.int64)
    )
    np.testing.assert_allclose(
        alone[0], want[2], atol=1e-4 * np.abs(want[2]).max()
    )  # its length too, not only direction
    assert export.spec.identity(export.max_tokens) == reference.identity
    assert_same_directions(
        TorchEncoder.from_export(export.folder).encode(PROMPTS).x, reference.encode(PROMPTS).x, 0.9999
    )


@pytest.mark.parametrize(("pooling", "normalize"), [("mean", True), ("cls", False), ("last", True)])
def test_a_sentence_transformers_folder_is_exported_with_its_own_pooling(tmp_path, pooling, normalize):
    folder = make_sentence_transformer(tmp_path / "model", pooling=pooling, normalize=normalize)
    export = export_encoder(folder, tmp_path / "out")
    assert (export.spec.pooling, export.spec.normalize, export.dim) == (pooling, normalize, 32)
    assert (export.architecture, export.max_tokens, export.spec.positions) == ("bert", 64, 64)
    assert set(export.files) == {"config", "tokenizer", "weights", "onnx", "onnx_cpu"}
    assert_graph_equals_model(export, folder)


@pytest.mark.parametrize(
    ("family", "pooling", "files"),
    [("roberta", "cls", {"onnx_cpu"}), ("modernbert", "mean", set()), ("qwen3", "last", set())],
)
def test_other_families_go_the_same_way(tmp_path, family, pooling, files):
    folder = make_bare_transformer(tmp_path / "model", family)
    export = export_encoder(folder, tmp_path / "out", pooling=pooling, max_tokens=48)
    assert (export.architecture, export.spec.pooling) == (family, pooling)
    assert set(export.files) == {"config", "tokenizer", "weights", "onnx"} | files
    assert_graph_equals_model(export, folder, pooling=pooling)


def test_the_real_minilm_is_exported_as_it_says_of_itself(minilm):
    export = read_export(minilm)
    assert (export.dim, export.spec.positions, export.spec.pooling, export.spec.normalize) == (384, 512, "mean", True)
    assert (export.spec.before, export.spec.after, export.spec.pad_id) == ((101,), (102,), 0)
    measured = export.provenance["smallest_cosine"]
    assert min(measured["onnx"], measured["onnx_cpu"]) >= 0.999999
    assert measured["weights"] >= 0.9999


def test_the_standard_graph_has_standard_operators_and_open_axes(tmp_path):
    import onnx

    export = export_encoder(make_sentence_transformer(tmp_path / "model"), tmp_path / "out")
    graph = onnx.load(export.files["onnx"])
    onnx.checker.check_model(graph, full_check=True)
    assert {opset.domain for opset in graph.opset_import} == {""}
    axes = {given.name: [axis.dim_param for axis in given.type.tensor_type.shape.dim] for given in graph.graph.input}
    assert axes == {"input_ids": ["batch", "tokens"], "attention_mask": ["batch", "tokens"]}
    assert [made.name for made in graph.graph.output] == ["embedding"]
    assert not any(node.doc_string or node.metadata_props for node in graph.graph.node)


def test_the_same_model_gives_the_same_files(tmp_path):
    folder = make_sentence_transformer(tmp_path / "model")
    first, second = (export_encoder(folder, tmp_path / name) for name in ("a", "b"))
    assert dict(first.hashes) == dict(second.hashes)
    assert first.sha256 == second.sha256


def test_weights_beyond_one_file_lie_beside_the_graph(tmp_path):
    from ipr_engine.encoders.torch import load_model

    folder = make_sentence_transformer(tmp_path / "model")
    (tmp_path / "graph").mkdir()
    model = load_model(folder, "float32")
    data = write_standard_graph(model, "mean", True, tmp_path / "graph" / "model.onnx", single_file_bytes=1000)
    assert data is not None
    assert {file.name for file in (tmp_path / "graph").iterdir()} == {"model.onnx", "model.onnx.data"}
    reference = TorchEncoder.from_folder(folder, max_tokens=48)
    rows = reference.ids(PROMPTS)
    want = np.concatenate([reference.embed([ids]) for ids in rows])
    assert check_standard_graph(tmp_path / "graph" / "model.onnx", rows, want, 0) >= 0.99999


def test_a_graph_of_another_model_is_refused(tmp_path):
    export = export_encoder(make_sentence_transformer(tmp_path / "model"), tmp_path / "out")
    other = TorchEncoder.from_folder(make_sentence_transformer(tmp_path / "other", seed=1), max_tokens=48)
    rows = other.ids(PROMPTS)
    want = np.concatenate([other.embed([ids]) for ids in rows])
    with pytest.raises(InvalidInputError, match=r"smallest cosine .* expected at least 0.99999"):
        check_standard_graph(export.files["onnx"], rows, want, 0)


def test_out_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    from ipr_engine.encoders.export import exporter

    folder = make_sentence_transformer(tmp_path / "model")
    monkeypatch.setattr(exporter, "MIN_COSINE_FLOAT16", 2.0)
    with pytest.raises(InvalidInputError, match="float16 weights"):
        export_encoder(folder, tmp_path / "out")
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


def test_a_folder_that_holds_something_is_not_written_to(tmp_path):
    folder = make_sentence_transformer(tmp_path / "model")
    with pytest.raises(InvalidInputError, match=r"out: .* exists already"):
        export_encoder(folder, folder)
    with pytest.raises(InvalidInputError, match="is no folder"):
        export_encoder(folder, tmp_path / "none" / "out")


def test_pooling_that_cannot_be_told_is_asked_for(tmp_path):
    folder = make_bare_transformer(tmp_path / "bare")
    with pytest.raises(InvalidInputError, match=r"pooling: .* pass pooling="):
        export_encoder(folder, tmp_path / "out")
    told = make_sentence_transformer(tmp_path / "told")
    write_pooling(told, {mode: name != "cls" for name, mode in MODES.items()})
    with pytest.raises(InvalidInputError, match="pooling cannot be told"):
        export_encoder(told, tmp_path / "out")


def test_a_missing_tokenizer_is_named(tmp_path):
    folder = make_sentence_transformer(tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(BundleNotFoundError, match=r"tokenizer\.json"):
        export_encoder(folder, tmp_path / "out")


def test_an_unknown_architecture_is_named(tmp_path):
    folder = make_sentence_transformer(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "nonesuch"}))
    with pytest.raises(BundleFormatError, match="nonesuch"):
        export_encoder(folder, tmp_path / "out")


def test_weights_beyond_float16_are_refused(tmp_path):
    from safetensors.numpy import load_file, save_file

    folder = make_sentence_transformer(tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    tensors["encoder.layer.0.output.dense.bias"][3] = 1e5
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InvalidInputError, match=r"layer\.0\.output\.dense\.bias exceeds float16"):
        export_encoder(folder, tmp_path / "out")


def test_a_source_that_is_no_folder_is_a_hub_id_or_refused(tmp_path, monkeypatch):
    with pytest.raises(InvalidInputError, match="neither a folder here nor a hub id"):
        export_encoder(tmp_path / "none", tmp_path / "out")
    with pytest.raises(InvalidInputError, match=r"revision: .* is a folder"):
        export_encoder(make_sentence_transformer(tmp_path / "model"), tmp_path / "out", revision="main")


def test_a_hub_that_cannot_be_reached_is_told(tmp_path, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(BundleNotFoundError, match=r"someone/model at revision v1: the hub did not give it .* offline"):
        export_encoder("someone/model", tmp_path / "out", revision="v1")


def test_a_missing_package_is_told_with_its_extra(tmp_path, monkeypatch):
    folder = make_sentence_transformer(tmp_path / "model")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(BackendUnavailableError, match=r"ipr_engine\[export\]"):
        export_encoder(folder, tmp_path / "out")


def test_the_command_tells_files_and_cosines(tmp_path, capsys):
    folder = make_sentence_transformer(tmp_path / "model")
    assert main(["export-encoder", str(folder), str(tmp_path / "out"), "--max-tokens", "40", "--json"]) == 0
    printed = capsys.readouterr()
    facts = json.loads(printed.out)
    steps = [line.partition(" ...")[0] for line in printed.err.splitlines() if line.startswith("ipr export-encoder: ")]
    assert [step.split()[-1] for step in steps] == [str(folder), "PyTorch", "weights", "model.onnx", "model.cpu.onnx"]
    export = read_export(tmp_path / "out")
    assert facts["identity"] == export.spec.identity(40)
    by_openvino = {"openvino", "openvino_bfloat16_mixed"}  # where it is installed, and the processor has bfloat16
    assert facts["smallest_cosine"].keys() - by_openvino == {"weights", "onnx", "onnx_cpu"}
    assert main(["export-encoder", str(folder), str(tmp_path / "more")]) == 0
    assert "smallest cosine to float32" in capsys.readouterr().out
    assert main(["export-encoder", str(folder), str(tmp_path / "more")]) == 1
    assert "out: " in capsys.readouterr().err
