"""The onnx tier's own: rows of one length share a run, int8 whose scales no mate decides; the rest is in test_cpu_tiers.py."""

from __future__ import annotations

import json
from types import MappingProxyType, SimpleNamespace

import numpy as np
import pytest

from ipr_engine.encoders import cpu_runs
from ipr_engine.encoders.export import export_encoder
from ipr_engine.encoders.onnx import OnnxEncoder
from ipr_engine.errors import BackendUnavailableError, BundleNotFoundError, InvalidInputError
from tests.support import skips
from tests.support.cpu_tiers import PROMPTS, cosines, with_files
from tests.support.transformer_folders import make_bare_transformer

for package in ("torch", "transformers", "onnx", "onnxruntime"):
    pytest.importorskip(package, reason=skips.EXPORT)


def test_no_run_holds_rows_of_two_lengths_nor_more_tokens_than_planned(exported, monkeypatch, rng):
    encoder = OnnxEncoder.from_export(exported, threads=1, max_tokens=600, batch=32)
    seen = []
    run = encoder.run_planned
    monkeypatch.setattr(encoder, "run_planned", lambda rows, tokens: (seen.append((rows, tokens)), run(rows, tokens)))
    lengths = [3] * 70 + [40] * 20 + [41, 600, 600]
    rows = [rng.integers(7, 20, length) for length in lengths]
    x = encoder.embed([rows[row] for row in rng.permutation(len(rows))])
    assert np.isfinite(x).all()
    assert seen == [(1, 600), (1, 600), (1, 41), (12, 40), (8, 40), (32, 3), (32, 3), (6, 3)]


def test_the_environment_is_left_alone_where_onnx_runtime_is_imported_already(monkeypatch):
    monkeypatch.setattr(
        cpu_runs, "os", SimpleNamespace(environ=MappingProxyType({}))
    )  # a native thread may read it meanwhile
    assert cpu_runs.import_onnxruntime("a test", "onnx").__version__


def test_int8_stays_near_float32_and_has_an_identity_of_its_own(exported):
    whole, int8 = (OnnxEncoder.from_export(exported, threads=1, precision=name) for name in ("float32", "int8"))
    assert cosines(int8.encode(PROMPTS).x, whole.encode(PROMPTS).x).min() >= 0.98
    assert int8.identity != whole.identity
    assert (int8.precision, int8.dim) == ("int8", 32)


def test_int8_rows_have_the_same_bits_in_any_batch(exported, rng):
    """A mate with a huge input would coarsen a scale shared with it; no scale is."""
    encoder = OnnxEncoder.from_export(exported, threads=1, precision="int8")
    rows = [rng.integers(0, 30, length) for length in [5] * 9 + [17] * 8 + [48] * 3]
    together = encoder.embed(rows)
    np.testing.assert_array_equal(together, np.concatenate([encoder.embed([row]) for row in rows]))


def test_int8_weights_are_range_reduced_and_per_output(exported):
    import onnx

    graph = onnx.load(exported / "model.int8.onnx").graph
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    weights = {name: array for name, array in tensors.items() if name.endswith(".weight")}
    assert len(weights) == 2 * 6
    for name, weight in weights.items():
        assert weight.dtype == np.int8
        assert np.abs(weight.astype(int)).max() <= 63  # 2 * 255 * 63 < 2**15: vpmaddubsw cannot saturate
        assert tensors[name.replace(".weight", ".scale")].shape == (weight.shape[1],)
    assert not {node.op_type for node in graph.node} & {"DynamicQuantizeLinear", "DynamicQuantizeMatMul"}


def test_what_the_export_lacks_is_named(exported, tmp_path):
    with_files(exported, tmp_path, onnx="model.onnx")
    assert OnnxEncoder.from_export(tmp_path, threads=1).encode(["why"]).x.any()
    with pytest.raises(BundleNotFoundError, match=r"onnx_int8: this export has none .* ipr export-encoder"):
        OnnxEncoder.from_export(tmp_path, precision="int8")


def test_a_provider_that_is_missing_raises(exported):
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip(f"{skips.HARDWARE} no GPU: this ONNX Runtime has CUDA")
    with pytest.raises(BackendUnavailableError, match="provider: 'cuda' was asked for"):
        OnnxEncoder.from_export(exported, provider="cuda")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"precision": "int4"}, "precision: expected one of float32, int8, got 'int4'"),
        ({"provider": "tpu"}, "provider: expected one of cpu, cuda, got 'tpu'"),
        ({"provider": "cuda", "precision": "int8"}, "the int8 model is made for the CPU"),
    ],
)
def test_a_bad_precision_or_provider_is_named(exported, how, message):
    with pytest.raises(InvalidInputError, match=message):
        OnnxEncoder.from_export(exported, **how)


def test_buckets_of_a_gpu_grow_and_end_at_the_models_positions(exported):
    encoder = OnnxEncoder.from_export(exported, threads=1)
    encoder.provider = "cuda"
    assert [encoder.padded_length(length) for length in (1, 16, 17, 65, 130, 512, 513, 600)] == [
        *(16, 16, 32, 96, 192, 512),
        *(600, 600),
    ]


def test_int8_is_refused_where_there_is_no_such_graph(tmp_path):
    model = make_bare_transformer(tmp_path / "model", "qwen3")
    with pytest.raises(InvalidInputError, match="int8: architecture 'qwen3' has no int8 graph"):
        export_encoder(model, tmp_path / "out", pooling="last", int8=True)
    with pytest.raises(InvalidInputError, match="calibration: it serves the int8 graph alone"):
        export_encoder(model, tmp_path / "out", pooling="last", calibration=["why"])
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


def test_the_command_rounds_on_prompts_of_a_file(model_folder, tmp_path, capsys):
    from ipr_engine.cli import main

    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in PROMPTS))
    arguments = ["export-encoder", str(model_folder), str(tmp_path / "out"), "--max-tokens", "48", "--int8", "--json"]
    assert main([*arguments, "--calibration", str(tmp_path / "prompts.jsonl")]) == 0
    assert json.loads(capsys.readouterr().out)["smallest_cosine"]["onnx_int8"] >= 0.98
