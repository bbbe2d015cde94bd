"""This file has the LayerNorm of token states, which each kernel that reads them does: a state is kept as the sum before it.

A product of LayerNorm(y) is a product of y: with scale in the weights w, mean and deviation in the result,

    LayerNorm(y) w0^T + b0 = (y w^T - mean sums) / deviation + bias,    w = w0 scale, sums = w 1, bias = b0 + w0 shift

so the loop over dim reads y as it is, and adds up mean and deviation beside the product.
"""

import triton
import triton.language as tl


@triton.jit
def empty_sums(ROWS: tl.constexpr, BLOCK_K: tl.constexpr):
    """Return the partial sums that `add_up` begins with."""
    return tl.zeros([ROWS, BLOCK_K // 8], tl.float32)


@triton.jit
def add_up(a, total, squares, BLOCK_K: tl.constexpr):
    """Add elements a (ROWS, BLOCK_K) and their squares to partial sums, (ROWS, BLOCK_K / 8) each."""
    # 8 elements are what a thread loads at once: they are added up in its registers
    f = tl.reshape(a.to(tl.float32), [a.shape[0], BLOCK_K // 8, 8])
    return total + tl.sum(f, axis=2), squares + tl.sum(f * f, axis=2)


@triton.jit
def moments(total, squares, DIM: tl.constexpr, EPS: tl.constexpr):
    """Return mean and 1 / deviation of rows, each (ROWS,), of their partial sums."""
    mean = tl.sum(total, axis=1) / DIM
    variance = tl.sum(squares, axis=1) / DIM - mean * mean
    return mean, tl.rsqrt(tl.maximum(variance, 0.0) + EPS)


@triton.jit
def product_of_norm(product, mean, rstd, sums, bias):
    """Return LayerNorm(y) w0^T + b0 of y's product with w, (ROWS, COLS)."""
    return (product - mean[:, None] * sums[None, :]) * rstd[:, None] + bias[None, :]


@triton.jit
def normalised(y, scale, shift, rows, live, cols, mean, rstd, DIM: tl.constexpr):
    """Return LayerNorm(y) at rows and cols, (ROWS, COLS), in y's type."""
    a = tl.load(y + rows[:, None] * DIM + cols[None, :], mask=live[:, None], other=0.0).to(tl.float32)
    a = (a - mean[:, None]) * rstd[:, None] * tl.load(scale + cols)[None, :] + tl.load(shift + cols)[None, :]
    return a.to(y.dtype.element_ty)
