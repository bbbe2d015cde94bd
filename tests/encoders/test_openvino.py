"""The openvino tier: the embeddings of the float32 model, whoever shares a run; bfloat16 products under an identity of their own."""

from __future__ import annotations

import doctest
import json
import subprocess
import sys
import threading
from importlib.metadata import version
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest

from ipr_engine import Engine
from ipr_engine.encoders import openvino as tier
from ipr_engine.encoders import tier_choice
from ipr_engine.encoders.export import export_encoder
from ipr_engine.encoders.load_options import LoadOptions
from ipr_engine.encoders.manifest import ModelOrigin, read_export, write_manifest
from ipr_engine.encoders.onnx import OnnxEncoder
from ipr_engine.encoders.openvino import MIXED, OpenVinoEncoder
from ipr_engine.encoders.registry import open_encoder
from ipr_engine.encoders.torch import TorchEncoder
from ipr_engine.errors import BackendUnavailableError, BundleFormatError, BundleHashError, InvalidInputError
from ipr_engine.training.train_options import EncoderChoice
from tests.support import skips
from tests.support.bundles import WORDS, with_heads_on
from tests.support.transformer_folders import make_bare_transformer, make_sentence_transformer
from tests.support.wordpieces import minilm_json

for package in ("torch", "transformers", "onnx", "onnxruntime"):
    pytest.importorskip(package, reason=skips.EXPORT)
if find_spec("openvino") is None:
    pytest.skip(skips.OPENVINO, allow_module_level=True)
library = tier.import_openvino()

