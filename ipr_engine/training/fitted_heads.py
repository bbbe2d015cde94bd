"""`fit_heads` makes the heads of a bundle from embeddings and outcomes: scores, calibration, output tokens.

Around whatever the estimator fits stand three steps. Sources mixed get an intercept each but the first, so that a source's level does
not pass for what its prompts say. Platt's map makes a score a quality: quality = sigmoid(slope * score + offset), fitted on scores
that the head gave to rows it had not seen. Where candidates are judged on different rows, their maps are held near one of all.
Then tasks, where x has columns of them, add a number each (task_offsets.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import numpy.typing as npt

from ipr_engine.decide.contract import Heads
from ipr_engine.decide.reference import predict_logit, predict_tokens
from ipr_engine.encoders.base import Encoder
from ipr_engine.encoders.task_columns import HasTasks
from ipr_engine.errors import InvalidInputError
from ipr_engine.measures.resampling import grouped_folds
from ipr_engine.training.estimators.by_name import fit_scores
from ipr_engine.training.estimators.ridge import Grams, fit_ridge
from ipr_engine.training.estimators.scores import FoldedRows
from ipr_engine.training.platt import calibrate, fold_platt, sigmoid
from ipr_engine.training.task_offsets import add_tasks

if TYPE_CHECKING:
    from ipr_engine.training.estimators.checkpoint import RunState

Array = npt.NDArray[np.float64]
Tensors = dict[str, npt.NDArray[Any]]

FOLDS = 5  # of the cross-validation that chooses penalties and feeds Platt's map
MOST_AT_ONCE = 1 << 22  # numbers of the hidden layer in `predict`: bounds its memory at some 32 MB
# The intercept's column: large beside an embedding of norm 1, so that a penalty meant for embeddings hardly shrinks it.
HEIGHT = 10.0
MOST_COPIES = 8  # of each prompt, written otherwise
READS_X = ("skip", "trunk", "down")  # the tensors whose last axis is x
# No prediction above what the candidate wrote on all but one in two hundred fitting prompts.
CAP_PERCENTILE = 99.5


@dataclass(frozen=True)
class FittedHeads:
    """`FittedHeads` are the heads of every candidate, in the order of the columns they were fitted on.

    Attributes:
        tensors: of the quality head (skip, bias, trunk, identity, up, down, out, a forest's: those the estimator has) and the
            tokens head (len_skip, len_bias, len_cap), as docs/formats.md names and types them.
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


class ColumnKinds(TypedDict):
    """A `ColumnKinds` says how many columns of x are a head view, tasks and surface features, in this order at its end."""

    head_dim: int
    task_dim: int
    surface_dim: int


def column_kinds(encoder: Encoder) -> ColumnKinds:
    """Return how many columns of an encoder's x are of which kind; 0 where it does not say."""
    tasks = encoder.task_columns if isinstance(encoder, HasTasks) else ()
    head, surface = (int(getattr(encoder, name, 0)) for name in ("head_dim", "surface_dim"))
    return {"head_dim": head, "task_dim": len(tasks), "surface_dim": surface}


@dataclass(frozen=True, eq=False)
class HeadRows:
    """`HeadRows` are the rows that heads are fitted on.

    Attributes:
        x: (rows, dim) embeddings, of any float type. quality: (rows, models) in [0, 1], NaN where not judged.
        tokens: (rows, models) output tokens >= 0, NaN where unknown.
        keys: (rows,) the question of each row; one question stays in one fold.
        source: (rows,) number of the source of each row, None for one source. Sources differ in level: each but number 0
            gets an intercept of its own, which the exported heads leave out, so they speak of source 0.
        surface_dim: trailing columns of x that are no embedding but features of the text's surface: trees alone read them.
        task_dim: columns before those, of tasks: estimators do not read them (task_offsets.py).
        head_dim: columns before these that are a head view, the mean of a prompt's first tokens.
        otherwise: x of the same prompts written otherwise, (rows, dim) each, which are fitted on too. copies: how often each prompt
            stands in the rows, one block behind the other (`unrolled`).
    """

    x: npt.NDArray[np.floating]
    quality: Array
    tokens: Array
    keys: Sequence[str]
    source: npt.NDArray[np.int64] | None = None
    surface_dim: int = 0
    task_dim: int = 0
    head_dim: int = 0
    otherwise: tuple[npt.NDArray[np.floating], ...] = ()
    copies: int = 1

    @property
    def embedding(self) -> npt.NDArray[np.floating]:
        """The columns of x that are the embedding, (rows, width)."""
        return self._leading(self.surface_dim + self.task_dim)

    @property
    def tasks(self) -> npt.NDArray[np.floating]:
        """The columns of tasks, (rows, task_dim)."""
        end = self.x.shape[1] - self.surface_dim
        return self.x[:, end - self.task_dim : end]

    @property
    def surface(self) -> npt.NDArray[np.floating] | None:
        """The last columns, (rows, surface_dim); None where there are none."""
        return self.x[:, self.x.shape[1] - self.surface_dim :] if self.surface_dim else None

    def _leading(self, but: int) -> npt.NDArray[np.floating]:
        return self.x[:, : self.x.shape[1] - but] if but else self.x

    def without_surface(self) -> HeadRows:
        """Return the same rows without surface features."""
        width = self.x.shape[1] - self.surface_dim
        return replace(self, x=self.x[:, :width], surface_dim=0, otherwise=tuple(x[:, :width] for x in self.otherwise))

    def unrolled(self) -> HeadRows:
        """Return the rows with those written otherwise behind them, each with the outcomes and the key of its prompt."""
        if not self.otherwise:
            return self
        copies = 1 + len(self.otherwise)
        return replace(
            self,
            x=np.concatenate([self.x, *self.otherwise]),
            quality=np.tile(self.quality, (copies, 1)),
            tokens=np.tile(self.tokens, (copies, 1)),
            keys=[*self.keys] * copies,
            source=None if self.source is None else np.tile(self.source, copies),
            otherwise=(),
            copies=copies,
        )

    @property
    def first(self) -> slice:
        """The rows of the prompts as they are: copies tell no more of a level, a task or the traffic."""
        return slice(len(self.quality) // self.copies)

    @property
    def at_home(self) -> npt.NDArray[np.bool_]:
        """Return whether each row is of source 0: (rows,)."""
        return np.ones(len(self.x), np.bool_) if self.source is None else self.source == 0

    def take(self, rows: npt.NDArray[np.bool_]) -> HeadRows:
        """Return the rows of this mask."""
        keys = [key for key, kept in zip(self.keys, rows, strict=True) if kept]
        source = None if self.source is None else self.source[rows]
        otherwise = tuple(x[rows] for x in self.otherwise)
        part = replace(self, x=self.x[rows], quality=self.quality[rows], tokens=self.tokens[rows], keys=keys)
        return replace(part, source=source, otherwise=otherwise)


@dataclass(frozen=True, eq=False)
class FitRows:
    """`FitRows` are rows made ready to be fitted: what estimators share is made once.

    Attributes:
        given: what is fitted. folds, seed: of the cross-validation that chooses penalties and feeds Platt's map.
    """

    given: HeadRows
    folds: int
    seed: int

    @cached_property
    def rows(self) -> HeadRows:
        """The rows with those written otherwise behind them."""
        return self.given.unrolled()

    @cached_property
    def seen(self) -> npt.NDArray[np.floating]:
        """The embeddings with intercepts, (rows, width + sources - 1)."""
        return with_intercepts(self.rows.embedding, self.rows.source)

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
    dim = rows.embedding.shape[1]
    scores = fit_scores(
        estimator,
        FoldedRows(
            seen,
            quality,
            fold_of_row,
            linear_only=seen.shape[1] - dim,
            grams=ready.grams,
            surface=rows.surface,
            source=rows.source,
            head_dim=rows.head_dim,
            copies=rows.copies,
        ),
        options=options,
        seed=seed,
        run=run,
        progress=progress,
    )
    first = rows.first
    # The map is fitted on scores out of fold: on its own rows a head is too sure of itself.
    slope, offset = calibrate(scores.out_of_fold[first], quality[first], at_home[first], pooled)
    logit = slope * scores.out_of_fold + offset
    length = ready.length
    tensors = {
        **fold_platt(drop_intercepts(scores.tensors, dim), slope, offset),
        "len_skip": length.skip[:, :dim],
        "len_bias": length.bias,
        "len_cap": length.cap,
    }
    logit, tokens, fold_of_prompt = logit[first], length.out_of_fold[first], fold_of_row[first]
    calibrated = sigmoid(logit)  # (prompts, models)
    if rows.task_dim:
        known, judged = np.asarray(rows.tasks[first], np.float64), (quality[first], rows.tokens[first])
        tensors, calibrated, tokens = add_tasks(tensors, logit, tokens, *judged, known, fold_of_prompt)
    if "tree_leaf" not in tensors:  # only beside a forest may the products take fewer columns than x has
        tensors = widened(tensors, rows.x.shape[1])
    home = calibrated[at_home[first]]  # hi and lo are of the traffic that the heads speak of
    return FittedHeads(
        {
            name: np.ascontiguousarray(value, dtype=np.int32 if name == "tree_column" else np.float32)
            for name, value in tensors.items()
        },
        scores.activation,
        {"hi": float(home.max(axis=1).mean()), "lo": float(home.min(axis=1).mean())},
        calibrated,
        tokens,
        fold_of_prompt,
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


def predict(tensors: Mapping[str, npt.NDArray[Any]], x: Array, activation: str = "relu") -> tuple[Array, Array]:
    """Predict quality and output tokens, both (rows, models), in float64 by the reference: docs/decide.md."""
    heads = Heads(**tensors, activation=activation, dim=x.shape[1])  # type: ignore[arg-type]  # checked by Heads
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


def widened(tensors: Mapping[str, Array], dim: int) -> dict[str, Array]:
    """Return the tensors with as many columns of zeros behind those of x as `dim` asks for."""

    def wide(value: Array) -> Array:
        missing = dim - value.shape[-1]
        return np.pad(value, [(0, 0)] * (value.ndim - 1) + [(0, missing)]) if missing else value

    return {name: wide(value) if name in (*READS_X, "len_skip") else value for name, value in tensors.items()}


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
