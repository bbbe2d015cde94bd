"""`calibrate_grader` makes raw scores qualities by a few labels, and judges what came out on labels that its fits had not seen."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ipr_engine._files import as_path, write_atomically
from ipr_engine.documents.typed_document import read_typed
from ipr_engine.errors import InvalidInputError
from ipr_engine.grading.calibration_report import CalibrationReport, judge_map
from ipr_engine.grading.grade import Grade
from ipr_engine.grading.quality_map import Method, QualityMap, fit_map, shifted
from ipr_engine.measures.prediction import brier, constancy
from ipr_engine.measures.resampling import grouped_folds

Array = npt.NDArray[np.float64]
Asked = Literal["isotonic", "platt", "auto"]

SPREADS = (0.0, 0.25, 0.5, 1.0)  # of the models' shifts, in logits, that are tried
FOLDS = 5
LEAST_QUESTIONS = 20
_T95 = 1.645


@dataclass(frozen=True, kw_only=True)
class GraderCalibration:
    """A `GraderCalibration` is a grader's map to qualities, and the report on it.

    Attributes:
        grader: identity of the grader whose raw scores these were. map, report: see there.
    """

    grader: str
    map: QualityMap
    report: CalibrationReport

    def grades(self, grades: Sequence[Grade], models: Sequence[str]) -> list[Grade]:
        """Return grades whose score is the quality of what was raw (of the score, where a grader has no other); models: who answered."""
        raw = np.array([_raw(grade) for grade in grades], dtype=np.float64)
        quality = self.map(raw, models)
        return [
            grade if math.isnan(value) else Grade(float(value), raw=float(was), reason=grade.reason)
            for grade, value, was in zip(grades, quality, raw, strict=True)
        ]

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON."""
        return {"grader": self.grader, "map": self.map.to_json(), "report": asdict(self.report)}

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the calibration as a JSON file, whole or not at all."""
        text = json.dumps(self.to_json(), indent=1, allow_nan=False)
        write_atomically(as_path(path, "path"), f"{text}\n".encode())


def read_grader_calibration(path: str | os.PathLike[str]) -> GraderCalibration:
    """Read what `GraderCalibration.write` wrote.

    Raises:
        InvalidInputError: the file is not there, damaged, or of another kind; its name and the key are told.
    """
    file = as_path(path, "path")
    try:
        document = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidInputError(f"{file}: cannot be read as a grader's calibration: {type(error).__name__}") from error
    if not isinstance(document, dict):
        raise InvalidInputError(f"{file}: expected an object of grader, map, report")
    points = document["map"].get("points") if isinstance(document.get("map"), dict) else None
    made, mistakes = read_typed(_Written, document)
    if made is None:
        raise InvalidInputError("\n".join(f"{file}: {mistake.text}" for mistake in mistakes))
    try:
        pairs = tuple((float(raw), float(quality)) for raw, quality in points or ())
    except (TypeError, ValueError):
        raise InvalidInputError(f"{file}: map.points: expected a list of pairs of numbers") from None
    if not _rising(pairs) or (made.map.method == "isotonic" and not pairs):
        raise InvalidInputError(f"{file}: map.points: expected rising pairs of a raw score and a quality in [0, 1]")
    own = made.map
    quality_map = QualityMap(method=own.method, points=pairs, slope=own.slope, offset=own.offset, shifts=own.shifts)
    return GraderCalibration(grader=made.grader, map=quality_map, report=made.report)


def calibrate_grader(
    raw: Array,
    labels: Array,
    *,
    groups: Sequence[str],
    models: Sequence[str],
    method: Asked = "auto",
    grader: str = "",
    seed: int = 0,
) -> GraderCalibration:
    """Fit a grader's map to qualities.

    Method, and how far models may be shifted, are chosen by Brier score over folds of questions; the report's predictions come from
    outer folds, in which all of that was done anew without the rows it speaks of.

    Args:
        raw, labels: (rows,) of the same answers; labels in [0, 1].
        groups: (rows,) question keys: rows of one question are never on both sides. models: (rows,) who answered.
        grader: its identity.
    Raises:
        InvalidInputError: shapes or values are wrong, there are too few questions, or the grader says nothing: by its raw scores,
            labels are not told better than by their mean.
    """
    raw, labels = _checked(raw, labels, groups, models)
    names: Any = np.asarray(models)
    methods: tuple[Method, ...] = ("isotonic", "platt") if method == "auto" else (method,)
    folds = grouped_folds(groups, FOLDS, seed)
    shared, predicted = np.full(len(raw), np.nan), np.full(len(raw), np.nan)
    for fold in range(FOLDS):
        inside, outside = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        own = raw[inside], labels[inside]
        shared[outside] = fit_map(*own, methods[0])(raw[outside], names[outside])
        chosen, spread = _choice(*own, names[inside], [groups[i] for i in inside.tolist()], methods, seed + 1)
        fitted = shifted(fit_map(*own, chosen), *own, names[inside], spread)
        predicted[outside] = fitted(raw[outside], names[outside])
    _refuse_constant(shared, labels, groups)
    chosen, spread = _choice(raw, labels, names, groups, methods, seed)
    return GraderCalibration(
        grader=grader,
        map=shifted(fit_map(raw, labels, chosen), raw, labels, names, spread),
        report=judge_map(predicted, labels, groups, models, seed=seed),
    )


@dataclass(frozen=True, kw_only=True)
class _WrittenMap:
    method: Literal["isotonic", "platt"]
    shifts: Mapping[str, float]
    points: Any = ()
    slope: float = 0.0
    offset: float = 0.0


@dataclass(frozen=True, kw_only=True)
class _Written:
    grader: str
    map: _WrittenMap
    report: CalibrationReport


def _raw(grade: Grade) -> float:
    value = grade.raw if grade.raw is not None else grade.score
    return math.nan if value is None else value


def _rising(points: Sequence[tuple[float, float]]) -> bool:
    inside = all(math.isfinite(raw) and 0 <= quality <= 1 for raw, quality in points)
    return inside and all(a[0] < b[0] and a[1] <= b[1] for a, b in zip(points, points[1:], strict=False))


def _choice(
    raw: Array, labels: Array, names: Any, groups: Sequence[str], methods: tuple[Method, ...], seed: int
) -> tuple[Method, float]:
    """Return the method and spread of least Brier score over folds; of equals the first."""
    folds = grouped_folds(groups, FOLDS, seed)
    found = {asked: np.full(len(raw), np.nan) for asked in product(methods, SPREADS)}
    for fold, method in product(range(FOLDS), methods):
        inside, outside = folds != fold, folds == fold
        own = raw[inside], labels[inside]
        shared = fit_map(*own, method)
        for spread in SPREADS:
            fitted = shifted(shared, *own, names[inside], spread)
            found[method, spread][outside] = fitted(raw[outside], names[outside])
    return min(found, key=lambda asked: brier(found[asked], labels))


def _refuse_constant(predicted: Array, labels: Array, groups: Sequence[str]) -> None:
    found = constancy(predicted, labels, groups)
    if found.reason is None:
        return
    gain = found.brier_of_mean - found.brier
    error = (found.upper + gain) / _T95
    questions = len(set(groups))
    advice = (
        f"about {math.ceil(questions * (_T95 * error / gain) ** 2)} labelled questions would tell it apart if it goes on so"
        if gain > 0 and error > 0
        else "more labels will hardly change that: use another grader"
    )
    raise InvalidInputError(
        f"raw: the grader says nothing of {len(labels)} labels of {questions} questions: {found.reason}; nothing that is constant "
        f"is calibrated; {advice}"
    )


def _checked(raw: Array, labels: Array, groups: Sequence[str], models: Sequence[str]) -> tuple[Array, Array]:
    raw, labels = np.asarray(raw, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if raw.ndim != 1 or not len(raw) == len(labels) == len(groups) == len(models) or labels.ndim != 1:
        raise InvalidInputError(
            f"raw, labels, groups, models: expected equal rows, got {raw.shape}, {labels.shape}, {len(groups)} and {len(models)}"
        )
    if not np.isfinite(raw).all():
        raise InvalidInputError("raw: expected finite scores; leave out answers that were not graded")
    if not ((labels >= 0) & (labels <= 1)).all():
        raise InvalidInputError("labels: expected values in [0, 1]; leave out answers without a label")
    questions = len(set(groups))
    if questions < LEAST_QUESTIONS:
        raise InvalidInputError(
            f"labels: expected those of {LEAST_QUESTIONS} questions or more, got {questions}; 100 are a good beginning"
        )
    return raw, labels