PROMPTS = ["what is the story", "x", "Write Python code, and prove it.", "why to explain in " * 9, "naïve 東京 q9", "y"]
GATE, MIXED_GATE = (tier.GATES[dtype] for dtype in ("float32", MIXED))
HAS_BFLOAT16 = tier.has_bfloat16(library.Core())
needs_bfloat16 = pytest.mark.skipif(not HAS_BFLOAT16, reason=skips.BFLOAT16)
both_dtypes = pytest.mark.parametrize("dtype", ["float32", pytest.param(MIXED, marks=needs_bfloat16)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_sentence_transformer(tmp_path_factory.mktemp("model"), max_position_embeddings=600)


@pytest.fixture(scope="module")
def exported(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("export") / "out"
    export_encoder(folder, out, max_tokens=48)
    return out


@pytest.fixture(scope="module")
def minilm(tmp_path_factory):
    path = minilm_json()
    if path is None:
        pytest.skip(skips.MINILM)
    return export_encoder(path.parent, tmp_path_factory.mktemp("minilm") / "out", max_tokens=128).folder


def cosines(x, want):
    return (x * want).sum(axis=1) / (np.linalg.norm(x, axis=1) * np.linalg.norm(want, axis=1))


def mixed_prompts(rng, rows=29):
    return [" ".join(rng.choice(WORDS, count)) for count in rng.integers(0, 60, rows)]


@pytest.mark.parametrize("batch", [1, 3, 32])
def test_embeddings_bills_and_identity_are_those_of_the_torch_tier(folder, exported, rng, batch):
    torch_tier = TorchEncoder.from_folder(folder, max_tokens=48)
    encoder = OpenVinoEncoder.from_export(exported, threads=1, batch=batch)
    prompts = PROMPTS + mixed_prompts(rng)
    got, want = encoder.encode(prompts), torch_tier.encode(prompts)
    embedded = want.billed_tokens > 0
    assert cosines(got.x[embedded], want.x[embedded]).min() >= GATE
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
    got = OpenVinoEncoder.from_export(tmp_path / "out", threads=1).encode(PROMPTS)
    assert cosines(got.x, want.x).min() >= GATE


@both_dtypes
@pytest.mark.parametrize("threads", [1, 2])
def test_batch_mates_change_a_row_by_less_than_the_stated_bound(exported, rng, dtype, threads):
    encoder = OpenVinoEncoder.from_export(exported, threads=threads, dtype=dtype)
    prompts = [prompt for prompt in mixed_prompts(rng, 60) if prompt]
    together = encoder.encode(prompts).x
    alone = np.concatenate([encoder.encode([prompt]).x for prompt in prompts])
    assert (np.linalg.norm(together - alone, axis=1) <= 1e-5 * np.linalg.norm(alone, axis=1)).all()


def test_no_run_holds_rows_of_two_lengths_nor_more_tokens_than_planned_nor_an_odd_number_of_rows(
    exported, monkeypatch, rng
):
    encoder = OpenVinoEncoder.from_export(exported, threads=1, max_tokens=600, batch=32)
    seen = []
    run = encoder.run_planned

    def noted(rows, tokens):
        seen.append((rows, tokens))
        return run(rows, tokens)

    monkeypatch.setattr(encoder, "run_planned", noted)
    lengths = [3] * 71 + [40] * 19 + [41, 600, 600]
    rows = [rng.integers(7, 20, length) for length in lengths]
    x = encoder.embed([rows[row] for row in rng.permutation(len(rows))])
    assert np.isfinite(x).all()
    assert seen == [
        *((1, 600), (1, 600), (1, 41)),
        *((8, 40), (8, 40), (2, 40), (1, 40)),
        *((32, 3), (32, 3), (4, 3), (2, 3), (1, 3)),
    ]


def test_a_row_is_the_same_whatever_shapes_ran_before(exported, rng):
    """OpenVINO keeps what it made for a shape, and forgets the oldest."""
    encoder = OpenVinoEncoder.from_export(exported, threads=1, max_tokens=600)
    row = rng.integers(7, 20, 37)
    want = encoder.embed([row])
    encoder.embed([rng.integers(7, 20, length) for length in range(3, 600)])
    np.testing.assert_array_equal(encoder.embed([row]), want)


@needs_bfloat16
def test_bfloat16_products_stay_near_float32_and_have_an_identity_of_their_own(exported):
    whole, mixed = (OpenVinoEncoder.from_export(exported, threads=1, dtype=dtype) for dtype in ("float32", MIXED))
    assert cosines(mixed.encode(PROMPTS).x, whole.encode(PROMPTS).x).min() >= MIXED_GATE
    pure = TorchEncoder.from_export(exported, dtype="bfloat16")
    assert len({mixed.identity, whole.identity, pure.identity}) == 3
    assert mixed.identity == read_export(exported).identity(48, dtype=MIXED)


def test_the_real_minilm_runs_as_the_torch_and_the_onnx_tier_do(minilm):
    texts = [*PROMPTS, "Sort a list of 10 numbers in Python; explain each step.\n\n" * 12, "Was ist π·r²? 😀"]
    encoder, onnx = OpenVinoEncoder.from_export(minilm, threads=1), OnnxEncoder.from_export(minilm, threads=1)
    x = encoder.encode(texts).x
    assert cosines(x, TorchEncoder.from_folder(minilm_json().parent, max_tokens=128).encode(texts).x).min() >= GATE
    assert cosines(x, onnx.encode(texts).x).min() >= 0.999999
    assert (encoder.identity, encoder.tokenizer.kind) == (onnx.identity, "wordpiece")


@needs_bfloat16
def test_bfloat16_products_of_the_real_minilm_are_nearer_to_float32_than_bfloat16_throughout(minilm):
    """Why they do not share torch's identity: the two are further apart than a cosine of 0.9999 on some prompts."""
    texts = [*PROMPTS, "Sort a list of 10 numbers in Python; explain each step.\n\n" * 12, "Was ist π·r²? 😀"]
    whole, mixed = (
        OpenVinoEncoder.from_export(minilm, threads=1, dtype=dtype).encode(texts).x for dtype in ("float32", MIXED)
    )
    pure = TorchEncoder.from_export(minilm, dtype="bfloat16").encode(texts).x
    assert cosines(mixed, whole).min() > cosines(pure, whole).min()
    assert cosines(mixed, whole).min() >= MIXED_GATE


@both_dtypes
def test_threads_share_one_encoder(exported, rng, dtype):
    encoder = OpenVinoEncoder.from_export(exported, threads=1, dtype=dtype)
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


def test_the_tier_needs_neither_torch_nor_onnx_and_tells_nobody(exported, tmp_path):
    """As it comes, `import openvino` tells Google Analytics, and writes an id into the user's home."""
    code = (
        "import multiprocessing, sys\n"
        "for name in ('torch', 'transformers', 'onnx', 'onnxruntime'): sys.modules[name] = None\n"
        "started = []\n"
        "multiprocessing.Process.start = started.append\n"
        "from ipr_engine.encoders.openvino import OpenVinoEncoder\n"
        f"print(OpenVinoEncoder.from_export({str(exported)!r}).encode(['why']).x.shape)\n"
        "print(started, [name for name in sys.modules if 'openvino_telemetry' in name])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == ["(1, 32)", "[] []"], done.stderr
    assert not list(tmp_path.iterdir())


def test_what_another_imported_of_openvino_stays(monkeypatch):
    marker = object()
    monkeypatch.setitem(sys.modules, "openvino_telemetry", marker)
    monkeypatch.delitem(sys.modules, "openvino")
    monkeypatch.setattr(tier, "need", lambda *_: SimpleNamespace(Core=sys.modules["openvino_telemetry"]))
    assert tier.import_openvino().Core is None  # what stands there meanwhile
    assert sys.modules["openvino_telemetry"] is marker


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("", "has no Core"),
        ("raise RuntimeError('half a wheel')", "cannot be imported: RuntimeError: half a wheel"),
        ("def Core(): raise RuntimeError('no plugins.xml')", "it does not start: RuntimeError: no plugins.xml"),
    ],
)
def test_a_damaged_installation_is_told_and_auto_serves_without_it(exported, tmp_path, monkeypatch, code, words):
    (tmp_path / "openvino").mkdir()
    (tmp_path / "openvino" / "__init__.py").write_text(code)
    monkeypatch.delitem(sys.modules, "openvino", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(tier_choice, "CACHE", tmp_path / "tiers")
    with pytest.raises(BackendUnavailableError, match=words):
        OpenVinoEncoder.from_export(exported)
    assert open_encoder(exported).summary.startswith("onnx ")


@pytest.mark.parametrize("file", ["model.onnx", "tokenizer.json"])
def test_a_file_that_does_not_match_its_manifest_is_refused(exported, tmp_path, file):
    for source in exported.iterdir():
        data = source.read_bytes()
        if source.name == file:
            data = data[:-1] + bytes([data[-1] ^ 1])
        (tmp_path / source.name).write_bytes(data)
    with pytest.raises(BundleHashError, match=file.replace(".", r"\.")):
        OpenVinoEncoder.from_export(tmp_path)


def test_the_export_measures_both_precisions(minilm):
    measured = read_export(minilm).provenance
    cosines = measured["smallest_cosine"]
    assert GATE <= cosines["openvino"] <= 1
    assert not HAS_BFLOAT16 or MIXED_GATE <= cosines["openvino_bfloat16_mixed"] < cosines["openvino"]
    assert measured["versions"]["openvino"] == version("openvino")


@pytest.mark.parametrize(("name", "dtype"), [("openvino", "float32"), ("openvino_bfloat16_mixed", MIXED)])
def test_an_export_that_openvino_ran_wrongly_is_refused_by_this_tier_alone(exported, tmp_path, name, dtype):
    export = read_export(exported)
    for source in exported.iterdir():
        (tmp_path / source.name).write_bytes(source.read_bytes())
    document = json.loads((exported / "encoder.json").read_text())
    document["provenance"]["smallest_cosine"][name] = 0.5
    (tmp_path / "encoder.json").write_text(json.dumps(document))
    with pytest.raises(
        BackendUnavailableError, match=rf"{export.name!r} was exported .* in {dtype} .* cosine 0\.5, expected"
    ):
        OpenVinoEncoder.from_export(tmp_path, dtype=dtype)
    assert OnnxEncoder.from_export(tmp_path, threads=1).encode(["why"]).x.any()


def with_graph(exported, folder, data):
    """A copy of an export with another graph."""
    export = read_export(exported)
    for name in ("tokenizer.json", "config.json"):
        (folder / name).write_bytes((exported / name).read_bytes())
    (folder / "odd.onnx").write_bytes(data)
    files = {"tokenizer": "tokenizer.json", "config": "config.json", "onnx": "odd.onnx"}
    write_manifest(
        folder,
        architecture="bert",
        dim=export.dim,
        max_tokens=export.max_tokens,
        spec=export.spec,
        origin=ModelOrigin(export.name),
        files=files,
        provenance={},
    )
    return folder


def test_a_graph_that_is_none_is_named(exported, tmp_path):
    with pytest.raises(BundleFormatError, match=r"odd\.onnx: OpenVINO cannot open it"):
        OpenVinoEncoder.from_export(with_graph(exported, tmp_path, b"no graph"))


def test_a_graph_of_another_signature_is_named(exported, tmp_path):
    import onnx

    graph = onnx.load(exported / "model.onnx")
    graph.graph.output[0].name = "other"
    graph.graph.node[-1].output[0] = "other"
    with pytest.raises(BundleFormatError, match=r"odd\.onnx: expected input_ids .* embedding .* got .*other"):
        OpenVinoEncoder.from_export(with_graph(exported, tmp_path, graph.SerializeToString()))


def test_memory_that_lacks_at_plan_time_names_the_run(exported, monkeypatch):
    def exhausted(self, rows, tokens):
        raise MemoryError("std::bad_alloc")

    monkeypatch.setattr(OpenVinoEncoder, "run_planned", exhausted)
    with pytest.raises(BackendUnavailableError, match=r"10 rows x 48 tokens, the largest planned: .*bad_alloc"):
        OpenVinoEncoder.from_export(exported)


def test_a_run_that_fails_later_is_told(exported, monkeypatch):
    encoder = OpenVinoEncoder.from_export(exported, threads=1)

    def gone(rows, tokens):
        raise RuntimeError("Exception from src/inference/src/cpp/infer_request.cpp:223\nmore")

    monkeypatch.setattr(encoder, "run_planned", gone)
    with pytest.raises(BackendUnavailableError, match=r"1 rows x 3 tokens failed: RuntimeError: Exception from"):
        encoder.encode(["why"])


def test_a_processor_without_bfloat16_is_told(exported, monkeypatch):
    monkeypatch.setattr(library.Core, "get_property", lambda *_: ["FP32", "INT8"])
    with pytest.raises(BackendUnavailableError, match=r"dtype: 'bfloat16-mixed' was asked for, .*offers FP32, INT8"):
        OpenVinoEncoder.from_export(exported, dtype=MIXED)


def test_another_precision_than_the_one_asked_for_is_told(exported, monkeypatch):
    """OpenVINO takes a precision as a hint; whatever it made of it, the identity must be true."""
    monkeypatch.setitem(tier.PRECISIONS, "float32", "bf16" if HAS_BFLOAT16 else "f16")
    compile_model = library.Core.compile_model

    def as_it_likes(self, model, device, settings):
        return compile_model(self, model, device, settings | {"INFERENCE_PRECISION_HINT": "f32"})

    monkeypatch.setattr(library.Core, "compile_model", as_it_likes)
    with pytest.raises(BackendUnavailableError, match="dtype: 'float32' was asked for, and OpenVINO computes in f32"):
        OpenVinoEncoder.from_export(exported)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"dtype": "bfloat16"}, "dtype: expected one of float32, bfloat16-mixed, got 'bfloat16'"),
        ({"threads": 0}, "threads: expected None or an int >= 1, got 0"),
        ({"threads": True}, "threads: expected None or an int >= 1, got True"),
        ({"max_tokens": 2}, "max_tokens: expected more than the 2 special tokens, got 2"),
        ({"max_tokens": 601}, "max_tokens: expected at most the model's 600 positions, got 601"),
        ({"batch": 0}, "batch: expected an int >= 1, got 0"),
    ],
)
def test_bad_arguments_are_named(exported, how, message):
    with pytest.raises(InvalidInputError, match=message):
        OpenVinoEncoder.from_export(exported, **how)


