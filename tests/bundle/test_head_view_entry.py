"""Bundles whose table has a head view: what is written, what is refused, and what is served."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from ipr_engine import Engine
from ipr_engine._C import available_isas
from ipr_engine.bundle import Bundle, BundleParts, ConcatenatedSource, write_bundle
from ipr_engine.bundle.two_tiers import two_tiers
from ipr_engine.encoders.static import StaticEncoder
from ipr_engine.errors import BundleFormatError, BundleShapeError, BundleValueError, EncoderMismatchError
from tests.support.bundles import bundle_parts, make_bundle, make_encoder, make_tensors
from tests.support.surface_bundles import surface_parts
from tests.support.two_tier_bundles import make_prompts

DIM, TOKENS = 16, 3
PROMPTS = ["what is the story", "write code. what is the story", "Почему небо голубое?"]


def head_parts(work, *, models=4):
    parts = bundle_parts(work, models=models, dim=DIM)
    heads = replace(parts["heads"][0], tensors=make_tensors(models=models, dim=2 * DIM))
    return {**parts, "encoders": [replace(parts["encoders"][0], head_tokens=TOKENS)], "heads": [heads]}


def make_head_bundle(folder, **shape):
    return write_bundle(folder / "bundles", BundleParts(**head_parts(folder / "sources", **shape)))


def edited(folder, change):
    """The bundle under another name, its manifest changed."""
    copy = folder.with_name("copy")
    folder.rename(copy)
    document = json.loads((copy / "bundle.json").read_text())
    change(document)
    (copy / "bundle.json").write_text(json.dumps(document))
    return copy


def test_a_bundle_with_a_head_view_is_read_as_it_was_written(tmp_path):
    folder = make_head_bundle(tmp_path)
    manifest = json.loads((folder / "bundle.json").read_text())
    assert (manifest["schema_version"], manifest["encoders"][0]["head_tokens"]) == (9, TOKENS)
    assert manifest["encoders"][0]["dim"] == DIM
    spec = Bundle.load(folder).encoders[0]
    assert (spec.dim, spec.head_dim, spec.head_tokens) == (2 * DIM, DIM, TOKENS)
    assert spec.identity == StaticEncoder.from_folder(tmp_path / "sources" / "encoder", head_tokens=TOKENS).identity
    again = write_bundle(tmp_path / "again", BundleParts(**head_parts(tmp_path / "sources")))
    assert again.name == folder.name  # equal input, equal bytes


def test_bundles_without_a_view_keep_their_version_and_their_keys(tmp_path):
    manifest = json.loads((make_bundle(tmp_path) / "bundle.json").read_text())
    assert manifest["schema_version"] < 9
    assert "head_tokens" not in manifest["encoders"][0]


def test_one_call_decides_as_embedding_first_does(tmp_path):
    bundle = Bundle.load(make_head_bundle(tmp_path))
    table = StaticEncoder.from_folder(tmp_path / "sources" / "encoder", head_tokens=TOKENS)
    for isa in available_isas():
        engine = Engine(bundle, isa=isa)
        assert engine.loaded.routes_text
        kept = engine.encode(PROMPTS)
        assert kept.x.tobytes() == table.encode(PROMPTS).x.tobytes()
        assert kept.x[1, :DIM].tobytes() != kept.x[1, DIM:].tobytes()
        decided = engine.decide(kept, tau=0.2)
        for row, prompt in enumerate(PROMPTS):
            assert engine.route(prompt, tau=0.2).qualities.tobytes() == decided.qualities[row].tobytes()


def test_support_is_measured_on_whole_prompts_alone(tmp_path):
    parts = head_parts(tmp_path / "sources")
    wide = np.zeros((5, 2 * DIM), np.float32)
    with pytest.raises(BundleShapeError, match="centroids"):
        write_bundle(
            tmp_path / "bundles", BundleParts(**{**parts, "support": replace(parts["support"], centroids=wide)})
        )
    viewed, plain = (Engine.load(make(tmp_path / name)) for name, make in (("a", make_head_bundle), ("b", make_bundle)))
    for prompt in PROMPTS[:2]:  # of equal tables and centroids
        assert viewed.route(prompt, tau=0.2).support == plain.route(prompt, tau=0.2).support


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda document: document.update(schema_version=8), BundleFormatError),
        (lambda document: document["encoders"][0].update(head_tokens=0), BundleValueError),
        (lambda document: document["encoders"][0].update(head_tokens="3"), BundleFormatError),
        (lambda document: document["encoders"][0].pop("head_tokens"), BundleShapeError),
    ],
)
def test_an_entry_that_is_not_as_written_is_refused(tmp_path, change, error):
    with pytest.raises(error):
        Bundle.load(edited(make_head_bundle(tmp_path), change))


def test_a_view_stands_behind_every_embedding_and_before_features(tmp_path):
    parts = surface_parts(tmp_path / "sources")
    table, surface, both = parts["encoders"]
    viewed = replace(table, head_tokens=TOKENS)
    wide = replace(parts["heads"][0], tensors=make_tensors(models=4, dim=2 * DIM + 168))
    made = Bundle.load(
        write_bundle(
            tmp_path / "bundles", BundleParts(**{**parts, "encoders": [viewed, surface, both], "heads": [wide]})
        )
    )
    spec = made.encoders[-1]
    assert (spec.dim, spec.head_dim, spec.surface_dim) == (2 * DIM + 168, DIM, 168)
    make_encoder(tmp_path / "other", dim=8, seed=3)
    other = replace(
        table,
        id="other",
        **{name: tmp_path / "other" / getattr(table, name).name for name in ("table", "tokenizer", "config")},
    )
    both = ConcatenatedSource(id=both.id, parts=("static", "other"))
    with pytest.raises(EncoderMismatchError, match="a table with a head view as the last embedding alone"):
        write_bundle(tmp_path / "refused", BundleParts(**{**parts, "encoders": [viewed, other, both]}))


def test_two_tiers_keep_the_view(tmp_path):
    first, second = (
        Bundle.load(make(tmp_path / name, models=4)) for name, make in (("a", make_bundle), ("b", make_head_bundle))
    )
    joined = Bundle.load(two_tiers(first, second, gap=0.1, root=tmp_path / "joined", provenance={}))
    assert [spec.head_tokens for spec in joined.encoders] == [0, TOKENS]
    prompts = make_prompts(10, "tiers")
    always = Engine(joined).route_many(prompts, tau=0.1, escalate_below=np.inf)
    assert always.qualities.tobytes() == Engine(second).route_many(prompts, tau=0.1).qualities.tobytes()
