"""This file defines `decide` (docs/decide.md) in numpy float64, for tests, benchmarks and readers.

`dtype=np.float32` gives the result of the same formulas in plain numpy float32, the yardstick of every tolerance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ipr_engine.decide.numpy_rule import ThresholdRule, order, threshold
from ipr_engine.errors import InvalidInputError

if TYPE_CHECKING:
    from ipr_engine.decide.contract import Heads

Array = np.ndarray[Any, Any]

ACTIVATIONS = {
    "relu": lambda a: np.maximum(a, 0),
    "silu": lambda a: a / (1 + np.exp(-a)),
    "gelu": lambda a: 0.5 * a * (1 + np.tanh(np.sqrt(a.dtype.type(2 / np.pi)) * (a + a.dtype.type(0.044715) * a**3))),
}


@dataclass(frozen=True)
class Row:
    """A `Row` is the answer for one prompt; index is -1 and threshold and gap are NaN unless status is ok."""

    index: int
    threshold: float
    gap: float
    status: str
    cause: str


class ReferenceDecisions(NamedTuple):
    """`ReferenceDecisions` hold the answers for a batch; the arrays are (batch, models)."""

    logit: Array
    quality: Array
    tokens_out: Array
    cost_usd: Array
    rows: list[Row]


def predict_logit(heads: Heads, x: Array, dtype: Any = np.float64) -> Array:
    """Return the quality heads before the sigmoid, (batch, models)."""
    whole, x = x, linear_part(heads, x).astype(dtype)
    total: Array = np.zeros((len(x), len(heads.bias)), dtype)
    if heads.skip is not None:
        total = x @ heads.skip.astype(dtype).T
    if heads.out is not None:
        h = np.zeros((len(x), *heads.out.shape), dtype)  # (batch, models, hidden)
        if heads.trunk is not None:
            h = h + (x @ heads.trunk.astype(dtype).T)[:, None, :]
        if heads.identity is not None:
            h = h + heads.identity.astype(dtype)
        if heads.up is not None and heads.down is not None:
            d = np.einsum("mrd,bd->bmr", heads.down.astype(dtype), x)  # (batch, models, rank)
            h = h + np.einsum("mhr,bmr->bmh", heads.up.astype(dtype), d)
        total = total + np.einsum("mh,bmh->bm", heads.out.astype(dtype), ACTIVATIONS[heads.activation](h))
    total += heads.bias.astype(dtype)
    if heads.tree_column is not None and heads.tree_threshold is not None and heads.tree_leaf is not None:
        total += sum_leaves(heads.tree_column, heads.tree_threshold, heads.tree_leaf, whole, dtype)
    return total


def linear_part(heads: Heads, x: Array) -> Array:
    """Return the columns of x that the products take, (batch, width): the first; beside a forest x may have more."""
    width = next(part.shape[-1] for part in (heads.skip, heads.trunk, heads.down) if part is not None)
    return x[:, :width]


def leaf_of_tree(column: Array, threshold: Array, x: Array) -> Array:
    """Return which leaf of each tree every row of x comes to, (batch, trees). column, threshold: tree_column, tree_threshold."""
    tree = np.arange(len(column))
    node = np.zeros((len(x), len(column)), np.int64)
    for _ in range(column.shape[1].bit_length()):  # 2^depth - 1 nodes
        of_x = np.take_along_axis(x, column[tree, node], axis=1)
        node = 2 * node + 1 + (of_x > threshold[tree, node])  # a NaN is not greater: left
    return np.asarray(node - column.shape[1])


def sum_leaves(column: Array, threshold: Array, leaf: Array, x: Array, dtype: Any = np.float64) -> Array:
    """Return what trees add to the logits: (batch, models), leaves added in the order of the trees. leaf: (trees, leaves, models)."""
    total: Array = np.zeros((len(x), leaf.shape[2]), dtype)
    for tree, at in enumerate(leaf_of_tree(column, threshold, x).T):
        total += leaf[tree, at].astype(dtype)
    return total


def predict_tokens(heads: Heads, x: Array, dtype: Any = np.float64) -> Array:
    """Return the predicted output tokens, (batch, models)."""
    if heads.len_skip is None or heads.len_bias is None:
        raise InvalidInputError("tokens_out: expected an array, since these heads predict no tokens, got None")
    expected: Array = np.exp(
        linear_part(heads, x).astype(dtype) @ heads.len_skip.astype(dtype).T + heads.len_bias.astype(dtype)
    )
    if heads.len_cap is not None:
        expected = np.minimum(expected, heads.len_cap.astype(dtype))
    return expected


def choose(
    logit: Array, cost: Array, allowed: Array, tie_rank: Array,
    alpha_hi: float, alpha_lo: float, offset: float, worth: float,
) -> Row:  # fmt: skip
    """Decide one prompt, arrays (models,): the allowed candidate of least objective among those with quality >= threshold."""
    live = np.flatnonzero(allowed)
    for status, bad in (
        ("none_allowed", not live.size),
        ("nonfinite_quality", not np.isfinite(logit[live]).all()),
        ("nonfinite_cost", not np.isfinite(cost[live]).all()),
    ):
        if bad:
            return Row(-1, np.nan, np.nan, status, "failed")

    def threshold_over(candidates: Array) -> float:
        hi, lo = quality[candidates].max(), quality[candidates].min()
        return float(min((alpha_hi * hi + alpha_lo * lo) + offset, hi))

    quality = 1 / (1 + np.exp(-logit))
    objective = cost - worth * quality
    hi, threshold = quality[live].max(), threshold_over(live)
    c = min((m for m in live if quality[m] >= threshold), key=lambda m: (objective[m], -quality[m], tie_rank[m]))
    others = live[live != c]
    if not others.size:
        return Row(int(c), threshold, np.inf, "ok", "only_allowed")

    # The gap: the least change of one quality that changes the choice. Either c leaves, or another enters.
    # Where c is the best itself, the threshold falls with it, down to that of the others.
    gap = quality[c] - (threshold if quality[c] < hi else threshold_over(others))
    for m in others:
        needed = max(threshold - quality[m], 0.0)
        if objective[m] > objective[c]:  # it enters by worth alone: the quality that pays for the difference
            needed = max(needed, (objective[m] - objective[c]) / worth if worth > 0 else np.inf)
        gap = min(gap, needed)

    if alpha_hi == alpha_lo == 0 and offset > hi:
        cause = "below_fixed_level"
    else:
        cause = "best_quality" if quality[c] == hi else "within_tolerance"
    return Row(int(c), threshold, max(float(gap), 0.0), "ok", cause)


def of_tier(rates: Array, tier_above: Array, billed: Array) -> Array:
    """Return the rates (tiers, models) in the price tier of each bill: (batch, models), as billed."""
    tier = (billed > tier_above[:, None, :]).sum(axis=0)  # (batch, models)
    found: Array = np.take_along_axis(rates, tier, axis=0)
    return found


def expected_cost(
    in_rate: Array, out_rate: Array, fixed_usd: Array, billed_tokens: Array, tokens_out: Array,
    tier_above: Array | None = None,
) -> Array:  # fmt: skip
    """Return the expected cost in USD before extra_usd, (batch, models).

    Args:
        in_rate, out_rate: (models,) USD per token, or (tiers, models) with tier_above (tiers - 1, models): more input
            tokens than tier_above[t] are charged at the rates of tier t + 1, and so is the output.
        fixed_usd: (models,) USD per request.
        billed_tokens: (batch, 1) or (batch, models). tokens_out: broadcasts to (batch, models).
    """
    if tier_above is not None:
        billed = np.broadcast_to(billed_tokens, (len(billed_tokens), in_rate.shape[1]))
        in_rate, out_rate = (of_tier(rate, tier_above, billed) for rate in (in_rate, out_rate))
    cost: Array = fixed_usd + (in_rate * billed_tokens + out_rate * tokens_out)
    return cost


def send_unsupported(row: Row, quality: Array, cost: Array, may: Array, tie_rank: Array, to: int | None) -> Row:
    """Send one decided prompt of too little support to candidate `to`, where it may answer; None is the cheapest.

    Args:
        quality, cost, may, tie_rank: (models,). may: the candidates that the policy's conditions and the request leave.
    """
    if row.status != "ok":
        return row
    if to is None:
        to = min(np.flatnonzero(may).tolist(), key=lambda m: (cost[m], -quality[m], tie_rank[m]))
    if not may[to]:
        return Row(row.index, row.threshold, row.gap, "ok", "unsupported")
    return Row(to, 0.0, np.inf, "ok", "unsupported")


def failover(
    quality: Array, cost: Array, allowed: Array, tie_rank: Array,
    rule: ThresholdRule, worth: float, dtype: Any = np.float64,
) -> list[int]:  # fmt: skip
    """Return the allowed candidates of one prompt, each as it would be chosen, were all before it away; arrays (models,)."""
    quality, cost = quality.astype(dtype), cost.astype(dtype)
    left = [m for m in order(quality, cost, worth, tie_rank) if allowed[m]]
    chosen: list[int] = []
    while left:
        hi, lo = quality[left].max(), quality[left].min()
        reached = threshold(rule, hi, lo, dtype)
        chosen.append(next(m for m in left if quality[m] >= reached))
        left.remove(chosen[-1])
    return chosen


def decide(
    heads: Heads, policy: Mapping[str, Any], x: Array, billed_tokens: Any,
    tokens_out: Any = None, extra_usd: Any = 0.0, allowed: Any = True, dtype: Any = np.float64,
) -> ReferenceDecisions:  # fmt: skip
    """Decide a batch: x is (batch, dim), the others broadcast as in DecidePlan.run; policy holds DecidePolicy's keywords."""
    in_rate, out_rate, fixed_usd = (policy[name].astype(dtype) for name in ("in_rate", "out_rate", "fixed_usd"))
    with np.errstate(all="ignore"):  # a row that overflows gets a status
        logit = predict_logit(heads, x, dtype)
        tokens = predict_tokens(heads, x, dtype) if tokens_out is None else np.asarray(tokens_out, dtype)
        billed = np.asarray(billed_tokens, dtype)
        billed = billed if billed.ndim == 2 else np.broadcast_to(billed, len(x))[:, None]
        cost = expected_cost(in_rate, out_rate, fixed_usd, billed, tokens, policy.get("tier_above"))
        cost = cost + np.asarray(extra_usd, dtype)
        cost = np.broadcast_to(cost, logit.shape)
        ranks = np.arange(logit.shape[1]) if heads.tie_rank is None else heads.tie_rank
        masks = np.broadcast_to(policy["allowed"] & np.asarray(allowed), logit.shape)
        numbers = [policy[name] for name in ("alpha_hi", "alpha_lo", "offset", "worth")]
        rows = [choose(*row, ranks, *numbers) for row in zip(logit, cost, masks, strict=True)]
        return ReferenceDecisions(logit, 1 / (1 + np.exp(-logit)), np.broadcast_to(tokens, logit.shape), cost, rows)


