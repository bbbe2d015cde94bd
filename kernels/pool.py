"""`pool_rows` pools token states to embeddings inside the launch of kernels/decide.py: mean, first or last token; L2 norm."""

import triton
import triton.language as tl


@triton.jit
def pool_rows(
    states, lengths, x, first_row, batch, tokens,
    DIM: tl.constexpr, POOLING: tl.constexpr, NORMALIZE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_TOKENS: tl.constexpr, BLOCK_POOL: tl.constexpr,
):  # fmt: skip
    """Write x (batch, DIM) float32 of BLOCK_ROWS rows, as ipr_engine.encoders.torch pools (batch, tokens, DIM) states.

    BLOCK_POOL >= DIM: a row stands in registers until it is finished, since programs of other candidates may write the
    same row of x, with the same bits. Tokens are added block by block from the first, and padding is not read, so that it
    changes no bit. A row without a token becomes NaN, hence a status.
    """
    ks = tl.arange(0, BLOCK_POOL)
    ts = tl.arange(0, BLOCK_TOKENS)
    for r in range(BLOCK_ROWS):
        row = (first_row + r).to(tl.int64)  # 4,096 rows of 512 tokens of 4,096 numbers pass 2^31
        if row < batch:
            # Nobody checks what a buffer on the device says: no length reaches into another row.
            have = tl.minimum(tl.maximum(tl.load(lengths + row), 0), tokens)
            if POOLING == "mean":
                # added up once, after the loop: no barrier in it
                sums = tl.zeros([BLOCK_TOKENS, BLOCK_POOL], tl.float32)
                for t in range(0, have, BLOCK_TOKENS):
                    some = tl.load(
                        states + (row * tokens + t + ts)[:, None] * DIM + ks[None, :],
                        mask=(t + ts < have)[:, None] & (ks < DIM)[None, :],
                        other=0.0,
                    )  # (BLOCK_TOKENS, BLOCK_POOL)
                    sums += some.to(tl.float32)
                total = tl.div_rn(tl.sum(sums, axis=0), tl.zeros([BLOCK_POOL], tl.float32) + have.to(tl.float32))
            else:
                at = row * tokens
                if POOLING == "last":
                    at += tl.maximum(have - 1, 0)
                total = tl.load(states + at * DIM + ks, mask=ks < tl.where(have > 0, DIM, 0), other=0.0)
                total = tl.where(have > 0, total.to(tl.float32), float("nan"))  # (BLOCK_POOL,)
            if NORMALIZE:
                # sqrt_rn and div_rn are correctly rounded; the bare operators are approximations
                norm = tl.sqrt_rn(tl.sum(tl.where(ks < DIM, total * total, 0.0), axis=0))
                norm = tl.where(norm < 1e-12, 1e-12, norm)  # NaN stays
                total = tl.div_rn(total, tl.zeros([BLOCK_POOL], tl.float32) + norm)
            tl.store(x + row * DIM + ks, total, mask=ks < DIM)
    tl.debug_barrier()  # other threads than those that wrote x read it
