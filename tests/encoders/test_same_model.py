"""Where heads meet the embeddings of their own model in another form, the error says which form, and what to do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ipr_engine import Engine
from ipr_engine.bundle import BundleParts, write_bundle
from ipr_engine.encoders.manifest import read_export
from ipr_engine.encoders.registry import open_export
from ipr_engine.errors import BundleNotFoundError, EncoderMismatchError
from tests.support.bundles import bundle_parts, make_tensors
from tests.support.transformer_folders import import_torch, make_bare_transformer, make_export_without_graph


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    import_torch()
    folder = tmp_path_factory.mktemp("same")
    return make_export_without_graph(make_bare_transformer(folder / "model"), folder / "export")


def bundle_on(tmp_path, export, name="one", *, dtype=None, contained=True, **changes):
    parts = bundle_parts(tmp_path / f"sources-{name}", dim=16, support=False)
    source = read_export(export).bundle_source("transformer", contained=contained, **changes)
    if dtype is not None:
        source = replace(source, dtype=dtype, identity=read_export(export).spec.identity(48, dtype=dtype))
    heads = replace(parts["heads"][0], encoder="transformer", tensors=make_tensors(models=3, dim=32))
    return write_bundle(tmp_path / name, BundleParts(**{**parts, "encoders": [source], "heads": [heads]}))


@pytest.fixture(scope="module")
def engine(export, tmp_path_factory):
    return Engine.load(bundle_on(tmp_path_factory.mktemp("engine"), export), tier="torch")


@pytest.mark.parametrize(
    ("form", "told"),
    [
        ({"max_tokens": 17}, r"the same model: dtype='float32' and max_tokens=17 there, dtype='float32' and max_tokens=48 here"),
        ({"dtype": "bfloat16"}, r"the same model: dtype='bfloat16' and max_tokens=48 there, dtype='float32' and"),
    ],
)  # fmt: skip
def test_embeddings_of_the_same_model_in_another_form_are_told(engine, export, form, told):
    other = open_export(export, engine.options, **form)
    kept = replace(other.encode(["why"]), encoder=other.identity)
    with pytest.raises(
        EncoderMismatchError, match=rf"^x: embedded by .* \({told}.*--max-tokens\); encode the prompts again"
    ):
        engine.decide(kept, tau=0.3)


def test_a_swap_to_heads_on_the_same_model_in_another_form_is_told(engine, export, tmp_path):
    for form, told in (({"max_tokens": 17}, "max_tokens=17 there"), ({"dtype": "bfloat16"}, "dtype='bfloat16' and")):
        with pytest.raises(EncoderMismatchError, match=rf"^bundle: .* reads .*\(the same model: .*{told}.*allow_other"):
            engine.swap(bundle_on(tmp_path, export, str(form), **form))


def test_another_model_is_not_told_to_be_the_same(engine, tmp_path):
    other = make_export_without_graph(make_bare_transformer(tmp_path / "model", seed=1), tmp_path / "export")
    with pytest.raises(EncoderMismatchError) as told:
        engine.swap(bundle_on(tmp_path, other))
    assert "same model" not in str(told.value)


def test_an_export_without_the_arithmetic_of_the_heads_is_told(export, tmp_path):
    folder = bundle_on(tmp_path, export, dtype="int8", contained=False)
    with pytest.raises(
        BundleNotFoundError,
        match=r"references 'tiny' \(int8, max_tokens 48, .*export, which has no int8 graph: ipr export-enc",
    ):
        Engine.load(folder, encoder_folders=[export])


def test_the_forms_of_a_model_are_hashed_once(engine, monkeypatch):
    engine.loaded.same_model("0" * 64)
    monkeypatch.setattr(type(engine.encoder.spec), "identity", lambda *_, **__: pytest.fail("hashed again"))
    assert engine.loaded.same_model("1" * 64) == ""
    assert engine.loaded.same_model(engine.encoder.identity).startswith(" (the same model: ")
