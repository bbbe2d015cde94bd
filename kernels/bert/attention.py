"""`attend` is a layer's attention: LayerNorm, queries, keys and values of one head, softmax, context; one launch."""

import triton
import triton.language as tl

from .norm import input_at, moments, normalised
from .waiting import wait_for_earlier


@triton.jit
def _keys_values(
    y, scale, shift, w, bias, rows, live, h,
    DIM: tl.constexpr, HEAD: tl.constexpr, BLOCK_K: tl.constexpr, EPS: tl.constexpr, NORMED: tl.constexpr,
):  # fmt: skip
    """Return keys and values of a block of tokens, each (BLOCK_T, HEAD) in w's type."""
    kind: tl.constexpr = w.dtype.element_ty
    if NORMED:
        mean, rstd = 0.0, 0.0
    else:
        mean, rstd = moments(y, rows, live, DIM, EPS)
    k = tl.zeros([rows.shape[0], HEAD], tl.float32)
    v = tl.zeros([rows.shape[0], HEAD], tl.float32)
    for c in tl.range(0, DIM, BLOCK_K):
        ks = c + tl.arange(0, BLOCK_K)
        x = input_at(y, scale, shift, rows, live, ks, mean, rstd, DIM, NORMED)  # (BLOCK_T, BLOCK_K)
        at = w + h[None, :] * DIM + ks[:, None]  # (BLOCK_K, HEAD)
        k = tl.dot(x, tl.load(at + DIM * DIM), k)
        v = tl.dot(x, tl.load(at + 2 * DIM * DIM), v)
    k += tl.load(bias + DIM + h)[None, :]
    v += tl.load(bias + 2 * DIM + h)[None, :]
    return k.to(kind), v.to(kind)


@triton.jit(do_not_specialize=["tokens"])
def attend(
    y, scale, shift, w, bias, lengths, ctx, x_to, tokens,
    DIM: tl.constexpr, HEAD: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_K: tl.constexpr, EPS: tl.constexpr,
    NORMED: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """ctx = attention(x) of one head and BLOCK_T queries of one row, x = LayerNorm(y); x_to = x, that head's columns.

    y, ctx, x_to (batch, tokens, DIM); w (3, DIM, DIM), out by in, of queries, keys, values; bias (3, DIM); lengths (batch,) int32.
    With NORMED y is x already, and x_to is left alone.

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
    query_bias, key_bias, value_bias = tl.load(bias + h), tl.load(bias + DIM + h), tl.load(bias + 2 * DIM + h)
    wait_for_earlier(PDL)
    length = tl.minimum(tl.maximum(tl.load(lengths + row), 1), tokens)
    if block * BLOCK_T < length:
        if NORMED:
            mean, rstd = 0.0, 0.0
        else:
            mean, rstd = moments(y, rows, live, DIM, EPS)
        q = tl.zeros([BLOCK_T, HEAD], tl.float32)
        k = tl.zeros([BLOCK_T, HEAD], tl.float32)
        v = tl.zeros([BLOCK_T, HEAD], tl.float32)
        for c in tl.range(0, DIM, BLOCK_K):
            ks = c + tl.arange(0, BLOCK_K)
            x = input_at(y, scale, shift, rows, live, ks, mean, rstd, DIM, NORMED)  # (BLOCK_T, BLOCK_K)
            at = w + h[None, :] * DIM + ks[:, None]  # (BLOCK_K, HEAD)
            q = tl.dot(x, tl.load(at), q)
            k = tl.dot(x, tl.load(at + DIM * DIM), k)
            v = tl.dot(x, tl.load(at + 2 * DIM * DIM), v)
        if not NORMED:
            tl.store(x_to + to, normalised(y, scale, shift, rows, live, h, mean, rstd, DIM), mask=live[:, None])
        # softmax in powers of two: log2(e) is a factor of the queries
        q = ((q + query_bias[None, :]) * (1.4426950408889634 * HEAD**-0.5)).to(kind)
        k = (k + key_bias[None, :]).to(kind)
        v = (v + value_bias[None, :]).to(kind)
        s = tl.where((own < length)[None, :], tl.dot(q, tl.trans(k)), float("-inf"))  # (queries, keys)
        most = tl.max(s, axis=1)  # finite: each block that is looked at has a key
        p = tl.exp2(s - most[:, None])
        total = tl.sum(p, axis=1)
        o = tl.dot(p.to(kind), v)  # (BLOCK_T, HEAD)
        for i in range(tl.cdiv(length, BLOCK_T) - 1):
            keys = (i + (i >= block).to(tl.int32)) * BLOCK_T + tl.arange(0, BLOCK_T)
            k, v = _keys_values(
                y, scale, shift, w, bias, row * tokens + keys, keys < tokens, h, DIM, HEAD, BLOCK_K, EPS, NORMED
            )
            s = tl.where((keys < length)[None, :], tl.dot(q, tl.trans(k)), float("-inf"))
            more = tl.maximum(most, tl.max(s, axis=1))
            p = tl.exp2(s - more[:, None])
            shrunk = tl.exp2(most - more)
            total = total * shrunk + tl.sum(p, axis=1)
            o = tl.dot(p.to(kind), v, o * shrunk[:, None])
            most = more
        tl.store(ctx + to, (o / total[:, None]).to(kind), mask=live[:, None])
    else:  # padding alone: zeros, so that what is computed of them stays finite
        nothing = tl.zeros([BLOCK_T, HEAD], kind)
        tl.store(ctx + to, nothing, mask=live[:, None])
        if not NORMED:
            tl.store(x_to + to, nothing, mask=live[:, None])
