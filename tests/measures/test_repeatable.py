from __future__ import annotations

import numpy as np
import pytest

from ipr_engine.errors import InvalidInputError
from ipr_engine.measures.resampling import grouped_folds


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
