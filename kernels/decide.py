"""`decide_kernel` runs `decide` (docs/decide.md) in one Triton launch; docs/kernels.md tells how it is tiled.

Program (i, j) takes BLOCK_ROWS prompts and BLOCK_MODELS candidates: the products with x, the hidden layer, then quality,
tokens and cost of its candidates. With ONE_PROGRAM all candidates fit and the choice is made at once. Otherwise the last
program of a row block to arrive makes it, from the outputs that the others have written.

Whatever fixes the order of a sum is a constexpr: the same for every batch, hence a row of a batch equals that row alone.

Memory (packing.py fills it; all row-major, `|` = concatenated, PADDED = models rounded up to 16):
    weights     skip (models, DP) | len_skip (models, DP) | trunk (HP, DP) | down (models, RANK, DP)
                | up (models, RANK, HP) | identity (models, HP) | out (models, HP); absent ones take no room, padding is 0
    vectors     bias | len_bias | len_cap (inf: none) | tie_rank, each (PADDED,)
                | of a forest: thresholds (TREES, 2^DEPTH) | columns of x, int32 by their bits, (TREES, 2^DEPTH)
                | leaves (TREES, 2^DEPTH, PADDED); nodes in heap order, the last of each tree is unused
    policies    a row each: alpha_hi, alpha_lo, offset, worth, price tiers above the first, 11 unused
                | in_rate | out_rate | fixed_usd | allowed (1 or 0) | MORE_TIERS times: tier_above | in_rate | out_rate
"""

import triton
import triton.language as tl

from .activate import activate, exp, sigmoid
from .choose import (
    MORE_TIERS,
    NEVER,
    POLICY_NUMBERS,
    best_of,
    choose_from_outputs,
    highest_lowest,
    is_finite,
    least_entering,
    level_of,
    load_allowed,
    store_rows,
)
from .handshake import tell_host, wait_for_earlier_kernels
from .pool import pool_rows


# Partial sums stay apart in BLOCK_DIM columns until the loop over dim is done: one reduction at its end, no barrier in it.
@triton.jit
def _sums(ROWS: tl.constexpr, N: tl.constexpr, BLOCK_DIM: tl.constexpr):
    return tl.zeros([ROWS, N, BLOCK_DIM], tl.float32)


@triton.jit
def _add_products(
    sums, x, rows, live, weights, some, real, k, DIM: tl.constexpr, WIDTH: tl.constexpr, BLOCK_DIM: tl.constexpr
):
    """Add elements k to k + BLOCK_DIM of x (rows,) times those of the weight rows `some` (N,) to sums.

    The weights' dim is padded with zeros, so only their rows are masked. Both are loaded in the shape of sums,
    (1, N, BLOCK_DIM) and (rows, 1, BLOCK_DIM), so that the threads which load a weight are those that use it.
    """
    DP: tl.constexpr = (WIDTH + 127) // 128 * 128
    ks = k + tl.arange(0, BLOCK_DIM)
    at = x + rows[:, None, None] * DIM + ks[None, None, :]
    xs = tl.load(at, mask=live[:, None, None] & (ks < WIDTH)[None, None, :], other=0.0)  # (ROWS, 1, BLOCK_DIM)
    at = weights + some[None, :, None] * DP + ks[None, None, :]
    w = tl.load(at, mask=real[None, :, None], other=0.0)  # (1, N, BLOCK_DIM)
    sums = tl.fma(tl.broadcast_to(w.to(tl.float32), sums.shape), tl.broadcast_to(xs, sums.shape), sums)
    return sums


@triton.jit
def _finish_sums(sums):
    """Return (ROWS, N): the partial sums added up."""
    return tl.sum(sums, axis=2)


