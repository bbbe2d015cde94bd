"""The openvino tier's own: few shapes, bfloat16 products, what a damaged installation does; the rest is in test_cpu_tiers.py."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from types import SimpleNamespace

import numpy as np
import pytest

from ipr_engine import Engine
from ipr_engine.encoders import openvino as tier
from ipr_engine.encoders import tier_choice
from ipr_engine.encoders.load_options import LoadOptions
from ipr_engine.encoders.manifest import read_export
from ipr_engine.encoders.onnx import OnnxEncoder
from ipr_engine.encoders.openvino import MIXED, OpenVinoEncoder
from ipr_engine.encoders.registry import open_encoder
from ipr_engine.encoders.torch import TorchEncoder
from ipr_engine.errors import BackendUnavailableError, InvalidInputError
from ipr_engine.training.train_options import EncoderChoice
from tests.support import skips
from tests.support.bundles import with_heads_on
from tests.support.cpu_tiers import (
    HAS_BFLOAT16,
    HAS_OPENVINO,
    PROMPTS,
    REAL_PROMPTS,
    copy_export,
    cosines,
    needs_bfloat16,
)

for package in ("torch", "transformers", "onnx", "onnxruntime"):
    pytest.importorskip(package, reason=skips.EXPORT)
if not HAS_OPENVINO:
    pytest.skip(skips.OPENVINO, allow_module_level=True)
library = tier.import_openvino()

GATE, MIXED_GATE = (tier.GATES[dtype] for dtype in ("float32", MIXED))


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


def test_the_real_minilm_runs_as_the_onnx_tier_does(minilm):
    encoder, onnx = OpenVinoEncoder.from_export(minilm, threads=1), OnnxEncoder.from_export(minilm, threads=1)
    assert cosines(encoder.encode(REAL_PROMPTS).x, onnx.encode(REAL_PROMPTS).x).min() >= 0.999999
    assert encoder.identity == onnx.identity


@needs_bfloat16
def test_bfloat16_products_of_the_real_minilm_are_nearer_to_float32_than_bfloat16_throughout(minilm):
    """Why they do not share torch's identity: the two are further apart than a cosine of 0.9999 on some prompts."""
    whole, mixed = (
        OpenVinoEncoder.from_export(minilm, threads=1, dtype=dtype).encode(REAL_PROMPTS).x
        for dtype in ("float32", MIXED)
    )
    pure = TorchEncoder.from_export(minilm, dtype="bfloat16").encode(REAL_PROMPTS).x
    assert cosines(mixed, whole).min() > cosines(pure, whole).min()
    assert cosines(mixed, whole).min() >= MIXED_GATE


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


def test_the_export_measures_both_precisions(minilm):
    measured = read_export(minilm).provenance
    cosines = measured["smallest_cosine"]
    assert GATE <= cosines["openvino"] <= 1
    assert not HAS_BFLOAT16 or MIXED_GATE <= cosines["openvino_bfloat16_mixed"] < cosines["openvino"]
    assert measured["versions"]["openvino"] == version("openvino")


@pytest.mark.parametrize(("name", "dtype"), [("openvino", "float32"), ("openvino_bfloat16_mixed", MIXED)])
def test_an_export_that_openvino_ran_wrongly_is_refused_by_this_tier_alone(exported, tmp_path, name, dtype):
    export = read_export(exported)
    copy_export(exported, tmp_path)
    document = json.loads((exported / "encoder.json").read_text())
    document["provenance"]["smallest_cosine"][name] = 0.5
    (tmp_path / "encoder.json").write_text(json.dumps(document))
    with pytest.raises(
        BackendUnavailableError, match=rf"{export.name!r} was exported .* in {dtype} .* cosine 0\.5, expected"
    ):
        OpenVinoEncoder.from_export(tmp_path, dtype=dtype)
    assert OnnxEncoder.from_export(tmp_path, threads=1).encode(["why"]).x.any()


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


def test_a_bad_dtype_is_named(exported):
    with pytest.raises(InvalidInputError, match="dtype: expected one of float32, bfloat16-mixed, got 'bfloat16'"):
        OpenVinoEncoder.from_export(exported, dtype="bfloat16")


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
