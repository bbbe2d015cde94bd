"""The definition of `decide` (docs/design.md section 3) in numpy float64: what tests and benchmarks compare with.

`dtype=np.float32` gives what plain numpy makes of the same formulas, the yardstick of every tolerance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ipr_engine.decide import Heads
from ipr_engine.errors import InvalidInputError

Array = np.ndarray[Any, Any]

ACTIVATIONS = {
    "relu": lambda a: np.maximum(a, 0),
    "silu": lambda a: a / (1 + np.exp(-a)),
    "gelu": lambda a: 0.5 * a * (1 + np.tanh(np.sqrt(a.dtype.type(2 / np.pi)) * (a + a.dtype.type(0.044715) * a**3))),
}


@dataclass(frozen=True)
class Row:
    """The answer for one prompt; index is -1 and threshold and gap are NaN unless status is ok."""

    index: int
    threshold: float
    gap: float
    status: str
    cause: str


def logits(heads: Heads, x: Array, dtype: Any = np.float64) -> Array:
    """(batch, models): the quality heads before the sigmoid."""
    x = x.astype(dtype)
    total: Array = np.zeros((len(x), len(heads.bias)), dtype)
    if heads.skip is not None:
        total = x @ heads.skip.astype(dtype).T
    if heads.out is not None:
        h = np.zeros((1, *heads.out.shape), dtype)  # (batch, models, hidden) from here
        if heads.trunk is not None:
            h = h + (x @ heads.trunk.astype(dtype).T)[:, None, :]
        if heads.identity is not None:
            h = h + heads.identity.astype(dtype)
        if heads.up is not None and heads.down is not None:
            d = np.einsum("mrd,bd->bmr", heads.down.astype(dtype), x)
            h = h + np.einsum("mhr,bmr->bmh", heads.up.astype(dtype), d)
        total = total + np.einsum("mh,bmh->bm", heads.out.astype(dtype), ACTIVATIONS[heads.activation](h))
    return np.add(total, heads.bias.astype(dtype))


def tokens(heads: Heads, x: Array, dtype: Any = np.float64) -> Array:
    """(batch, models): predicted output tokens."""
    if heads.len_skip is None or heads.len_bias is None:
        raise InvalidInputError("tokens_out: expected an array, since these heads predict no tokens, got None")
    expected: Array = np.exp(x.astype(dtype) @ heads.len_skip.astype(dtype).T + heads.len_bias.astype(dtype))
    return expected if heads.len_cap is None else np.minimum(expected, heads.len_cap.astype(dtype))


def cost_usd(in_rate: Any, out_rate: Any, fixed_usd: Any, billed_tokens: Any, tokens_out: Any, extra_usd: Any) -> Array:
    """(batch, models); every argument broadcasts to it except billed_tokens, which is (batch,) or a number."""
    billed = np.reshape(billed_tokens, (-1, 1))
    return np.asarray((fixed_usd + (in_rate * billed + out_rate * tokens_out)) + extra_usd)


def choose(
    logit: Array, cost: Array, allowed: Array, *, alpha_hi: float, alpha_lo: float, offset: float, worth: float,
    tie_rank: Array | None = None,
) -> Row:  # fmt: skip
    """One row, (models,) each: the cheapest allowed candidate by objective with quality >= threshold."""

    def failed(status: str) -> Row:
        return Row(-1, np.nan, np.nan, status, "failed")

    def level(quality: Array) -> float:
        return float(alpha_hi * quality.max() + alpha_lo * quality.min() + offset)

    live = np.flatnonzero(allowed)
    if not live.size:
        return failed("none_allowed")
    if not np.isfinite(logit[live]).all():
        return failed("nonfinite_quality")
    if not np.isfinite(cost[live]).all():
        return failed("nonfinite_cost")

    quality = 1 / (1 + np.exp(-logit))
    objective = cost - worth * quality
    rank = np.arange(len(quality)) if tie_rank is None else tie_rank
    hi = float(quality[live].max())
    threshold = min(level(quality[live]), hi)
    c = min((m for m in live if quality[m] >= threshold), key=lambda m: (objective[m], -quality[m], rank[m]))
    others = live[live != c]

    gap = np.inf
    if others.size:
        stay = threshold if quality[c] < hi else min(level(quality[others]), quality[others].max())
        gap = quality[c] - stay
    for m in others:
        enter = max(threshold - quality[m], 0.0)
        if objective[m] > objective[c]:
            enter = max(enter, (objective[m] - objective[c]) / worth if worth > 0 else np.inf)
        gap = min(gap, enter)

    if not others.size:
        cause = "only_allowed"
    elif alpha_hi == alpha_lo == 0 and offset > hi:
        cause = "below_fixed_level"
    else:
        cause = "best_quality" if quality[c] == hi else "within_tolerance"
    return Row(int(c), threshold, max(float(gap), 0.0), "ok", cause)
