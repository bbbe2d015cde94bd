"""Bundles whose encoders are no table: a transformer, contained or referenced, and encoders side by side; two tiers of heads."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from ipr_engine import Engine
from ipr_engine.bundle import (
    Bundle,
    BundleParts,
    ConcatenatedSource,
    EscalationSpec,
    with_extra_files,
    with_prices,
    write_bundle,
)
from ipr_engine.encoders.manifest import read_export
from ipr_engine.errors import (
    BackendUnavailableError,
    BundleFormatError,
    BundleHashError,
    BundleNotFoundError,
    BundleValueError,
    EncoderMismatchError,
    InvalidInputError,
)
from tests.support.bundles import bundle_parts, make_tensors
from tests.support.transformer_folders import import_torch, make_bare_transformer, make_export_without_graph

PROMPT = "what is the story"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_bare_transformer(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def export(model, tmp_path_factory):
    return make_export_without_graph(model, tmp_path_factory.mktemp("made") / "export")


def write(tmp_path, export, *, contained=True, on="transformer", dim=32, **changed):
    """A bundle with a static encoder, a transformer and both side by side, its heads on one of them."""
    parts = bundle_parts(tmp_path / "sources", dim=16, support=False)
    made = read_export(export).bundle_source("transformer", contained=contained)
    parts["encoders"] += [made, ConcatenatedSource(id="both", parts=("static", "transformer"))]
    heads = replace(parts["heads"][0], encoder=on, tensors=make_tensors(models=3, dim=dim))
    return write_bundle(tmp_path / "bundles", BundleParts(**{**parts, "heads": [heads], **changed}))


def edit(folder, change):
    """The bundle under another name, its manifest changed: a copy, verified inside."""
    copy = folder.with_name("copy")
    folder.rename(copy)
    document = json.loads((copy / "bundle.json").read_text())
    change(document)
    (copy / "bundle.json").write_text(json.dumps(document))
    return copy


def test_a_contained_transformer_routes_as_its_export_embeds(tmp_path, export):
    import_torch()
    from ipr_engine.encoders.torch import TorchEncoder

    folder = write(tmp_path, export)
    engine = Engine.load(folder, tier="torch")
    assert json.loads((folder / "bundle.json").read_text())["schema_version"] == 3
    x = TorchEncoder.from_export(export).encode([PROMPT])
    np.testing.assert_array_equal(engine.encode(PROMPT).x, x.x)
    assert engine.encode(PROMPT).encoder == read_export(export).spec.identity(48)
    assert engine.route(PROMPT, tau=0.3).model == engine.decide(engine.encode(PROMPT), tau=0.3)[0].model
    assert "torch 32-d float32 on cpu" in repr(engine)


def test_a_referenced_transformer_is_found_by_its_identity(tmp_path, model, export):
    import_torch()
    folder = write(tmp_path, export, contained=False)
    assert not (folder / "encoders" / "transformer").exists()
    with pytest.raises(BundleNotFoundError, match=r"references 'tiny' .* encoder_folders=.* none was given"):
        Engine.load(folder)
    by_export = Engine.load(folder, tier="torch", encoder_folders=[export])
    by_model = Engine.load(folder, encoder_folders=[model])
    np.testing.assert_allclose(by_export.encode(PROMPT).x, by_model.encode(PROMPT).x, atol=1e-6)
    other = make_bare_transformer(tmp_path / "other", seed=1)
    with pytest.raises(BundleNotFoundError, match="looked in"):
        Engine.load(folder, encoder_folders=[other])


def test_encoders_side_by_side_give_their_columns_in_order(tmp_path, export):
    import_torch()
    bundle = Bundle.load(write(tmp_path, export, on="both", dim=48))
    assert (bundle.encoder("both").dim, bundle.encoder("both").parts) == (48, ("static", "transformer"))
    engine = Engine(bundle, tier="torch")
    x = engine.encode(PROMPT).x
    static, transformer = (part.encode([PROMPT]).x for part in engine.encoder.encoders)
    np.testing.assert_array_equal(x, np.concatenate([static, transformer], axis=1))
    assert engine.encoder.identity == bundle.encoder("both").identity


def test_a_neighbour_holds_all_files_of_a_transformer_or_none(tmp_path, export):
    first = write(tmp_path, export)
    second = with_extra_files(first, {"card.md": b"another"})
    root = tmp_path / "root"
    shutil.copytree(first.parent, root)  # no hard links
    lean = root / second.name
    shutil.rmtree(lean / "encoders" / "transformer")
    assert Bundle.load(lean).encoder("transformer").files["manifest"].is_relative_to(root / first.name)
    (lean / "encoders" / "transformer").mkdir()
    shutil.copy(second / "encoders" / "transformer" / "encoder.json", lean / "encoders" / "transformer")
    with pytest.raises(BundleNotFoundError, match="all files of the model in one bundle"):
        Bundle.load(lean)


def test_new_prices_keep_every_encoder(tmp_path, export):
    folder = write(tmp_path, export, on="both", dim=48)
    bundle = Bundle.load(folder)
    again = Bundle.load(with_prices(bundle, replace(bundle.prices, date="2027-01-01")))
    assert [spec.identity for spec in again.encoders] == [spec.identity for spec in bundle.encoders]


def test_two_tiers_of_heads_are_kept_apart(tmp_path, export):
    parts = bundle_parts(tmp_path / "sources", dim=16, support=False)
    second = replace(parts["heads"][0], id="second", encoder="transformer", tensors=make_tensors(models=3, dim=32))
    heads = [*parts["heads"], second]
    bundle = Bundle.load(write(tmp_path, export, heads=heads, escalation=EscalationSpec(heads="second", gap=0.05)))
    assert (bundle.quality_heads.id, bundle.escalation_heads.id, bundle.escalation.gap) == ("static", "second", 0.05)
    for wrong in ("static", "third"):
        with pytest.raises(BundleFormatError, match=r"escalation\.heads"):
            write(tmp_path, export, heads=heads, escalation=EscalationSpec(heads=wrong, gap=0.05))
    with pytest.raises(BundleValueError, match=r"escalation\.gap"):
        write(tmp_path, export, heads=heads, escalation=EscalationSpec(heads="second", gap=-1.0))


def test_a_bundle_of_tables_is_written_for_earlier_releases(tmp_path):
    folder = write_bundle(tmp_path / "bundles", BundleParts(**bundle_parts(tmp_path / "sources")))
    assert json.loads((folder / "bundle.json").read_text())["schema_version"] == 1
    assert Bundle.load(folder).escalation is None


@pytest.mark.parametrize(
    ("change", "error", "named"),
    [
        (lambda d: d["encoders"][1]["files"].pop("manifest"), BundleFormatError, r"encoders\[1\]\.files"),
        (
            lambda d: d["encoders"][1]["files"].update(manifest=d["encoders"][1]["files"]["config"]),
            BundleFormatError,
            r"encoders\[1\]\.files\.manifest",
        ),
        (lambda d: d["encoders"][1].update(pooling="max"), BundleFormatError, r"encoders\[1\]\.pooling"),
        (lambda d: d["encoders"][1].update(dtype="float64"), BundleFormatError, r"encoders\[1\]\.dtype"),
        (lambda d: d["encoders"][1].update(identity="x"), BundleFormatError, r"encoders\[1\]\.identity"),
        (lambda d: d["encoders"][2].update(parts=["static"]), BundleFormatError, r"encoders\[2\]\.parts"),
        (
            lambda d: d["encoders"][2].update(parts=["static", "both"]),
            EncoderMismatchError,
            r"encoders\[2\]\.parts\[1\]",
        ),
        (
            lambda d: d["encoders"][2].update(parts=["static", "static"]),
            BundleFormatError,
            r"encoders\[2\]\.parts\[1\]",
        ),
        (lambda d: (d.update(schema_version=2), d.pop("escalation")), BundleFormatError, r"encoders\[1\]\.kind"),
    ],
)
def test_an_entry_that_cannot_be_is_named(tmp_path, export, change, error, named):
    folder = edit(write(tmp_path, export), change)
    with pytest.raises(error, match=named):
        Bundle.load(folder)


def test_a_file_of_the_model_that_changed_is_refused(tmp_path, export):
    folder = write(tmp_path, export)
    weights = folder / "encoders" / "transformer" / "model.safetensors"
    weights.write_bytes(weights.read_bytes() + b"x")
    with pytest.raises(BundleHashError, match=r"model\.safetensors"):
        Bundle.load(folder)


def test_another_model_under_the_same_entry_is_refused(tmp_path, export):
    folder = edit(write(tmp_path, export), lambda d: d["encoders"][1].update(identity="0" * 64))
    with pytest.raises(EncoderMismatchError, match="expected identity 000000000000"):
        Engine.load(folder, tier="torch")


def test_a_tier_that_cannot_serve_says_why(tmp_path, export):
    folder = write(tmp_path, export)
    with pytest.raises(BackendUnavailableError, match=r"tier: .*onnx: the export has no file onnx"):
        Engine.load(folder, tier="onnx")
    with pytest.raises(
        InvalidInputError, match="tier: expected one of auto, onnx, openvino, torch, triton, tensorrt, got 'warp'"
    ):
        Engine.load(folder, tier="warp")
    with pytest.raises(InvalidInputError, match="threads: expected an int from 1 to 1024, or None, got 0"):
        Engine.load(folder, threads=0)
    with pytest.raises(InvalidInputError, match="encoder_folders: expected a list of folders, got one"):
        Engine.load(folder, encoder_folders="exports")
