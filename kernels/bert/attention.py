"""`attend` is a layer's attention: LayerNorm, queries, keys and values of one head, softmax, context; one launch."""

import triton
import triton.language as tl

from .norm import add_up, empty_sums, moments, normalised, product_of_norm
from .waiting import wait_for_earlier


@triton.jit
def _of_qkv(vectors, h, DIM: tl.constexpr):
    """Load a head's numbers of `vectors` (3, DIM): of its queries, keys and values, each (HEAD,)."""
    return tl.load(vectors + h), tl.load(vectors + DIM + h), tl.load(vectors + 2 * DIM + h)


@triton.jit
def _keys_values(
    y, w, sums, bias, rows, live, h, depth,
    DIM: tl.constexpr, HEAD: tl.constexpr, BLOCK_K: tl.constexpr, EPS: tl.constexpr,
):  # fmt: skip
    """Return keys and values of a block of tokens, each (BLOCK_T, HEAD) in w's type."""
    k = tl.zeros([rows.shape[0], HEAD], tl.float32)
    v = tl.zeros([rows.shape[0], HEAD], tl.float32)
    total, squares = empty_sums(rows.shape[0], BLOCK_K), empty_sums(rows.shape[0], BLOCK_K)
    for c in tl.range(0, depth, BLOCK_K):
        ks = c + tl.arange(0, BLOCK_K)
        a = tl.load(y + rows[:, None] * DIM + ks[None, :], mask=live[:, None], other=0.0)  # (BLOCK_T, BLOCK_K)
        at = w + h[None, :] * DIM + ks[:, None]  # (BLOCK_K, HEAD)
        k = tl.dot(a, tl.load(at + DIM * DIM), k)
        v = tl.dot(a, tl.load(at + 2 * DIM * DIM), v)
        total, squares = add_up(a, total, squares, BLOCK_K)
    mean, rstd = moments(total, squares, DIM, EPS)
    k = product_of_norm(k, mean, rstd, tl.load(sums + DIM + h), tl.load(bias + DIM + h))
    v = product_of_norm(v, mean, rstd, tl.load(sums + 2 * DIM + h), tl.load(bias + 2 * DIM + h))
    return k.to(w.dtype.element_ty), v.to(w.dtype.element_ty)


@triton.jit(do_not_specialize=["tokens", "depth"])
def attend(
    y, scale, shift, w, sums, bias, lengths, ctx, x_to, tokens, depth,
    DIM: tl.constexpr, HEAD: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_K: tl.constexpr, EPS: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """ctx = attention(x) of one head and BLOCK_T queries of one row, x = LayerNorm(y); x_to = x, that head's columns.

    depth is DIM once more: a loop whose end the compiler knows is unrolled whole, and spills.

    y, ctx, x_to (batch, tokens, DIM); w (3, DIM, DIM), out by in, of queries, keys, values; sums and bias (3, DIM), as norm.py
    has them; lengths (batch,) int32.

    Keys of the queries' own block come first, then the other blocks in their order, up to the row's length: the order depends
    on the row and the query alone. Keys and values are computed again for every block of queries. A row without a token is
    taken for one of one token.
    """
    HEADS: tl.constexpr = DIM // HEAD
    kind: tl.constexpr = w.dtype.element_ty
    program, blocks = tl.program_id(0), tl.cdiv(tokens, BLOCK_T)
    head, block, row = program % HEADS, program // HEADS % blocks, program // HEADS // blocks
    h = head * HEAD + tl.arange(0, HEAD)
    own = block * BLOCK_T + tl.arange(0, BLOCK_T)
    live, rows = own < tokens, row * tokens + own  # (BLOCK_T,)
    to = rows[:, None] * DIM + h[None, :]
    # What does not depend on y is asked for before the wait. Without PDL there is none to hide it, and sm_80 would spill it.
    if PDL:
        q_sums, k_sums, v_sums = _of_qkv(sums, h, DIM)
        q_bias, k_bias, v_bias = _of_qkv(bias, h, DIM)
    wait_for_earlier(PDL)
    length = tl.minimum(tl.maximum(tl.load(lengths + row), 1), tokens)
    if block * BLOCK_T < length:
        q = tl.zeros([BLOCK_T, HEAD], tl.float32)
        k = tl.zeros([BLOCK_T, HEAD], tl.float32)
        v = tl.zeros([BLOCK_T, HEAD], tl.float32)
        total, squares = empty_sums(BLOCK_T, BLOCK_K), empty_sums(BLOCK_T, BLOCK_K)
        for c in tl.range(0, depth, BLOCK_K):
            ks = c + tl.arange(0, BLOCK_K)
            a = tl.load(y + rows[:, None] * DIM + ks[None, :], mask=live[:, None], other=0.0)  # (BLOCK_T, BLOCK_K)
            at = w + h[None, :] * DIM + ks[:, None]  # (BLOCK_K, HEAD)
            q = tl.dot(a, tl.load(at), q)
            k = tl.dot(a, tl.load(at + DIM * DIM), k)
            v = tl.dot(a, tl.load(at + 2 * DIM * DIM), v)
            total, squares = add_up(a, total, squares, BLOCK_K)
        mean, rstd = moments(total, squares, DIM, EPS)
        tl.store(x_to + to, normalised(y, scale, shift, rows, live, h, mean, rstd, DIM), mask=live[:, None])
        if not PDL:
            q_sums, k_sums, v_sums = _of_qkv(sums, h, DIM)
            q_bias, k_bias, v_bias = _of_qkv(bias, h, DIM)
        q = product_of_norm(q, mean, rstd, q_sums, q_bias)
        k = product_of_norm(k, mean, rstd, k_sums, k_bias).to(kind)
        v = product_of_norm(v, mean, rstd, v_sums, v_bias).to(kind)
        # softmax in powers of two: log2(e) is a factor of the queries
        q = (q * (1.4426950408889634 * HEAD**-0.5)).to(kind)
        s = tl.where((own < length)[None, :], tl.dot(q, tl.trans(k)), float("-inf"))  # (queries, keys)
        most = tl.max(s, axis=1)  # finite: each block that is looked at has a key
        p = tl.exp2(s - most[:, None])
        weight = tl.sum(p, axis=1)
        o = tl.dot(p.to(kind), v)  # (BLOCK_T, HEAD)
        for i in range(tl.cdiv(length, BLOCK_T) - 1):
            keys = (i + (i >= block).to(tl.int32)) * BLOCK_T + tl.arange(0, BLOCK_T)
            k, v = _keys_values(y, w, sums, bias, row * tokens + keys, keys < tokens, h, depth, DIM, HEAD, BLOCK_K, EPS)
            s = tl.where((keys < length)[None, :], tl.dot(q, tl.trans(k)), float("-inf"))
            more = tl.maximum(most, tl.max(s, axis=1))
            p = tl.exp2(s - more[:, None])
            shrunk = tl.exp2(most - more)
            weight = weight * shrunk + tl.sum(p, axis=1)
            o = tl.dot(p.to(kind), v, o * shrunk[:, None])
            most = more
        tl.store(ctx + to, (o / weight[:, None]).to(kind), mask=live[:, None])
    else:  # padding alone: zeros, so that what is computed of them stays finite
        nothing = tl.zeros([BLOCK_T, HEAD], kind)
        tl.store(ctx + to, nothing, mask=live[:, None])
        tl.store(x_to + to, nothing, mask=live[:, None])
