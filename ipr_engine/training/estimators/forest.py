"""This file fits "forest": "caps" on the embedding, and beside it extra-trees on the surface of the prompt (docs/own-bundle.md).

A mean of token vectors forgets what a prompt looks like; trees find it again. They split on the leading columns of the
embedding, of both means where it has a head view, and on every surface feature where x has some. Scikit-learn grows them on
all candidates at once, so that one walk serves all; what a leaf says of a candidate is taken here, from the candidate's judged
rows of that leaf:

    p     = ( sum of quality + SHRINK * base ) / ( rows + SHRINK )          base: the candidate's mean quality
    value = logit(p) - logit(base)

The score is half of each: 0.5 * ( logit of caps ) + 0.5 * ( STRETCH * ( mean value over the trees ) + logit(base) ). A mean over
trees is drawn to the middle, hence STRETCH. All of it is a sum of what `decide` runs: caps' tensors halved, and a forest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine._extras import need, pip_extra
from ipr_engine.decide.reference import leaf_of_tree, sum_leaves
from ipr_engine.errors import InvalidInputError
from ipr_engine.training.estimators.caps import CAPS_OPTIONS, HingeOptions, fit_caps
from ipr_engine.training.estimators.scores import FoldedRows, Scores
from ipr_engine.training.platt import FEWEST_AT_HOME, calibrate, fold_platt, sigmoid

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

FOREST_OPTIONS = ("trees", "depth", "leaf", *CAPS_OPTIONS)

# Of four sources, cross-fitted. Half or twice of each is not told apart from these, but for SHRINK = 1, which is worse.
TREES, DEPTH, LEAF = 30, 8, 8
LEAD = 64  # leading columns of the embedding that trees may split on; half of them of a head view where there is one
FEATURES = 1 / 3  # share of the columns that each split looks at
SHRINK = 4.0  # rows at the candidate's mean that every leaf is taken to hold as well
SHARE, STRETCH = 0.5, 1.5  # of the trees in the score; of the mean over trees
CERTAIN, NEVER_SURE = 0.005, 0.01  # bounds of p and of base

MOST_TREES, DEEPEST = 1024, 10  # of `decide`
MOST_ROWS = 50_000  # that trees are grown on: bounds memory and time
BLOCK = 8192  # rows that are walked at once


def trees_missing() -> str | None:
    """Return what to install for "forest"; None where it is at hand."""
    return None if find_spec("sklearn") is not None else f"it needs scikit-learn: {pip_extra('train')}"


@dataclass(frozen=True, kw_only=True)
class ForestOptions:
    """`ForestOptions` hold the options of "forest", as users name them on the command line; those of "caps" stand beside them.

    Attributes:
        trees: 1 to 1024. depth: at most, 1 to 10. leaf: the fewest rows of a leaf, >= 1.
    """

    trees: int = TREES
    depth: int = DEPTH
    leaf: int = LEAF

    def __post_init__(self) -> None:
        bounds = {"trees": (1, MOST_TREES), "depth": (1, DEEPEST), "leaf": (1, None)}
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if type(value) is not int or value < low or (high is not None and value > high):
                wanted = f"an int >= {low}" if high is None else f"an int from {low} to {high}"
                raise InvalidInputError(f"{name}: expected {wanted}, got {value!r}")


@dataclass(frozen=True, eq=False)
class Trees:
    """`Trees` are a forest in the form of docs/decide.md.

    Attributes:
        column, threshold: (trees, 2^depth - 1), int32 and float32. leaf: (trees, 2^depth, models) values.
        base: (models,) logit of the mean quality that the values are apart from.
    """

    column: npt.NDArray[np.int32]
    threshold: npt.NDArray[np.float32]
    leaf: Array
    base: Array

    def score(self, z: npt.NDArray[np.float32]) -> Array:
        """Return the trees' part of the score of rows z, (rows, models)."""
        total = sum_leaves(self.column, self.threshold, self.leaf, z)
        return np.asarray(SHARE * (STRETCH / len(self.leaf) * total + self.base))


