"""`pool_rows` pools token states to embeddings inside the launch of kernels/decide.py: LayerNorm; mean, first or last token; L2 norm."""

import triton
import triton.language as tl


@triton.jit
def pool_rows(
    states, lengths, norm_scale, norm_shift, x, x_copy, first_row, batch, tokens,
    DIM: tl.constexpr, POOLING: tl.constexpr, NORMALIZE: tl.constexpr, STATE_EPS: tl.constexpr, X_COPY: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_TOKENS: tl.constexpr, POOL_PARTS: tl.constexpr, POOL_WIDTH: tl.constexpr,
):  # fmt: skip
    """Write x (batch, DIM) float32 of BLOCK_ROWS rows, as ipr_engine.encoders.torch pools (batch, tokens, DIM) states.

    STATE_EPS > 0: the states come before the encoder's last LayerNorm, and each token passes it here first.

    A row stands in registers until it is finished, since programs of other candidates may write the same row of x, with
    the same bits. Tokens are added block by block from the first, and padding is not read, so that it changes no bit. A row
    without a token becomes NaN, hence a status.
    """
    # Tokens are loaded as lines of POOL_WIDTH numbers, the first part of each token, then the second ...: Triton gives the lanes of
    # a warp to a line, which they fill, and the lines to the warps in turn. So the parts of a token meet in one warp, where
    # LayerNorm adds them up without a barrier.
    lines = tl.arange(0, POOL_PARTS * BLOCK_TOKENS)[:, None]
    ts = lines % BLOCK_TOKENS
    ks = lines // BLOCK_TOKENS * POOL_WIDTH + tl.arange(0, POOL_WIDTH)[None, :]
    inside = tl.reshape(ks < DIM, [POOL_PARTS, BLOCK_TOKENS, POOL_WIDTH])
    flat = tl.arange(0, POOL_PARTS)[:, None] * POOL_WIDTH + tl.arange(0, POOL_WIDTH)[None, :]  # (PARTS, WIDTH)
    for r in range(BLOCK_ROWS):
        row = (first_row + r).to(tl.int64)  # 4,096 rows of 512 tokens of 4,096 numbers pass 2^31
        if row < batch:
            # Nobody checks what a buffer on the device says: no length reaches into another row.
            have = tl.minimum(tl.maximum(tl.load(lengths + row), 0), tokens)
            begin, end = have * 0, have
            if POOLING == "cls":
                end = tl.minimum(have, 1)
            if POOLING == "last":
                begin = tl.maximum(have - 1, 0)
            # added up once, after the loop: no barrier in it
            sums = tl.zeros([POOL_PARTS, BLOCK_TOKENS, POOL_WIDTH], tl.float32)
            for t in range(begin, end, BLOCK_TOKENS):
                some = tl.load(states + (row * tokens + t + ts) * DIM + ks, mask=(t + ts < end) & (ks < DIM), other=0.0)
                some = tl.reshape(some, [POOL_PARTS, BLOCK_TOKENS, POOL_WIDTH]).to(tl.float32)
                if STATE_EPS > 0:
                    mean = tl.sum(tl.sum(some, axis=0), axis=1) * (1.0 / DIM)  # (TOKENS,)
                    away = tl.where(inside, some - mean[None, :, None], 0.0)
                    variance = tl.sum(tl.sum(away * away, axis=0), axis=1) * (1.0 / DIM)
                    some = away * tl.rsqrt(variance + STATE_EPS)[None, :, None]  # padding: 0 times a number
                sums += some
            # (PARTS, WIDTH); 0 / 0 where the row has no token
            total = tl.sum(sums, axis=1)
            total = tl.div_rn(total, tl.zeros([POOL_PARTS, POOL_WIDTH], tl.float32) + (end - begin).to(tl.float32))
            if STATE_EPS > 0:
                # of the mean, since they are the same for every token; asked for before the loop they would spill
                scale = tl.load(norm_scale + flat, mask=flat < DIM, other=0.0)
                total = tl.fma(total, scale, tl.load(norm_shift + flat, mask=flat < DIM, other=0.0))
            if NORMALIZE:
                # sqrt_rn and div_rn are correctly rounded; the bare operators are approximations
                squares = tl.where(flat < DIM, total * total, 0.0)
                norm = tl.sqrt_rn(tl.sum(tl.sum(squares, axis=0), axis=0))
                norm = tl.where(norm < 1e-12, 1e-12, norm)  # NaN stays
                total = tl.div_rn(total, tl.zeros([POOL_PARTS, POOL_WIDTH], tl.float32) + norm)
            tl.store(x + row * DIM + flat, total, mask=flat < DIM)
            if X_COPY:  # over PCIe, say: one of the programs of a row is enough
                tl.store(x_copy + row * DIM + flat, total, mask=flat < tl.where(tl.program_id(1) == 0, DIM, 0))
    tl.debug_barrier()  # other threads than those that wrote x read it
