"""The estimators by name: embeddings and judged qualities in, `Scores` out. Later ones plug in here.

Every estimator takes the same arguments and gives scores in the form `decide` runs; calibration, tokens and export
are the same for all of them (`fitted_heads.fit_heads`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from ipr_engine.errors import InvalidInputError
from ipr_engine.training.estimators.centroid_hinges import HingeOptions, fit_centroid_hinges
from ipr_engine.training.estimators.ridge import FORMS, fit_form
from ipr_engine.training.estimators.scores import FoldedRows, Scores

if TYPE_CHECKING:
    from ipr_engine.training.estimators.checkpoint import RunState

CLOSED_FORM = (*FORMS, "caps")
CAPS_OPTIONS = ("caps", "inside", "spread", "forms")


class Estimator(Protocol):
    """Fits scores of every candidate."""

    def __call__(
        self,
        rows: FoldedRows,
        *,
        options: Mapping[str, Any],
        seed: int,
        run: RunState | None,
        progress: Callable[[str], None],
    ) -> Scores:
        """See `fit_scores`."""
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
        options: of this estimator (networks: the fields of `network_config.NetworkConfig`; caps: those of CAPS_OPTIONS, see
            `centroid_hinges.HingeOptions`).
        run: keeps finished parts on disk, so that an interrupted fit goes on; closed forms are too quick to need it.
    Raises:
        InvalidInputError: an unknown estimator or option, or unusable rows.
    """
    if estimator not in ESTIMATORS:
        raise InvalidInputError(f"estimator: expected one of {', '.join(ESTIMATORS)}, got {estimator!r}")
    return ESTIMATORS[estimator](rows, options=options, seed=seed, run=run, progress=progress)


def _ridge(form: str) -> Estimator:
    def fit(rows: FoldedRows, *, options: Mapping[str, Any], seed: int, **_: Any) -> Scores:
        _no_options(form, options)
        return fit_form(form, rows.x, rows.quality, rows.folds).scores(form)

    return fit


def _centroid_hinges(rows: FoldedRows, *, options: Mapping[str, Any], seed: int, **_: Any) -> Scores:
    unknown = sorted(set(options) - set(CAPS_OPTIONS))
    if unknown:
        raise InvalidInputError(f"options: expected some of {', '.join(CAPS_OPTIONS)}, got {', '.join(unknown)}")
    return fit_centroid_hinges(rows, HingeOptions(**options), seed=seed)


def _network(form: str) -> Estimator:
    def fit(
        rows: FoldedRows,
        *,
        options: Mapping[str, Any],
        seed: int,
        run: RunState | None,
        progress: Callable[[str], None],
    ) -> Scores:
        from ipr_engine.training.estimators.network import NetworkConfig, fit_network

        return fit_network(rows, NetworkConfig.of(form, options), seed=seed, run=run, progress=progress)

    return fit


def _no_options(estimator: str, options: Mapping[str, Any]) -> None:
    if options:
        raise InvalidInputError(f"options: {estimator} has none, got {', '.join(options)}; networks and caps have some")


ESTIMATORS: Mapping[str, Estimator] = MappingProxyType(
    {
        **{form: _ridge(form) for form in FORMS},
        "caps": _centroid_hinges,
        "paper": _network("paper"),
        "adapters": _network("adapters"),
    }
)