@triton.jit
def _sum_leaves(
    forest, x, rows, live, candidates, real, padded,
    DIM: tl.constexpr, TREES: tl.constexpr, DEPTH: tl.constexpr, BLOCK_TREES: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_MODELS: tl.constexpr,
):  # fmt: skip
    """Return what the trees add to the logits, (BLOCK_ROWS, BLOCK_MODELS): BLOCK_TREES of them are walked side by side."""
    LEAVES: tl.constexpr = 1 << DEPTH
    columns = forest + TREES * LEAVES
    leaves = columns + TREES * LEAVES
    total = tl.zeros([BLOCK_ROWS, BLOCK_MODELS], tl.float32)
    for first in range(0, TREES, BLOCK_TREES):
        trees = first + tl.arange(0, BLOCK_TREES)
        inside = live[:, None] & (trees < TREES)[None, :]
        node = tl.zeros([BLOCK_ROWS, BLOCK_TREES], tl.int32)
        for _ in range(DEPTH):
            at = trees[None, :] * LEAVES + node
            threshold = tl.load(forest + at, mask=inside, other=0.0)
            column = tl.load(columns + at, mask=inside, other=0.0).to(tl.int32, bitcast=True)
            of_x = tl.load(x + rows[:, None] * DIM + column, mask=inside, other=0.0)
            node = 2 * node + 1 + (of_x > threshold).to(tl.int32)  # NaN: left
        at = (trees[None, :] * LEAVES + node - (LEAVES - 1))[:, :, None] * padded + candidates[None, None, :]
        added = tl.load(leaves + at, mask=inside[:, :, None] & real[None, None, :], other=0.0)
        total += tl.sum(added, axis=1)
    return total


@triton.jit
def _tier_rates(policy, rates, billed, in_rate, out_rate, live, inside, padded):
    """Return the rates in the price tier of each bill, (BLOCK_ROWS, BLOCK_MODELS). Tiers that a policy lacks begin above infinity."""
    # The most tiers of any row of the block: the loop is one for all of them.
    more = tl.max(tl.load(policy + 4, mask=live, other=0.0), axis=0).to(tl.int32)
    for tier in range(more):
        at = rates + (4 + 3 * tier) * padded
        above = billed > tl.load(at, mask=inside, other=NEVER)
        in_rate = tl.where(above, tl.load(at + padded, mask=inside, other=0.0), in_rate)
        out_rate = tl.where(above, tl.load(at + 2 * padded, mask=inside, other=0.0), out_rate)
    return in_rate, out_rate


