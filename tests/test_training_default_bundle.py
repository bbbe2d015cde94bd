"""The recipe from outcomes to a bundle, on generated outcomes and a small random table."""

from __future__ import annotations

import json

import numpy as np
import pytest
from bundles import make_encoder
from training_data import write_source

from ipr_engine.bundle import Bundle
from ipr_engine.errors import InvalidInputError
from ipr_engine.training import default_bundle
from ipr_engine.training.default_candidates import DEFAULT_CANDIDATES

pytest.importorskip("pyarrow", reason="needs extra [train]: reading parquet")
pytest.importorskip("threadpoolctl", reason="needs extra [train]: a repeatable fit")

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


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    prompts = ["prove the sum is even", "write python code", "what is in the story", "explain how and why"]
    source = write_source(folder / "made", [c.source for c in DEFAULT_CANDIDATES], prompts, rows_per_split=120)
    table = make_encoder(folder / "table")
    (table / "distill.json").write_text(json.dumps(RECORD))
    return source, table


@pytest.fixture(scope="module")
def built(inputs, tmp_path_factory):
    source, table = inputs
    root = tmp_path_factory.mktemp("root")
    default_bundle.main(
        ["--outcomes", str(source), "--table", str(table), "--out", str(root), "--card", str(root / "card")]
    )
    return root


def test_the_bundle_loads_with_every_candidate_price_and_support(built):
    bundle = Bundle.load(built)
    assert [c.name for c in bundle.candidates] == [c.name for c in DEFAULT_CANDIDATES]
    assert set(bundle.prices.prices) == {c.name for c in DEFAULT_CANDIDATES}
    assert bundle.support.centroids.shape == (default_bundle.CENTROIDS, 16)
    assert set(bundle.heads[0].tensors) == {"skip", "bias", "len_skip", "len_bias", "len_cap"}
    assert bundle.heads[0].fitted_on.prompts == 120


def test_same_input_gives_the_same_hash(inputs, built, tmp_path):
    source, table = inputs
    default_bundle.main(["--outcomes", str(source), "--table", str(table), "--out", str(tmp_path)])
    assert (tmp_path / "CURRENT").read_text() == (built / "CURRENT").read_text()


def test_card_copy_equals_the_bundles_card_and_nothing_names_a_path(inputs, built):
    folder = built / (built / "CURRENT").read_text().strip()
    card = (folder / "MODEL_CARD.md").read_bytes()
    assert (built / "card").read_bytes() == card
    for text in (card, (folder / "bundle.json").read_bytes()):
        assert str(inputs[0].parent).encode() not in text
        assert b"/tmp" not in text


def test_no_prompt_is_contained(built):
    for file in (built / (built / "CURRENT").read_text().strip()).rglob("*"):
        if file.is_file():
            assert b"prove the sum is even" not in file.read_bytes()
            assert b"made:0000" not in file.read_bytes()


def test_a_table_without_its_record_is_refused(inputs, tmp_path):
    with pytest.raises(InvalidInputError, match=r"distill\.json"):
        default_bundle.build(
            inputs[0],
            tmp_path,
            encoder_model=None,
            table=make_encoder(tmp_path / "bare"),
            created="2026-01-01",
            card=None,
        )


def test_every_candidate_has_a_priced_basis_and_four_families_at_least():
    assert len({c.name for c in DEFAULT_CANDIDATES}) == len({c.source for c in DEFAULT_CANDIDATES}) == 11
    assert len({c.family for c in DEFAULT_CANDIDATES}) >= 4
    rates = np.array([(c.input_usd_per_1m, c.output_usd_per_1m) for c in DEFAULT_CANDIDATES])
    assert (rates > 0).all()
    assert all("check before quoting" in c.basis for c in DEFAULT_CANDIDATES)
