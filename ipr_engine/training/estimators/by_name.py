"""`ESTIMATORS` is the table of estimators: ridge (ridge.py, advantage.py), caps.py, forest.py, networks (network.py).

Every estimator takes embeddings and judged qualities and gives `Scores`, in the form that `decide` runs. Calibration, output
tokens and export are the same for all of them (`fitted_heads.fit_heads`). A new estimator is a row of `ESTIMATORS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ipr_engine._extras import need
from ipr_engine.errors import InvalidInputError
from ipr_engine.training.estimators.advantage import FORMS, fit_form
from ipr_engine.training.estimators.caps import CAPS_OPTIONS, HingeOptions, fit_caps
from ipr_engine.training.estimators.forest import FOREST_OPTIONS, ForestOptions, fit_forest, trees_missing
from ipr_engine.training.estimators.network_config import NetworkConfig
from ipr_engine.training.estimators.scores import FoldedRows, Scores

if TYPE_CHECKING:
    from ipr_engine.training.estimators.checkpoint import RunState

CLOSED_FORM = (*FORMS, "caps", "forest")
READS_SURFACE = "forest"  # the one estimator that surface features are read by
OPTIONS: Mapping[str, tuple[str, ...]] = MappingProxyType({"caps": CAPS_OPTIONS, "forest": FOREST_OPTIONS})


class Estimator(Protocol):
    """An `Estimator` is a function that fits scores of every candidate."""

    def __call__(
        self,
        rows: FoldedRows,
        *,
        options: Mapping[str, Any],
        seed: int,
        run: RunState | None,
        progress: Callable[[str], None],
    ) -> Scores:
        """Fit the scores; the arguments are those of `fit_scores`."""
        ...


def fit_scores(
    estimator: str,
    rows: FoldedRows,
    *,
    options: Mapping[str, Any] = MappingProxyType({}),
    seed: int = 0,
    run: RunState | None = None,
    progress: Callable[[str], None] = lambda message: None,
) -> Scores:
    """Fit the named estimator.

    Args:
        options: of this estimator (networks: the fields of `network_config.NetworkConfig`; caps: those of `HingeOptions`).
        run: keeps finished parts on disk, so that an interrupted fit goes on; closed forms are too quick to need it.
    Raises:
        InvalidInputError: an unknown estimator or option, or unusable rows.
    """
    if estimator not in ESTIMATORS:
        raise InvalidInputError(f"estimator: expected one of {', '.join(ESTIMATORS)}, got {estimator!r}")
    return ESTIMATORS[estimator](rows, options=options, seed=seed, run=run, progress=progress)


def check_options(estimator: str, options: Mapping[str, Any]) -> None:
    """Raise InvalidInputError where options (as of `fit_scores`) are not those of this estimator, before anything is read or embedded."""
    if estimator == "caps":
        _caps_options(options)
    elif estimator == "forest":
        _forest_options(options)
    elif estimator in FORMS:
        _no_options(estimator, options)
    else:
        NetworkConfig.of(estimator, options)


def need_packages(estimator: str) -> None:
    """Raise BackendUnavailableError where what fits this estimator is missing, before anything is read or embedded."""
    if estimator == "forest":
        need("sklearn.ensemble", "the estimator forest")
    elif estimator not in CLOSED_FORM:
        need("torch", "fitting a network")


def comparable(progress: Callable[[str], None] = lambda message: None) -> tuple[str, ...]:
    """Return the estimators that "auto" compares: the closed forms, without "forest" where its package is missing, which is told."""
    missing = trees_missing()
    if missing is None:
        return CLOSED_FORM
    progress(f"forest is not compared: {missing}")
    return tuple(name for name in CLOSED_FORM if name != "forest")


def _ridge(form: str) -> Estimator:
    """Make the estimator of one of ridge.FORMS."""

    def fit(rows: FoldedRows, *, options: Mapping[str, Any], seed: int, **_: Any) -> Scores:
        _no_options(form, options)
        made = fit_form(form, rows.x, rows.quality, rows.folds, rows.grams)
        settings = {"form": form, "penalties": made.penalties}
        return Scores({"skip": made.weights, "bias": made.bias}, "relu", made.out_of_fold, settings)

    return fit


def _caps(rows: FoldedRows, *, options: Mapping[str, Any], seed: int, **_: Any) -> Scores:
    """Check the options of "caps" and fit it."""
    return fit_caps(rows, _caps_options(options), seed=seed)


def _caps_options(options: Mapping[str, Any]) -> HingeOptions:
    _known_options("caps", options)
    return HingeOptions(**options)


def _forest(rows: FoldedRows, *, options: Mapping[str, Any], seed: int, **_: Any) -> Scores:
    """Check the options of "forest", its own and those of the caps beside it, and fit it."""
    return fit_forest(rows, *_forest_options(options), seed=seed)


def _forest_options(options: Mapping[str, Any]) -> tuple[ForestOptions, HingeOptions]:
    _known_options("forest", options)
    hinges = {name: value for name, value in options.items() if name in CAPS_OPTIONS}
    own = {name: value for name, value in options.items() if name not in CAPS_OPTIONS}
    return ForestOptions(**own), HingeOptions(**hinges)


def _known_options(estimator: str, options: Mapping[str, Any]) -> None:
    unknown = sorted(set(options) - set(OPTIONS[estimator]))
    if unknown:
        raise InvalidInputError(f"options: expected some of {', '.join(OPTIONS[estimator])}, got {', '.join(unknown)}")


def _network(form: str) -> Estimator:
    """Make the estimator of one of network_config.FORMS. The module is imported when it is fitted: it needs more packages."""

    def fit(
        rows: FoldedRows,
        *,
        options: Mapping[str, Any],
        seed: int,
        run: RunState | None,
        progress: Callable[[str], None],
    ) -> Scores:
        from ipr_engine.training.estimators.network import fit_network

        exact = replace(rows, x=np.asarray(rows.x, np.float64), grams=None)
        return fit_network(exact, NetworkConfig.of(form, options), seed=seed, run=run, progress=progress)

    return fit


def _no_options(estimator: str, options: Mapping[str, Any]) -> None:
    if options:
        raise InvalidInputError(
            f"options: {estimator} has none, got {', '.join(options)}; networks, caps and forest have some"
        )


ESTIMATORS: Mapping[str, Estimator] = MappingProxyType(
    {
        **{form: _ridge(form) for form in FORMS},
        "caps": _caps,
        "forest": _forest,
        "paper": _network("paper"),
        "adapters": _network("adapters"),
    }
)
