"""Losses of quality heads, all masked: a quality of NaN was not judged and has no influence, whatever stands beside it.

    squared        mean over judged pairs of (p - q)^2, p = sigmoid(score) or the score itself (`link`)
    cross_entropy  mean over judged pairs of -q log p - (1 - q) log(1 - p), p = sigmoid(score), q any share in [0, 1]
    pairwise       over pairs (i, j) of one row with q_i > q_j: (q_i - q_j) log(1 + exp(score_j - score_i)), divided by
                   the sum of the weights q_i - q_j (RankNet, Burges et al. 2005, weighted by what is at stake)

A mix is the weighted sum of these. Each is divided by what it was summed over, so weights mean the same at any coverage.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.nn.functional import softplus


def mixed_loss(score: Tensor, quality: Tensor, weights: Mapping[str, float], link: str) -> Tensor:
    """The mix of `weights` (name -> weight) on score, quality (rows, models); NaN quality is left out. A scalar."""
    judged = ~quality.isnan()
    target = quality.where(judged, 0.0)
    total = score.new_zeros(())
    for name, weight in weights.items():
        if name == "pairwise":
            value = pairwise(score, target, judged)
        elif name == "cross_entropy":
            value = cross_entropy(score, target, judged)
        else:
            value = squared(score.sigmoid() if link == "sigmoid" else score, target, judged)
        total = total + weight * value
    return total


def squared(predicted: Tensor, target: Tensor, judged: Tensor) -> Tensor:
    """All (rows, models); `target` holds any finite number where `judged` is False."""
    return _mean((predicted - target).square(), judged)


def cross_entropy(logit: Tensor, target: Tensor, judged: Tensor) -> Tensor:
    return _mean(softplus(logit) - target * logit, judged)


def pairwise(score: Tensor, target: Tensor, judged: Tensor) -> Tensor:
    """0 where no two judged candidates of a row differ."""
    both = judged[:, :, None] & judged[:, None, :]
    weight = ((target[:, :, None] - target[:, None, :]).clamp(min=0.0)).where(both, 0.0)  # (rows, models, models)
    behind = score[:, None, :] - score[:, :, None]  # score_j - score_i
    return (weight * softplus(behind)).sum() / weight.sum().clamp(min=1e-12)


def _mean(values: Tensor, judged: Tensor) -> Tensor:
    return values.where(judged, 0.0).sum() / judged.sum().clamp(min=1)
