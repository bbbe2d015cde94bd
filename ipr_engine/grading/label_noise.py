"""`label_noise` says how much of what outcomes show is the luck of one sample, from repeated answers to the same prompts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.errors import InvalidInputError

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class LabelNoise:
    """A `LabelNoise` takes scores of (prompts, models, samples) apart.

    Attributes:
        prompts, models, samples: that were used; samples: the most of one cell.
        within: variance of a score among answers of one model to one prompt. within_mean: of a cell's mean of the samples that it has.
        cells: variance of a cell's expected score over all prompts and models. interaction: the part of it that is neither the
            prompt's nor the model's own: what routing lives on.
        means, errors: of each model: mean, and its standard error over prompts, samples included (models,).
        noise_of_means: share of the variance of the models' means that other samples of the same prompts would change.
        oracle_gap: mean of the best model's score of each prompt over the best single model's mean, on one sample.
        oracle_gap_kept: the same where the best model is picked by the other samples: a lower bound of the gap that is real.
    """

    prompts: int
    models: int
    samples: int
    within: float
    within_mean: float
    cells: float
    interaction: float
    means: Array
    errors: Array
    noise_of_means: float
    oracle_gap: float
    oracle_gap_kept: float

    def reliability(self, samples: int = 1) -> float:
        """Return the share of the variance of a cell's mean of so many samples that is the cell's own (Spearman and Brown)."""
        total = self.cells + self.within / samples
        return self.cells / total if total > 0 else math.nan

    @property
    def oracle_noise(self) -> float:
        """The share of the oracle gap that is not kept where other samples pick; at most so much of it is noise."""
        return 1 - self.oracle_gap_kept / self.oracle_gap if self.oracle_gap > 0 else math.nan

    def standard_error(self, prompts: int, samples: int = 1) -> float:
        """Return the standard error of the difference of two models' means on the same prompts."""
        return math.sqrt(2 * (self.interaction + self.within / samples) / prompts)

    def best_samples(self, *, call: float, prompt: float = 0.0) -> int:
        """Return how many samples a prompt tell two models apart for the least money.

        Args:
            call: cost of one answer and its grade. prompt: what one more prompt costs beside: to find it, to write its reference.
                Where prompts cost nothing, one sample of each is best.
        Raises:
            InvalidInputError: call is not above 0, or prompt is negative.
        """
        if not (0 < call < math.inf and 0 <= prompt < math.inf):
            raise InvalidInputError(f"call, prompt: expected call > 0 and prompt >= 0, got {call:g} and {prompt:g}")

        def variance_of_a_dollar(samples: int) -> float:
            return (self.interaction + self.within / samples) * (prompt + samples * call)

        ideal = math.sqrt(self.within * prompt / (max(self.interaction, 1e-12) * call))
        low = max(1, math.floor(min(ideal, 1e6)))
        return min((low, low + 1), key=variance_of_a_dollar)

    def to_json(self) -> dict[str, Any]:
        """Return the figures as plain JSON; None where one is not defined."""
        figures: dict[str, float] = {
            "within": self.within,
            "interaction": self.interaction,
            "reliability": self.reliability(),
            "reliability_of_mean": self.reliability(self.samples),
            "noise_of_means": self.noise_of_means,
            "oracle_gap": self.oracle_gap,
            "oracle_gap_kept": self.oracle_gap_kept,
        }
        known = {name: value if math.isfinite(value) else None for name, value in figures.items()}
        return {"prompts": self.prompts, "models": self.models, "samples": self.samples, **known}

    def sentences(self) -> list[str]:
        """Say what the figures tell, for a reader who has to decide on them."""
        if self.within <= 0:
            return [
                f"on {self.prompts:,} prompts every sample of an answer scored the same: one sample of each is enough"
            ]
        luck = 1 - self.reliability()
        told = [
            f"{luck:.0%} of the variance of single scores is the luck of the sample (on {self.prompts:,} prompts with two samples or more "
            f"of every candidate); {1 - self.reliability(self.samples):.0%} of that of means of {self.samples}"
        ]
        if self.oracle_gap > 0:
            kept = max(0.0, self.oracle_gap_kept) / self.oracle_gap
            told.append(
                f"picking each prompt's best answer gains {self.oracle_gap:.3f} over the best single candidate; "
                f"{kept:.0%} of it is kept where other samples pick, the rest may be luck that no router can have"
            )
        return told


