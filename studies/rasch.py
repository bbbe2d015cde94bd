"""Abilities of models on one scale: a Rasch model of each source, and the sources linked by the models that they share.

A source: `logit P(right) = ability - difficulty`, the difficulty of a prompt normal around 0 with a spread of its own, integrated
out. All sources: `ability in a source = ability + shift of the source + what the source has for or against the model`, the last
normal with one spread. A share of criteria or a judge's score in [0, 1] counts as so much of a right answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

NODES = 21  # of Gauss and Hermite, over a prompt's difficulty
ROUNDS = 500
CLOSE = 1e-5  # of abilities between rounds
MOST_SPREAD = 3.0  # of what a source has for or against a model, in logits; far beyond any found


def standard_normal() -> tuple[Array, Array]:
    """Return nodes and weights that integrate over a standard normal number."""
    at, weight = np.polynomial.hermite_e.hermegauss(NODES)
    return at, weight / weight.sum()


def sigmoid(logit: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-logit)))


@dataclass(frozen=True, eq=False)
class SourceFit:
    """A `SourceFit` is the Rasch model of one source.

    Attributes:
        ability, error: (models,) logits on a prompt of difficulty 0, and standard errors. spread: of difficulties.
        difficulty: (prompts,) posterior means.
    """

    ability: Array
    error: Array
    spread: float
    difficulty: Array


def fit_source(quality: Array) -> SourceFit:
    """Fit one source by expectation and maximisation. quality: (prompts, models) in [0, 1], NaN where not judged."""
    judged = ~np.isnan(quality)
    right, asked = np.where(judged, quality, 0.0), judged.astype(np.float64)
    at, weight = standard_normal()
    mean = np.clip(right.sum(axis=0) / asked.sum(axis=0), 0.01, 0.99)
    ability, spread = np.log(mean / (1 - mean)), 1.5
    for _ in range(ROUNDS):
        logit = ability[:, None] - spread * at  # (models, nodes)
        share = right @ logit - asked @ np.logaddexp(0, logit) + np.log(weight)  # (prompts, nodes)
        share = np.exp(share - share.max(axis=1, keepdims=True))
        share /= share.sum(axis=1, keepdims=True)
        seen, met = asked.T @ share, right.T @ share  # (models, nodes)
        before = ability
        for _ in range(3):
            chance = sigmoid(ability[:, None] - spread * at)
            slope = (met - seen * chance).sum(axis=1)
            ability = ability + np.clip(slope / (seen * chance * (1 - chance)).sum(axis=1), -1, 1)
        chance = sigmoid(ability[:, None] - spread * at)
        bend = (seen * chance * (1 - chance) * at**2).sum()
        spread = abs(spread - float(np.clip(((met - seen * chance) * at).sum() / bend, -0.5, 0.5)))
        if np.abs(ability - before).max() < CLOSE:
            break
    information = (seen * chance * (1 - chance)).sum(axis=1)
    return SourceFit(ability, 1 / np.sqrt(information), spread, spread * (share @ at))


@dataclass(frozen=True, eq=False)
class Linked:
    """`Linked` are the abilities of all models on the scale of the first source.

    Attributes:
        names, sources: the rows and columns below.
        ability: (models,). shift: (sources,) added to an ability in a source; 0 for the first.
        own_variance: (models,), and share: (models, sources), what of a model's ability is from each source: the covariance of
            abilities is diag(own_variance) + share @ links @ share.T, exactly, for abilities by generalised least squares.
        links: (sources, sources) covariance of the shifts.
        spread: standard deviation, in logits, of what a source has for or against a model. overlaps: so many abilities tell it.
    """

    names: tuple[str, ...]
    sources: tuple[str, ...]
    ability: Array
    shift: Array
    own_variance: Array
    share: Array
    links: Array
    spread: float
    overlaps: int


def link(fits: Mapping[str, Mapping[str, tuple[float, float]]]) -> Linked:
    """Link sources. fits: source -> model -> its ability there, and the standard error; the first source sets the scale."""
    sources = tuple(fits)
    names = tuple(sorted({name for models in fits.values() for name in models}))
    row = {name: place for place, name in enumerate(names)}
    entries = [(row[name], column) for column, source in enumerate(sources) for name in fits[source]]
    at, column = (np.array(part) for part in zip(*entries, strict=True))
    pairs = np.array([pair for models in fits.values() for pair in models.values()])
    value, error = pairs[:, 0], pairs[:, 1]
    free = len(entries) - len(names) - (len(sources) - 1)
    low, high = 0.0, MOST_SPREAD**2
    for _ in range(60):  # the variance at which weighted residuals are as large as they should be (Paule and Mandel's)
        middle = (low + high) / 2
        weight = 1 / (error**2 + middle)
        ability, shift, *_ = _least_squares(value, weight, at, column, len(names), len(sources))
        residual = value - ability[at] - shift[column]
        low, high = (middle, high) if (weight * residual**2).sum() > free else (low, middle)
    ability, shift, total, share, links = _least_squares(value, weight, at, column, len(names), len(sources))
    return Linked(names, sources, ability, shift, 1 / total, share, links, float(np.sqrt(middle)), free)


def _least_squares(
    value: Array, weight: Array, at: npt.NDArray[np.int64], column: npt.NDArray[np.int64], models: int, sources: int
) -> tuple[Array, Array, Array, Array, Array]:
    """Return abilities, shifts, weights of the models, shares, and the covariance of the shifts; the first shift is 0."""
    table, seen = np.zeros((models, sources)), np.zeros((models, sources))
    seen[at, column], table[at, column] = weight, value
    total = seen.sum(axis=1)
    share = seen / total[:, None]
    inner = np.diag(seen.sum(axis=0)) - seen.T @ share  # what is left of the shifts once abilities are taken out
    wanted = (seen * table).sum(axis=0) - share.T @ (seen * table).sum(axis=1)
    links = np.zeros((sources, sources))
    links[1:, 1:] = np.linalg.inv(inner[1:, 1:])
    shift = links @ wanted
    ability = (seen * (table - shift)).sum(axis=1) / total
    return ability, shift, total, share, links


def expected_quality(ability: Array, shift: Sequence[float] | Array, spread: Sequence[float] | Array) -> Array:
    """Return the mean quality of abilities over sources that count alike, (models,)."""
    at, weight = standard_normal()
    means = [
        sigmoid(ability[:, None] + level - width * at) @ weight for level, width in zip(shift, spread, strict=True)
    ]
    return np.asarray(np.mean(means, axis=0))
