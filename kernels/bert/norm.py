"""This file has the LayerNorm of token states: each kernel that reads them normalises, or `normalise` did it for all of them.

States are kept as the sum before LayerNorm: whoever needs the normalised row reads the row whole anyway. The order of the sums
over a row is one for every kernel and tile: BLOCK columns of partial sums, added up at the end.
"""

import triton
import triton.language as tl

from .waiting import wait_for_earlier

BLOCK = tl.constexpr(64)  # dims are multiples of it


@triton.jit
def moments(y, rows, live, DIM: tl.constexpr, EPS: tl.constexpr):
    """Return mean and 1 / deviation of rows of y, each (ROWS,). Two passes: the second reads what the first left in L1."""
    cols = tl.arange(0, BLOCK)
    sums = tl.zeros([rows.shape[0], BLOCK], tl.float32)
    for c in tl.static_range(0, DIM, BLOCK):
        sums += tl.load(y + rows[:, None] * DIM + (c + cols)[None, :], mask=live[:, None], other=0.0).to(tl.float32)
    mean = tl.sum(sums, axis=1) / DIM
    sums = tl.zeros([rows.shape[0], BLOCK], tl.float32)
    for c in tl.static_range(0, DIM, BLOCK):
        a = tl.load(y + rows[:, None] * DIM + (c + cols)[None, :], mask=live[:, None], other=0.0).to(tl.float32)
        a -= mean[:, None]
        sums += a * a
    return mean, tl.rsqrt(tl.sum(sums, axis=1) / DIM + EPS)


@triton.jit
def normalised(y, scale, shift, rows, live, cols, mean, rstd, DIM: tl.constexpr):
    """Return LayerNorm(y) at rows and cols, (ROWS, COLS), in y's type."""
    a = tl.load(y + rows[:, None] * DIM + cols[None, :], mask=live[:, None], other=0.0).to(tl.float32)
    a = (a - mean[:, None]) * rstd[:, None] * tl.load(scale + cols)[None, :] + tl.load(shift + cols)[None, :]
    return a.to(y.dtype.element_ty)


@triton.jit
def input_at(y, scale, shift, rows, live, cols, mean, rstd, DIM: tl.constexpr, NORMED: tl.constexpr):
    """Return the input of a product at rows and cols: y where it is normalised already, else LayerNorm(y)."""
    if NORMED:
        return tl.load(y + rows[:, None] * DIM + cols[None, :], mask=live[:, None], other=0.0)
    else:
        return normalised(y, scale, shift, rows, live, cols, mean, rstd, DIM)


@triton.jit(do_not_specialize=["count"])
def normalise(
    y, scale, shift, x, count,
    DIM: tl.constexpr, EPS: tl.constexpr, BLOCK_M: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """x = LayerNorm(y), (count, DIM)."""
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    live = rows < count
    wait_for_earlier(PDL)
    mean, rstd = moments(y, rows, live, DIM, EPS)
    for c in tl.static_range(0, DIM, BLOCK):
        cols = c + tl.arange(0, BLOCK)
        a = normalised(y, scale, shift, rows, live, cols, mean, rstd, DIM)
        tl.store(x + rows[:, None] * DIM + cols[None, :], a, mask=live[:, None])