def fit_forest(rows: FoldedRows, options: ForestOptions, hinges: HingeOptions, *, seed: int) -> Scores:
    """Fit "forest" to every candidate.

    Raises:
        BackendUnavailableError: scikit-learn is missing.
    """
    caps = fit_caps(rows, hinges, seed=seed)
    at_home = np.ones(len(rows.x), np.bool_) if rows.source is None else rows.source == 0
    first = slice(len(rows.x) // rows.copies)  # the prompts as they are
    slope, offset = calibrate(caps.out_of_fold[first], rows.quality[first], at_home[first], None)
    logit = slope * caps.out_of_fold + offset  # (rows, models)
    quality, filled = at_level_of_home(rows.quality, sigmoid(logit), rows.source)
    columns = _Columns(rows)

    def grown(some: Rows) -> Trees:
        if len(some) > MOST_ROWS:
            prompt = some % (len(rows.x) // rows.copies)  # whole prompts: `grow` counts on all copies of each
            drawn = np.random.default_rng(seed).choice(np.unique(prompt), MOST_ROWS // rows.copies, replace=False)
            some = some[np.isin(prompt, drawn)]
        return grow(columns.take(some), filled[some], quality[some], options, seed=seed, copies=rows.copies)

    held_out = (1 - SHARE) * logit
    for fold in np.unique(rows.folds):
        trees = grown(np.flatnonzero(rows.folds != fold))
        for part in _blocks(np.flatnonzero(rows.folds == fold)):
            held_out[part] += trees.score(columns.take(part))
    whole = grown(np.arange(len(rows.x)))
    folded = fold_platt(caps.tensors, slope, offset)
    halved = {name: (1 - SHARE) * folded[name] for name in ("skip", "out", "bias")}
    tensors: dict[str, npt.NDArray[Any]] = {
        **folded,
        **halved,
        "bias": halved["bias"] + SHARE * whole.base,
        "tree_column": columns.of_x(whole.column),
        "tree_threshold": whole.threshold,
        "tree_leaf": SHARE * STRETCH / len(whole.leaf) * whole.leaf,
    }
    settings = {
        **caps.settings,
        "trees": options.trees,
        "depth": options.depth,
        "leaf": options.leaf,
        "surface_dim": 0 if rows.surface is None else rows.surface.shape[1],
        "trees_grown_on": min(len(rows.x), MOST_ROWS),
    }
    return Scores(tensors, caps.activation, held_out, settings)


def at_level_of_home(quality: Array, predicted: Array, source: npt.NDArray[np.int64] | None) -> tuple[Array, Array]:
    """Return quality at the level of source 0, NaN where not judged, and the same with predictions in place of NaN; (rows, models) each.

    Rows of another source are shifted, candidate by candidate, by how far the two sources' means are apart; where too few
    rows at home tell a level, they stay, as they do in `platt.calibration_rows`.
    """
    judged = ~np.isnan(quality)
    filled = np.where(judged, quality, predicted)
    for other in [] if source is None else range(1, int(source.max()) + 1):
        rows, home = np.asarray(source == other), np.asarray(source == 0)
        for m in np.flatnonzero(judged[rows].any(axis=0) & (judged[home].sum(axis=0) >= FEWEST_AT_HOME)):
            shift = np.nanmean(quality[home, m]) - np.nanmean(quality[rows, m])
            filled[rows, m] = np.clip(filled[rows, m] + shift, 0.0, 1.0)
    return np.where(judged, filled, np.nan), filled


def grow(
    z: npt.NDArray[np.float32], filled: Array, quality: Array, options: ForestOptions, *, seed: int, copies: int = 1
) -> Trees:
    """Grow trees on z (rows, columns) and take the values of their leaves.

    Args:
        filled: (rows, models), quality without gaps: the splits go by it. quality: NaN where not judged: the values go by that.
        copies: how many rows a prompt has: so many more are asked of a leaf, and so many more stand in it at the candidate's mean.
    """
    ensemble = need("sklearn.ensemble", "the estimator forest", "train")
    forest = ensemble.ExtraTreesRegressor(
        n_estimators=options.trees,
        max_depth=options.depth,
        min_samples_leaf=options.leaf * copies,
        max_features=FEATURES,
        bootstrap=False,
        random_state=seed % 2**32,
        n_jobs=1,
    ).fit(z, filled if filled.shape[1] > 1 else filled[:, 0])  # of one column it asks for no matrix
    grown = [tree.tree_ for tree in forest.estimators_]
    depth = max(1, *(int(tree.max_depth) for tree in grown))
    heaps = [heap_of(tree, depth) for tree in grown]
    column, threshold = np.stack([heap[0] for heap in heaps]), np.stack([heap[1] for heap in heaps])
    judged = ~np.isnan(quality)
    counts = judged.sum(axis=0)
    mean = np.where(counts > 0, np.where(judged, quality, 0.0).sum(axis=0) / np.maximum(counts, 1), 0.5)
    base = np.clip(mean, NEVER_SURE, 1 - NEVER_SURE)
    leaf = np.empty((len(grown), 1 << depth, quality.shape[1]))
    # Blocks bound the memory of the walk; a leaf's number is below 1024.
    parts = [leaf_of_tree(column, threshold, z[at : at + BLOCK]).astype(np.int16) for at in range(0, len(z), BLOCK)]
    for tree, at in enumerate(np.concatenate(parts).T):
        for m in range(quality.shape[1]):
            known = judged[:, m]
            rows = np.bincount(at[known], minlength=1 << depth)
            total = np.bincount(at[known], weights=quality[known, m], minlength=1 << depth)
            leaf[tree, :, m] = (total + SHRINK * copies * base[m]) / (rows + SHRINK * copies)
    level = _logit(base)
    return Trees(column, threshold, _logit(np.clip(leaf, CERTAIN, 1 - CERTAIN)) - level, level)


def heap_of(tree: Any, depth: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Return columns and thresholds of a tree of scikit-learn as a heap of this depth, at least the tree's own, (2^depth - 1,) each.

    It decides as the tree does: that compares a float32 with a float64 by <=, so a threshold is rounded down to float32. What
    ends early is led to the left.
    """
    column, threshold = np.zeros((1 << depth) - 1, np.int32), np.full((1 << depth) - 1, np.inf, np.float32)
    rounded = tree.threshold.astype(np.float32)
    rounded = np.where(rounded > tree.threshold, np.nextafter(rounded, np.float32(-np.inf)), rounded)
    for nodes in _levels(tree, depth)[:-1]:
        places = np.arange(len(nodes)) + len(nodes) - 1
        splits = (nodes >= 0) & (tree.children_left[nodes] >= 0)
        column[places[splits]] = tree.feature[nodes[splits]]
        threshold[places[splits]] = rounded[nodes[splits]]
    return column, threshold


def leaves_of(tree: Any, depth: int) -> Rows:
    """Return the node of a tree of scikit-learn that stands at each leaf of its heap, (2^depth,); 0 where nobody comes."""
    return np.maximum(_levels(tree, depth)[-1], 0)


def _levels(tree: Any, depth: int) -> list[Rows]:
    """Return the nodes of a tree at the places of each level of a heap of this depth; -1 where nobody comes."""
    levels = [np.zeros(1, np.int64)]
    for _ in range(depth):
        nodes = levels[-1]
        splits = (nodes >= 0) & (tree.children_left[nodes] >= 0)
        below = np.full((len(nodes), 2), -1)
        below[:, 0] = np.where(splits, tree.children_left[nodes], nodes)
        below[splits, 1] = tree.children_right[nodes[splits]]
        levels.append(below.ravel())
    return levels


class _Columns:
    """The columns that trees see: the leading ones of the embedding, of each mean as many, then the surface.

    Rows of them are made when they are asked for.
    """

    def __init__(self, rows: FoldedRows) -> None:
        self._x, self._surface = rows.x, rows.surface
        self._dim = rows.x.shape[1] - rows.linear_only
        whole, means = self._dim - rows.head_dim, 2 if rows.head_dim else 1
        leads = [np.arange(min(LEAD // means, whole)), whole + np.arange(min(LEAD // means, rows.head_dim))]
        self._leading = np.concatenate(leads)  # columns of x

    def take(self, rows: Rows) -> npt.NDArray[np.float32]:
        """Return these rows, (rows, columns)."""
        parts = [np.asarray(self._x[rows], np.float32)[:, self._leading]]
        if self._surface is not None:
            parts.append(np.asarray(self._surface[rows], np.float32))
        return np.concatenate(parts, axis=1)

    def of_x(self, column: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """Return the same columns as columns of the embedding with the surface behind it."""
        beside = 0 if self._surface is None else self._surface.shape[1]
        return np.concatenate([self._leading, self._dim + np.arange(beside)])[column].astype(np.int32)


def _blocks(rows: Rows) -> Iterator[Rows]:
    for begin in range(0, len(rows), BLOCK):
        yield rows[begin : begin + BLOCK]


def _logit(p: Array) -> Array:
    return np.asarray(np.log(p / (1 - p)))
