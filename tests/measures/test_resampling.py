"""The bootstrap: pairing, weights, coverage of the truth, draws in which a figure is undefined. Folds: whole questions, even sizes."""

import re
from pathlib import Path

import numpy as np
import pytest

import ipr_engine
from ipr_engine.errors import InvalidInputError
from ipr_engine.measures.resampling import (
    CHUNK,
    Estimate,
    Resamples,
    difference,
    estimate,
    grouped_folds,
    resamples_of,
)


def test_the_first_row_is_the_sample_itself_and_every_draw_has_all_rows(rng):
    resamples = Resamples(37, draws=2 * CHUNK + 5, seed=1)
    values = rng.random((37, 3))
    np.testing.assert_allclose(resamples.means(values)[0], values.mean(axis=0))
    np.testing.assert_allclose(resamples.sums(np.ones(37)), 37)
    assert resamples.means(values).shape == (2 * CHUNK + 6, 3)


def test_means_equal_resampling_the_rows(rng):
    resamples = Resamples(11, draws=9, seed=3)
    values = rng.random(11)
    for counts, mean in zip(resamples.counts, resamples.means(values), strict=True):
        assert mean == pytest.approx(np.repeat(values, counts).mean())


def test_one_seed_gives_one_answer_and_another_seed_another():
    assert (Resamples(20, draws=5, seed=1).counts == Resamples(20, draws=5, seed=1).counts).all()
    assert (Resamples(20, draws=5, seed=1).counts != Resamples(20, draws=5, seed=2).counts).any()


def test_an_entry_of_weight_zero_does_not_count_even_if_nan():
    resamples = Resamples(2, draws=0)
    assert resamples.means(np.array([[np.nan], [0.25]]), np.array([[0.0], [2.0]]))[0, 0] == 0.25
    assert np.isnan(resamples.means(np.array([[0.5], [0.5]]), np.zeros((2, 1)))[0, 0])


def test_differences_are_paired(rng):
    resamples = Resamples(200, draws=400)
    noise = rng.standard_normal(200)
    a, b = resamples.means(noise + 0.1), resamples.means(noise)
    paired = difference(a, b)
    assert paired.low == pytest.approx(0.1)
    assert paired.high == pytest.approx(0.1)
    assert estimate(a).high - estimate(a).low > 0.1


def test_intervals_cover_the_truth_about_as_often_as_they_say(rng):
    covered = 0
    for seed in range(200):
        sample = rng.random(80) ** 2  # mean 1/3, skewed
        found = estimate(Resamples(80, draws=200, seed=seed).means(sample))
        covered += found.low <= 1 / 3 <= found.high
    # 200 tries at 0.93 to 0.95: three standard errors below 0.93 is 0.876
    assert 175 <= covered <= 200


def test_undefined_draws_are_left_out_and_counted():
    found = estimate(np.array([0.5, np.nan, 0.4, 0.6, np.nan]))
    assert found.defined == 0.5
    assert 0.4 <= found.low <= found.high <= 0.6
    assert estimate(np.array([np.nan, np.nan])).defined == 0
    assert Estimate(float("nan"), 1.0, 2.0).to_json()["value"] is None


def test_whole_questions_are_drawn_and_prompts_where_none_repeats():
    keys = [f"q{i % 7}" for i in range(30)]
    drawn = resamples_of(keys, draws=20, seed=1)
    assert all(len(np.unique(drawn.counts[:, [i, i + 7]], axis=1).T) == 1 for i in range(20))
    apart = resamples_of([str(i) for i in range(30)], draws=20, seed=1)
    assert (apart.counts == Resamples(30, draws=20, seed=1).counts).all()


def test_bad_input_is_named():
    with pytest.raises(InvalidInputError, match="rows, draws"):
        Resamples(0)
    with pytest.raises(InvalidInputError, match="values: expected 3 rows, got 2"):
        Resamples(3, draws=1).means(np.zeros(2))


def test_copies_of_a_question_share_a_fold():
    keys = [f"q{i % 17}" for i in range(101)]
    folds = grouped_folds(keys, 5, seed=3)
    for key in set(keys):
        assert len({fold for fold, of in zip(folds, keys, strict=True) if of == key}) == 1


def test_folds_are_of_even_size_and_repeat_with_the_seed():
    keys = [f"q{i}" for i in range(103)]
    folds = grouped_folds(keys, 5, seed=3)
    assert sorted(np.bincount(folds)) == [20, 20, 21, 21, 21]
    np.testing.assert_array_equal(folds, grouped_folds(keys, 5, seed=3))
    assert (folds != grouped_folds(keys, 5, seed=4)).any()


@pytest.mark.parametrize("folds", [1, 4])
def test_impossible_number_of_folds_is_refused(folds):
    with pytest.raises(InvalidInputError, match="folds"):
        grouped_folds(["a", "b", "c", "a"], folds, seed=0)


def test_no_part_of_a_fit_or_a_judgement_is_dealt_by_row():
    """Copies of a question share a part only where parts are dealt by question (`grouped_folds`, `drawn_questions`)."""
    by_row = re.compile(r"arange\(len\([^)]*\)\) %|(?:permutation|integers|choice)\([^)]*\) (?:%|<)")
    rooms = ("training", "calibration", "evaluation", "collection", "onboarding", "grading")
    files = [path for room in rooms for path in (Path(ipr_engine.__file__).parent / room).rglob("*.py")]
    found = {path.name: by_row.findall(path.read_text()) for path in files}
    # halves_of in contenders.py permutes questions.
    assert {name for name, lines in found.items() if lines} <= {"contenders.py"}
