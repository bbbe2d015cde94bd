"""This file makes the choice of `decide` (docs/decide.md) on tiles of candidates, in parts that kernels/decide.py calls.

A tile is (BLOCK_ROWS, candidates). Each function reduces one tile; kernels/decide.py merges several where the candidates
do not fit one. Minima and maxima are exact, so no tiling changes a bit.
"""

import triton
import triton.language as tl

NEVER = tl.constexpr(float("inf"))
POLICY_NUMBERS = tl.constexpr(16)  # floats of a policy before its rates
MORE_TIERS = tl.constexpr(7)  # price tiers above the first that a policy has room for


@triton.jit
def is_finite(a):
    return tl.abs(a) < NEVER


@triton.jit
def load_allowed(
    policy, policy_known, row_allowed, rows, live, candidates, models, padded, allowed_stride, HAS_ROW_MASK: tl.constexpr
):  # fmt: skip
    """Return (rows, candidates) bool: the candidates that both the policy and the row allow."""
    real = live[:, None] & policy_known[:, None] & (candidates < models)[None, :]
    at = policy[:, None] + POLICY_NUMBERS + 3 * padded + candidates[None, :]  # behind in_rate, out_rate, fixed_usd
    allowed = real & (tl.load(at, mask=real, other=0.0) != 0)
    if HAS_ROW_MASK:
        at = row_allowed + rows[:, None] * allowed_stride + candidates[None, :]
        allowed = allowed & (tl.load(at, mask=real, other=0) != 0)
    return allowed


@triton.jit
def highest_lowest(quality, among):
    """Return the highest and the lowest quality of the candidates of `among`, (rows,) each; -inf and +inf where there is none."""
    return tl.max(tl.where(among, quality, -NEVER), axis=1), tl.min(tl.where(among, quality, NEVER), axis=1)


@triton.jit
def level_of(alpha_hi, alpha_lo, offset, hi, lo):  # (rows,) each
    return (alpha_hi * hi + alpha_lo * lo) + offset


@triton.jit
def best_of(quality, objective, tie_rank, candidate, feasible):
    """Return (rows,) objective, quality, tie rank and position of the best feasible candidate: least objective, then highest
    quality, then lowest tie rank. +inf, -inf, +inf, 0 where none is feasible."""
    least = tl.min(tl.where(feasible, objective, NEVER), axis=1)  # (rows,)
    tied = feasible & (objective == least[:, None])
    best = tl.max(tl.where(tied, quality, -NEVER), axis=1)
    tied = tied & (quality == best[:, None])
    rank = tl.min(tl.where(tied, tie_rank, NEVER), axis=1)
    tied = tied & (tie_rank == rank[:, None])
    # Ranks are distinct, so at most one candidate is left: its position is the maximum.
    return least, best, rank, tl.max(tl.where(tied, candidate, 0), axis=1)


@triton.jit
def better_of(a_objective, a_quality, a_rank, a_index, b_objective, b_quality, b_rank, b_index):
    """Return the better of two answers of best_of, row by row."""
    b_wins = (b_objective < a_objective) | (
        (b_objective == a_objective) & ((b_quality > a_quality) | ((b_quality == a_quality) & (b_rank < a_rank)))
    )
    return (
        tl.where(b_wins, b_objective, a_objective),
        tl.where(b_wins, b_quality, a_quality),
        tl.where(b_wins, b_rank, a_rank),
        tl.where(b_wins, b_index, a_index),
    )


@triton.jit
def least_entering(quality, objective, others, threshold, chosen_objective, worth):
    """Return (rows,): the least change of the quality of one of `others` that makes it the choice."""
    dearer = objective > chosen_objective[:, None]
    # div_rn rounds as the CPU does; `/` is an approximation on a GPU. worth 0 divides by 1, and `where` drops the quotient.
    divisor = tl.broadcast_to(tl.where(worth > 0, worth, 1.0)[:, None], objective.shape)
    to_pay = tl.div_rn(objective - chosen_objective[:, None], divisor)
    to_pay = tl.where(worth[:, None] > 0, to_pay, NEVER)
    lacks = tl.maximum(threshold[:, None] - quality, 0.0)
    needed = tl.maximum(lacks, tl.where(dearer, to_pay, 0.0))
    return tl.min(tl.where(others, needed, NEVER), axis=1)


@triton.jit
def store_rows(
    threshold_to, gap_to, index_to, status_to, cause_to, rows, live,
    count, bad_quality, bad_cost, hi, level, threshold, index, chosen_quality, hi_others, level_others, entering,
    fixed,
):  # fmt: skip
    """Store threshold, gap, index, status and cause of rows whose choice is known; every argument is (rows,).

    Codes of status and cause are places in ipr_engine.decide.contract.STATUS and CAUSE.
    """
    # A choice is left once its quality is below the threshold; where it is the highest itself, the threshold falls with
    # it, down to that of the others.
    left = tl.minimum(level_others, hi_others)
    leaving = chosen_quality - tl.where(chosen_quality == hi, left, threshold)
    gap = tl.maximum(tl.minimum(leaving, entering), 0.0)
    gap = tl.where(count == 1, NEVER, gap)
    cause = tl.where(chosen_quality == hi, 3, 4)
    cause = tl.where(fixed & (level > hi), 2, cause)
    cause = tl.where(count == 1, 1, cause)
    status = tl.where(bad_quality, 1, tl.where(bad_cost, 2, 0))
    status = tl.where(count == 0, 3, status)
    failed = status != 0
    tl.store(threshold_to + rows, tl.where(failed, float("nan"), threshold), mask=live)
    tl.store(gap_to + rows, tl.where(failed, float("nan"), gap), mask=live)
    tl.store(index_to + rows, tl.where(failed, -1, index), mask=live)
    tl.store(status_to + rows, status.to(tl.uint8), mask=live)
    tl.store(cause_to + rows, tl.where(failed, 0, cause).to(tl.uint8), mask=live)


