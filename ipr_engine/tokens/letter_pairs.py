"""How hard each pair of letters is to tokenize: the table behind the term `letter_pairs`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ipr_engine.tokens.fit_profile import NEAR, nonnegative_minimum

Array = npt.NDArray[np.float64]

SYMBOLS = 27  # no letter, then a to z
ROUNDS = 4
RIDGE = 1e-4  # of the commonest pair's mean square: a rare pair costs nothing unless texts say so
TOP = 0.995  # the quantile of the pairs' costs that 255 stands for

_CODES = np.zeros(256, np.int64)
_CODES[ord("a") : ord("z") + 1] = _CODES[ord("A") : ord("Z") + 1] = np.arange(1, SYMBOLS)


def pair_counts(texts: Sequence[str]) -> Array:
    """Return (texts, 27 * 27) how often each pair of neighbouring bytes is in a text, case ignored; edges count as no letter."""
    counts = np.zeros((len(texts), SYMBOLS * SYMBOLS))
    for row, text in enumerate(texts):
        codes = np.zeros(len(text.encode()) + 2, np.int64)
        codes[1:-1] = _CODES[np.frombuffer(text.encode(), np.uint8)]
        counts[row] = np.bincount(codes[:-1] * SYMBOLS + codes[1:], minlength=SYMBOLS * SYMBOLS)
    counts[:, 0] = 0
    return counts


def fit_pairs(pairs: Array, terms: Array, tokens: Array) -> npt.NDArray[np.uint8]:
    """Return the (27, 27) table of costs, 0 to 255, that together with the terms predicts tokens best.

    Args:
        pairs: (texts, 27 * 27), of `pair_counts`. terms: (texts, terms) beside them. tokens: (texts,) > 0, the mean over
            tokenizers, each scaled to the same sum.
    """
    shares = np.column_stack([terms, pairs]) / tokens[:, None]
    square = (shares**2).mean(axis=0)
    weights, found = np.ones(len(tokens)), np.zeros(shares.shape[1])
    for _ in range(ROUNDS):
        weighted = shares * weights[:, None]
        gram = weighted.T @ shares + np.diag(
            RIDGE * len(tokens) * np.sqrt(square * square.max()) * weights.mean() + 1e-12
        )
        found = nonnegative_minimum(gram, weighted.sum(axis=0), found)
        weights = 1 / np.maximum(np.abs(shares @ found - 1), NEAR)
    costs = found[terms.shape[1] :]
    costs[0] = 0
    table = np.round(255 * costs / np.quantile(costs[costs > 0], TOP)).clip(0, 255)
    return table.reshape(SYMBOLS, SYMBOLS).astype(np.uint8)
