"""`fit_heads` makes the heads of a bundle from embeddings and outcomes: scores, calibration, output tokens.

Around whatever the estimator fits stand two steps. Sources mixed get an intercept each but the first, so that a source's level does
not pass for what its prompts say. Platt's map makes a score a quality: quality = sigmoid(slope * score + offset), fitted on scores
that the head gave to rows it had not seen. Where candidates are judged on different rows, their maps are held near one of all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ipr_engine.decide.contract import Heads
from ipr_engine.decide.reference import predict_logit, predict_tokens
from ipr_engine.errors import InvalidInputError
from ipr_engine.measures.resampling import grouped_folds
from ipr_engine.training.estimators.by_name import fit_scores
from ipr_engine.training.estimators.ridge import Grams, fit_ridge
from ipr_engine.training.estimators.scores import FoldedRows

if TYPE_CHECKING:
    from ipr_engine.training.estimators.checkpoint import RunState

Array = npt.NDArray[np.float64]
Tensors = dict[str, npt.NDArray[np.float32]]

FOLDS = 5  # of the cross-validation that chooses penalties and feeds Platt's map
# Rows of source 0 that a level or a map can be taken from; a handful would make a constant of a head
FEWEST_AT_HOME = 20
# Prior of `fit_pooled_platt`: a candidate's slope over that of all, and its offset from that of all, in logits
SLOPE_WIDTH, OFFSET_WIDTH = 0.1, 0.05
FLATTEST = 0.1  # logits a standard deviation of the scores; the slope's width does not fall below what this one has
POOLED_STEPS = 50  # Newton's, from the map of all
MOST_AT_ONCE = 1 << 22  # numbers of the hidden layer in `predict`: bounds its memory at some 32 MB
# The intercept's column: large beside an embedding of norm 1, so that a penalty meant for embeddings hardly shrinks it.
HEIGHT = 10.0
READS_X = ("skip", "trunk", "down")  # the tensors whose last axis is x
# No prediction above what the candidate wrote on all but one in two hundred fitting prompts.
CAP_PERCENTILE = 99.5


@dataclass(frozen=True)
class FittedHeads:
    """`FittedHeads` are the heads of every candidate, in the order of the columns they were fitted on.

    Attributes:
        tensors: of the quality head (skip, bias, trunk, identity, up, down, out: those the estimator has) and the tokens
            head (len_skip, len_bias, len_cap), as docs/formats.md names them, float32.
        activation: of the hidden layer.
        rule_constants: {"hi", "lo"}: mean over rows of the greatest and least predicted quality, out of fold.
        out_of_fold_quality, out_of_fold_tokens: (rows, models), each row by a fit that has not seen its fold; penalties,
            Platt's map and the smearing factor are fitted on all rows.
        folds: (rows,) fold numbers.
        settings: the estimator's, Platt's slopes and offsets, smearing factors; plain JSON types.
    """

    tensors: Tensors
    activation: str
    rule_constants: dict[str, float]
    out_of_fold_quality: Array
    out_of_fold_tokens: Array
    folds: npt.NDArray[np.int64]
    settings: dict[str, Any]


@dataclass(frozen=True, eq=False)
class HeadRows:
    """`HeadRows` are the rows that heads are fitted on.

    Attributes:
        x: (rows, dim) embeddings, of any float type. quality: (rows, models) in [0, 1], NaN where not judged.
        tokens: (rows, models) output tokens >= 0, NaN where unknown.
        keys: (rows,) the question of each row; one question stays in one fold.
        source: (rows,) number of the source of each row, None for one source. Sources differ in level: each but number 0
            gets an intercept of its own, which the exported heads leave out, so they speak of source 0.
    """

    x: npt.NDArray[np.floating]
    quality: Array
    tokens: Array
    keys: Sequence[str]
    source: npt.NDArray[np.int64] | None = None

    @property
    def at_home(self) -> npt.NDArray[np.bool_]:
        """Return whether each row is of source 0: (rows,)."""
        return np.ones(len(self.x), np.bool_) if self.source is None else self.source == 0

    def take(self, rows: npt.NDArray[np.bool_]) -> HeadRows:
        """Return the rows of this mask."""
        keys = [key for key, kept in zip(self.keys, rows, strict=True) if kept]
        source = None if self.source is None else self.source[rows]
        return HeadRows(self.x[rows], self.quality[rows], self.tokens[rows], keys, source)


@dataclass(frozen=True, eq=False)
class FitRows:
    """`FitRows` are rows made ready to be fitted: what estimators share is made once.

    Attributes:
        rows: what is fitted. folds, seed: of the cross-validation that chooses penalties and feeds Platt's map.
    """

    rows: HeadRows
    folds: int
    seed: int

    @cached_property
    def seen(self) -> npt.NDArray[np.floating]:
        """The embeddings with intercepts, (rows, dim + sources - 1)."""
        return with_intercepts(self.rows.x, self.rows.source)

    @cached_property
    def fold_of_row(self) -> npt.NDArray[np.int64]:
        """The fold number of each row, (rows,)."""
        return grouped_folds(self.rows.keys, self.folds, self.seed)

    @cached_property
    def grams(self) -> Grams:
        """The sums over rows of each fold, from which ridge is fitted."""
        return Grams(self.seen, self.fold_of_row)

    @cached_property
    def length(self) -> TokensFit:
        """The tokens head, which is the same whatever estimates quality."""
        return fit_tokens(self.seen, self.rows.tokens, self.fold_of_row, self.rows.at_home, self.grams)


def fit_heads(
    rows: HeadRows | FitRows,
    *,
    estimator: str,
    options: Mapping[str, Any] = MappingProxyType({}),
    folds: int = FOLDS,
    seed: int = 0,
    pooled: bool | None = None,
    run: RunState | None = None,
    progress: Callable[[str], None] = lambda message: None,
) -> FittedHeads:
    """Fit quality and tokens heads, calibrate quality per candidate out of fold, and fold the calibration in.

    Args:
        estimator, options, run: see `by_name.fit_scores`.
        pooled: whether calibration is by `fit_pooled_platt`; None: where some candidate is not judged on every row.
        folds, seed: of the cross-validation that chooses penalties and feeds Platt's map; `FitRows` have their own.
    """
    ready = rows if isinstance(rows, FitRows) else FitRows(rows, folds, seed)
    rows, folds, seed = ready.rows, ready.folds, ready.seed
    quality, at_home, seen, fold_of_row = rows.quality, rows.at_home, ready.seen, ready.fold_of_row
    dim = rows.x.shape[1]
    scores = fit_scores(
        estimator,
        FoldedRows(seen, quality, fold_of_row, linear_only=seen.shape[1] - dim, grams=ready.grams),
        options=options,
        seed=seed,
        run=run,
        progress=progress,
    )
    # The map is fitted on scores out of fold: on its own rows a head is too sure of itself.
    slope, offset = _calibrate(scores.out_of_fold, quality, at_home, pooled)
    calibrated = sigmoid(slope * scores.out_of_fold + offset)  # (rows, models)
    length = ready.length
    tensors = {
        **fold_platt(drop_intercepts(scores.tensors, dim), slope, offset),
        "len_skip": length.skip[:, :dim],
        "len_bias": length.bias,
        "len_cap": length.cap,
    }
    home = calibrated[at_home]  # hi and lo are of the traffic that the heads speak of
    return FittedHeads(
        {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in tensors.items()},
        scores.activation,
        {"hi": float(home.max(axis=1).mean()), "lo": float(home.min(axis=1).mean())},
        calibrated,
        length.out_of_fold,
        fold_of_row,
        {
            "estimator": estimator,
            "folds": folds,
            "seed": seed,
            **scores.settings,
            "platt_slope": slope.tolist(),
            "platt_offset": offset.tolist(),
            "smearing": length.smearing.tolist(),
        },
    )


def _calibrate(
    score: Array, quality: Array, at_home: npt.NDArray[np.bool_], pooled: bool | None
) -> tuple[Array, Array]:
    """Fit Platt's slope and offset (models,), each on its `calibration_rows`; of a sparse table by `fit_pooled_platt`."""
    rows = calibration_rows(quality, at_home)
    if np.isnan(quality).any() if pooled is None else pooled:
        return fit_pooled_platt(score, quality, rows)
    maps = [fit_platt(score[rows[:, m], m], quality[rows[:, m], m]) for m in range(quality.shape[1])]
    slopes, offsets = zip(*maps, strict=True)
    return np.array(slopes), np.array(offsets)


