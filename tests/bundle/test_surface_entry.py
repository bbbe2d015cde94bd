"""Bundles of kind surface: what is written, what is refused, and what is served."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from ipr_engine import Engine
from ipr_engine._C import available_isas
from ipr_engine.bundle import Bundle, BundleParts, ConcatenatedSource, write_bundle
from ipr_engine.bundle.surface_lexicon import DEFAULT_LEXICON
from ipr_engine.bundle.two_tiers import two_tiers
from ipr_engine.encoders.concatenated import ConcatenatedEncoder
from ipr_engine.encoders.static import StaticEncoder
from ipr_engine.encoders.surface import SurfaceEncoder
from ipr_engine.encoders.surface_reference import surface_reference
from ipr_engine.errors import (
    BundleFormatError,
    BundleHashError,
    BundleShapeError,
    BundleValueError,
    EncoderMismatchError,
    InvalidInputError,
)
from tests.support.bundles import make_bundle, make_encoder, make_tensors
from tests.support.surface_bundles import BOTH, SURFACE_DIM, TABLE_DIM, make_surface_bundle, surface_parts
from tests.support.two_tier_bundles import make_prompts

PROMPTS = ("what is the story", "A) 1 B) 2", "Почему небо голубое?", "空はなぜ青いのか。", "", "```\ncode\n```")


def manifest_of(folder):
    return json.loads((folder / "bundle.json").read_text())


def edited(folder, change):
    """The bundle under another name, its manifest changed."""
    copy = folder.with_name("copy")
    folder.rename(copy)
    document = manifest_of(copy)
    change(document)
    (copy / "bundle.json").write_text(json.dumps(document))
    return copy


def test_a_bundle_of_table_and_features_is_read_as_it_was_written(tmp_path):
    folder = make_surface_bundle(tmp_path)
    bundle = Bundle.load(folder)
    assert [(spec.kind, spec.dim, spec.surface_dim) for spec in bundle.encoders] == [
        ("static", TABLE_DIM, 0),
        ("surface", SURFACE_DIM, 0),
        ("concatenated", TABLE_DIM + SURFACE_DIM, SURFACE_DIM),
    ]
    assert bundle.encoder("surface").identity == SurfaceEncoder.load().identity
    assert bundle.encoder("surface").files["lexicon"].read_bytes() == DEFAULT_LEXICON.read_bytes()
    assert bundle.support.centroids.shape[1] == TABLE_DIM
    assert manifest_of(folder)["schema_version"] == 8
    again = write_bundle(tmp_path / "again", BundleParts(**surface_parts(tmp_path / "sources")))
    assert again.name == folder.name  # equal input, equal bytes


def test_bundles_without_features_keep_their_version(tmp_path):
    assert manifest_of(make_bundle(tmp_path))["schema_version"] < 8


def test_the_engine_reads_the_mean_and_then_the_features(tmp_path):
    bundle = Bundle.load(make_surface_bundle(tmp_path))
    table = StaticEncoder.from_folder(tmp_path / "sources" / "encoder")
    for isa in available_isas():
        encoded = Engine(bundle, isa=isa).encode(list(PROMPTS[:4]))
        features = np.stack([surface_reference(text, SurfaceEncoder.load().lexicon) for text in PROMPTS[:4]])
        assert encoded.x[:, :TABLE_DIM].tobytes() == table.encode(PROMPTS[:4]).x.tobytes()
        assert encoded.x[:, TABLE_DIM:].tobytes() == features.tobytes()
        assert encoded.billed_tokens.tolist() == Engine(bundle).encode(list(PROMPTS[:4])).billed_tokens.tolist()


def test_one_call_embeds_as_the_parts_do(tmp_path):
    table, surface = StaticEncoder.from_folder(make_encoder(tmp_path / "table")), SurfaceEncoder.load()
    both = ConcatenatedEncoder([table, surface])
    prompts = [*PROMPTS, *make_prompts(20, "surface")]
    assert both.native is not None
    assert both.surface_dim == surface.dim
    found, expected = both.encode(prompts), both.join([table.encode(prompts), surface.encode(prompts)])
    assert found.x.tobytes() == expected.x.tobytes()
    assert found.billed_tokens.tolist() == expected.billed_tokens.tolist()
    assert found.truncated.tolist() == expected.truncated.tolist()
    assert both.count_tokens("what is it") == table.count_tokens("what is it")
    assert "surface" in both.summary
    with pytest.raises(InvalidInputError, match="columns behind the embedding's, which are of a text"):
        both.native.encode_ids(np.zeros(1, np.uint32), np.ones(1, np.bool_))


def test_a_table_of_the_library_has_its_features_from_python(tmp_path):
    table = StaticEncoder.from_folder(make_encoder(tmp_path / "table"), tokenizer="tokenizers")
    both = ConcatenatedEncoder([table, SurfaceEncoder.load()])
    compiled = ConcatenatedEncoder([StaticEncoder.from_folder(tmp_path / "table"), SurfaceEncoder.load()])
    assert both.native is None
    assert both.encode(PROMPTS).x.tobytes() == compiled.encode(PROMPTS).x.tobytes()


def test_features_stand_behind_every_embedding(tmp_path):
    table, surface = StaticEncoder.from_folder(make_encoder(tmp_path / "table")), SurfaceEncoder.load()
    with pytest.raises(InvalidInputError, match="every embedding first"):
        ConcatenatedEncoder([surface, table])
    parts = surface_parts(tmp_path / "sources")
    parts["encoders"][-1] = ConcatenatedSource(id=BOTH, parts=("surface", "static"))
    with pytest.raises(EncoderMismatchError, match="an embedding as the first part"):
        write_bundle(tmp_path / "bundles", BundleParts(**parts))


def test_heads_on_features_alone_are_refused(tmp_path):
    parts = surface_parts(tmp_path / "sources")
    heads = replace(parts["heads"][0], encoder="surface", tensors=make_tensors(models=4, dim=SURFACE_DIM))
    with pytest.raises(EncoderMismatchError, match=r"an encoder of this bundle \(static, side_by_side\)"):
        write_bundle(tmp_path / "bundles", BundleParts(**{**parts, "heads": [heads], "support": None}))


def test_support_is_measured_on_the_columns_before_the_features(tmp_path):
    parts = surface_parts(tmp_path / "sources")
    wide = np.zeros((5, TABLE_DIM + SURFACE_DIM), np.float32)
    with pytest.raises(BundleShapeError, match="centroids"):
        write_bundle(
            tmp_path / "bundles", BundleParts(**{**parts, "support": replace(parts["support"], centroids=wide)})
        )
    engine, plain = (
        Engine.load(make(tmp_path / name)) for name, make in (("a", make_surface_bundle), ("b", make_bundle))
    )
    for prompt in PROMPTS[:2]:  # of equal tables and centroids
        assert engine.route(prompt, tau=0.2).support == plain.route(prompt, tau=0.2).support
    assert engine.route("日本", tau=0.2).support == 0.0  # no token of it is known


def test_decisions_are_those_of_the_reference(tmp_path):
    bundle = Bundle.load(make_surface_bundle(tmp_path))
    engine = Engine(bundle)
    x = engine.encode(list(PROMPTS[:4])).x
    logit = x.astype(np.float64) @ bundle.quality_heads.tensors["skip"].T + bundle.quality_heads.tensors["bias"]
    found = engine.route_many(list(PROMPTS[:4]), tau=0.0)
    np.testing.assert_allclose(found.qualities, 1 / (1 + np.exp(-logit)), atol=1e-5)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda entry: entry.update(dim=SURFACE_DIM - 1), BundleShapeError),
        (lambda entry: entry.update(max_tokens=5), BundleFormatError),
        (lambda entry: entry["files"].update(table=entry["files"]["lexicon"]), BundleFormatError),
        (lambda entry: entry["files"]["lexicon"].update(sha256="0" * 64), BundleHashError),
    ],
)
def test_an_entry_that_is_not_as_written_is_refused(tmp_path, change, error):
    copy = edited(make_surface_bundle(tmp_path), lambda document: change(document["encoders"][1]))
    with pytest.raises(error):
        Bundle.load(copy)


def test_no_bundle_before_schema_version_8_has_features(tmp_path):
    copy = edited(make_surface_bundle(tmp_path), lambda document: document.update(schema_version=7))
    with pytest.raises(BundleFormatError, match="kind"):
        Bundle.load(copy)


def test_two_tiers_share_the_table_and_keep_the_features(tmp_path):
    first, second = (
        Bundle.load(make(tmp_path / n, models=4)) for n, make in (("a", make_bundle), ("b", make_surface_bundle))
    )
    joined = Bundle.load(two_tiers(first, second, gap=0.1, root=tmp_path / "joined", provenance={}))
    assert [spec.kind for spec in joined.encoders] == ["static", "surface", "concatenated"]
    prompts = make_prompts(10, "tiers")
    always = Engine(joined).route_many(prompts, tau=0.1, escalate_below=np.inf)
    assert always.qualities.tobytes() == Engine(second).route_many(prompts, tau=0.1).qualities.tobytes()


def test_another_lexicon_is_another_encoder(tmp_path):
    lexicon = tmp_path / "words.json"
    lexicon.write_text(json.dumps({"flags": ["w"], "categories": {"w": ["was", "warum"]}}))
    bundle = Bundle.load(make_surface_bundle(tmp_path, lexicon=lexicon))
    assert bundle.encoder("surface").identity != SurfaceEncoder.load().identity
    engine = Engine(bundle)
    assert engine.encode("Warum?").x.shape == (1, bundle.encoder(BOTH).dim)
    assert engine.encode("Warum?").encoder == bundle.encoder(BOTH).identity


def test_a_lexicon_whose_words_cannot_be_matched_is_not_written(tmp_path):
    lexicon = tmp_path / "words.json"
    lexicon.write_text(json.dumps({"flags": [], "categories": {"w": ["don't"]}}))
    with pytest.raises(BundleValueError, match=r"words\.json: categories\.w\[0\]"):
        make_surface_bundle(tmp_path, lexicon=lexicon)


def test_a_category_without_a_name_is_not_written(tmp_path):
    lexicon = tmp_path / "words.json"
    lexicon.write_text(json.dumps({"flags": [], "categories": {" ": ["dog"]}}))
    with pytest.raises(BundleValueError, match="a category with a name"):
        make_surface_bundle(tmp_path, lexicon=lexicon)
