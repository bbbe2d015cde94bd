"""The estimators by name: embeddings and judged qualities in, `Scores` out. Later ones plug in here.

Every estimator takes the same arguments and gives scores in the form `decide` runs; calibration, tokens and export
are the same for all of them (`heads.fit_heads`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from ipr_engine.errors import InvalidInputError
from ipr_engine.training.estimators.centroid_hinges import fit_caps
from ipr_engine.training.estimators.ridge import FORMS, fit_form
from ipr_engine.training.estimators.scores import Scores

if TYPE_CHECKING:
    from ipr_engine.training.estimators.checkpoint import RunState

Array = npt.NDArray[np.float64]
Folds = npt.NDArray[np.int64]

CLOSED_FORM = (*FORMS, "caps")
CAPS_OPTIONS = ("caps", "inside", "spread", "forms")


class Estimator(Protocol):
    """Fits scores of every candidate."""

    def __call__(
        self,
        x: Array,
        quality: Array,
        folds: Folds,
        *,
        linear_only: int,
        options: Mapping[str, Any],
        seed: int,
        run: RunState | None,
        progress: Callable[[str], None],
    ) -> Scores:
        """See `fit_scores`."""
        ...


def fit_scores(
    estimator: str,
    x: Array,
    quality: Array,
    folds: Folds,
    *,
    linear_only: int = 0,
    options: Mapping[str, Any] = MappingProxyType({}),
    seed: int = 0,
    run: RunState | None = None,
    progress: Callable[[str], None] = lambda message: None,
) -> Scores:
    """Fit the named estimator.

    Args:
        x: (rows, dim) embeddings. quality: (rows, models) in [0, 1], NaN where not judged.
        folds: (rows,) fold numbers; `out_of_fold` comes from as many fits.
        linear_only: trailing columns of x that only shift scores (source intercepts): no region or kink may use them.
        options: of this estimator (networks: the fields of `network_config.NetworkConfig`; caps: those of CAPS_OPTIONS, see
            `caps.fit_caps`).
        run: keeps finished parts on disk, so that an interrupted fit goes on; closed forms are too quick to need it.
    Raises:
        InvalidInputError: an unknown estimator or option, or unusable rows.
    """
    if estimator not in ESTIMATORS:
        raise InvalidInputError(f"estimator: expected one of {', '.join(ESTIMATORS)}, got {estimator!r}")
    return ESTIMATORS[estimator](
        x, quality, folds, linear_only=linear_only, options=options, seed=seed, run=run, progress=progress
    )


def _ridge(form: str) -> Estimator:
    def fit(
        x: Array, quality: Array, folds: Folds, *, linear_only: int, options: Mapping[str, Any], seed: int, **_: Any
    ) -> Scores:
        _no_options(form, options)
        return fit_form(form, x, quality, folds).scores(form)

    return fit


def _caps(
    x: Array, quality: Array, folds: Folds, *, linear_only: int, options: Mapping[str, Any], seed: int, **_: Any
) -> Scores:
    unknown = sorted(set(options) - set(CAPS_OPTIONS))
    if unknown:
        raise InvalidInputError(f"options: expected some of {', '.join(CAPS_OPTIONS)}, got {', '.join(unknown)}")
    return fit_caps(x, quality, folds, linear_only=linear_only, seed=seed, **options)


def _network(form: str) -> Estimator:
    def fit(
        x: Array,
        quality: Array,
        folds: Folds,
        *,
        linear_only: int,
        options: Mapping[str, Any],
        seed: int,
        run: RunState | None,
        progress: Callable[[str], None],
    ) -> Scores:
        from ipr_engine.training.estimators.network import NetworkConfig, fit_network

        config = NetworkConfig.of(form, options)
        return fit_network(x, quality, folds, config, seed=seed, linear_only=linear_only, run=run, progress=progress)

    return fit


def _no_options(estimator: str, options: Mapping[str, Any]) -> None:
    if options:
        raise InvalidInputError(f"options: {estimator} has none, got {', '.join(options)}; networks and caps have some")


ESTIMATORS: Mapping[str, Estimator] = MappingProxyType(
    {
        **{form: _ridge(form) for form in FORMS},
        "caps": _caps,
        "paper": _network("paper"),
        "adapters": _network("adapters"),
    }
)
