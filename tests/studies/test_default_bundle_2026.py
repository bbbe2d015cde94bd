"""The recipe of `default-2026`: from outcomes of two generated sources to a bundle with its card, beside another one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ipr_engine import Engine
from ipr_engine.bundle import Bundle, with_extra_files
from ipr_engine.bundle.candidates_file import read_candidates
from ipr_engine.bundle.load import DEFAULT_BUNDLE, EMBEDDED
from ipr_engine.data import name_in_source
from studies.default_bundle import recipe_2026
from studies.default_bundle.embed import embed
from tests.support import skips
from tests.support.training_data import write_source

ASKED = read_candidates(recipe_2026.CANDIDATES)
NAMES = [candidate.name for candidate in ASKED.candidates]
IN_BOTH = [name for name in NAMES if "shaberi_ja" in ASKED.named[name]]
PROMPTS = ["prove the sum is even", "write python code", "what is in the story", "explain how and why"]
TABLE = "encoders/static/model.safetensors"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    for module in ("pyarrow", "threadpoolctl"):
        pytest.importorskip(module, reason=skips.TRAIN)
    folder = tmp_path_factory.mktemp("inputs")
    sql = write_source(
        folder / "scale_sql", [name_in_source(ASKED.named, n, "scale_sql") for n in NAMES], PROMPTS, rows_per_split=80
    )
    japanese = write_source(
        folder / "shaberi_ja",
        [name_in_source(ASKED.named, n, "shaberi_ja") for n in IN_BOTH],
        PROMPTS,
        rows_per_split=60,
    )
    out = tmp_path_factory.mktemp("root")
    return recipe_2026.build(sql, japanese, out, beside=[sql], estimator="plain", allow_constant=True), (sql, japanese)


def test_a_dozen_candidates_of_several_vendors_at_dated_list_prices():
    assert 10 <= len(NAMES) <= 15
    assert len({candidate.provider for candidate in ASKED.candidates}) >= 6
    assert len(IN_BOTH) >= 4
    assert all("litellm 1.110.2" in price.basis for price in ASKED.prices.prices.values())
    assert all(candidate.context_window for candidate in ASKED.candidates)
    assert recipe_2026.ANSWERS in NAMES


def test_the_bundle_says_who_answers_unsupported_prompts(built):
    bundle = Bundle.load(built[0])
    assert (bundle.name, bundle.names) == ("default-2026", tuple(NAMES))
    assert (bundle.unsupported.model, bundle.unsupported.min_support) == (recipe_2026.ANSWERS, recipe_2026.MIN_SUPPORT)
    assert Engine.load(built[0]).policy(tau=0.2).unsupported.candidate == recipe_2026.ANSWERS


def test_every_prompt_is_fitted_on_and_the_figures_are_cross_fitted(built):
    found = Bundle.load(built[0]).provenance
    assert (found["split"], found["outcomes"], found["intercepts"]) == (None, ["scale_sql", "shaberi_ja"], True)
    assert found["standing"]["lines"]
    assert found["default_bundle"]["japanese_alone"]["lines"]
    assert [share["fitted"] for share in found["default_bundle"]["unsupported"]] == [True, True, False]


def test_the_card_says_what_it_does_not_know(built):
    card = Bundle.load(built[0]).extra_files["MODEL_CARD.md"].read_text()
    for told in (
        "**SQL and Japanese chat only**",
        "**A few hundred prompts are few.**",
        "hidden reasoning is not counted",
    ):
        assert told in card
    assert f"**Of Japanese only {len(IN_BOTH)} of {len(NAMES)} candidates were judged**" in card
    assert "nan" not in card.lower()
    assert "None" not in card
    assert "/tmp" not in card


def test_same_input_gives_the_same_hash(built, tmp_path):
    folder, (sql, japanese) = built
    again = recipe_2026.build(sql, japanese, tmp_path, beside=[sql], estimator="plain", allow_constant=True)
    assert again.name == folder.name


def test_beside_another_bundle_it_lies_without_the_table_and_the_other_stays(built, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(DEFAULT_BUNDLE, root, ignore=shutil.ignore_patterns(EMBEDDED["default-2026"]))
    (root / "named").write_text("0" * 64 + "\n")
    before = Bundle.load(root).hash
    place = embed(built[0], "named", root)
    assert not (place / TABLE).exists()
    assert Bundle.load(place).hash == built[0].name
    assert (root / "named").read_text() == built[0].name + "\n"
    assert Bundle.load(root).hash == before
    whole = with_extra_files(Bundle.load(place), {}, root=tmp_path / "own")
    assert (whole / TABLE).exists()


def test_the_embedded_bundle_is_of_this_recipe_and_takes_little_room():
    bundle = Bundle.load("default-2026")
    assert bundle.names == tuple(NAMES)
    assert bundle.prices == ASKED.prices
    assert bundle.unsupported.model == recipe_2026.ANSWERS
    assert not (bundle.path / TABLE).exists()
    assert sum(file.stat().st_size for file in bundle.path.rglob("*") if file.is_file()) < 1_500_000
    command = bundle.provenance["default_bundle"]["command"]
    assert command.startswith("python -m studies.default_bundle.recipe_2026 ")
    card = bundle.extra_files["MODEL_CARD.md"].read_text()
    assert f"Written by `{command}`" in " ".join(card.split())
    assert (Path(__file__).parents[2] / "docs" / "model-card-2026.md").read_text() == card
    assert json.loads((bundle.path / "bundle.json").read_text())["schema_version"] == 9