def test_a_missing_package_is_told_with_its_extra(exported, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(BackendUnavailableError, match=r"\[openvino\]"):
        OpenVinoEncoder.from_export(exported)


def test_the_registry_opens_it_by_name_with_the_threads_asked_for(exported):
    encoder = open_encoder(exported, tier="openvino", threads=2)
    assert encoder.summary == "openvino 32-d float32 on 2 threads, wordpiece tokenizer"
    assert repr(encoder).startswith("OpenVinoEncoder(dim=32, pooling='mean', normalize=True, max_tokens=48, ")
    with pytest.raises(InvalidInputError, match="device: the openvino tier runs on 'cpu', got 'cuda'"):
        open_encoder(exported, tier="openvino", device="cuda")
    with pytest.raises(BackendUnavailableError, match="openvino: it has float32 and bfloat16-mixed, no bfloat16"):
        open_encoder(exported, tier="openvino", dtype="bfloat16")


@needs_bfloat16
def test_auto_takes_the_one_tier_of_an_arithmetic(exported):
    encoder = open_encoder(exported, dtype=MIXED, threads=1)
    assert encoder.summary == "openvino 32-d bfloat16-mixed on 1 thread, wordpiece tokenizer"


def test_the_example_of_the_docstring_runs(exported):
    results = doctest.testmod(tier, extraglobs={"folder": exported})
    assert (results.attempted, results.failed) == (2, 0)


@needs_bfloat16
def test_heads_on_bfloat16_products_are_served_by_this_tier_alone(exported, tmp_path):
    trained_on = EncoderChoice(folders=exported, dtype=MIXED, options=LoadOptions(threads=1)).open()
    assert isinstance(trained_on.encoder, OpenVinoEncoder)
    bundle = with_heads_on(trained_on.sources[0], tmp_path)
    engine = Engine.load(bundle, threads=1)
    assert "encoder=openvino 32-d bfloat16-mixed on 1 thread, " in repr(engine)
    assert engine.encode("what is the story").encoder == read_export(exported).identity(48, dtype=MIXED)
    assert engine.route("what is the story", tau=0.3).model in engine.bundle.names
    for other in ("onnx", "torch"):
        with pytest.raises(
            BackendUnavailableError, match=rf"tier: .*{other}: it has float32 and \w+, no bfloat16-mixed"
        ):
            Engine.load(bundle, tier=other)
