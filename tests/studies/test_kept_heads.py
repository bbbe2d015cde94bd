"""Heads of a default bundle that are kept while its table's options change, and the card's figures of prompts in full width."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from ipr_engine import Engine
from ipr_engine.bundle import Bundle, BundleParts, write_bundle
from ipr_engine.errors import InvalidInputError
from ipr_engine.training.train_options import EncoderChoice
from studies.default_bundle.embed import embed
from studies.default_bundle.kept_heads import with_kept_heads
from studies.default_bundle.read_in_full_width import in_full_width
from tests.support.bundles import bundle_parts

PROMPTS = ["prove the sum is even", "write python code", "what is in the story?", "explain how and why"]


@pytest.fixture
def bundle(tmp_path):
    parts = bundle_parts(tmp_path / "sources", models=4)
    table = replace(parts["encoders"][0], id="other", max_tokens=512)
    heads = [replace(head, encoder="other") for head in parts["heads"]]
    support = replace(parts["support"], encoder="other")
    more = {"encoders": [table], "heads": heads, "support": support}
    return Bundle.load(write_bundle(tmp_path / "bundles", BundleParts(**{**parts, **more})))


def folding(tmp_path, fold_width=True):
    return EncoderChoice(folders=tmp_path / "sources" / "encoder", fold_width=fold_width)


def test_all_but_the_entry_of_the_table_stays(bundle, tmp_path):
    folder = with_kept_heads(bundle, folding(tmp_path), PROMPTS, tmp_path / "out")
    before, now = (json.loads((path / "bundle.json").read_text()) for path in (bundle.path, folder))
    assert now["encoders"] == [{**before["encoders"][0], "fold_width": True}]
    assert now["schema_version"] == 9
    same = ("prices", "extra_files", "provenance", "support", "created")
    assert {key: now[key] for key in same} == {key: before[key] for key in same}
    assert Bundle.load(folder).candidates == bundle.candidates
    assert Bundle.load(folder).quality_heads.sha256 == bundle.quality_heads.sha256
    found, expected = (Engine(made).route_many(PROMPTS, tau=0.2) for made in (Bundle.load(folder), bundle))
    assert found.qualities.tobytes() == expected.qualities.tobytes()


def test_prompts_that_would_be_read_otherwise_are_refused(bundle, tmp_path):
    with pytest.raises(
        InvalidInputError, match="the table reads a prompt of theirs otherwise than before; fit them anew"
    ):
        with_kept_heads(bundle, folding(tmp_path), [*PROMPTS, "ｗｈａｔ"], tmp_path / "out")
    beside = EncoderChoice(folders=[tmp_path / "sources" / "encoder", "surface"])
    with pytest.raises(InvalidInputError, match="expected a bundle of one table"):
        with_kept_heads(bundle, beside, PROMPTS, tmp_path / "out")


def test_prompts_in_full_width_are_counted_with_folding_and_without(bundle, tmp_path):
    made = Bundle.load(with_kept_heads(bundle, folding(tmp_path), PROMPTS, tmp_path / "out"))
    figures = in_full_width(made, "made", PROMPTS)
    assert (figures.source, figures.prompts) == ("made", 4)
    assert [row.same for row in figures.rows] == [1, 1, 1, 0]
    assert [row.flipped for row in figures.rows[:2]] == [0, 0]
    assert figures.rows[0].unsupported == figures.rows[1].unsupported == figures.rows[2].unsupported


def test_an_embedded_bundle_takes_the_place_of_the_one_before(bundle, tmp_path):
    root = tmp_path / "package"
    root.mkdir()
    embed(bundle.path, "CURRENT", root)
    folder = with_kept_heads(bundle, folding(tmp_path), PROMPTS, tmp_path / "out")
    assert Bundle.load(embed(folder, "CURRENT", root)).encoders[0].fold_width
    assert sorted(path.name for path in root.iterdir()) == sorted([folder.name, "CURRENT"])
    assert Bundle.load(root).hash == folder.name
