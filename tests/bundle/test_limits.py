"""`max_output_tokens` of a candidate: written, read, checked, and kept by edits."""

import json
import shutil
from dataclasses import replace

import pytest

from ipr_engine import Bundle, Engine, InvalidInputError
from ipr_engine.bundle import BundleParts, write_bundle
from ipr_engine.bundle.candidates_file import read_candidates
from ipr_engine.bundle.edit import without_candidate
from ipr_engine.errors import BundleError
from tests.support.bundles import bundle_parts


@pytest.fixture(scope="module")
def limited(tmp_path_factory):
    """The second candidate answers with at most 100 tokens, the third with at most 50; the first says nothing."""
    folder = tmp_path_factory.mktemp("most")
    parts = bundle_parts(folder, models=3, dim=16, context_windows=[1000, 1000, None])
    most = (None, 100, 50)
    parts["candidates"] = [
        replace(candidate, max_output_tokens=tokens, features=("tools",))
        for candidate, tokens in zip(parts["candidates"], most, strict=True)
    ]
    return Engine.load(write_bundle(folder / "bundles", BundleParts(**parts)))


def test_the_fields_of_a_candidate_survive_writing_and_the_least_version_is_written(limited, tmp_path):
    assert [c.max_output_tokens for c in limited.bundle.candidates] == [None, 100, 50]
    plain = Bundle.load(write_bundle(tmp_path / "bundles", BundleParts(**bundle_parts(tmp_path / "sources"))))
    for bundle, version in ((limited.bundle, 4), (plain, 1)):
        text = (bundle.path / "bundle.json").read_text()
        assert f'"schema_version": {version}' in text
        assert ("max_output_tokens" in text) == (version == 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 3}, "unknown key 'max_output_tokens'"),
        ({"most": 0}, "max_output_tokens: expected an integer from 1"),
        ({"most": 1.5}, "max_output_tokens: expected an integer"),
        ({"most": "remove"}, "max_output_tokens: expected this key"),
    ],
)
def test_what_a_manifest_says_of_the_output_is_checked(limited, tmp_path, change, message):
    copy = shutil.copytree(limited.bundle.path, tmp_path / "copy")
    manifest = json.loads((copy / "bundle.json").read_text())
    manifest["schema_version"] = change.get("schema_version", 4)
    if change.get("most") == "remove":
        del manifest["candidates"][1]["max_output_tokens"]
    else:
        manifest["candidates"][1]["max_output_tokens"] = change.get("most", 100)
    (copy / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=message):
        Bundle.load(copy)


def test_the_candidates_file_may_state_it(tmp_path):
    entry = {"name": "a", "family": "f", "provider": "p", "input_usd_per_1m": 1, "output_usd_per_1m": 1}
    file = tmp_path / "candidates.json"
    for most, good in ((8192, True), (None, True), (0, False), (1.5, False), ("8192", False), (True, False)):
        file.write_text(json.dumps({"date": "2026-11-24", "candidates": [{**entry, "max_output_tokens": most}]}))
        if good:
            assert read_candidates(file).candidates[0].max_output_tokens == most
            continue
        with pytest.raises(
            InvalidInputError, match=r"candidates\[0\].max_output_tokens: expected a whole number of tokens from 1"
        ):
            read_candidates(file)


def test_a_bundle_of_one_candidate_more_or_less_keeps_its_limits(limited, tmp_path):
    fewer = Bundle.load(without_candidate(limited.bundle, "beta/mid", root=tmp_path))
    assert [c.max_output_tokens for c in fewer.candidates] == [None, 50]
