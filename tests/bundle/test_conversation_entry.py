"""Heads that say what of several turns they are given: what is written, what is refused, and what other commands keep of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ipr_engine import Engine
from ipr_engine.bundle import Bundle, BundleParts, ConcatenatedSource, TransformerSource, with_prices, write_bundle
from ipr_engine.bundle.edit import NewCandidate, with_candidate, without_candidate
from ipr_engine.bundle.head_rows import row_of
from ipr_engine.cli import main
from ipr_engine.errors import BundleFormatError, EncoderMismatchError
from tests.support.bundles import bundle_parts, make_bundle, make_candidates, make_prices, make_tensors
from tests.support.conversations import given_turns
from tests.support.surface_bundles import surface_parts
from tests.support.two_tier_bundles import join, make_tiers


def edited(folder: Path, **changes: object) -> Path:
    """Change the manifest of a bundle, which stands in another folder from then on."""
    copy = folder.with_name("copy")
    folder.rename(copy)
    document = json.loads((copy / "bundle.json").read_text())
    version = changes.pop("schema_version", document["schema_version"])
    document["heads"][0].update(changes)
    (copy / "bundle.json").write_text(json.dumps({**document, "schema_version": version}))
    return copy


@pytest.mark.parametrize("conversation", ["last", "recency"])
@pytest.mark.parametrize("parts_of", [bundle_parts, surface_parts])
def test_what_heads_are_given_is_read_as_it_was_written(tmp_path, parts_of, conversation):
    folder = given_turns(tmp_path, parts_of(tmp_path / "sources"), conversation)
    manifest = json.loads((folder / "bundle.json").read_text())
    assert (manifest["schema_version"], manifest["heads"][0]["conversation"]) == (9, conversation)
    assert Bundle.load(folder).quality_heads.conversation == conversation
    assert f"conversation={conversation}" in repr(Engine.load(folder))


def test_all_turns_as_one_text_is_what_no_key_says(tmp_path):
    folder = make_bundle(tmp_path)
    manifest = json.loads((folder / "bundle.json").read_text())
    assert manifest["schema_version"] < 9
    assert "conversation" not in manifest["heads"][0]
    assert Bundle.load(folder).quality_heads.conversation == "all"
    assert "conversation" not in repr(Engine.load(folder))
    assert given_turns(tmp_path / "again", bundle_parts(tmp_path / "sources"), "all").name == folder.name


@pytest.mark.parametrize("value", ["all", "first", "", None, 1, ["last"]])
def test_a_value_that_is_none_of_them_is_named(tmp_path, value):
    folder = given_turns(tmp_path, bundle_parts(tmp_path / "sources"), "last")
    with pytest.raises(BundleFormatError, match=r"heads\[0\]\.conversation: expected one of 'last', 'recency'"):
        Bundle.load(edited(folder, conversation=value))


def test_an_older_version_has_no_such_key(tmp_path):
    with pytest.raises(BundleFormatError, match="conversation"):
        Bundle.load(edited(make_bundle(tmp_path), conversation="last"))


def test_a_transformer_may_be_given_the_last_turn_and_weighs_none(tmp_path):
    model = TransformerSource(
        id="model",
        dim=16,
        max_tokens=9,
        pooling="mean",
        normalize=True,
        dtype=None,
        identity="a" * 64,
        name="m",
        revision=None,
        files={},
    )
    both = ConcatenatedSource(id="both", parts=("static", "model"))
    for encoders, name, dim in (([model], "model", 16), ([model, both], "both", 32)):
        parts = bundle_parts(tmp_path / name, support=False)
        heads = replace(parts["heads"][0], encoder=name, tensors=make_tensors(models=3, dim=dim))
        parts |= {"encoders": [*parts["encoders"], *encoders], "heads": [heads]}
        assert Bundle.load(given_turns(tmp_path / name, parts, "last")).quality_heads.conversation == "last"
        with pytest.raises(
            EncoderMismatchError,
            match=r"heads\[0\]\.conversation: expected 'last', or no key: encoder 'model' is a transf",
        ):
            given_turns(tmp_path / name, parts, "recency")


def test_each_tier_is_given_its_own(tmp_path, capsys):
    first, second = make_tiers(tmp_path)
    for number, (one, two) in enumerate([("recency", "all"), ("all", "last"), ("last", "recency")]):
        tiers = [
            replace(bundle, heads=tuple(replace(head, conversation=said) for head in bundle.heads))
            for bundle, said in ((first, one), (second, two))
        ]
        joined = join(tmp_path / str(number), tuple(tiers), gap=0.05)
        assert joined.escalation_heads is not None
        assert (joined.quality_heads.conversation, joined.escalation_heads.conversation) == (one, two)
    assert main(["info", "--bundle", str(joined.path)]) == 0
    told = capsys.readouterr().out
    assert "of several turns of a user, encoded: the last one that has a token\n" in told
    assert "by the second tier: each alone, weighing half of the next\n" in told


def test_a_bundle_made_of_another_keeps_what_its_heads_are_given(tmp_path, capsys):
    bundle = Bundle.load(given_turns(tmp_path, bundle_parts(tmp_path / "sources"), "recency"))
    less = without_candidate(bundle, bundle.names[1])
    rows = row_of(bundle.quality_heads.tensors, 0)
    new = replace(make_candidates(4)[3], name="new/one")
    price = next(iter(bundle.prices.prices.values()))
    more = with_candidate(bundle, NewCandidate(candidate=new, price=price, rows=rows, note={}))
    priced = with_prices(bundle, make_prices(make_candidates(3), scale=3.0))
    for folder in (less, more, priced):
        assert Bundle.load(folder).quality_heads.conversation == "recency"
    assert main(["info", "--bundle", str(priced), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["conversation"] == "recency"


def test_equal_parts_give_equal_bytes(tmp_path):
    made = [given_turns(tmp_path / name, bundle_parts(tmp_path / "sources"), "recency").name for name in "ab"]
    assert made[0] == made[1]
    parts = bundle_parts(tmp_path / "sources")
    assert write_bundle(tmp_path / "c", BundleParts(**parts)).name != made[0]
