"""`fit_row` fits a candidate's row to frozen heads, as a combination of the others' rows plus a deviation.

Candidates fail on much the same prompts, and the frozen heads know on which. So a new candidate's logit is

    b + c * (mean of the others' logits) + sum over k of d[k] * (logit k - mean) + w . features

with a Gaussian prior, c ~ N(1, 0.1^2), d ~ N(0, 0.1^2), w . features about 0.5 wide, and b free: with few prompts it is the
mean, shifted; with many it goes its own way. The most probable values are found by Newton's method on the logistic loss,
so quality is calibrated without a further map. All terms are linear in what the row multiplies, and in the leaves of a forest:
the sum folds into one row of the packed form (docs/decide.md). Output tokens likewise, on their logarithm and with squared loss.

The heads may have been fitted on the very prompts that the new candidate is judged on. Their logits there know more than
they would of fresh prompts, and cross-validation, which cannot tell, would trust them too much: hence a fixed prior.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.decide.reference import ACTIVATIONS
from ipr_engine.errors import InvalidInputError
from ipr_engine.measures.resampling import grouped_folds
from ipr_engine.training.add.frozen_logits import Tensors, added_by_trees, linear_columns
from ipr_engine.training.fitted_heads import CAP_PERCENTILE
from ipr_engine.training.platt import fit_platt, sigmoid

Array = npt.NDArray[np.float64]
Row = dict[str, npt.NDArray[np.float32]]

LAYER = ("identity", "up", "down")  # what makes a candidate's hidden layer its own
SHARE_WIDTH = 0.1  # prior standard deviation of c and of each d
DEVIATION_WIDTH = 0.5  # of w . features over the prompts, in logits (or log tokens)
STEPS, ENOUGH = 50, 1e-6  # Newton's: the most, and the greatest change of a weight that ends them


@dataclass(frozen=True)
class CandidateRow:
    """A `CandidateRow` is the row that was fitted for a new candidate.

    Attributes:
        tensors: name -> row, float32, for every tensor of the heads that has rows.
        out_of_fold_quality: (rows,), each by a fit that has not seen its fold.
        host: index of the candidate whose hidden layer (identity, adapter) the row shares, None in linear heads.
        settings: plain JSON types.
    """

    tensors: Row
    out_of_fold_quality: Array
    host: int | None
    settings: dict[str, Any]


@dataclass(frozen=True)
class ImputedQuality:
    """An `ImputedQuality` holds a candidate's quality on every prompt of a table.

    Attributes:
        judged: (rows,) whether the quality is its own outcome.
        quality: (rows,) in [0, 1], elsewhere imputed.
        unseen: (folds, rows) the same without the outcomes of one fold: there it is imputed by answers of the other folds alone.
    """

    judged: npt.NDArray[np.bool_]
    quality: Array
    unseen: Array


@dataclass(frozen=True)
class Combined:
    """A `Combined` predicts (a logit, say) features @ own + others @ shares + bias; out_of_fold (rows,) likewise."""

    shares: Array
    own: Array
    bias: float
    out_of_fold: Array


def fit_row(
    tensors: Tensors,
    activation: str,
    x: Array,
    quality: Array | ImputedQuality,
    tokens: Array | None,
    keys: Sequence[str],
    *,
    folds: int = 5,
    seed: int = 0,
) -> CandidateRow:
    """Fit the new candidate's row of every tensor by the model of this module.

    Args:
        tensors: of the frozen heads, a row per existing candidate.
        x: (rows, dim) embeddings. tokens: (rows,) output tokens >= 0, NaN where unknown; None where the heads predict none,
            or the caller gives the tokens' rows.
        quality: (rows,) in [0, 1], or imputed where the candidate is not judged, with the same folds and seed.
        keys: (rows,) the question of each row; one question stays in one fold.
    Raises:
        InvalidInputError: shapes disagree or a value is out of range.
    """
    imputed = quality if isinstance(quality, ImputedQuality) else None
    quality = quality.quality if isinstance(quality, ImputedQuality) else quality
    if x.ndim != 2 or quality.shape != (len(x),) or len(keys) != len(x):
        raise InvalidInputError(
            f"x, quality, keys: expected equal rows, got {x.shape}, {quality.shape} and {len(keys)} keys"
        )
    if not (np.isfinite(x).all() and ((quality >= 0) & (quality <= 1)).all()):
        raise InvalidInputError("x, quality: expected finite x and quality in [0, 1]; leave out rows without a quality")
    fold_of_row = grouped_folds(keys, folds, seed)
    host = None if "out" not in tensors else best_host(tensors, activation, x, quality)
    group = list(range(len(tensors["bias"]))) if host is None else sharing(tensors, host)
    features = features_of(tensors, activation, x, host)
    row = {name: tensors[name][host] for name in LAYER if name in tensors and host is not None}
    weights = np.concatenate([tensors[name][group] for name in ("skip", "out") if name in tensors], axis=1)
    weights, bias = weights.astype(np.float64), tensors["bias"][group].astype(np.float64)
    others = features @ weights.T + bias + added_by_trees(tensors, x, group)
    fit = combine(features, others, quality, fold_of_row, logistic=True, imputed=imputed)
    # A sum of rows is a row: the shares of the others fold into the new one.
    whole = fit.own + fit.shares @ weights
    dim = tensors["skip"].shape[1] if "skip" in tensors else 0
    row |= {name: part for name, part in (("skip", whole[:dim]), ("out", whole[dim:])) if name in tensors}
    row["bias"] = np.asarray(fit.bias + fit.shares @ bias)
    if "tree_leaf" in tensors:
        row["tree_leaf"] = tensors["tree_leaf"][..., group].astype(np.float64) @ fit.shares  # (trees, leaves)
    names = {"share_width": SHARE_WIDTH, "deviation_width": DEVIATION_WIDTH}
    settings: dict[str, Any] = {"folds": folds, "seed": seed, **names, "shares": fit.shares.round(6).tolist()}
    if tokens is not None and "len_skip" in tensors:
        length, settings["smearing"] = _fit_tokens_row(tensors, x, tokens, fold_of_row)
        row |= length
    return CandidateRow(
        {name: np.array(value, np.float32, order="C") for name, value in row.items()},
        sigmoid(fit.out_of_fold),
        host,
        settings,
    )


def combine(
    features: Array,
    others: Array,
    y: Array,
    folds: npt.NDArray[np.int64],
    *,
    logistic: bool,
    unseen: Array | None = None,
    imputed: ImputedQuality | None = None,
) -> Combined:
    """Fit y (rows,) on others (rows, K) and features (rows, D) by the model of this module.

    Args:
        logistic: y is a quality in [0, 1] and others are logits; else y is like the others, and the loss is squared.
        unseen: the others' values by fits that have not seen the row, which out_of_fold is predicted from; None: `others`.
        imputed: what y was made of, where it is not all outcomes.
    """
    models = others.shape[1]
    mean = others.mean(axis=1, keepdims=True)
    columns = np.concatenate([mean, others - mean, features], axis=1)
    fresh = columns
    if unseen is not None:
        level = unseen.mean(axis=1, keepdims=True)
        fresh = np.concatenate([level, unseen - level, features], axis=1)
    prior = np.zeros(columns.shape[1])
    prior[0] = 1.0
    spread = max(float(np.square(features - features.mean(axis=0)).sum(axis=1).mean()), 1e-12)
    # w . features is DEVIATION_WIDTH wide over the prompts where each weight has this standard deviation.
    widths = np.repeat([SHARE_WIDTH, DEVIATION_WIDTH / np.sqrt(spread)], [1 + models, features.shape[1]])
    precision = 1 / np.square(widths)
    if imputed is not None:
        # All rows together weigh as much as the answers that they are made from.
        precision = precision / imputed.judged.mean()
    if logistic:
        y, noise = platt_targets(y), None
    else:
        noise = max(float(np.var(y - mean[:, 0])), 1e-12)
    weights, bias = most_probable(columns, y, prior, precision, noise, prior, 0.0)
    held_out = np.empty(len(y))
    # Each fold's fit begins at the whole fit's weights, near which it ends.
    for fold in np.unique(folds):
        out = folds == fold
        known = y if imputed is None else platt_targets(imputed.unseen[fold])
        part, offset = most_probable(columns[~out], known[~out], prior, precision, noise, weights, bias)
        held_out[out] = fresh[out] @ part + offset
    # c / models + d[k] - mean(d): the share of candidate k, with the mean of the others written out.
    around = weights[1 : 1 + models]
    shares = weights[0] / models + around - around.mean()
    return Combined(shares, weights[1 + models :], bias, held_out)


def platt_targets(y: Array) -> Array:
    """Return y (rows,) in [0, 1] as Platt's targets (`fitted_heads.fit_platt`): an unbroken run of successes has no finite logit."""
    successes = y.sum()
    high, low = (successes + 1) / (successes + 2), 1 / (len(y) - successes + 2)
    return np.asarray(y * high + (1 - y) * low)


