"""Imputed quality and chosen prompts: a few answers and the others' outcomes stand in for a whole column."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ipr_engine.errors import InvalidInputError
from ipr_engine.measures.resampling import grouped_folds
from ipr_engine.training.add.candidate_row import fit_row
from ipr_engine.training.add.chosen_prompts import choose_prompts
from ipr_engine.training.add.imputed_quality import (
    MOST_PROMPTS,
    impute_quality,
    imputed_row,
    own_tells_more,
    rows_to_impute,
)
from ipr_engine.training.fitted_heads import HeadRows, fit_heads
from ipr_engine.training.platt import sigmoid
from tests.support.seeds import seeded


def make_table(*seed, rows=1500, models=6, dim=11):
    """x, quality of all candidates, chances: a prompt has a difficulty that x tells a part of only, and candidates differ in two skills."""
    rng = seeded("table", *seed)
    x = rng.standard_normal((rows, dim))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    hidden = 2.5 * rng.standard_normal(rows)
    logit = (
        hidden[:, None]
        + 2 * x @ rng.standard_normal((dim, 2)) @ rng.standard_normal((2, models))
        + np.linspace(1, -1, models)
    )
    chance = sigmoid(logit)
    return x, (rng.random(chance.shape) < chance).astype(float), chance


def judged_on(column, rows):
    known = np.full(len(column), np.nan)
    known[rows] = column[rows]
    return known


def test_what_is_imputed_is_nearer_the_truth_than_what_is_said_without_the_others(request):
    x, quality, chance = make_table(request.node.name)
    asked = seeded("asked").choice(len(x), 200, replace=False)
    folds = np.arange(len(x)) % 5
    made = impute_quality(x, judged_on(quality[:, 2], asked), np.delete(quality, 2, axis=1), folds)
    rest = ~made.judged
    assert made.judged.sum() == 200
    np.testing.assert_array_equal(made.quality[made.judged], quality[made.judged, 2])
    constant = np.square(quality[asked, 2].mean() - chance[rest, 2]).mean()
    assert np.square(made.quality[rest] - chance[rest, 2]).mean() < 0.5 * constant


def test_a_fold_is_imputed_without_its_own_answers(request):
    x, quality, _ = make_table(request.node.name, rows=300)
    asked, folds = np.arange(0, 300, 3), np.arange(300) % 4
    others, column = quality[:, 1:], quality[:, 0].copy()
    made = impute_quality(x, judged_on(column, asked), others, folds)
    column[folds == 2] = 1 - column[folds == 2]
    changed = impute_quality(x, judged_on(column, asked), others, folds)
    np.testing.assert_array_equal(made.unseen[2], changed.unseen[2])
    assert (made.unseen[1] != changed.unseen[1]).any()


def test_the_table_s_mean_is_known_better_than_from_its_own_answers_alone(request):
    x, quality, _ = make_table(request.node.name)
    column, others, folds = quality[:, 3], np.delete(quality, 3, axis=1), np.arange(len(x)) % 5
    own, imputed = [], []
    for draw in range(20):
        asked = seeded("asked", draw).choice(len(x), 100, replace=False)
        made = impute_quality(x, judged_on(column, asked), others, folds)
        own.append(column[asked].mean() - column.mean())
        imputed.append(made.quality.mean() - column.mean())
    assert np.square(imputed).mean() < 0.8 * np.square(own).mean()


def test_a_row_of_imputed_quality_is_a_row_and_each_prediction_out_of_fold(request):
    x, quality, chance = make_table(request.node.name)
    keys = [str(n) for n in range(len(x))]
    heads = fit_heads(HeadRows(x, quality[:, :-1], np.full((len(x), 5), 50.0), keys), estimator="plain")
    known = judged_on(quality[:, -1], np.arange(0, len(x), 10))
    folds = grouped_folds(keys, 5, 0)
    rows = [
        fit_row(heads.tensors, "relu", x, impute_quality(x, part, quality[:, :-1], folds), None, keys)
        for part in (known, np.where(folds == 1, 1 - known, known))  # the answers of one fold, reversed
    ]
    assert set(rows[0].tensors) == {"skip", "bias"}
    predicted = [row.out_of_fold_quality[folds == 1] for row in rows]
    np.testing.assert_allclose(*predicted, atol=1e-5)
    assert np.abs(rows[0].out_of_fold_quality - rows[1].out_of_fold_quality)[folds != 1].max() > 1e-3
    constant = np.square(chance[:, -1].mean() - chance[:, -1]).mean()
    assert np.square(rows[0].out_of_fold_quality - chance[:, -1]).mean() < constant


def test_where_x_says_much_and_the_others_little_own_outcomes_tell_more(request):
    rng = seeded(request.node.name)
    x = rng.standard_normal((1000, 12))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    chance = sigmoid(8 * x @ rng.standard_normal((12, 6)))  # each has skills of its own
    quality, keys = (rng.random(chance.shape) < chance).astype(float), [str(n) for n in range(len(x))]
    heads = fit_heads(HeadRows(x, quality[:, :-1], np.full((len(x), 5), 50.0), keys), estimator="plain")
    asked = np.arange(0, len(x), 5)
    known = judged_on(quality[:, -1], asked)
    of_all = imputed_row(heads.tensors, "relu", x, known, quality[:, :-1], None, keys, seed=0)
    assert of_all.out_of_fold_quality.shape == asked.shape
    own = fit_row(heads.tensors, "relu", x[asked], quality[asked, -1], None, [keys[n] for n in asked])
    assert own_tells_more(own.out_of_fold_quality, of_all.out_of_fold_quality, quality[asked, -1])
    error = [np.square(sigmoid(x @ row.tensors["skip"] + row.tensors["bias"]) - chance[:, -1]) for row in (own, of_all)]
    assert error[0].mean() < error[1].mean()


def test_own_outcomes_tell_more_only_where_that_is_no_chance():
    rng = seeded("told apart")
    quality, own = (rng.random(200) < 0.5).astype(float), np.full(200, 0.5)
    assert not own_tells_more(own, own, quality)
    assert sum(own_tells_more(own, own + rng.normal(0, 0.05, 200), quality) for _ in range(100)) < 10
    assert own_tells_more(own, 0.9 - 0.8 * quality, quality)
    assert not own_tells_more(0.9 - 0.8 * quality, own, quality)


def test_rows_to_impute_are_all_judged_ones_and_some_others():
    known = np.full(2 * MOST_PROMPTS, np.nan)
    known[::8] = 1.0
    rows = rows_to_impute(known)
    assert len(rows) == MOST_PROMPTS
    assert set(range(0, len(known), 8)) <= set(rows.tolist())
    assert (np.diff(rows) > 0).all()


@pytest.mark.parametrize("count", [1, 7, 60, 299])
def test_so_many_prompts_are_chosen_none_twice_the_same_each_time(count):
    quality = (seeded("chosen").random((300, 5)) < 0.7).astype(float)
    rows = choose_prompts(quality, count, seed=3)
    assert len(rows) == count
    assert (np.diff(rows) > 0).all()
    np.testing.assert_array_equal(rows, choose_prompts(quality, count, seed=3))
    assert count in (1, 299) or (rows != choose_prompts(quality, count, seed=4)).any()
    np.testing.assert_array_equal(choose_prompts(quality, 300), np.arange(300))


def test_prompts_where_candidates_disagree_are_chosen_more_often_and_none_never():
    quality = np.repeat([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]], 100, axis=0)
    times = np.zeros(300)
    for seed in range(300):
        times[choose_prompts(quality, 30, seed=seed)] += 1
    agreed, apart, failed = times.reshape(3, 100).mean(axis=1)
    assert apart > 3 * max(agreed, failed)
    assert agreed > 5
    assert failed > 5


@pytest.mark.parametrize(
    ("quality", "count", "message"),
    [
        (np.ones(3), 1, "expected \\(prompts, candidates\\)"),
        (np.full((3, 2), 1.5), 1, "values in"),
        (np.full((3, 2), np.nan), 1, "some of every prompt"),
        (np.ones((3, 2)), 0, "count: expected an int >= 1"),
    ],
)
def test_what_cannot_be_chosen_from_is_refused(quality, count, message):
    with pytest.raises(InvalidInputError, match=message):
        choose_prompts(quality, count)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"others": np.full((40, 2), np.nan)}, "qualities in"),
        ({"others": np.ones((39, 2))}, "equal rows"),
        ({"quality": np.full(40, np.nan)}, "judged rows in more than one fold"),
        ({"quality": np.full(40, 2.0)}, "qualities in"),
    ],
)
def test_what_cannot_be_imputed_is_refused(changed, message):
    rng = seeded("refused")
    given = {"x": rng.random((40, 3)), "quality": np.ones(40), "others": np.ones((40, 2)), "folds": np.arange(40) % 2}
    with pytest.raises(InvalidInputError, match=message):
        impute_quality(**(given | changed))


def test_what_is_said_of_draws_and_rows_is_what_the_study_found():
    docs = Path(__file__).parents[3] / "docs"
    found = json.loads((docs / "studies" / "chosen_prompts.json").read_text())
    sources = [name for name, one in found.items() if isinstance(one, dict) and "full" in one]
    told = (docs / "adding-a-model.md").read_text()
    own, product, contested = "random, its own outcomes", "random, as add-model does", "contested, as add-model does"
    shares = {name: [found[name][method]["share"] for method in (own, product, contested)] for name in sources}
    for name, row in shares.items():
        cells = " | ".join(f"{one['value']:.2f} [{one['low']:.2f}, {one['high']:.2f}]" for one in row)
        assert f"| {name} | {cells} |" in told
    reached = [sum(row[column]["value"] >= 0.8 for row in shares.values()) for column in range(3)]
    assert (len(sources), reached) == (4, [1, 3, 3])
    drawn = [found[name]["differences"][f"{contested} - {product}"] for name in sources]
    assert all(one["low"] < 0 < one["high"] for one in drawn)
    fitted = [found[name]["differences"][f"{product} - {own}"] for name in sources]
    assert (sum(one["low"] > 0 for one in fitted), sum(one["high"] < 0 for one in fitted)) == (3, 1)
