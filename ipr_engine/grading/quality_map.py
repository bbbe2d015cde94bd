"""A `QualityMap` makes a grader's raw scores qualities: a rising map, and a shift of the logit for each model that is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ipr_engine._extras import need

Array = npt.NDArray[np.float64]
Method = Literal["isotonic", "platt"]

_EDGE = 0.005  # a shift moves qualities between this and 1 - this: a logit is finite there
_STEPS = 50


@dataclass(frozen=True, kw_only=True)
class QualityMap:
    """A `QualityMap` is plain numbers.

    Attributes:
        method: isotonic: quality runs straight between `points`, and on as it ends; platt: sigmoid(slope * raw + offset).
        points: (raw, quality) pairs, both rising; () for platt. slope, offset: 0 for isotonic.
        shifts: model -> what is added to the logit of its qualities; a model that is not in it has none.
    """

    method: Method
    points: tuple[tuple[float, float], ...] = ()
    slope: float = 0.0
    offset: float = 0.0
    shifts: Mapping[str, float]

    def __call__(self, raw: Array, models: Sequence[str]) -> Array:
        """Return qualities in [0, 1]: raw (rows,), models (rows,) -> (rows,); NaN stays NaN."""
        quality = self._shared(np.asarray(raw, dtype=np.float64))
        shift = np.array([self.shifts.get(model, 0.0) for model in models], dtype=np.float64)
        return np.where(shift == 0, quality, _sigmoid(_logit(quality) + shift))

    def _shared(self, raw: Array) -> Array:
        if self.method == "platt":
            return _sigmoid(self.slope * raw + self.offset)
        at, quality = np.array(self.points).T
        return np.asarray(np.interp(raw, at, quality))

    def to_json(self) -> dict[str, Any]:
        """Return the map as plain JSON."""
        own: dict[str, Any] = (
            {"points": [list(point) for point in self.points]}
            if self.method == "isotonic"
            else {"slope": self.slope, "offset": self.offset}
        )
        return {"method": self.method, **own, "shifts": dict(self.shifts)}


def fit_map(raw: Array, labels: Array, method: Method) -> QualityMap:
    """Fit a map that all models share: raw (rows,), labels (rows,) in [0, 1]."""
    if method == "platt":
        return _platt(raw, labels)
    isotonic = need("sklearn.isotonic", "the calibration of a grader", "grade")
    fitted = isotonic.IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(raw, labels)
    points = zip(fitted.X_thresholds_.tolist(), fitted.y_thresholds_.tolist(), strict=True)
    return QualityMap(method=method, points=tuple(points), shifts={})


def shifted(shared: QualityMap, raw: Array, labels: Array, models: Sequence[str], spread: float) -> QualityMap:
    """Return a map with a shift for each model, fitted on these rows.

    spread: standard deviation that the shifts are expected to have, in logits; 0: none.
    """
    if spread == 0:
        return shared
    names, logit = np.asarray(models), _logit(shared(raw, models))
    shifts = {str(name): _shift(logit[names == name], labels[names == name], spread) for name in np.unique(names)}
    return replace(shared, shifts=shifts)


def _platt(raw: Array, labels: Array) -> QualityMap:
    linear_model = need("sklearn.linear_model", "the calibration of a grader", "grade")
    scale = float(raw.std()) or 1.0
    twice = np.concatenate([raw, raw])[:, None] / scale
    # A label between 0 and 1 is a share of a success and of a failure; one of each keeps the logit finite.
    ends = np.concatenate([np.ones(len(raw)), np.zeros(len(raw))])
    weights = np.concatenate([labels, 1 - labels]) + 1 / (2 * len(raw))
    fitted = linear_model.LogisticRegression(C=1e4, solver="newton-cholesky").fit(twice, ends, sample_weight=weights)
    slope = float(fitted.coef_[0, 0]) / scale
    if slope > 0:
        return QualityMap(method="platt", slope=slope, offset=float(fitted.intercept_[0]), shifts={})
    mean = np.array([(labels.sum() + 0.5) / (len(labels) + 1)])  # a map never reverses a grader
    return QualityMap(method="platt", slope=0.0, offset=float(_logit(mean)[0]), shifts={})


def _shift(logit: Array, labels: Array, spread: float) -> float:
    """Return the shift of greatest posterior density, prior normal around 0, by Newton's method."""
    shift = 0.0
    for _ in range(_STEPS):
        quality = _sigmoid(logit + shift)
        step = float((quality - labels).sum() + shift / spread**2) / float(
            (quality * (1 - quality)).sum() + 1 / spread**2
        )
        shift -= float(np.clip(step, -1, 1))
        if abs(step) < 1e-10:
            break
    return shift


def _logit(quality: Array) -> Array:
    inside = np.clip(quality, _EDGE, 1 - _EDGE)
    return np.asarray(np.log(inside / (1 - inside)))


def _sigmoid(logit: Array) -> Array:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logit)))