def label_noise(scores: Array) -> LabelNoise:
    """Take repeated scores apart.

    Args:
        scores: (prompts, models, samples) in [0, 1], NaN where there is no sample. Prompts on which each model has two samples
            or more are used.
    Raises:
        InvalidInputError: another shape or range; fewer than two models, or than two such prompts.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 3:
        raise InvalidInputError(f"scores: expected (prompts, models, samples), got {scores.shape}")
    if scores.shape[1] < 2:
        raise InvalidInputError(f"scores: expected samples of two models or more, got those of {scores.shape[1]}")
    known = ~np.isnan(scores)
    if not ((scores[known] >= 0) & (scores[known] <= 1)).all():
        raise InvalidInputError("scores: expected values in [0, 1]; calibrate rewards first")
    used = _first(scores[(known.sum(axis=2) >= 2).all(axis=1)])
    if len(used) < 2:
        raise InvalidInputError(
            f"scores: expected two prompts or more on which every model has two samples, got {len(used)}; ask again for more"
        )
    prompts, models = used.shape[:2]
    count = (~np.isnan(used)).sum(axis=2)  # (prompts, models)
    cell = np.nanmean(used, axis=2)
    within = float(np.nanvar(used, axis=2, ddof=1).mean())
    noise = within * float((1 / count).mean())
    means = cell.mean(axis=0)
    residual = cell - cell.mean(axis=1, keepdims=True) - means + cell.mean()
    interaction = float(np.square(residual).sum()) / ((prompts - 1) * (models - 1)) - noise
    spread = float(np.var(means, ddof=1))
    gap, kept = _oracle_gaps(used, means)
    return LabelNoise(
        prompts=prompts,
        models=models,
        samples=int(count.max()),
        within=within,
        within_mean=noise,
        cells=max(0.0, float(np.var(cell, ddof=1)) - noise),
        interaction=max(0.0, interaction),
        means=means,
        errors=cell.std(axis=0, ddof=1) / math.sqrt(prompts),
        noise_of_means=noise / prompts / spread if spread > 0 else math.nan,
        oracle_gap=gap,
        oracle_gap_kept=kept,
    )


def _first(scores: Array) -> Array:
    """Return the samples of each cell in their order, before what is missing: which number a sample has says nothing of it."""
    return np.take_along_axis(scores, np.argsort(np.isnan(scores), axis=2, kind="stable"), axis=2)


def scores_table(cells: Sequence[tuple[str, str, float]]) -> tuple[list[str], list[str], Array]:
    """Return prompts, models and scores (prompts, models, samples) of rows (prompt, model, score), samples in order of rows."""
    prompts, models = sorted({row[0] for row in cells}), sorted({row[1] for row in cells})
    row_of, column_of = ({name: i for i, name in enumerate(names)} for names in (prompts, models))
    found: dict[tuple[int, int], list[float]] = {}
    for prompt, model, score in cells:
        found.setdefault((row_of[prompt], column_of[model]), []).append(score)
    most = max(map(len, found.values()), default=0)
    table = np.full((len(prompts), len(models), most), np.nan)
    for (row, column), values in found.items():
        table[row, column, : len(values)] = values
    return prompts, models, table


def _oracle_gaps(scores: Array, means: Array) -> tuple[float, float]:
    """Return the oracle gap of one sample, and what is kept of it where the others pick; equal scores share the pick."""
    picked, kept = [], []
    for one in range(scores.shape[2]):
        whole = ~np.isnan(scores[:, :, one]).any(axis=1)
        own, others = scores[whole, :, one], np.nanmean(np.delete(scores[whole], one, axis=2), axis=2)
        best = others == others.max(axis=1, keepdims=True)
        picked.append(own.max(axis=1))
        kept.append((best / best.sum(axis=1, keepdims=True) * own).sum(axis=1))
    single = float(means.max())
    return float(np.concatenate(picked).mean()) - single, float(np.concatenate(kept).mean()) - single
