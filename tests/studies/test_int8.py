"""The int8 study on generated outcomes: its page and figures, and what it asks for."""

import json

import pytest

from ipr_engine.cli import main
from tests.support import skips
from tests.support.training_data import write_source
from tests.support.transformer_folders import make_sentence_transformer

PROMPTS = ["write a story about python", "what is the code", "prove it", "explain how to write and why"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    for module in ("pyarrow", "sklearn", "matplotlib"):
        pytest.importorskip(module, reason=skips.EVAL)
    for module in ("torch", "transformers", "onnx", "onnxruntime"):
        pytest.importorskip(module, reason=skips.EXPORT)
    from ipr_engine.encoders.export import export_encoder

    work = tmp_path_factory.mktemp("studies")
    write_source(work / "cascade9", ["large", "middle", "small"], PROMPTS)
    export_encoder(make_sentence_transformer(work / "mini"), work / "export", int8=True)
    return work


def run(folder, out, *more):
    return main(["study", "int8", "--outcomes", str(folder), "--out", str(out), "--draws", "20", *more])


def test_the_page_tells_equal_choices_and_areas_of_both_arithmetics(folder, tmp_path):
    assert run(folder, tmp_path, "--transformer", str(folder / "export"), "--cache", str(tmp_path / "cache")) == 0
    figures = json.loads((tmp_path / "int8.json").read_text())["cascade9"]
    assert figures["test_prompts"] == 80
    assert 0.95 < figures["cosine"]["least"] <= figures["cosine"]["median"] <= 1
    assert 0 < figures["equal"]["least"] <= figures["equal"]["mean"] <= 1
    assert {"swapped_minus_float32", "refitted_minus_float32"} < figures.keys()
    text = (tmp_path / "int8.md").read_text()
    assert "cascade9" in text
    assert not any(prompt in text for prompt in PROMPTS)
    assert str(folder) not in text


def test_a_folder_that_is_no_export_is_told(folder, tmp_path, capsys):
    assert run(folder, tmp_path, "--transformer", str(folder / "mini")) == 1
    assert "--transformer: expected the folder that ipr export-encoder --int8 wrote" in capsys.readouterr().err
