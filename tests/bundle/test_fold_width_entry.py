"""Bundles whose table folds width: what is written, what is refused, and what is served."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from ipr_engine import Engine
from ipr_engine.bundle import Bundle, BundleParts, write_bundle
from ipr_engine.bundle.two_tiers import two_tiers
from ipr_engine.cli import main
from ipr_engine.data.prompt_edits import EDITS
from ipr_engine.encoders.static import StaticEncoder
from ipr_engine.errors import BundleFormatError, BundleValueError
from tests.support.bundles import bundle_parts, make_bundle
from tests.support.two_tier_bundles import make_prompts

PROMPTS = ["what is the story", "write code. Explain it, please?", "?"]
WIDE = [EDITS["full width"](prompt) for prompt in PROMPTS]


def make_folding(folder, **more):
    parts = bundle_parts(folder / "sources", models=4)
    table = replace(parts["encoders"][0], fold_width=True, **more)
    return write_bundle(folder / "bundles", BundleParts(**{**parts, "encoders": [table]}))


def downgraded(document):
    """Says a version that knew no such key."""
    document.update(schema_version=8)
    del document["unsupported"]


def test_a_bundle_that_folds_is_read_as_it_was_written(tmp_path):
    folder = make_folding(tmp_path)
    manifest = json.loads((folder / "bundle.json").read_text())
    assert (manifest["schema_version"], manifest["encoders"][0]["fold_width"]) == (9, True)
    spec = Bundle.load(folder).encoders[0]
    assert spec.fold_width
    assert spec.identity == StaticEncoder.from_folder(tmp_path / "sources" / "encoder", fold_width=True).identity


@pytest.mark.parametrize(
    "wrong",
    [{"fold_width": "no"}, {"fold_width": 1}, {"fold_width": None}, {"head_tokens": "3"}, {"head_tokens": None}],
)
def test_an_option_of_a_table_that_is_neither_on_nor_off_is_not_taken_for_one_of_them(tmp_path, wrong):
    parts = bundle_parts(tmp_path / "sources", models=4)
    table = replace(parts["encoders"][0], **wrong)
    with pytest.raises(BundleFormatError, match=rf"encoders\[0\].{next(iter(wrong))}: expected"):
        write_bundle(tmp_path / "bundles", BundleParts(**{**parts, "encoders": [table]}))


def test_bundles_that_do_not_fold_keep_their_version_and_their_keys(tmp_path):
    folder = make_bundle(tmp_path)
    manifest = json.loads((folder / "bundle.json").read_text())
    assert manifest["schema_version"] < 9
    assert "fold_width" not in manifest["encoders"][0]
    assert not Bundle.load(folder).encoders[0].fold_width


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (downgraded, BundleFormatError, "unknown key 'fold_width'"),
        (lambda document: document["encoders"][0].update(fold_width=False), BundleValueError, "true, or no such key"),
        (lambda document: document["encoders"][0].update(fold_width=1), BundleFormatError, "true or false"),
    ],
)
def test_an_entry_that_is_not_as_written_is_refused(tmp_path, change, error, said):
    folder = make_folding(tmp_path)
    copy = folder.with_name("copy")
    folder.rename(copy)
    document = json.loads((copy / "bundle.json").read_text())
    change(document)
    (copy / "bundle.json").write_text(json.dumps(document))
    with pytest.raises(error, match=said):
        Bundle.load(copy)


def test_a_prompt_in_full_width_is_decided_as_in_ascii(tmp_path):
    folding = Engine.load(make_folding(tmp_path / "a"))
    plain = Engine.load(make_bundle(tmp_path / "b", models=4))
    assert folding.loaded.routes_text
    found, expected = folding.route_many(WIDE, tau=0.2), folding.route_many(PROMPTS, tau=0.2)
    assert found.qualities.tobytes() == expected.qualities.tobytes()
    assert found.index.tolist() == expected.index.tolist()
    for wide, prompt in zip(WIDE, PROMPTS, strict=True):
        one, other = folding.route(wide, tau=0.2), folding.route(prompt, tau=0.2)
        assert one.qualities.tobytes() == other.qualities.tobytes()
        assert (one.model, one.support, one.truncated) == (other.model, other.support, other.truncated)
        # Without folding ASCII is decided to the same bits, and full width is not read.
        assert plain.route(prompt, tau=0.2).qualities.tobytes() == other.qualities.tobytes()
    assert plain.route(WIDE[0], tau=0.2).qualities.tobytes() != found.qualities[0].tobytes()


def test_two_tiers_keep_the_folding(tmp_path):
    first, second = (
        Bundle.load(make(tmp_path / name))
        for name, make in (("a", lambda to: make_bundle(to, models=4)), ("b", make_folding))
    )
    joined = Bundle.load(two_tiers(first, second, gap=0.1, root=tmp_path / "joined", provenance={}))
    assert [spec.fold_width for spec in joined.encoders] == [False, True]
    prompts = [EDITS["full width"](prompt) for prompt in make_prompts(10, "tiers")]
    always = Engine(joined).route_many(prompts, tau=0.1, escalate_below=np.inf)
    assert always.qualities.tobytes() == Engine(second).route_many(prompts, tau=0.1).qualities.tobytes()


def test_info_tells_of_the_folding(tmp_path, capsys):
    for made, told in ((make_folding(tmp_path / "a"), True), (make_bundle(tmp_path / "b"), False)):
        assert main(["info", "--bundle", str(made)]) == 0
        assert ("full width forms are read as the ASCII that they stand for" in capsys.readouterr().out) == told
        assert main(["info", "--bundle", str(made), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["fold_width"] == (["static"] if told else [])
