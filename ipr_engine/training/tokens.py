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
    """Mean of exp(residual) over rows: (rows, models) -> (models,)."""
    return np.asarray(np.exp(residual).mean(axis=0))


def fit_tokens(x: Array, tokens: Array, folds: npt.NDArray[np.int64]) -> TokensFit:
    """Fit (rows, models) token counts >= 0; an empty answer counts as one token. Residuals are those out of fold."""
    if not (np.isfinite(tokens).all() and (tokens >= 0).all()):
        raise InvalidInputError("tokens: expected finite counts >= 0")
    log_tokens = np.log(np.maximum(tokens, 1.0))
    fit = fit_ridge(x, log_tokens, folds)
    smearing = smearing_factor(log_tokens - fit.out_of_fold)
    bias = fit.bias + np.log(smearing)
    cap = np.percentile(np.maximum(tokens, 1.0), CAP_PERCENTILE, axis=0)
    out_of_fold = np.minimum(np.exp(fit.out_of_fold) * smearing, cap)
    return TokensFit(fit.weights, bias, cap, smearing, out_of_fold)
