"""An option of loading that no encoder heeds is told: refused where nothing could heed it, else a warning at load."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from ipr_engine import Engine
from ipr_engine.bundle import BundleParts, ConcatenatedSource, write_bundle
from ipr_engine.cli import main
from ipr_engine.encoders.load_options import LoadOptions
from ipr_engine.encoders.manifest import read_export
from ipr_engine.encoders.registry import open_encoder
from ipr_engine.errors import InvalidInputError
from ipr_engine.training.train_options import EncoderChoice
from tests.support.bundles import bundle_parts, make_bundle, make_encoder, make_tensors
from tests.support.transformer_folders import import_torch, make_bare_transformer, make_export_without_graph
from tests.support.two_tier_bundles import join, make_tiers


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    import_torch()
    folder = tmp_path_factory.mktemp("heeded")
    return make_export_without_graph(make_bare_transformer(folder / "model"), folder / "export")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("table"), support=False)


def on(tmp_path, export, encoder, dim, *, contained=True):
    """Write a bundle whose heads read the export, or the table and the export side by side."""
    parts = bundle_parts(tmp_path / "sources", dim=16, support=False)
    made = read_export(export).bundle_source("transformer", contained=contained)
    parts["encoders"] += [made, ConcatenatedSource(id="both", parts=("static", "transformer"))]
    heads = replace(parts["heads"][0], encoder=encoder, tensors=make_tensors(models=3, dim=dim))
    return write_bundle(tmp_path / "bundles", BundleParts(**{**parts, "heads": [heads]}))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"batches": (1, 8)}, r"^batches: shapes are planned on a GPU alone, got \[1, 8\] beside device 'cpu'; leave"),
        ({"batches": 8, "device": "cuda"}, "^batches: expected a list of ints >= 1, or None, got 8"),
        ({"batches": "18", "device": "cuda"}, "^batches: expected a list of ints >= 1, or None, got '18'"),
        ({"batches": (), "device": "cuda"}, r"^batches: expected a list of ints >= 1, or None, got \(\)"),
        ({"batches": (8, 0), "device": "cuda"}, r"^batches: expected a list of ints >= 1, or None, got \(8, 0\)"),
        ({"batches": (True,), "device": "cuda"}, r"^batches: expected a list of ints >= 1, or None, got \(True,\)"),
        ({"threads": 1025}, "^threads: expected an int from 1 to 1024, or None, got 1025"),
        ({"encoder_folders": None}, "^encoder_folders: expected a list of folders, got None"),
        ({"encoder_folders": b"ab"}, "^encoder_folders: expected a list of folders, got b'ab'"),
        ({"encoder_folders": [5]}, "^encoder_folders: expected paths, each a str or a Path, got 5"),
        ({"encoder_folders": [b"ab"]}, "^encoder_folders: expected paths, each a str or a Path, got b'ab'"),
        ({"encoder_folders": ["ab", ""]}, "^encoder_folders: expected paths, each a str or a Path, got ''"),
        ({"device": "cuda:\u0663"}, "^device: expected 'cpu', 'cuda' or 'cuda:N', got"),
        (
            {"batches": (1,), "device": "cuda", "tier": "onnx"},
            "^batches: tier 'onnx' does not heed it, torch and triton and tensorrt do",
        ),
        (
            {"threads": 2, "tier": "torch"},
            "^threads: tier 'torch' does not heed it, onnx and openvino do; leave it out",
        ),
        ({"threads": 2, "tier": "triton", "device": "cuda"}, "^threads: tier 'triton' does not heed it"),
    ],
)
def test_what_no_bundle_would_heed_is_refused(options, told):
    with pytest.raises(InvalidInputError, match=told):
        LoadOptions(**options)


def test_the_threads_of_a_fallback_are_heeded_by_it():
    options = LoadOptions(device="cuda", tier="tensorrt", threads=2, batches=(1,), fallback="cpu")
    assert options.for_cpu() == LoadOptions(threads=2)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"tier": "onnx"}, "tier: 'onnx' is for a transformer, and the heads of bundle"),
        ({"threads": 2}, "threads: 2 is for a transformer, and the heads of bundle"),
        (
            {"encoder_folders": ["exports"]},
            "encoder_folders: bundle .* references no transformer, .* looked for in exports",
        ),
    ],
)
def test_a_table_heeds_no_option_of_transformers_and_a_load_says_so_once(table, options, told, caplog):
    engine = Engine.load(table, **options)
    assert len(caplog.records) == 1
    assert caplog.records[0].levelname == "WARNING"
    assert re.search(told, caplog.text)
    engine.route("why", tau=0.3)
    assert len(caplog.records) == 1


def test_options_that_are_left_out_or_heeded_are_told_nothing_of(table, export, tmp_path, caplog):
    Engine.load(table)
    Engine.load(on(tmp_path / "a", export, "transformer", 32), tier="torch")
    Engine.load(on(tmp_path / "b", export, "both", 48), tier="torch")
    Engine.load(on(tmp_path / "c", export, "transformer", 32, contained=False), tier="torch", encoder_folders=[export])
    assert caplog.records == []


def test_an_engine_swaps_between_tables_and_transformers_with_the_same_options(table, export, tmp_path, caplog):
    engine = Engine.load(on(tmp_path, export, "transformer", 32), tier="torch")
    assert engine.encoder.tier == "torch"
    for folder, tier in ((table, None), (engine.bundle.path, "torch")):
        engine.swap(folder, allow_other_encoder=True, allow_fewer_candidates=True, allow_fewer_outputs=True)
        assert engine.encoder.tier == tier
    assert caplog.records == []


def test_threads_are_told_of_where_auto_takes_a_tier_without_them(export, tmp_path, caplog):
    Engine.load(on(tmp_path, export, "transformer", 32), threads=2)
    assert "threads: 2 has no effect: torch runs 'tiny', and onnx and openvino would heed it" in caplog.text


@pytest.mark.parametrize("flags", [["--tier", "onnx"], ["--threads", "2"]])
def test_a_command_refuses_what_its_bundle_does_not_heed(table, flags, capsys):
    assert main(["route", "why", "--bundle", str(table), *flags]) != 0
    assert f"{flags[0]}: " in capsys.readouterr().err


def test_a_command_looks_in_encoder_folders_only_where_it_has_to(table, capsys):
    assert main(["route", "why", "--bundle", str(table), "--encoder-folder", "exports"]) == 0


@pytest.mark.parametrize("options", [{"tier": "torch"}, {"threads": 2}, {"device": "cuda"}])
def test_a_fit_on_a_table_says_that_options_of_transformers_have_no_effect(options, caplog):
    EncoderChoice(options=LoadOptions(**options)).open()
    [(name, value)] = options.items()
    assert f"{name}: {value!r} is for a transformer, and every encoder here is a table" in caplog.text
    caplog.clear()
    EncoderChoice().open()
    assert caplog.text == ""


def test_bundles_of_several_tables_are_refused_on_a_gpu(tmp_path):
    tiers = make_tiers(tmp_path / "tiers")
    with pytest.raises(InvalidInputError, match=r"^device: the heads read a table .* expected 'cpu', got 'emulated'"):
        Engine(join(tmp_path / "joined", tiers), device="emulated")


@pytest.mark.parametrize("options", [{"tier": "onnx"}, {"threads": 2}, {"device": "cuda"}, {"pooling": "mean"}])
def test_a_folder_of_a_table_refuses_options_of_transformers(tmp_path, options):
    [name] = options
    folder = make_encoder(tmp_path / "table")
    with pytest.raises(InvalidInputError, match=rf"^{name}: .* holds a model2vec table, which is averaged on the CPU"):
        open_encoder(folder, **options)


def test_threads_beside_a_folder_of_transformers_are_for_an_export_at_its_side(export, tmp_path):
    folder = make_bare_transformer(tmp_path / "model", seed=1)
    asked = {"folders": [folder, export], "pooling": "mean", "max_tokens": 16, "contained": False}
    opened = EncoderChoice(**asked, options=LoadOptions(threads=2)).open()
    assert opened.encoder.dim == 64
    with pytest.raises(InvalidInputError, match=r"^tier: .* is a transformers folder"):
        EncoderChoice(**asked, options=LoadOptions(tier="onnx")).open()


@pytest.mark.parametrize("options", [{"tier": "onnx"}, {"threads": 2}])
def test_a_folder_of_transformers_refuses_options_of_exports(tmp_path, options):
    [name] = options
    folder = make_bare_transformer(tmp_path / "model")
    told = rf"^{name}: .* is a transformers folder, which the torch tier runs"
    with pytest.raises(InvalidInputError, match=told):
        open_encoder(folder, pooling="mean", **options)
    with pytest.raises(InvalidInputError, match=told):
        EncoderChoice(folders=folder, pooling="mean", contained=False, options=LoadOptions(**options)).open()
