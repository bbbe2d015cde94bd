"""Output tokens per candidate: ridge on their logarithm, brought back to a mean by Duan's smearing factor.

exp of a fitted log is a median-like value and too low as a mean. Duan (1983): multiply by the mean of exp(residual).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ipr_engine.errors import InvalidInputError
from ipr_engine.training.ridge import fit_ridge

Array = npt.NDArray[np.float64]

# No prediction above what the candidate wrote on all but one in two hundred fitting prompts.
CAP_PERCENTILE = 99.5


@dataclass(frozen=True)
class TokensFit:
    """tokens = min(exp(x @ skip.T + bias), cap), the form of docs/design.md section 3.

    Attributes:
        skip: (models, dim). bias: (models,), the log of `smearing` included. cap, smearing: (models,).
        out_of_fold: (rows, models) predicted tokens, each row by a fit that has not seen its fold.
    """

    skip: Array
    bias: Array
    cap: Array
    smearing: Array
    out_of_fold: Array


def smearing_factor(residual: Array) -> Array:
    """Mean of exp(residual) over rows, NaN left out: (rows, models) -> (models,)."""
    return np.asarray(np.nanmean(np.exp(residual), axis=0))


def fit_tokens(
    x: Array, tokens: Array, folds: npt.NDArray[np.int64], at_home: npt.NDArray[np.bool_] | None = None
) -> TokensFit:
    """Fit (rows, models) token counts >= 0, NaN where unknown; an empty answer counts as one token.

    Residuals are those out of fold. Smearing factor and cap come from the rows `at_home` (rows,) where a candidate has
    some there, else from all its rows.
    """
    if np.isinf(tokens).any() or (tokens < 0).any():
        raise InvalidInputError("tokens: expected counts >= 0, or NaN where unknown")
    if at_home is not None:
        home = tokens[at_home]
        elsewhere = np.isnan(home).all(axis=0)  # candidates without a count at home
        level = np.where(at_home[:, None] | elsewhere, tokens, np.nan)
    else:
        level = tokens
    log_tokens = np.log(np.maximum(tokens, 1.0))
    fit = fit_ridge(x, log_tokens, folds)
    smearing = smearing_factor(np.where(np.isnan(level), np.nan, log_tokens - fit.out_of_fold))
    bias = fit.bias + np.log(smearing)
    cap = np.nanpercentile(np.maximum(level, 1.0), CAP_PERCENTILE, axis=0)
    out_of_fold = np.minimum(np.exp(fit.out_of_fold) * smearing, cap)
    return TokensFit(fit.weights, bias, cap, smearing, out_of_fold)