@triton.jit
def choose_from_outputs(
    vectors, policy, known, row_allowed, quality, cost_usd, flags,
    threshold_to, gap_to, index_to, status_to, cause_to,
    rows, live, models, padded, programs, allowed_stride, alpha_hi, alpha_lo, offset, worth, fixed,
    HAS_ROW_MASK: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_MODELS: tl.constexpr, BLOCK_CHOICE: tl.constexpr,
):  # fmt: skip
    """Make the choice in the last program of a row block, in three passes over the outputs of all its programs.

    Three, since each needs the result of the one before: threshold, then choice, then gap.
    """
    # Loads of outputs say ".cg", from L2: other processors wrote them, and this one's L1 may hold older bytes.
    hi = tl.full([BLOCK_ROWS], -NEVER, tl.float32)
    lo = tl.full([BLOCK_ROWS], NEVER, tl.float32)
    count = tl.zeros([BLOCK_ROWS], tl.int32)
    bad_quality = tl.zeros([BLOCK_ROWS], tl.int32)
    bad_cost = tl.zeros([BLOCK_ROWS], tl.int32)
    for first in range(0, models, BLOCK_CHOICE):
        candidates = first + tl.arange(0, BLOCK_CHOICE)
        allowed = load_allowed(
            policy, known, row_allowed, rows, live, candidates, models, padded, allowed_stride, HAS_ROW_MASK
        )
        at = rows[:, None] * models + candidates[None, :]
        q = tl.load(quality + at, mask=allowed, other=0.0, cache_modifier=".cg")
        cost = tl.load(cost_usd + at, mask=allowed, other=0.0, cache_modifier=".cg")
        at = rows[:, None] * programs + (candidates // BLOCK_MODELS)[None, :]  # the program that decided a candidate
        flagged = tl.load(flags + at, mask=allowed, other=0, cache_modifier=".cg")
        tile_hi, tile_lo = highest_lowest(q, allowed)
        hi, lo = tl.maximum(hi, tile_hi), tl.minimum(lo, tile_lo)
        count += tl.sum(allowed.to(tl.int32), axis=1)
        bad_quality = tl.maximum(bad_quality, tl.max(flagged, axis=1))
        bad_cost = tl.maximum(bad_cost, tl.max((allowed & (is_finite(cost) == 0)).to(tl.int32), axis=1))

    level = level_of(alpha_hi, alpha_lo, offset, hi, lo)
    threshold = tl.minimum(level, hi)
    least = tl.full([BLOCK_ROWS], NEVER, tl.float32)
    best = tl.full([BLOCK_ROWS], -NEVER, tl.float32)
    rank = tl.full([BLOCK_ROWS], NEVER, tl.float32)
    index = tl.zeros([BLOCK_ROWS], tl.int32)
    for first in range(0, models, BLOCK_CHOICE):
        candidates = first + tl.arange(0, BLOCK_CHOICE)
        allowed = load_allowed(
            policy, known, row_allowed, rows, live, candidates, models, padded, allowed_stride, HAS_ROW_MASK
        )
        at = rows[:, None] * models + candidates[None, :]
        q = tl.load(quality + at, mask=allowed, other=0.0, cache_modifier=".cg")
        cost = tl.load(cost_usd + at, mask=allowed, other=0.0, cache_modifier=".cg")
        tie_rank = tl.load(vectors + 3 * padded + candidates, mask=candidates < models, other=NEVER)[None, :]
        tie_rank = tl.broadcast_to(tie_rank, [BLOCK_ROWS, BLOCK_CHOICE])
        position = tl.broadcast_to(candidates[None, :], [BLOCK_ROWS, BLOCK_CHOICE])
        feasible = allowed & (q >= threshold[:, None])
        t_least, t_best, t_rank, t_index = best_of(q, cost - worth[:, None] * q, tie_rank, position, feasible)
        least, best, rank, index = better_of(least, best, rank, index, t_least, t_best, t_rank, t_index)

    hi_others = tl.full([BLOCK_ROWS], -NEVER, tl.float32)
    lo_others = tl.full([BLOCK_ROWS], NEVER, tl.float32)
    entering = tl.full([BLOCK_ROWS], NEVER, tl.float32)
    for first in range(0, models, BLOCK_CHOICE):
        candidates = first + tl.arange(0, BLOCK_CHOICE)
        allowed = load_allowed(
            policy, known, row_allowed, rows, live, candidates, models, padded, allowed_stride, HAS_ROW_MASK
        )
        at = rows[:, None] * models + candidates[None, :]
        q = tl.load(quality + at, mask=allowed, other=0.0, cache_modifier=".cg")
        cost = tl.load(cost_usd + at, mask=allowed, other=0.0, cache_modifier=".cg")
        others = allowed & (candidates[None, :] != index[:, None])
        tile_hi, tile_lo = highest_lowest(q, others)
        hi_others, lo_others = tl.maximum(hi_others, tile_hi), tl.minimum(lo_others, tile_lo)
        tile = least_entering(q, cost - worth[:, None] * q, others, threshold, least, worth)
        entering = tl.minimum(entering, tile)
    level_others = level_of(alpha_hi, alpha_lo, offset, hi_others, lo_others)
    store_rows(
        threshold_to, gap_to, index_to, status_to, cause_to, rows, live, count, bad_quality != 0, bad_cost != 0,
        hi, level, threshold, index, best, hi_others, level_others, entering, fixed,
    )  # fmt: skip