def calibration_rows(quality: Array, at_home: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Mark a candidate's judged rows of source 0 where these are enough, else all its judged rows: (rows, models)."""
    judged = ~np.isnan(quality)
    # Too few of a candidate's rows at home: those of other sources, at another level, are better than a map of a handful.
    home = judged & at_home[:, None]
    return np.where(home.sum(axis=0) >= FEWEST_AT_HOME, home, judged)


def predict(tensors: Mapping[str, npt.NDArray[Any]], x: Array, activation: str = "relu") -> tuple[Array, Array]:
    """Predict quality and output tokens, both (rows, models), in float64 by the reference: docs/decide.md."""
    heads = Heads(**tensors, activation=activation)  # type: ignore[arg-type]  # checked by Heads
    width = max(1, tensors["out"].size if "out" in tensors else 1)
    # The reference holds the hidden layer of every row and candidate at once.
    parts = np.array_split(x, max(1, -(-len(x) * width // MOST_AT_ONCE)))
    logit = np.concatenate([predict_logit(heads, part) for part in parts])
    return sigmoid(logit), predict_tokens(heads, x)


def with_intercepts(x: npt.NDArray[np.floating], source: npt.NDArray[np.int64] | None) -> npt.NDArray[np.floating]:
    """Append to x (rows, dim) an indicator column for every source but number 0: (rows, dim + sources - 1)."""
    if source is None:
        return x
    # Source 0 has no column: it is the level that the heads' own bias stands for.
    indicator = (np.eye(int(source.max()) + 1, dtype=x.dtype) * HEIGHT)[source][:, 1:]
    return np.concatenate([x, indicator], axis=1)


def drop_intercepts(tensors: Mapping[str, Array], dim: int) -> dict[str, Array]:
    """Return the tensors on x (dim,) alone: scores as if every prompt came from source 0. A linear part of zeros only is left out."""
    kept = {name: value[..., :dim] if name in READS_X else value for name, value in tensors.items()}
    if "out" in kept and "skip" in kept and not kept["skip"].any():
        del kept["skip"]
    return kept


def sigmoid(logit: Array) -> Array:
    """Return 1 / (1 + exp(-logit)), by tanh, which does not overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * logit))  # any shape


def fit_platt(score: Array, quality: Array, *, iterations: int = 100) -> tuple[float, float]:
    """Fit slope and offset of greatest likelihood, by Newton's method with step halving.

    The targets are Platt's: (n1 + 1) / (n1 + 2) for a success and 1 / (n0 + 2) for a failure, so that separable
    scores do not run to infinity. A quality between 0 and 1 mixes the two.

    Args:
        score: (rows,). quality: (rows,) in [0, 1].
    Returns:
        slope >= 0, offset. Where a higher score means lower quality the slope is 0 and the map is the mean:
        the map never reverses a head.
    """
    if score.ndim != 1 or score.shape != quality.shape or not len(score):
        raise InvalidInputError(f"score, quality: expected equal 1-d shapes, got {score.shape} and {quality.shape}")
    if not ((quality >= 0) & (quality <= 1)).all():
        raise InvalidInputError("quality: expected values in [0, 1]")
    # A quality between 0 and 1 is a share of a success and of a failure.
    successes = quality.sum()
    high, low = (successes + 1) / (successes + 2), 1 / (len(quality) - successes + 2)
    target = quality * high + (1 - quality) * low
    level = float(np.log(target.mean() / (1 - target.mean())))

    centre, scale = score.mean(), score.std()
    if scale <= 1e-12 * max(1.0, abs(centre)):  # one value: nothing to learn from it
        return 0.0, level
    standard = (score - centre) / scale  # keeps the 2 x 2 system well conditioned
    design = np.stack([standard, np.ones_like(standard)], axis=1)  # (rows, 2)

    def loss(theta: Array) -> float:
        logit = design @ theta
        return float((np.logaddexp(0.0, logit) - target * logit).mean())

    theta = np.array([0.0, level])
    for _ in range(iterations):
        p = sigmoid(design @ theta)
        gradient = design.T @ (p - target) / len(target)
        if np.abs(gradient).max() < 1e-12:
            break
        # 1e-12 keeps the system solvable where every p is 0 or 1.
        hessian = (design * (p * (1 - p))[:, None]).T @ design / len(target) + 1e-12 * np.eye(2)
        step, share, before = np.linalg.solve(hessian, gradient), 1.0, loss(theta)
        while loss(theta - share * step) > before and share > 1e-10:
            share /= 2
        theta = theta - share * step
    # Back from the standardised score.
    slope, offset = float(theta[0] / scale), float(theta[1] - theta[0] * centre / scale)
    return (slope, offset) if slope > 0 else (0.0, level)


def fit_pooled_platt(score: Array, quality: Array, rows: npt.NDArray[np.bool_]) -> tuple[Array, Array]:
    """Fit a map for each candidate, held near the map of all candidates together by a Gaussian prior.

    A map of its own moves a candidate that was judged on few rows by the noise of these rows, and the greatest of many predictions
    is then often one that the noise raised. The scores have the candidates' levels already, and those lean on the whole table.

    Args:
        score, quality: (rows, models), in `rows` finite and in [0, 1]. rows: (rows, models), those that a candidate's map is fitted on.
    Returns:
        slope >= 0 and offset, (models,) each. With ever more rows they become those of `fit_platt` without Platt's targets.
    """
    slope, offset = fit_platt(score[rows], quality[rows])
    centre, scale = score[rows].mean(), max(float(score[rows].std()), 1e-12)
    common = np.array([slope * scale, offset + slope * centre])  # of the standardised score
    precision = np.array([1 / (SLOPE_WIDTH * max(common[0], FLATTEST)) ** 2, 1 / OFFSET_WIDTH**2])
    maps = np.empty((2, score.shape[1]))
    for m in range(score.shape[1]):
        design = np.stack([(score[rows[:, m], m] - centre) / scale, np.ones(int(rows[:, m].sum()))], axis=1)
        theta = common
        for _ in range(POOLED_STEPS):
            p = sigmoid(design @ theta)
            gradient = design.T @ (p - quality[rows[:, m], m]) + precision * (theta - common)
            step = np.linalg.solve((design * (p * (1 - p))[:, None]).T @ design + np.diag(precision), gradient)
            theta = theta - step
            if np.abs(step).max() < 1e-9:
                break
        own = max(float(theta[0]), 0.0)
        maps[:, m] = own / scale, theta[1] - own * centre / scale
    return maps[0], maps[1]


def fold_platt(tensors: Mapping[str, Array], slope: Array, offset: Array) -> dict[str, Array]:
    """Fold slope (models,) and offset (models,) into a head's tensors: its score becomes the logit of quality."""
    folded = dict(tensors)
    for name in ("skip", "out"):
        if name in folded:
            folded[name] = slope[:, None] * folded[name]
    folded["bias"] = slope * folded["bias"] + offset
    return folded


@dataclass(frozen=True)
class TokensFit:
    """A `TokensFit` is a fitted tokens head: tokens = min(exp(x @ skip.T + bias), cap), the form of docs/decide.md.

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
    """Return Duan's smearing factor, the mean of exp(residual) over rows, NaN left out: (rows, models) -> (models,)."""
    return np.asarray(np.nanmean(np.exp(residual), axis=0))


def fit_tokens(
    x: npt.NDArray[np.floating],
    tokens: Array,
    folds: npt.NDArray[np.int64],
    at_home: npt.NDArray[np.bool_] | None = None,
    grams: Grams | None = None,
) -> TokensFit:
    """Fit the logarithm of (rows, models) token counts >= 0 by ridge; NaN where unknown. An empty answer counts as one token.

    Residuals are those out of fold. Smearing factor and cap come from the rows `at_home` (rows,) where a candidate has
    some there, else from all its rows. grams: of x and folds, where other fits share them.
    """
    # exp of a fitted logarithm is a median-like value and too low as a mean. Duan (1983): multiply by the mean of exp(residual).
    if np.isinf(tokens).any() or (tokens < 0).any():
        raise InvalidInputError("tokens: expected counts >= 0, or NaN where unknown")
    if at_home is not None:
        home = tokens[at_home]
        elsewhere = np.isnan(home).all(axis=0)  # candidates without a count at home
        level = np.where(at_home[:, None] | elsewhere, tokens, np.nan)
    else:
        level = tokens
    # The weights are of every source; smearing factor and cap are of home.
    log_tokens = np.log(np.maximum(tokens, 1.0))
    fit = fit_ridge(x, log_tokens, folds, grams=grams)
    smearing = smearing_factor(np.where(np.isnan(level), np.nan, log_tokens - fit.out_of_fold))
    bias = fit.bias + np.log(smearing)
    cap = np.nanpercentile(np.maximum(level, 1.0), CAP_PERCENTILE, axis=0)
    out_of_fold = np.minimum(np.exp(fit.out_of_fold) * smearing, cap)
    return TokensFit(fit.weights, bias, cap, smearing, out_of_fold)
