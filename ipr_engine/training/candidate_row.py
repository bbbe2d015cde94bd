"""One candidate more for heads that stay frozen: its row is fitted as a combination of the others' rows plus a deviation.

Candidates fail on much the same prompts, and the frozen heads know on which. So a new candidate's score is

    b + c * (mean of the others' scores) + sum over k of d[k] * (score k - mean) + w . features

with c all but free, d and w shrunk to 0: with few prompts it follows the mean, with many it goes its own way. All terms
are linear in what the row multiplies, so the sum folds into one row of the packed form (docs/design.md section 3).

The heads may have been fitted on the very prompts that the new candidate is judged on. Their scores there know more than
they would of fresh prompts, and cross-validation, which cannot tell, would trust d too much: its penalty is fixed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.errors import InvalidInputError
from ipr_engine.reference import ACTIVATIONS
from ipr_engine.training.folds import grouped_folds
from ipr_engine.training.platt import fit_platt, sigmoid
from ipr_engine.training.tokens import CAP_PERCENTILE

Array = npt.NDArray[np.float64]
Row = dict[str, npt.NDArray[np.float32]]
Tensors = Mapping[str, npt.NDArray[np.float32]]

LAYER = ("identity", "up", "down")  # what makes a candidate's hidden layer its own
FREE = 0.3  # penalty of the mean's coefficient: it shrinks by under a hundredth on 50 prompts
COMBINATION = 100.0  # penalty of d: noise of a 0/1 quality over the variance of d, some 0.2 / 0.05^2
DEVIATION = (10.0, 30.0, 100.0)  # of w: 0.2 over the variance of a deviation of some 0.05 to 0.15 in quality


@dataclass(frozen=True)
class CandidateRow:
    """A fitted row.

    Attributes:
        tensors: name -> row, float32, for every tensor of the heads that has rows.
        out_of_fold_quality: (rows,), each by a fit that has not seen its fold (penalties and Platt's map have).
        host: index of the candidate whose hidden layer (identity, adapter) the row shares, None in linear heads.
        settings: plain JSON types.
    """

    tensors: Row
    out_of_fold_quality: Array
    host: int | None
    settings: dict[str, Any]


@dataclass(frozen=True)
class Combined:
    """A fit as weights on the others' scores and on the features: score = x_features @ own + others @ shares + bias."""

    shares: Array
    own: Array
    bias: float
    out_of_fold: Array
    weights: Array  # of the penalties averaged over, (len(DEVIATION),)


def fit_row(
    tensors: Tensors,
    activation: str,
    x: Array,
    quality: Array,
    tokens: Array | None,
    keys: Sequence[str],
    *,
    folds: int = 5,
    seed: int = 0,
) -> CandidateRow:
    """Fit the new candidate's row of every tensor, the quality calibrated by Platt's map out of fold and folded in.

    Args:
        tensors: of the frozen heads, a row per existing candidate.
        x: (rows, dim) embeddings. quality: (rows,) in [0, 1]. tokens: (rows,) output tokens >= 0, NaN where unknown; None
            where the heads predict none, or the caller gives the tokens' rows.
        keys: (rows,) the question of each row; one question stays in one fold.
    Raises:
        InvalidInputError: shapes disagree or a value is out of range.
    """
    if x.ndim != 2 or quality.shape != (len(x),) or len(keys) != len(x):
        raise InvalidInputError(
            f"x, quality, keys: expected equal rows, got {x.shape}, {quality.shape} and {len(keys)} keys"
        )
    if not (np.isfinite(x).all() and ((quality >= 0) & (quality <= 1)).all()):
        raise InvalidInputError("x, quality: expected finite x and quality in [0, 1]; leave out rows without a quality")
    fold_of_row = grouped_folds(keys, folds, seed)
    host = None if "out" not in tensors else _best_host(tensors, activation, x, quality)
    group = list(range(len(tensors["bias"]))) if host is None else _sharing(tensors, host)
    features = _features(tensors, activation, x, host)
    row = {name: tensors[name][host] for name in LAYER if name in tensors and host is not None}
    weights = np.concatenate([tensors[name][group] for name in ("skip", "out") if name in tensors], axis=1)
    weights, bias = weights.astype(np.float64), tensors["bias"][group].astype(np.float64)
    fit = combine(features, features @ weights.T + bias, quality, fold_of_row)
    slope, offset = fit_platt(fit.out_of_fold, quality)
    folded = slope * (fit.own + fit.shares @ weights)
    dim = tensors["skip"].shape[1] if "skip" in tensors else 0
    row |= {name: part for name, part in (("skip", folded[:dim]), ("out", folded[dim:])) if name in tensors}
    row["bias"] = np.asarray(slope * (fit.bias + fit.shares @ bias) + offset)
    settings: dict[str, Any] = {
        "folds": folds,
        "seed": seed,
        "penalty_weights": fit.weights.round(6).tolist(),
        "platt_slope": float(slope),
        "platt_offset": float(offset),
    }
    if tokens is not None and "len_skip" in tensors:
        length, settings["smearing"] = _fit_tokens_row(tensors, x, tokens, fold_of_row)
        row |= length
    return CandidateRow(
        {name: np.array(value, np.float32, order="C") for name, value in row.items()},
        sigmoid(slope * fit.out_of_fold + offset),
        host,
        settings,
    )


def combine(features: Array, others: Array, y: Array, folds: npt.NDArray[np.int64]) -> Combined:
    """Fit y (rows,) on others (rows, K) and features (rows, D) as the module says.

    The penalties of w are averaged over, each weighted by the likelihood of its out-of-fold errors: choosing the best one
    alone is a gamble on few rows.
    """
    models = others.shape[1]
    mean = others.mean(axis=1, keepdims=True)
    columns = np.concatenate([mean, others - mean, features], axis=1)
    penalties = np.array([[FREE, *[COMBINATION] * models, *[w] * features.shape[1]] for w in DEVIATION])
    held_out = np.empty((len(DEVIATION), len(y)))
    for fold in np.unique(folds):
        out = folds == fold
        weights, bias = _ridge(columns[~out], y[~out], penalties)
        held_out[:, out] = weights @ columns[out].T + bias[:, None]
    error = np.square(held_out - y).mean(axis=1)
    least = max(float(error.min()), 1e-12)
    share = np.exp(-len(y) * (error - error.min()) / (2 * least))
    share /= share.sum()
    weights, bias = _ridge(columns, y, penalties)
    coefficient = share @ weights
    around = coefficient[1 : 1 + models]
    return Combined(
        coefficient[0] / models + around - around.mean(),
        coefficient[1 + models :],
        float(share @ bias),
        share @ held_out,
        share,
    )


def _ridge(columns: Array, y: Array, penalties: Array) -> tuple[Array, Array]:
    """Weights (penalties, columns) and bias (penalties,) at every row of (penalties, columns); the bias is free."""
    centre, level = columns.mean(axis=0), y.mean()
    centred = columns - centre
    gram, target = centred.T @ centred, centred.T @ (y - level)
    weights = np.stack([np.linalg.solve(gram + np.diag(penalty), target) for penalty in penalties])
    return weights, level - weights @ centre


def _features(tensors: Tensors, activation: str, x: Array, host: int | None) -> Array:
    """What the row's skip and out multiply, (rows, dim + hidden) or the one of them that exists."""
    parts = [x] if "skip" in tensors else []
    if host is not None:
        hidden = np.zeros((len(x), tensors["out"].shape[1]))
        if "trunk" in tensors:
            hidden += x @ tensors["trunk"].T.astype(np.float64)
        if "identity" in tensors:
            hidden += tensors["identity"][host]
        if "down" in tensors:
            adapter = x @ tensors["down"][host].T.astype(np.float64)  # (rows, rank)
            hidden += adapter @ tensors["up"][host].T.astype(np.float64)
        parts.append(ACTIVATIONS[activation](hidden))
    return np.concatenate(parts, axis=1)


def _sharing(tensors: Tensors, host: int) -> list[int]:
    """The candidates whose hidden layer is the host's own, the host among them."""
    layer = [tensors[name] for name in LAYER if name in tensors]
    return [m for m in range(len(tensors["bias"])) if all((part[m] == part[host]).all() for part in layer)]


def _best_host(tensors: Tensors, activation: str, x: Array, quality: Array) -> int:
    """The candidate whose scores, through a Platt map, tell most of `quality`; the first where one layer is shared by all."""
    if len(_sharing(tensors, 0)) == len(tensors["bias"]):
        return 0
    losses = []
    for m in range(len(tensors["bias"])):
        weights = np.concatenate([tensors[name][m] for name in ("skip", "out") if name in tensors])
        score = _features(tensors, activation, x, m) @ weights + tensors["bias"][m]
        slope, offset = fit_platt(score, quality)
        logit = slope * score + offset
        losses.append(float((np.logaddexp(0.0, logit) - quality * logit).mean()))
    return int(np.argmin(losses))


def _fit_tokens_row(
    tensors: Tensors, x: Array, tokens: Array, folds: npt.NDArray[np.int64]
) -> tuple[dict[str, npt.NDArray[Any]], float]:
    """len_skip, len_bias and len_cap (where the heads have one), and Duan's smearing factor (training/tokens.py)."""
    known = ~np.isnan(tokens)
    counted = np.maximum(tokens[known], 1.0)
    if not np.isfinite(counted).all() or (tokens[known] < 0).any():
        raise InvalidInputError("tokens: expected counts >= 0, or NaN where unknown")
    weights, bias = tensors["len_skip"].astype(np.float64), tensors["len_bias"].astype(np.float64)
    fit = combine(x[known], x[known] @ weights.T + bias, np.log(counted), folds[known])
    smearing = float(np.exp(np.log(counted) - fit.out_of_fold).mean())
    row: dict[str, npt.NDArray[Any]] = {
        "len_skip": fit.own + fit.shares @ weights,
        "len_bias": np.asarray(fit.bias + fit.shares @ bias + np.log(smearing)),
    }
    if "len_cap" in tensors:
        row["len_cap"] = np.asarray(np.percentile(counted, CAP_PERCENTILE))
    return row, smearing
