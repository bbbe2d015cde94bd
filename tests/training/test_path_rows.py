"""Path rows of `ipr train` and `ipr add-model`: out of fold, of the prompts the heads speak of, in an order that tells nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ipr_engine import Engine
from ipr_engine.bundle import Bundle, PathRows
from ipr_engine.bundle.edit import without_candidate
from ipr_engine.bundle.two_tiers import two_tiers
from ipr_engine.data import load_outcomes
from ipr_engine.measures.prediction import brier
from ipr_engine.training.fitted_heads import predict
from ipr_engine.training.fitted_parts import OutOfFold, draw_path_rows
from tests.support.hard_words import CREATED, NAMES, write_outcomes
from tests.support.seeds import seeded
from tests.support.training_data import add_model, train

pytest.importorskip("threadpoolctl", reason="needs extra [train]: a repeatable fit")


def listed(path: Path, *which: int) -> Path:
    entries = [
        {"name": NAMES[m], "source": f"m{m}", "family": NAMES[m].split("/")[0], "provider": "test"}
        | {"input_usd_per_1m": 4.0 / 2**m, "output_usd_per_1m": 8.0 / 2**m, "context_window": 4096, "features": []}
        for m in which
    ]
    path.write_text(json.dumps({"date": CREATED, "candidates": entries}))
    return path


def fitted(outcomes: Any, folder: Path, *which: int, **arguments: Any) -> Bundle:
    folder.mkdir(parents=True, exist_ok=True)
    file = listed(folder / "candidates.json", *which)
    arguments = {"estimator": "plain", "allow_constant": True, **arguments}
    return Bundle.load(train(outcomes, file, folder / "root", name="t", created=CREATED, **arguments).folder)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_outcomes(tmp_path_factory.mktemp("data") / "home")


@pytest.fixture(scope="module")
def base(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return fitted(source, tmp_path_factory.mktemp("base"), 0, 1, 2)


def rows_of(bundle: Bundle) -> PathRows:
    assert bundle.path_rows is not None
    return bundle.path_rows


# -- the draw


def drawn(order: np.ndarray, *, seed: int = 0, rows: int = 50) -> PathRows:
    """Rows whose bill is their number, given in this order."""
    rng = seeded("drawn", rows)
    predicted, outcome = rng.random((rows, 2)), rng.integers(0, 2, (rows, 2)).astype(float)
    outcome[3], outcome[4, 0] = np.nan, np.nan
    made = draw_path_rows(
        [f"id{row}" for row in order],
        [f"prompt {row}" for row in order],
        ("a", "b"),
        predicted=OutOfFold(predicted[order], 100 * predicted[order]),
        outcome=outcome[order],
        billed_tokens=np.arange(rows)[order],
        seed=seed,
    )
    assert made is not None
    return made


def test_the_rows_do_not_depend_on_the_order_of_the_prompts() -> None:
    one, two = drawn(np.arange(50)), drawn(seeded("turned").permutation(50))
    for name in ("quality", "tokens_out", "outcome", "billed_tokens"):
        assert getattr(one, name).tobytes() == getattr(two, name).tobytes()


def test_the_order_is_the_seeds_and_not_that_of_the_ids() -> None:
    one, two = drawn(np.arange(50)), drawn(np.arange(50), seed=1)
    assert sorted(one.billed_tokens) == sorted(two.billed_tokens) == sorted(set(range(50)) - {3})
    assert (one.billed_tokens != two.billed_tokens).any()
    assert np.abs(np.corrcoef(one.billed_tokens, np.arange(49))[0, 1]) < 0.5


def test_one_other_prompt_gives_every_row_another_place() -> None:
    one, two = drawn(np.arange(50)), drawn(np.arange(51), rows=51)
    assert (one.billed_tokens[:20] != two.billed_tokens[:20]).mean() > 0.5


def test_at_most_4096_rows_are_drawn() -> None:
    made = drawn(np.arange(5000), rows=5000)
    assert len(made.quality) == len(set(made.billed_tokens.tolist())) == 4096


def test_missing_outcomes_are_marked_and_a_prompt_without_any_is_left_out() -> None:
    made = drawn(np.arange(50))
    assert 3 not in made.billed_tokens
    row = int(np.flatnonzero(made.billed_tokens == 4)[0])
    assert made.outcome[row, 0] == 255
    assert set(np.unique(made.outcome)) == {0, 254, 255}
    assert np.isnan(made.realised()[row, 0])


def test_no_prompt_gives_no_rows_and_long_answers_are_clipped() -> None:
    def made(outcome: float, tokens: float) -> PathRows | None:
        shape = np.ones((1, 1))
        given = {"predicted": OutOfFold(shape / 2, tokens * shape), "outcome": outcome * shape}
        return draw_path_rows(["i"], ["p"], ("a",), billed_tokens=np.ones(1, np.int64), seed=0, **given)

    assert made(np.nan, 1.0) is None
    long = made(1.0, 1e9)
    assert long is not None
    assert long.tokens_out[0, 0] == 65504 * 64


# -- train


def test_trained_rows_are_those_of_the_heads_and_out_of_fold(base: Bundle, source: Path) -> None:
    rows = rows_of(base)
    data = load_outcomes(source)
    assert rows.candidates == base.names == NAMES[:3]
    assert rows.heads == (base.quality_heads.sha256,)
    assert len(rows.quality) == 199  # the last prompt has no outcome
    assert (rows.outcome == 255).sum() == sum(n % 7 == 0 for n in range(199))
    assert rows.realised()[:, 0].sum() == np.nansum(data.quality[:, 0])
    assert rows.billed_tokens.min() > 6


def test_trained_rows_are_predicted_out_of_fold(base: Bundle, source: Path) -> None:
    rows, data = rows_of(base), load_outcomes(source)
    x = Engine(base).encode(list(data.prompts)).x.astype(np.float64)
    seen, _ = predict(base.quality_heads.tensors, x, base.quality_heads.activation)
    told = brier(rows.quality.astype(np.float64), rows.realised())
    assert told > brier(seen, data.quality[:, :3])  # a fit looks better on the prompts it has seen


def test_the_bundle_tells_no_id_and_no_text_of_a_row(base: Bundle) -> None:
    for file in base.path.rglob("*"):
        if file.is_file() and "encoders" not in file.parts:
            data = file.read_bytes()
            assert b"secret" not in data
            assert b"triangle" not in data
            assert b" number " not in data


def test_the_rows_of_the_first_source_alone_are_kept(source: Path, tmp_path: Path) -> None:
    other = write_outcomes(tmp_path / "other", first=500, rows=60, gaps=False)
    mixed = fitted([source, other], tmp_path / "mixed", 0, 1, 2)
    parts = fitted([source, other], tmp_path / "parts", 0, 1, 2, intercepts=False)
    assert len(rows_of(mixed).quality) == 199
    assert len(rows_of(parts).quality) == 259


def test_training_twice_gives_one_bundle_and_another_seed_other_rows(
    source: Path, base: Bundle, tmp_path: Path
) -> None:
    key = base.path.parent / "owner.key"
    assert fitted(source, tmp_path / "again", 0, 1, 2, key=key).hash == base.hash
    other = fitted(source, tmp_path / "seeded", 0, 1, 2, seed=1)
    assert (rows_of(other).outcome != rows_of(base).outcome).any()


def test_two_bundles_of_the_same_prompts_join_their_rows(source: Path, base: Bundle, tmp_path: Path) -> None:
    second = fitted(source, tmp_path / "second", 2, 0, 1, estimator="advantage_each")
    joined = Bundle.load(two_tiers(base, second, gap=0.1, root=tmp_path / "joined", provenance={}))
    rows = rows_of(joined)
    assert rows.again_quality is not None
    assert rows.again_quality.tobytes() == rows_of(second).of(NAMES[:3]).quality.tobytes()
    assert rows.heads == (joined.quality_heads.sha256, joined.escalation_heads.sha256)  # type: ignore[union-attr]


# -- add-model


@pytest.fixture(params=["plain", "caps"])
def estimated(request: pytest.FixtureRequest, source: Path, tmp_path: Path) -> Bundle:
    return fitted(source, tmp_path / "estimated", 0, 1, 2, estimator=request.param)


def test_the_fitting_prompts_give_the_new_candidate_a_column(estimated: Bundle, source: Path, tmp_path: Path) -> None:
    new = listed(tmp_path / "new.json", 3)
    added = add_model(estimated.path, new, outcomes=source, created=CREATED, out=tmp_path / "out")
    grown = Bundle.load(added.folder)
    rows, old = rows_of(grown), rows_of(estimated)
    assert rows.candidates == NAMES
    assert rows.without_rows(grown.names) == ()
    assert rows.heads == (grown.quality_heads.sha256,)
    for name in ("quality", "tokens_out", "outcome"):
        assert getattr(rows.of(NAMES[:3]), name).tobytes() == getattr(old, name).tobytes()
    outcome, predicted = rows.realised()[:, 3:], rows.quality[:, 3:].astype(np.float64)
    assert outcome.sum() == load_outcomes(source).quality[:, 3].sum(
        where=~np.isnan(load_outcomes(source).quality[:, 3])
    )
    assert brier(predicted, outcome) < brier(np.full_like(predicted, 0.5), outcome)
    assert np.median(rows.tokens_out[:, 3]) == pytest.approx(110, abs=25)
    assert "gained a column" in str(added.path)


def test_prompts_that_no_head_has_seen_give_new_rows(base: Bundle, tmp_path: Path) -> None:
    fresh = write_outcomes(tmp_path / "fresh", first=1000, rows=520, gaps=False)
    added = add_model(base.path, listed(tmp_path / "n.json", 3), outcomes=fresh, created=CREATED, out=tmp_path / "o")
    grown = Bundle.load(added.folder)
    rows = rows_of(grown)
    assert rows.candidates == NAMES
    assert len(rows.quality) == 520
    assert (rows.outcome != 255).all()
    assert "new path rows of fresh" in str(added.path)


@pytest.mark.parametrize("rows", [60, 520])
def test_else_the_new_candidates_path_is_stale_and_the_others_keep_theirs(
    base: Bundle, tmp_path: Path, rows: int
) -> None:
    few = write_outcomes(tmp_path / "few", first=2000, rows=rows, gaps=rows == 520)  # sparse where they are many
    added = add_model(base.path, listed(tmp_path / "n.json", 3), outcomes=few, created=CREATED, out=tmp_path / "o")
    grown = Bundle.load(added.folder)
    assert rows_of(grown).candidates == NAMES[:3]
    assert rows_of(grown).without_rows(grown.names) == ("house/new",)
    assert rows_of(grown).quality.tobytes() == rows_of(base).quality.tobytes()
    assert str(added.path).startswith("stale: house/new has no path rows")


def test_a_prior_has_no_column(base: Bundle, tmp_path: Path) -> None:
    added = add_model(base.path, listed(tmp_path / "n.json", 3), created=CREATED, out=tmp_path / "o")
    grown = Bundle.load(added.folder)
    assert rows_of(grown).without_rows(grown.names) == ("house/new",)
    assert str(added.path).startswith("stale")
    assert Bundle.load(without_candidate(grown, "house/new")).path_rows is not None
