"""RouteLLM's figures on a weak and a strong candidate (arXiv 2406.18665); docs/metrics.md has the formulas."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ipr_engine.measures.resampling import Resamples

Array = npt.NDArray[np.float64]

CPT_LEVELS = (0.2, 0.5, 0.8)


def pair_curve(score: Array, weak: Array, strong: Array, resamples: Resamples) -> tuple[Array, Array]:
    """RouteLLM's curve: share of prompts sent to the strong model against quality, (1 + draws, points) each.

    Prompts go to the strong model in order of falling `score` (rows,); prompts of equal score go in one step.
    """
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)  # the last row of every distinct score
    counts = resamples.counts[:, order].astype(np.float64)
    start = np.zeros((len(counts), 1))
    sent = np.cumsum(counts, axis=1)[:, ends] / resamples.rows
    gained = np.cumsum(counts * (strong - weak)[order], axis=1)[:, ends] / resamples.rows
    base = resamples.means(weak)[:, None]
    return np.concatenate([start, sent], axis=1), base + np.concatenate([start, gained], axis=1)


def apgr(sent: Array, quality: Array) -> Array:
    """RouteLLM's average performance gap recovered of a `pair_curve`, (1 + draws,); NaN where there is no gap."""
    weak, strong = quality[:, :1], quality[:, -1:]
    with np.errstate(all="ignore"):
        recovered = (quality - weak) / (strong - weak)
        area = (np.diff(sent, axis=1) * (recovered[:, 1:] + recovered[:, :-1])).sum(axis=1) / 2
    return np.where((strong > weak)[:, 0], area, np.nan)


def cpt(sent: Array, quality: Array, level: float) -> Array:
    """RouteLLM's call-performance threshold: the least share of strong calls that recovers `level` of the gap."""
    result = np.full(len(sent), np.nan)
    for d, (x, q) in enumerate(zip(sent, quality, strict=True)):
        if q[-1] <= q[0]:
            continue
        recovered = (q - q[0]) / (q[-1] - q[0])
        i = int(np.argmax(recovered >= level))  # the last point recovers 1
        if i == 0:
            result[d] = x[0]
        else:
            part = (level - recovered[i - 1]) / (recovered[i] - recovered[i - 1])
            result[d] = x[i - 1] + part * (x[i] - x[i - 1])
    return result
