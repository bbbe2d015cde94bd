"""An estimate of tokens is fitted to counted or recorded tokens: a profile's coefficients, and the table of letter pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ipr_engine._C import TEXT_TERMS
from ipr_engine.tokens.token_profile import PLACES, coefficients_apart, coefficients_beside, terms_apart

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

ROUNDS = 12
STEPS = 400
NEAR = 0.02  # relative errors below it weigh alike: the loss is |error| beyond, squared within
RIDGE = 1e-4  # against collinear terms, as a share of a term's mean square
PRIOR_ROWS = 100.0  # what the profile to stay near weighs, in rows

SYMBOLS = 27  # of a pair: no letter, then a to z
PAIR_ROUNDS = 4
TOP = 0.995  # the quantile of the pairs' costs that 255 stands for
LEFT_OUT = ("letter_pairs", "long_letter_pairs", "beyond_4", "after_punctuation")  # what pairs of letters tell better


def fit_coefficients(terms: Array, tokens: Array, near: Array | None = None) -> Array:
    """Return the coefficients whose estimate `terms @ coefficients` has the least mean relative error; no character costs less than 0.

    Without `near`, a part of a term that no row has costs what the whole term costs.

    Args:
        terms: (rows, terms) float64, what each text is made of; columns of other amounts may follow. tokens: (rows,) > 0.
        near: (terms,) coefficients to stay near where the rows say little; None: near 0. They are first scaled as a
            whole to the rows, so that few rows are enough for a tokenizer that is coarser or finer throughout.
    Raises:
        ValueError: shapes differ, or tokens are not all > 0.
    """
    shares = _shares(terms, tokens)
    aim, ridge = np.zeros(terms.shape[1]), RIDGE * len(tokens)
    if near is not None:
        aim, ridge = coefficients_apart(near), PRIOR_ROWS
        estimate = np.median(shares @ aim)  # 1 where `near` counts as the rows do
        aim = aim / estimate if estimate > 0 else aim
    found = coefficients_beside(_least_error(shares, np.ones(len(tokens)), aim, ridge))
    if near is None:
        found[[part for part in PLACES if not terms[:, part].any()]] = 0.0
    return found


def fit_some(terms: Array, tokens: Array, kept: Array, fitted: Mask) -> Array:
    """Return the coefficients `kept`, those marked in `fitted` replaced by ones of the least mean relative error.

    Characters of other terms cost what they did. Characters of a marked term that no row has cost nothing.

    Args:
        terms: (rows, terms) float64, what each text is made of. tokens: (rows,) > 0.
        kept: (terms,) coefficients. fitted: (terms,), which of them to replace.
    Raises:
        ValueError: shapes differ, or tokens are not all > 0.
    """
    shares, apart = _shares(terms, tokens), coefficients_apart(kept)
    rest = 1 - shares[:, ~fitted] @ apart[~fitted]
    apart[fitted] = _least_error(shares[:, fitted], rest, np.zeros(int(fitted.sum())), RIDGE * len(tokens))
    return coefficients_beside(apart)


def _shares(terms: Array, tokens: Array) -> Array:
    """Return (rows, terms): the terms with every character counted once, over the row's tokens."""
    if terms.ndim != 2 or tokens.shape != (len(terms),) or not (tokens > 0).all():
        raise ValueError(f"tokens: expected ({len(terms)},) values > 0, got {tokens.shape}")
    return terms_apart(terms) / tokens[:, None]


def _least_error(shares: Array, aimed: Array, aim: Array, ridge: float) -> Array:
    """Return the x >= 0 of the least mean `|shares @ x - aimed|`, near `aim`, which weighs `ridge` rows."""
    found, weights = aim, np.ones(len(shares))
    square = (shares**2).mean(axis=0)
    square = np.maximum(square, 1e-6 * square.max())  # a term that no row has must not make the matrix singular
    # least absolute error by reweighted least squares: a row weighs one over its error, NEAR at least
    for _ in range(ROUNDS):
        weighted = shares * weights[:, None]  # (rows, terms)
        gram = weighted.T @ shares + np.diag(ridge * square * weights.mean())
        target = weighted.T @ aimed + ridge * square * weights.mean() * aim
        found = nonnegative_minimum(gram, target, found)
        weights = 1 / np.maximum(np.abs(shares @ found - aimed), NEAR)
    return found


def nonnegative_minimum(gram: Array, target: Array, start: Array) -> Array:
    """Return the x >= 0 of the least `x @ gram @ x / 2 - target @ x`, by coordinate descent from `start`.

    gram: (n, n), symmetric and positive definite.
    """
    at = np.maximum(start, 0).astype(np.float64)
    slope = gram @ at - target
    diagonal = np.diag(gram)
    for _ in range(STEPS):
        most = 0.0
        for j in range(len(at)):
            step = max(-at[j], -slope[j] / diagonal[j])
            if step != 0.0:
                at[j] += step
                slope += gram[:, j] * step
                most = max(most, abs(step) * float(np.sqrt(diagonal[j])))
        if most < 1e-9:
            break
    return at


def letter_pairs(pairs: Array, terms: Array, counted: Mapping[str, Array]) -> npt.NDArray[np.uint8]:
    """Return the (27, 27) table fitted to the mean of several tokenizers, each scaled to the same sum."""
    mean = np.mean([tokens / tokens.mean() for tokens in counted.values()], axis=0)
    kept = [at for at, term in enumerate(TEXT_TERMS) if term not in LEFT_OUT]
    return fit_pairs(pairs, terms_apart(terms)[:, kept], mean)


_CODES = np.zeros(256, np.int64)
_CODES[ord("a") : ord("z") + 1] = _CODES[ord("A") : ord("Z") + 1] = np.arange(1, SYMBOLS)


def pair_counts(texts: Sequence[str]) -> Array:
    """Return (texts, 27 * 27) how often each pair of neighbouring bytes is in a text, case ignored; edges count as no letter."""
    counts = np.zeros((len(texts), SYMBOLS * SYMBOLS))
    for row, text in enumerate(texts):
        codes = np.zeros(len(text.encode()) + 2, np.int64)  # the edges stay 0, no letter
        codes[1:-1] = _CODES[np.frombuffer(text.encode(), np.uint8)]
        counts[row] = np.bincount(codes[:-1] * SYMBOLS + codes[1:], minlength=SYMBOLS * SYMBOLS)
    counts[:, 0] = 0  # two neighbours that are no letters: other terms count those
    return counts


def fit_pairs(pairs: Array, terms: Array, tokens: Array) -> npt.NDArray[np.uint8]:
    """Return the (27, 27) table of costs, 0 to 255, that together with the terms predicts tokens best.

    Args:
        pairs: (texts, 27 * 27), what `pair_counts` returns. terms: (texts, terms) beside them. tokens: (texts,) > 0, the mean over
            tokenizers, each scaled to the same sum.
    """
    shares = np.column_stack([terms, pairs]) / tokens[:, None]  # (texts, terms + 27 * 27)
    square = (shares**2).mean(axis=0)
    weights, found = np.ones(len(tokens)), np.zeros(shares.shape[1])
    for _ in range(PAIR_ROUNDS):
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
