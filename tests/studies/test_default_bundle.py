"""The recipe from outcomes of two sources to a bundle with its card, on generated outcomes and a small random table."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ipr_engine import Engine
from ipr_engine.bundle import Bundle
from ipr_engine.bundle.candidates_file import read_candidates
from ipr_engine.data import name_in_source
from ipr_engine.errors import InvalidInputError
from studies.default_bundle import recipe as default_bundle
from tests.support import skips
from tests.support.bundles import make_bundle, make_encoder
from tests.support.training_data import write_source

for module in ("pyarrow", "threadpoolctl"):
    pytest.importorskip(module, reason=skips.TRAIN)
pytest.importorskip("sklearn", reason=skips.EVAL)

RECORD = {
    "source": "made up",
    "source_weights_sha256": None,
    "dim": 16,
    "sif": 1e-4,
    "dtype": "float32",
    "seed": 0,
    "rows": 100,
    "cosine_to_float32": {"probes": 1, "mean": 1.0, "least": 1.0},
    "versions": {"model2vec": "0"},
}
PROMPTS = ["prove the sum is even", "write python code", "what is in the story", "explain how and why"]
ASKED = read_candidates(default_bundle.CANDIDATES)
NAMES = [candidate.name for candidate in ASKED.candidates]
IN_BOTH = ["llama-3.1-70b-instruct", "llama-3.1-8b-instruct"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    home = write_source(
        folder / "zeroeval", [name_in_source(ASKED.named, n, "zeroeval") for n in NAMES], PROMPTS, rows_per_split=120
    )
    other = write_source(folder / "mmlu_pro", [name_in_source(ASKED.named, n, "mmlu_pro") for n in IN_BOTH], PROMPTS)
    stats = {
        "repo": "made/up",
        "commit": "c0ffee",
        "licence": "CC0",
        "quality": "a coin",
        "tokens": "drawn",
        "cost": "drawn",
    }
    (home / "stats.json").write_text(json.dumps(stats))
    table = make_encoder(folder / "table")
    (table / "distill.json").write_text(json.dumps(RECORD))
    return [home, other], table


def build(inputs, root):
    sources, table = inputs
    given = [part for source in sources for part in ("--outcomes", str(source))]
    default_bundle.main(
        [
            *given,
            "--table",
            str(table),
            "--out",
            str(root),
            "--card",
            str(root / "card"),
            "--draws",
            "20",
            "--allow-constant",
        ]
    )
    return root


@pytest.fixture(scope="module")
def built(inputs, tmp_path_factory):
    return build(inputs, tmp_path_factory.mktemp("root"))


@pytest.fixture(scope="module")
def card(built):
    return (built / "card").read_text()


def test_the_bundle_has_every_candidate_price_and_support_and_is_the_only_one(built):
    bundle = Bundle.load(built)
    assert bundle.names == tuple(NAMES)
    assert bundle.prices == ASKED.prices
    assert bundle.support is not None
    assert bundle.path_rows.candidates == bundle.names
    assert len(bundle.path_rows.quality) == 120 + 80  # parts of one traffic
    assert bundle.quality_heads.fitted_on.prompts == 120 + 80
    assert sorted(path.name for path in built.iterdir()) == sorted([bundle.hash, "CURRENT", "card", "owner.key"])


def test_it_routes(built):
    decision = Engine.load(built).route("prove the sum is even", tau=0.1)
    assert decision.model in NAMES


def test_same_input_gives_the_same_hash(inputs, built, tmp_path):
    assert (build(inputs, tmp_path) / "CURRENT").read_text() == (built / "CURRENT").read_text()


def test_provenance_keeps_what_train_wrote_and_adds_whence_it_all_came(built):
    found = Bundle.load(built).provenance
    assert (found["recipe"], found["outcomes"], found["intercepts"]) == ("ipr train", ["zeroeval", "mmlu_pro"], False)
    assert found["settings"]["estimator"] == default_bundle.ESTIMATOR
    home, other = found["default_bundle"]["sources"]
    assert (home["repository"], home["commit"], home["licence"]) == ("made/up", "c0ffee", "CC0")
    assert set(home["files_sha256"]) == {"prompts.parquet", "outcomes.parquet"}
    assert other["licence"] == "not stated"
    assert found["default_bundle"]["encoder"]["source"] == "made up"


def test_the_card_says_of_each_source_what_ipr_eval_says(built, inputs, card):
    from ipr_engine.data import load_outcomes
    from ipr_engine.evaluation.markdown import number
    from tests.support.evaluation_data import evaluate_engine

    for folder in inputs[0]:
        figures = evaluate_engine(Engine.load(built), load_outcomes(folder), draws=20).figures
        part = card.split(f"## On the test split of {folder.name}")[1].split("\n## ")[0]
        for line in figures["candidates"]:
            assert f"| {line['name']} | {number(line['quality'])} | {line['predicted_quality']:.3f} |" in part
        areas = {line["name"]: number(line["area"]) for line in figures["contenders"]}
        assert f"| **router, worth** | {areas['router, worth']} |" in part
        assert f"| k-means, worth | {areas['k-means, worth']} |" in part


def test_the_card_names_its_sources_and_their_licences(card):
    assert "**zeroeval** (made/up): a coin." in card
    assert "Outcomes: made/up, commit c0ffee, CC0." in card
    assert "Encoder: made up, not stated; distilled" in card
    assert "nan" not in card.lower()
    assert "None" not in card


def test_the_bundles_card_is_the_one_written_and_nothing_names_a_path(inputs, built, card):
    bundle = Bundle.load(built)
    assert bundle.extra_files["MODEL_CARD.md"].read_text() == card
    for text in (card, (bundle.path / "bundle.json").read_text()):
        assert str(inputs[1].parent) not in text
        assert "/tmp" not in text


def test_no_prompt_is_contained(built):
    for file in Bundle.load(built).path.rglob("*"):
        if file.is_file():
            assert b"prove the sum is even" not in file.read_bytes()
            assert b"made:0000" not in file.read_bytes()


def test_the_table_of_a_bundle_of_this_recipe_is_taken_as_it_is(inputs, built, tmp_path):
    folder = default_bundle.build(inputs[0], tmp_path, table=built, draws=20, allow_constant=True)
    before, after = Bundle.load(built), Bundle.load(folder)
    assert after.hash == before.hash


def test_heads_are_kept_where_that_is_asked_for(inputs, built, tmp_path):
    folder = default_bundle.build(inputs[0], tmp_path, table=built, keep_heads=True, draws=20)
    before, after = Bundle.load(built), Bundle.load(folder)
    assert after.quality_heads.sha256 == before.quality_heads.sha256
    assert after.provenance["default_bundle"]["heads_kept_of"] == before.hash
    card = " ".join(after.extra_files["MODEL_CARD.md"].read_text().split())
    assert "Heads, path rows and support are those of an earlier bundle of this recipe (`--keep-heads`)" in card
    assert "--table FOLDER --keep-heads --out ROOT" in card
    with pytest.raises(InvalidInputError, match="keep_heads: expected the outcomes that the bundle was fitted on"):
        default_bundle.build(inputs[0][::-1], tmp_path / "out", table=built, keep_heads=True)
    with pytest.raises(InvalidInputError, match="keep_heads: expected a bundle of this recipe as table"):
        default_bundle.build(inputs[0], tmp_path / "out", table=inputs[1], keep_heads=True)


def test_the_table_folds_width_and_the_card_says_what_that_is_worth(built, card):
    assert Bundle.load(built).encoders[0].fold_width
    assert "| zeroeval, in full width | 100.0% |" in card
    assert "| zeroeval, in full width, without folding | 0.0% |" in card


def test_the_card_tells_of_the_path_rows(built, card):
    assert f"of {len(Bundle.load(built).path_rows.quality)} training prompts, in random order" in card
    assert "outcomes are, without them and in random order" in card


def test_a_bundle_of_another_recipe_is_no_table(inputs, tmp_path):
    with pytest.raises(InvalidInputError, match="expected a bundle that this recipe wrote"):
        default_bundle.build(inputs[0], tmp_path / "out", table=make_bundle(tmp_path))


def test_a_table_without_its_record_is_refused(inputs, tmp_path):
    with pytest.raises(InvalidInputError, match=r"distill\.json"):
        default_bundle.build(inputs[0], tmp_path, table=make_encoder(tmp_path / "bare"))


def test_an_encoder_and_a_table_are_one_too_many(inputs, tmp_path):
    with pytest.raises(InvalidInputError, match="expected one of both"):
        default_bundle.build(inputs[0], tmp_path, table=inputs[1], encoder_model="x")


def test_every_candidate_is_priced_with_a_basis_and_of_four_families_at_least():
    assert len(set(NAMES)) == len({name_in_source(ASKED.named, name, "zeroeval") for name in NAMES}) == 11
    assert len({candidate.family for candidate in ASKED.candidates}) >= 4
    prices = ASKED.prices.prices.values()
    assert (np.array([(price.input_usd_per_1m, price.output_usd_per_1m) for price in prices]) > 0).all()
    assert all("check before quoting" in price.basis for price in prices)
