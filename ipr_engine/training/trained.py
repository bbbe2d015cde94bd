"""What `train` made: the bundle's folder, and figures of each head on rows that its fits had not seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ipr_engine.measures.prediction import brier, expected_calibration_error
from ipr_engine.training.heads import FittedHeads
from ipr_engine.training.sources import TrainingRows

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Trained:
    """What `train` made: the bundle's folder, and per candidate figures on judged rows that its fits had not seen.

    Attributes:
        calibration_error: (models,), NaN of a constant head: a constant at the mean is calibrated whatever it is worth.
        constant: candidate -> why its head counts as constant (training/constant.py), for those that do.
    """

    folder: Path
    prompts: int
    dropped: int
    estimator: str
    names: tuple[str, ...]
    judged: npt.NDArray[np.int64]
    quality: Array
    predicted: Array
    brier: Array
    calibration_error: Array
    constant: Mapping[str, str]


def trained_figures(
    folder: Path,
    rows: TrainingRows,
    estimator: str,
    names: list[str],
    heads: FittedHeads,
    constant: Mapping[str, str],
) -> Trained:
    predicted = heads.out_of_fold_quality
    columns = range(len(names))
    return Trained(
        folder=folder,
        prompts=len(rows),
        dropped=rows.dropped,
        estimator=estimator,
        names=tuple(names),
        judged=(~np.isnan(rows.quality)).sum(axis=0),
        quality=np.nanmean(rows.quality, axis=0),
        predicted=np.nanmean(np.where(np.isnan(rows.quality), np.nan, predicted), axis=0),
        brier=np.array([brier(predicted[:, [m]], rows.quality[:, [m]]) for m in columns]),
        calibration_error=np.array(
            [
                np.nan if names[m] in constant else expected_calibration_error(predicted[:, [m]], rows.quality[:, [m]])
                for m in columns
            ]
        ),
        constant=constant,
    )