def most_probable(
    columns: Array, y: Array, prior: Array, precision: Array, noise: float | None, start: Array, bias: float
) -> tuple[Array, float]:
    """Find the most probable weights (columns,) and a free bias by Newton's method with step halving. `noise` is the variance of y; None
    takes a logistic loss."""

    def loss(w: Array, b: float) -> float:
        line = columns @ w + b
        fit = np.logaddexp(0.0, line) - y * line if noise is None else np.square(y - line) / (2 * noise)
        return float(fit.sum() + (precision * np.square(w - prior)).sum() / 2)

    w, before = start, loss(start, bias)
    for _ in range(STEPS):
        line = columns @ w + bias
        p = line if noise is not None else sigmoid(line)
        curve = np.full(len(y), 1 / noise) if noise is not None else np.maximum(p * (1 - p), 1e-9)
        residual = (y - p) / (noise or 1.0)
        # The bias has no prior and is eliminated: columns are centred by the curvature's weights.
        centre = curve @ columns / curve.sum()
        weighted = columns * curve[:, None]
        hessian = columns.T @ weighted - curve.sum() * np.outer(centre, centre) + np.diag(precision)
        gradient = columns.T @ residual - centre * residual.sum() - precision * (w - prior)
        step = np.linalg.solve(hessian, gradient)
        shift, share = float(residual.sum() / curve.sum() - centre @ step), 1.0
        while (now := loss(w + share * step, bias + share * shift)) > before and share > 1e-6:
            share /= 2
        if now > before:
            break
        w, bias, before = w + share * step, bias + share * shift, now
        if noise is not None or max(np.abs(share * step).max(), abs(share * shift)) < ENOUGH:  # squared loss: one step
            break
    return w, bias