@triton.jit(
    do_not_specialize=[
        "batch", "models", "policy_count", "billed_stride", "billed_step", "given_stride", "extra_stride",
        "allowed_stride", "tokens",
    ]
)  # fmt: skip
def decide_kernel(
    x, weights, vectors, policies, policy_of_row, billed_tokens, given_tokens, extra_usd, row_allowed,
    states, lengths, norm_scale, norm_shift, sequence,
    quality, tokens_out, cost_usd, threshold_to, gap_to, index_to, status_to, cause_to, x_copy, done,
    adapters, flags, arrivals,
    batch, models, policy_count, billed_stride, billed_step, given_stride, extra_stride, allowed_stride, tokens,
    DIM: tl.constexpr, WIDTH: tl.constexpr, HIDDEN: tl.constexpr, RANK: tl.constexpr, ACTIVATION: tl.constexpr,
    HAS_SKIP: tl.constexpr, HAS_TRUNK: tl.constexpr, HAS_IDENTITY: tl.constexpr, HAS_LEN: tl.constexpr,
    TREES: tl.constexpr, DEPTH: tl.constexpr, BLOCK_TREES: tl.constexpr,
    HAS_GIVEN: tl.constexpr, HAS_EXTRA: tl.constexpr, HAS_ROW_MASK: tl.constexpr,
    POOLING: tl.constexpr, NORMALIZE: tl.constexpr, STATE_EPS: tl.constexpr, X_COPY: tl.constexpr,
    DONE: tl.constexpr, PDL: tl.constexpr,
    ONE_PROGRAM: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_MODELS: tl.constexpr, BLOCK_HIDDEN: tl.constexpr, BLOCK_DIM: tl.constexpr,
    UNROLL: tl.constexpr, BLOCK_CHOICE: tl.constexpr, BLOCK_TOKENS: tl.constexpr,
    POOL_PARTS: tl.constexpr, POOL_WIDTH: tl.constexpr,
):  # fmt: skip
    DP: tl.constexpr = (WIDTH + 127) // 128 * 128  # packing.DIM_PADDING
    HP: tl.constexpr = (HIDDEN + 63) // 64 * 64  # packing.HIDDEN_PADDING
    first_row = tl.program_id(0) * BLOCK_ROWS
    rows = first_row + tl.arange(0, BLOCK_ROWS)  # (BLOCK_ROWS,)
    live = rows < batch
    candidates = tl.program_id(1) * BLOCK_MODELS + tl.arange(0, BLOCK_MODELS)  # (BLOCK_MODELS,)
    real = candidates < models
    padded = (models + 15) // 16 * 16

    # where the parts of `weights` begin
    len_at = weights
    if HAS_SKIP:
        len_at += models * DP
    trunk_at = len_at
    if HAS_LEN:
        trunk_at += models * DP
    down_at = trunk_at
    if HAS_TRUNK:
        down_at += HP * DP
    up_at = down_at + models * RANK * DP
    identity_at = up_at + models * RANK * HP
    out_at = identity_at
    if HAS_IDENTITY:
        out_at += models * HP

    # Issue the loads that do not depend on x first, those of the heads before the wait for what earlier kernels write.
    bias = tl.load(vectors + candidates, mask=real, other=0.0)
    len_bias = tl.load(vectors + padded + candidates, mask=real, other=0.0)
    len_cap = tl.load(vectors + 2 * padded + candidates, mask=real, other=0.0)
    tie_rank = tl.load(vectors + 3 * padded + candidates, mask=real, other=NEVER)
    if PDL:
        wait_for_earlier_kernels()
    if DONE:
        number = tl.load(sequence)
    inside = live[:, None] & real[None, :]
    of_row = tl.load(policy_of_row + rows, mask=live, other=0)
    known = (of_row >= 0) & (of_row < policy_count)
    of_row = tl.where(known, of_row, 0)  # an unknown row reads policy 0 and is allowed nobody
    policy = policies + of_row * (POLICY_NUMBERS + (4 + 3 * MORE_TIERS) * padded)  # (BLOCK_ROWS,) pointers
    alpha_hi, alpha_lo = tl.load(policy), tl.load(policy + 1)
    offset, worth = tl.load(policy + 2), tl.load(policy + 3)
    rates = policy[:, None] + POLICY_NUMBERS + candidates[None, :]  # (BLOCK_ROWS, BLOCK_MODELS) pointers
    in_rate = tl.load(rates, mask=inside, other=0.0)
    out_rate = tl.load(rates + padded, mask=inside, other=0.0)
    fixed_usd = tl.load(rates + 2 * padded, mask=inside, other=0.0)
    # a bill a row has step 0: all candidates read the same
    billed_at = billed_tokens + rows[:, None] * billed_stride + candidates[None, :] * billed_step
    billed = tl.load(billed_at, mask=inside, other=0.0)
    allowed = load_allowed(
        policy, known, row_allowed, rows, live, candidates, models, padded, allowed_stride, HAS_ROW_MASK
    )

    if POOLING != "none":
        pool_rows(
            states, lengths, norm_scale, norm_shift, x, x_copy, first_row, batch, tokens,
            DIM, POOLING, NORMALIZE, STATE_EPS, X_COPY,
            BLOCK_ROWS, BLOCK_TOKENS, POOL_PARTS, POOL_WIDTH,
        )  # fmt: skip

    # One loop over dim for three products, which read the same block of x.
    units = tl.arange(0, BLOCK_HIDDEN)
    all_units = units < HP
    skip = _sums(BLOCK_ROWS, BLOCK_MODELS, BLOCK_DIM)
    length = _sums(BLOCK_ROWS, BLOCK_MODELS, BLOCK_DIM)
    trunk = _sums(BLOCK_ROWS, BLOCK_HIDDEN, BLOCK_DIM)  # of the first hidden units; later ones follow below
    for k in tl.range(0, WIDTH, BLOCK_DIM, loop_unroll_factor=UNROLL):
        if HAS_SKIP:
            skip = _add_products(skip, x, rows, live, weights, candidates, real, k, DIM, WIDTH, BLOCK_DIM)
        if HAS_LEN:
            length = _add_products(length, x, rows, live, len_at, candidates, real, k, DIM, WIDTH, BLOCK_DIM)
        if HAS_TRUNK:
            trunk = _add_products(trunk, x, rows, live, trunk_at, units, all_units, k, DIM, WIDTH, BLOCK_DIM)

    # down x (batch, models, RANK) goes through global memory: the loop over hidden units reads it once a block.
    if RANK > 0:
        for a in range(RANK):
            down = _sums(BLOCK_ROWS, BLOCK_MODELS, BLOCK_DIM)
            for k in tl.range(0, WIDTH, BLOCK_DIM, loop_unroll_factor=UNROLL):
                down = _add_products(
                    down, x, rows, live, down_at, candidates * RANK + a, real, k, DIM, WIDTH, BLOCK_DIM
                )
            at = adapters + (rows[:, None] * models + candidates[None, :]) * RANK + a
            tl.store(at, _finish_sums(down), mask=inside)
        tl.debug_barrier()  # other threads than those that wrote them read them

    # logit of quality
    logit = tl.zeros([BLOCK_ROWS, BLOCK_MODELS], tl.float32)
    if HAS_SKIP:
        logit = _finish_sums(skip)
    if HIDDEN > 0:
        head = tl.zeros([BLOCK_ROWS, BLOCK_MODELS], tl.float32)
        u = _finish_sums(trunk)  # (BLOCK_ROWS, BLOCK_HIDDEN)
        for h in range(0, HIDDEN, BLOCK_HIDDEN):
            hs = h + units
            hidden = tl.zeros([BLOCK_ROWS, BLOCK_MODELS, BLOCK_HIDDEN], tl.float32)
            if HAS_TRUNK:
                hidden += u[:, None, :]
            if HAS_IDENTITY:
                at = identity_at + candidates[:, None] * HP + hs[None, :]
                hidden += tl.load(at, mask=real[:, None], other=0.0).to(tl.float32)[None, :, :]
            if RANK > 0:
                for a in range(RANK):
                    at = adapters + (rows[:, None] * models + candidates[None, :]) * RANK + a
                    d = tl.load(at, mask=inside, other=0.0)  # (BLOCK_ROWS, BLOCK_MODELS)
                    at = up_at + (candidates[:, None] * RANK + a) * HP + hs[None, :]
                    up = tl.load(at, mask=real[:, None], other=0.0).to(tl.float32)
                    hidden = tl.fma(up[None, :, :], d[:, :, None], hidden)
            hidden = tl.where((hs < HIDDEN)[None, None, :], hidden, 0.0)  # padding may be inf * 0
            out = tl.load(out_at + candidates[:, None] * HP + hs[None, :], mask=real[:, None], other=0.0)
            head += tl.sum(activate(hidden, ACTIVATION) * out.to(tl.float32)[None, :, :], axis=2)
            if HAS_TRUNK:
                if h + BLOCK_HIDDEN < HIDDEN:  # the next units, before the loop comes to them
                    trunk = _sums(BLOCK_ROWS, BLOCK_HIDDEN, BLOCK_DIM)
                    for k in tl.range(0, WIDTH, BLOCK_DIM, loop_unroll_factor=UNROLL):
                        trunk = _add_products(
                            trunk, x, rows, live, trunk_at, hs + BLOCK_HIDDEN, all_units, k, DIM, WIDTH, BLOCK_DIM
                        )
                    u = _finish_sums(trunk)
        logit += head
    logit += bias[None, :]
    if TREES > 0:
        logit += _sum_leaves(
            vectors + 4 * padded, x, rows, live, candidates, real, padded,
            DIM, TREES, DEPTH, BLOCK_TREES, BLOCK_ROWS, BLOCK_MODELS,
        )  # fmt: skip
    q = sigmoid(logit)  # (BLOCK_ROWS, BLOCK_MODELS)

    # output tokens
    predicted = tl.full([BLOCK_ROWS, BLOCK_MODELS], float("nan"), tl.float32)
    if HAS_LEN:
        predicted = exp(_finish_sums(length) + len_bias[None, :])
        predicted = tl.where(predicted > len_cap[None, :], len_cap[None, :], predicted)  # NaN stays
    if HAS_GIVEN:
        given = tl.load(given_tokens + rows[:, None] * given_stride + candidates[None, :], mask=inside, other=0.0)
        predicted = tl.where(given == given, given, predicted)  # NaN: not given

    # cost
    in_rate, out_rate = _tier_rates(policy, rates, billed, in_rate, out_rate, live, inside, padded)
    cost = fixed_usd + (in_rate * billed + out_rate * predicted)
    if HAS_EXTRA:
        cost += tl.load(extra_usd + rows[:, None] * extra_stride + candidates[None, :], mask=inside, other=0.0)

    to = rows[:, None] * models + candidates[None, :]
    tl.store(quality + to, q, mask=inside)
    tl.store(tokens_out + to, predicted, mask=inside)
    tl.store(cost_usd + to, cost, mask=inside)

    # the choice
    # Of the logit, not of quality: the sigmoid of an infinity is finite.
    bad_quality = tl.max((allowed & (is_finite(logit) == 0)).to(tl.int32), axis=1)  # (BLOCK_ROWS,)
    fixed = (alpha_hi == 0) & (alpha_lo == 0)
    if ONE_PROGRAM:
        bad_cost = tl.max((allowed & (is_finite(cost) == 0)).to(tl.int32), axis=1)
        count = tl.sum(allowed.to(tl.int32), axis=1)
        hi, lo = highest_lowest(q, allowed)
        level = level_of(alpha_hi, alpha_lo, offset, hi, lo)
        threshold = tl.minimum(level, hi)
        objective = cost - worth[:, None] * q
        tie_rank = tl.broadcast_to(tie_rank[None, :], [BLOCK_ROWS, BLOCK_MODELS])
        position = tl.broadcast_to(candidates[None, :], [BLOCK_ROWS, BLOCK_MODELS])
        feasible = allowed & (q >= threshold[:, None])
        least, best, _, index = best_of(q, objective, tie_rank, position, feasible)
        others = allowed & (position != index[:, None])
        hi_others, lo_others = highest_lowest(q, others)
        entering = least_entering(q, objective, others, threshold, least, worth)
        level_others = level_of(alpha_hi, alpha_lo, offset, hi_others, lo_others)
        store_rows(
            threshold_to, gap_to, index_to, status_to, cause_to, rows, live, count, bad_quality != 0, bad_cost != 0,
            hi, level, threshold, index, best, hi_others, level_others, entering, fixed,
        )  # fmt: skip
        if DONE:
            tell_host(done, number, arrivals + tl.num_programs(0), tl.num_programs(0))
    else:
        programs = tl.num_programs(1)
        tl.store(flags + rows * programs + tl.program_id(1), bad_quality, mask=live)
        tl.debug_barrier()  # all threads have stored before one of them tells
        # acq_rel at the GPU's scope: the last to arrive sees what all others stored before they did.
        arrived = tl.atomic_add(arrivals + tl.program_id(0), 1, sem="acq_rel", scope="gpu")
        if arrived == programs - 1:
            tl.store(arrivals + tl.program_id(0), 0)  # for the next launch
            choose_from_outputs(
                vectors, policy, known, row_allowed, quality, cost_usd, flags,
                threshold_to, gap_to, index_to, status_to, cause_to,
                rows, live, models, padded, programs, allowed_stride, alpha_hi, alpha_lo, offset, worth, fixed,
                HAS_ROW_MASK, BLOCK_ROWS, BLOCK_MODELS, BLOCK_CHOICE,
            )  # fmt: skip
            if DONE:
                tell_host(done, number, arrivals + tl.num_programs(0), tl.num_programs(0))