def break_points(quality: Array, cost_usd: Array, tie_rank: Array) -> tuple[Array, Array, Array, Array, Array, Array]:
    """Return the worths at which choices move: the definition of `ipr_engine.policy.tau_path.break_points`.

    Args:
        quality, cost_usd: (rows, models). tie_rank: (models,).
    Returns:
        worth, row, before and after of every move, (moves,) each, by worth; the first and the last choice, (rows,) each.
    """
    every = np.arange(len(quality))
    by_rank = np.argsort(tie_rank)
    q, c = quality[:, by_rank], cost_usd[:, by_rank]  # so that argmax, which takes the first, breaks ties by rank
    cheapest = c == c.min(axis=1, keepdims=True)
    now = np.where(cheapest, q, -np.inf).argmax(axis=1)
    first = now.copy()
    found: list[tuple[Array, Array, Array, Array]] = []
    left, left_q, left_c = every, q, c
    while len(left):
        at = np.arange(len(left))
        # (rows left, models): a better candidate is chosen once worth * step pays for its extra cost
        step = left_q - left_q[at, now[left]][:, None]
        better = step > 0
        ratio = np.where(better, (left_c - left_c[at, now[left]][:, None]) / np.where(better, step, 1.0), np.inf)
        least = ratio.min(axis=1)
        moves = np.isfinite(least)
        # of those met at the same worth the best predicted one: the op breaks ties of the objective so
        then = np.where(ratio == least[:, None], left_q, -np.inf).argmax(axis=1)
        left, left_q, left_c, then, least = left[moves], left_q[moves], left_c[moves], then[moves], least[moves]
        found.append((least, left, now[left], then))
        now[left] = then
    worth, row, before, after = (np.concatenate(part) for part in zip(*found, strict=True))
    order = np.argsort(worth, kind="stable")
    return worth[order], row[order], by_rank[before[order]], by_rank[after[order]], by_rank[first], by_rank[now]


def two_tier_choices(
    first: tuple[Array, Array], again: tuple[Array, Array], tie_rank: Array, worth: float, below: float
) -> tuple[Array, Array]:
    """Return the choices of two tiers at a worth > 0, and whether the second was asked, each (rows,).

    Args:
        first, again: quality and cost_usd (rows, models) of the tiers.
        below: the second is asked where the gap, that of `choose` at threshold 0, is smaller.
    """

    def choices(quality: Array, cost: Array) -> tuple[Array, Array]:
        objective = cost - worth * quality
        order = np.lexsort((np.broadcast_to(tie_rank, quality.shape), -quality, objective))
        at = np.arange(len(quality))
        chosen = order[:, 0]
        if quality.shape[1] == 1:
            return chosen, np.full(len(quality), np.inf)
        second = (objective[at, order[:, 1]] - objective[at, chosen]) / worth
        return chosen, np.minimum(second, quality[at, chosen])

    chosen, gap = choices(*first)
    asked = gap < below
    return np.where(asked, choices(*again)[0], chosen), asked
