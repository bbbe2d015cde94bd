"""The onnx tier: the embeddings of the float32 model, whoever shares a run; int8 whose scales no mate decides."""

from __future__ import annotations

import doctest
import json
import subprocess
import sys
import threading

import numpy as np
import pytest

from ipr_engine.encoders import onnx as tier
from ipr_engine.encoders.export import export_encoder
from ipr_engine.encoders.onnx import OnnxEncoder
from ipr_engine.encoders.torch import TorchEncoder
from ipr_engine.errors import (
    BackendUnavailableError,
    BundleFormatError,
    BundleHashError,
    BundleNotFoundError,
    InvalidInputError,
)
from tests.support import skips
from tests.support.bundles import WORDS
from tests.support.transformer_folders import make_bare_transformer, make_sentence_transformer
from tests.support.wordpieces import minilm_json

for package in ("torch", "transformers", "onnx", "onnxruntime"):
    pytest.importorskip(package, reason=skips.EXPORT)

PROMPTS = ["what is the story", "x", "Write Python code, and prove it.", "why to explain in " * 9, "naïve 東京 q9", "y"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_sentence_transformer(tmp_path_factory.mktemp("model"), max_position_embeddings=600)


@pytest.fixture(scope="module")
def exported(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("export") / "out"
    export_encoder(folder, out, max_tokens=48, int8=True)
    return out


def cosines(x, want):
    return (x * want).sum(axis=1) / (np.linalg.norm(x, axis=1) * np.linalg.norm(want, axis=1))


def mixed_prompts(rng, rows=29):
    return [" ".join(rng.choice(WORDS, count)) for count in rng.integers(0, 60, rows)]


@pytest.mark.parametrize("batch", [1, 3, 32])
def test_embeddings_bills_and_identity_are_those_of_the_torch_tier(folder, exported, rng, batch):
    torch_tier = TorchEncoder.from_folder(folder, max_tokens=48)
    encoder = OnnxEncoder.from_export(exported, threads=1, batch=batch)
    prompts = PROMPTS + mixed_prompts(rng)
    got, want = encoder.encode(prompts), torch_tier.encode(prompts)
    embedded = want.billed_tokens > 0
    assert cosines(got.x[embedded], want.x[embedded]).min() >= 0.99999
    assert not got.x[~embedded].any()
    np.testing.assert_array_equal(got.billed_tokens, want.billed_tokens)
    np.testing.assert_array_equal(got.truncated, want.truncated)
    assert (encoder.identity, encoder.dim, encoder.native) == (torch_tier.identity, 32, None)
    assert want.truncated.any()


@pytest.mark.parametrize(("family", "pooling"), [("roberta", "cls"), ("modernbert", "mean"), ("qwen3", "last")])
def test_other_families_run_too(tmp_path, family, pooling):
    model = make_bare_transformer(tmp_path / "model", family)
    export_encoder(model, tmp_path / "out", pooling=pooling, max_tokens=48)
    want = TorchEncoder.from_folder(model, pooling=pooling, max_tokens=48).encode(PROMPTS)
    got = OnnxEncoder.from_export(tmp_path / "out", threads=1).encode(PROMPTS)
    assert cosines(got.x, want.x).min() >= 0.99999


def test_batch_mates_change_a_row_by_less_than_the_stated_bound(exported, rng):
    encoder = OnnxEncoder.from_export(exported, threads=1)
    prompts = [prompt for prompt in mixed_prompts(rng, 60) if prompt]
    together = encoder.encode(prompts).x
    alone = np.concatenate([encoder.encode([prompt]).x for prompt in prompts])
    assert (np.linalg.norm(together - alone, axis=1) <= 1e-5 * np.linalg.norm(alone, axis=1)).all()


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


def test_the_real_minilm_is_exported_and_runs_as_the_torch_tier_does(tmp_path):
    path = minilm_json()
    if path is None:
        pytest.skip(skips.MINILM)
    export = export_encoder(path.parent, tmp_path / "out", max_tokens=64)
    assert (export.dim, export.spec.positions, export.spec.pooling, export.spec.normalize) == (384, 512, "mean", True)
    assert (export.spec.before, export.spec.after, export.spec.pad_id) == ((101,), (102,), 0)
    cosines_measured = export.provenance["smallest_cosine"]
    assert min(cosines_measured["onnx"], cosines_measured["onnx_cpu"]) >= 0.999999
    assert cosines_measured["weights"] >= 0.9999
    texts = [*PROMPTS, "Sort a list of 10 numbers in Python; explain each step.\n\n" * 12, "Was ist π·r²? 😀"]
    want = TorchEncoder.from_folder(path.parent, max_tokens=64).encode(texts).x
    encoder = OnnxEncoder.from_export(tmp_path / "out", threads=1)
    assert cosines(encoder.encode(texts).x, want).min() >= 0.99999
    assert encoder.tokenizer.kind == "wordpiece"


def test_threads_share_one_encoder(exported, rng):
    encoder = OnnxEncoder.from_export(exported, threads=1)
    prompts = [prompt for prompt in mixed_prompts(rng, 20) if prompt]
    want = encoder.encode(prompts).x
    results = {}

    def work(name):
        results[name] = [encoder.encode(prompts).x for _ in range(5)]

    workers = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for seen in results.values():
        for x in seen:
            np.testing.assert_array_equal(x, want)
    assert len(results) == 4


def test_the_tier_needs_no_torch(exported):
    code = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = sys.modules['onnx'] = None\n"
        "from ipr_engine.encoders.onnx import OnnxEncoder\n"
        f"print(OnnxEncoder.from_export({str(exported)!r}).encode(['why']).x.shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "(1, 32)", done.stderr


@pytest.mark.parametrize("file", ["model.cpu.onnx", "model.onnx", "tokenizer.json"])
def test_a_file_that_does_not_match_its_manifest_is_refused(exported, tmp_path, file):
    for source in exported.iterdir():
        data = source.read_bytes()
        if source.name == file:
            data = data[:-1] + bytes([data[-1] ^ 1])
        (tmp_path / source.name).write_bytes(data)
    with pytest.raises(BundleHashError, match=file.replace(".", r"\.")):
        OnnxEncoder.from_export(tmp_path)


def change_manifest(exported, folder, **files):
    """A copy of an export whose manifest names other files."""
    from ipr_engine.encoders.manifest import ModelOrigin, read_export, write_manifest

    export = read_export(exported)
    for source in exported.iterdir():
        if source.name != "encoder.json":
            (folder / source.name).write_bytes(source.read_bytes())
    for path, data in files.pop("written", {}).items():
        (folder / path).write_bytes(data)
    return write_manifest(
        folder,
        architecture="bert",
        dim=export.dim,
        max_tokens=export.max_tokens,
        spec=export.spec,
        origin=ModelOrigin(export.name),
        files={"tokenizer": "tokenizer.json", "config": "config.json", **files},
        provenance={},
    )


def test_a_graph_that_is_none_is_named(exported, tmp_path):
    change_manifest(exported, tmp_path, onnx="bad.onnx", written={"bad.onnx": b"no graph"})
    with pytest.raises(BundleFormatError, match=r"bad\.onnx: ONNX Runtime cannot open it"):
        OnnxEncoder.from_export(tmp_path)


def test_a_graph_of_another_signature_is_named(exported, tmp_path):
    import onnx

    graph = onnx.load(exported / "model.onnx")
    graph.graph.output[0].name = "other"
    graph.graph.node[-1].output[0] = "other"
    change_manifest(exported, tmp_path, onnx="odd.onnx", written={"odd.onnx": graph.SerializeToString()})
    with pytest.raises(BundleFormatError, match=r"odd\.onnx: expected input_ids .* embedding"):
        OnnxEncoder.from_export(tmp_path)


def test_what_the_export_lacks_is_named(exported, tmp_path):
    change_manifest(exported, tmp_path, onnx="model.onnx")
    assert OnnxEncoder.from_export(tmp_path, threads=1).encode(["why"]).x.any()
    with pytest.raises(BundleNotFoundError, match=r"onnx_int8: this export has none .* ipr export-encoder"):
        OnnxEncoder.from_export(tmp_path, precision="int8")


def test_a_provider_that_is_missing_raises(exported):
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip(f"{skips.HARDWARE} no GPU: this ONNX Runtime has CUDA")
    with pytest.raises(BackendUnavailableError, match="provider: 'cuda' was asked for"):
        OnnxEncoder.from_export(exported, provider="cuda")


def test_memory_that_lacks_at_plan_time_names_the_bucket(exported, monkeypatch):
    def exhausted(self, rows, tokens):
        raise MemoryError("Failed to allocate memory for requested buffer of size 123")

    monkeypatch.setattr(OnnxEncoder, "run_planned", exhausted)
    with pytest.raises(BackendUnavailableError, match=r"10 rows x 48 tokens on 'cpu', the largest bucket planned"):
        OnnxEncoder.from_export(exported)


def test_a_run_that_fails_later_is_told(exported, monkeypatch):
    encoder = OnnxEncoder.from_export(exported, threads=1)

    def gone(rows, tokens):
        raise RuntimeError("CUDA failure 46: device unavailable")

    monkeypatch.setattr(encoder, "run_planned", gone)
    with pytest.raises(BackendUnavailableError, match=r"1 rows x 3 tokens on 'cpu' failed: .*device unavailable"):
        encoder.encode(["why"])


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"precision": "int4"}, "precision: expected one of float32, int8, got 'int4'"),
        ({"provider": "tpu"}, "provider: expected one of cpu, cuda, got 'tpu'"),
        ({"provider": "cuda", "precision": "int8"}, "the int8 model is made for the CPU"),
        ({"threads": 0}, "threads: expected None or an int >= 1, got 0"),
        ({"threads": True}, "threads: expected None or an int >= 1, got True"),
        ({"max_tokens": 2}, "max_tokens: expected more than the 2 special tokens, got 2"),
        ({"max_tokens": 601}, "max_tokens: expected at most the model's 600 positions, got 601"),
        ({"batch": 0}, "batch: expected an int >= 1, got 0"),
    ],
)
def test_bad_arguments_are_named(exported, how, message):
    with pytest.raises(InvalidInputError, match=message):
        OnnxEncoder.from_export(exported, **how)


def test_a_missing_package_is_told_with_its_extra(exported, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BackendUnavailableError, match=r"ipr_engine\[onnx\]"):
        OnnxEncoder.from_export(exported)


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


def test_the_command_rounds_on_prompts_of_a_file(folder, tmp_path, capsys):
    from ipr_engine.cli import main

    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in PROMPTS))
    arguments = ["export-encoder", str(folder), str(tmp_path / "out"), "--max-tokens", "48", "--int8", "--json"]
    assert main([*arguments, "--calibration", str(tmp_path / "prompts.jsonl")]) == 0
    assert json.loads(capsys.readouterr().out)["smallest_cosine"]["onnx_int8"] >= 0.98


def test_the_example_of_the_docstring_runs(exported):
    results = doctest.testmod(tier, extraglobs={"folder": exported})
    assert (results.attempted, results.failed) == (2, 0)
