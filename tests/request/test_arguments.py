"""Arguments of one call: a bool is no number, wherever it stands; what float32 cannot hold is infinite, without a warning."""

import warnings

import numpy as np
import pytest

from ipr_engine.errors import InvalidInputError
from ipr_engine.request.arguments import per_model, whole_counts


@pytest.mark.parametrize("given", [[True, 5], (5, False), [np.True_, 5]])
def test_a_bool_among_counts_is_refused(given):
    with pytest.raises(InvalidInputError, match="billed_tokens: expected"):
        whole_counts(given, 2)


@pytest.mark.parametrize("given", [[True, 1.0], [[1, 2], [3, False]]])
def test_a_bool_among_numbers_is_refused(given):
    with pytest.raises(InvalidInputError, match="tokens_out: expected"):
        per_model("tokens_out", given, 2, 2)


def test_a_number_over_float32_is_infinite_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isinf(per_model("extra_usd", [1.0, 1e300], 1, 2)).tolist() == [False, True]
