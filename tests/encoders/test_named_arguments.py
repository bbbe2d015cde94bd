"""What keeps a tier from running is told by the arguments that the caller gave, not by those of the class inside."""

from __future__ import annotations

import pytest

from ipr_engine import Engine
from ipr_engine.cli import main
from ipr_engine.encoders.manifest import read_export
from ipr_engine.encoders.registry import open_encoder
from ipr_engine.errors import BackendUnavailableError, InvalidInputError
from tests.support import skips
from tests.support.bundles import with_heads_on
from tests.support.transformer_folders import import_torch, make_sentence_transformer

onnxruntime = pytest.importorskip("onnxruntime", reason=skips.ONNX)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    import_torch()
    pytest.importorskip("onnx", reason=skips.ONNX)
    from ipr_engine.encoders.export.exporter import export_encoder

    folder = tmp_path_factory.mktemp("named")
    return export_encoder(make_sentence_transformer(folder / "model"), folder / "out", max_tokens=48, int8=True).folder


@pytest.fixture(scope="module")
def bundle(exported, tmp_path_factory):
    return with_heads_on(read_export(exported).bundle_source("transformer"), tmp_path_factory.mktemp("bundle"))


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(),
    reason=f"{skips.HARDWARE} no GPU: this ONNX Runtime has CUDA",
)
def test_a_provider_of_onnxruntime_that_is_missing_is_told_by_device_and_tier(exported, bundle, capsys):
    told = "^device: 'cuda' for tier 'onnx' was asked for and this onnxruntime has only "
    with pytest.raises(BackendUnavailableError, match=told):
        Engine.load(bundle, device="cuda", tier="onnx")
    with pytest.raises(BackendUnavailableError, match=told):
        open_encoder(exported, device="cuda", tier="onnx")
    assert main(["route", "why", "--bundle", str(bundle), "--device", "cuda", "--tier", "onnx"]) != 0
    assert "--device: 'cuda' for tier 'onnx' was asked for" in capsys.readouterr().err


def test_a_provider_that_does_not_start_is_told_by_device_and_tier(exported, monkeypatch):
    class Session:
        def __init__(self, path, options, providers):
            pass

        def get_providers(self):
            return ["CPUExecutionProvider"]

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    with pytest.raises(
        BackendUnavailableError, match=r"^device: 'cuda:0' for tier 'onnx' was asked for and could not start"
    ):
        open_encoder(exported, device="cuda:0", tier="onnx")


def test_heads_on_the_int8_model_are_told_to_run_on_the_cpu(exported, tmp_path):
    bundle = with_heads_on(read_export(exported).bundle_source("transformer", dtype="int8"), tmp_path)
    with pytest.raises(
        InvalidInputError, match=r"^device: the heads read the int8 model .* expected 'cpu', got 'cuda'"
    ):
        Engine.load(bundle, device="cuda", tier="onnx")