def features_of(tensors: Tensors, activation: str, x: Array, host: int | None) -> Array:
    """Compute the features that a row's skip and out multiply: (rows, dim + hidden), or the one of them that exists."""
    x = linear_columns(tensors, x)
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


def sharing(tensors: Tensors, host: int) -> list[int]:
    """Return the candidates whose hidden layer is the host's own, the host among them."""
    # Bit by bit: a row added later has a copy of its host's layer.
    layer = [tensors[name] for name in LAYER if name in tensors]
    return [m for m in range(len(tensors["bias"])) if all((part[m] == part[host]).all() for part in layer)]


def best_host(tensors: Tensors, activation: str, x: Array, quality: Array) -> int:
    """Return the candidate whose scores, through a Platt map, tell most of `quality`; the first where all share one layer."""
    if len(sharing(tensors, 0)) == len(tensors["bias"]):
        return 0
    losses = []
    for m in range(len(tensors["bias"])):
        weights = np.concatenate([tensors[name][m] for name in ("skip", "out") if name in tensors])
        score = features_of(tensors, activation, x, m) @ weights + tensors["bias"][m]
        score += added_by_trees(tensors, x, [m])[:, 0]
        slope, offset = fit_platt(score, quality)
        logit = slope * score + offset
        losses.append(float((np.logaddexp(0.0, logit) - quality * logit).mean()))
    return int(np.argmin(losses))


def _fit_tokens_row(
    tensors: Tensors, x: Array, tokens: Array, folds: npt.NDArray[np.int64]
) -> tuple[dict[str, npt.NDArray[Any]], float]:
    """Fit len_skip, len_bias and len_cap (where the heads have one), and Duan's smearing factor (`fitted_heads.fit_tokens`)."""
    known, x = ~np.isnan(tokens), linear_columns(tensors, x)
    counted = np.maximum(tokens[known], 1.0)
    if not np.isfinite(counted).all() or (tokens[known] < 0).any():
        raise InvalidInputError("tokens: expected counts >= 0, or NaN where unknown")
    weights, bias = tensors["len_skip"].astype(np.float64), tensors["len_bias"].astype(np.float64)
    fit = combine(x[known], x[known] @ weights.T + bias, np.log(counted), folds[known], logistic=False)
    smearing = float(np.exp(np.log(counted) - fit.out_of_fold).mean())
    row: dict[str, npt.NDArray[Any]] = {
        "len_skip": fit.own + fit.shares @ weights,
        "len_bias": np.asarray(fit.bias + fit.shares @ bias + np.log(smearing)),
    }
    if "len_cap" in tensors:
        row["len_cap"] = np.asarray(np.percentile(counted, CAP_PERCENTILE))
    return row, smearing
