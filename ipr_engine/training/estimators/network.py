"""This file fits the torch estimators of quality: the paper's network, and a shared trunk with a low-rank adapter per candidate.

`fit_network` cross-fits: for every fold a fit that stops early on another fold, then a refit of as many epochs on all rows
outside the fold, which scores it; at last one fit on all rows, of the median number of epochs. Missing qualities (NaN)
are normal and have no influence. The same input gives the same bytes on one machine, interrupted or not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine._extras import need
from ipr_engine.data.progress import Progress
from ipr_engine.errors import InvalidInputError
from ipr_engine.training.estimators.checkpoint import RunState
from ipr_engine.training.estimators.network_config import NetworkConfig
from ipr_engine.training.estimators.scores import FoldedRows, Scores

__all__ = ["NetworkConfig", "fit_key", "fit_network"]

VERSION = 1  # of the recipe: a change that alters the result counts it up, and no older run folder is continued


def fit_network(
    table: FoldedRows,
    config: NetworkConfig,
    *,
    seed: int,
    run: RunState | None = None,
    progress: Callable[[str], None] = lambda message: None,
) -> Scores:
    """Fit the network of `config` to outcomes.

    Args:
        table: with at least three distinct folds; see `resampling.grouped_folds`. The hidden layer does not read the `linear_only`
            columns.
        run: a run folder: what it holds of this very fit is not computed again. Several fits may share it.
        progress: called with one line per finished fit. A bar is shown on stderr where that is a terminal.
    Returns:
        Scores; settings has the config, the epochs and validation loss of every fold, the final epochs.
    Raises:
        InvalidInputError: an argument is not as above, a fold or a candidate has no judged outcome, or the fit diverged.
        BackendUnavailableError: torch or threadpoolctl (extra [train]) is missing.
    """
    x, quality, folds, linear_only = np.asarray(table.x, np.float64), table.quality, table.folds, table.linear_only
    _check(table, config, seed)
    need("torch", "fitting a network")  # before the imports below, which fail without it in other words
    from ipr_engine.training.estimators.network_fit import Fitted, Part, Stop, fit, repeatable
    from ipr_engine.training.estimators.network_module import export

    name = fit_key(table, config, seed)[:16]
    labels = np.unique(folds)
    judged = ~np.isnan(quality).all(axis=1)  # a row that nobody judged teaches nothing; it is scored all the same
    rows = int(judged.sum())
    out_of_fold = np.full(quality.shape, np.nan)
    epochs: list[int] = []
    losses: list[float | None] = []
    with repeatable(), Progress("fitting the network", config.epochs * (2 * len(labels) + 1)) as bar:

        def run_fit(unit: str, fitted_on: npt.NDArray[np.bool_], watched: Any, most: int) -> Fitted:
            mine, left = judged & fitted_on, config.epochs

            def advance(epochs: int) -> None:
                nonlocal left
                left -= epochs
                bar.advance(epochs)

            validation = None if watched is None else (x[judged & watched], quality[judged & watched])
            part, stop = Part(x[mine], quality[mine], linear_only), Stop(epochs=most, validation=validation)
            fitted = fit(f"{name}-{unit}", part, config, stop, seed=seed, run=run, advance=advance)
            bar.advance(left)  # epochs that stopping early saved
            return fitted

        for place, label in enumerate(labels):
            # The next fold is watched to stop early; it is fitted on again afterwards, for as many epochs, with nothing watched.
            held_out, watched = folds == label, folds == labels[(place + 1) % len(labels)]
            stopped = run_fit(f"stop-{label}", ~held_out & ~watched, watched, config.epochs)
            epochs.append(stopped.epochs)
            losses.append(stopped.loss)
            refitted = run_fit(f"fold-{label}", ~held_out, None, stopped.epochs)
            out_of_fold[held_out] = refitted.score(x[held_out], config.activation)
            progress(f"network: fold {place + 1} of {len(labels)}, {stopped.epochs} epochs, loss {stopped.loss:.5f}")
        final_epochs = int(np.median(epochs))
        final = run_fit("final", np.ones(len(x), bool), None, final_epochs)
    progress(f"network: fitted on {rows} prompts, {final_epochs} epochs")
    settings = {"config": config.as_json(), "fold_epochs": epochs, "fold_losses": losses, "epochs": final_epochs}
    return Scores(export(final.parts, final.standard), config.activation, out_of_fold, settings)


def fit_key(table: FoldedRows, config: NetworkConfig, seed: int) -> str:
    """Hash all that decides the result of `fit_network`: data, config, seed, and versions."""
    x, quality, folds = table.x, table.quality, table.folds
    judged = ~np.isnan(quality)
    versions = {"recipe": VERSION, "torch": need("torch", "fitting a network").__version__, "numpy": np.__version__}
    shape = [*x.shape, quality.shape[1], table.linear_only]
    head = {"config": config.as_json(), "seed": seed, "shape": shape, "versions": versions}
    digest = hashlib.sha256(json.dumps(head, sort_keys=True).encode())
    # NaN has many bit patterns: quality counts where it is judged, and the mask for itself.
    for part in (x, np.where(judged, quality, 0.0), judged, folds):
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


def _check(table: FoldedRows, config: NetworkConfig, seed: int) -> None:
    x, quality, folds, linear_only = table.x, table.quality, table.folds, table.linear_only
    for name, array, kind, ndim in (("x", x, "f", 2), ("quality", quality, "f", 2), ("folds", folds, "i", 1)):
        if not isinstance(array, np.ndarray) or array.dtype.kind != kind or array.ndim != ndim:
            wanted = {"f": "float64", "i": "int64"}[kind]
            raise InvalidInputError(f"{name}: expected a {ndim}-d array of {wanted}, got {_what(array)}")
    if not len(x) == len(quality) == len(folds) or not x.size or not quality.size:
        shapes = f"{x.shape}, {quality.shape}, {folds.shape}"
        raise InvalidInputError(f"x, quality, folds: expected equal rows, at least one, got {shapes}")
    if not np.isfinite(x).all():
        raise InvalidInputError(f"x: expected finite values, got others in row {np.argwhere(~np.isfinite(x))[0][0]}")
    outside = np.argwhere((quality < 0) | (quality > 1))
    if len(outside):
        row, column = outside[0]
        raise InvalidInputError(
            f"quality: expected values in [0, 1], NaN where not judged, got {quality[row, column]} at row {row}, "
            f"candidate {column}; scale the source's grades first"
        )
    judged = ~np.isnan(quality)
    unjudged = np.flatnonzero(~judged.any(axis=0))
    if len(unjudged):
        raise InvalidInputError(
            f"quality: expected some judged row of every candidate, candidate {unjudged[0]} has none"
        )
    labels = np.unique(folds)
    if len(labels) < 3:
        raise InvalidInputError(f"folds: expected at least 3 distinct folds (fit, watch, score), got {len(labels)}")
    empty = [int(label) for label in labels if not judged[folds == label].any()]
    if empty:
        raise InvalidInputError(f"folds: expected a judged outcome in every fold, fold {empty[0]} has none")
    if set(config.losses) == {"pairwise"} and quality.shape[1] < 2:
        raise InvalidInputError("loss: pairwise alone compares candidates, and there is one only; use another loss")
    if type(linear_only) is not int or not 0 <= linear_only < x.shape[1]:
        raise InvalidInputError(f"linear_only: expected an int in [0, {x.shape[1]}), got {linear_only!r}")
    if type(seed) is not int or not 0 <= seed < 2**63:
        raise InvalidInputError(f"seed: expected an int in [0, 2**63), got {seed!r}")


def _what(value: Any) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
