"""`project` and `expand` are a layer's other matrix products: back to the token states with the residual, and out to the wide layer."""

import triton
import triton.language as tl

from .norm import add_up, empty_sums, moments, normalised, product_of_norm
from .waiting import wait_for_earlier


@triton.jit
def activated(a, ACTIVATION: tl.constexpr):
    """Apply relu, gelu (by erf) or gelu_tanh, in float32."""
    if ACTIVATION == "relu":
        a = tl.where(a < 0, 0.0, a)  # NaN stays
    elif ACTIVATION == "gelu":
        # max(a, 0) - |a| (1 - Phi(|a|)); 2 (1 - Phi(z)) = erfc(z / sqrt 2) by Abramowitz and Stegun 7.1.26: within 1.5e-7
        z = tl.abs(a)
        t = 1.0 / (1.0 + 0.23164189 * z)  # 0.3275911 / sqrt 2
        p = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
        a = tl.maximum(a, 0.0) - 0.5 * z * p * tl.exp2(a * a * -0.7213475204444817)  # e^(-a^2 / 2)
    else:  # 0.5 a (1 + tanh y) = a sigmoid(2 y), y = sqrt(2 / pi) (a + 0.044715 a^3); the factor has log2(e) in it
        a = a / (1.0 + tl.exp2(-2.302208198 * (0.044715 * (a * a * a) + a)))
    return a


@triton.jit(do_not_specialize=["count"])
def project(
    a, w, bias, x, y, count,
    K: tl.constexpr, DIM: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """y = a w^T + bias + x: a (count, K), w (DIM, K), x and y (count, DIM)."""
    COLS: tl.constexpr = DIM // BLOCK_N
    # Programs of the same rows come one after the other: the weights stay in L2, of the rows only some do.
    rows = tl.program_id(0) // COLS * BLOCK_M + tl.arange(0, BLOCK_M)
    cols = tl.program_id(0) % COLS * BLOCK_N + tl.arange(0, BLOCK_N)
    live = rows < count
    to = rows[:, None] * DIM + cols[None, :]
    added = tl.load(bias + cols)
    wait_for_earlier(PDL)
    sums = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for c in tl.range(0, K, BLOCK_K):
        ks = c + tl.arange(0, BLOCK_K)
        some = tl.load(a + rows[:, None] * K + ks[None, :], mask=live[:, None], other=0.0)
        sums = tl.dot(some, tl.load(w + cols[None, :] * K + ks[:, None]), sums)
    sums += added[None, :] + tl.load(x + to, mask=live[:, None], other=0.0).to(tl.float32)
    tl.store(y + to, sums.to(y.dtype.element_ty), mask=live[:, None])


@triton.jit(do_not_specialize=["count"])
def expand(
    y, scale, shift, w, sums, bias, u, x_to, count,
    WIDE: tl.constexpr, DIM: tl.constexpr, ACTIVATION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, EPS: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """u = activation(x w0^T + b0), x = LayerNorm(y): u (count, WIDE); w (WIDE, DIM), sums and bias (WIDE,) as norm.py has them.

    The programs of the first DIM columns also write x_to.
    """
    COLS: tl.constexpr = WIDE // BLOCK_N
    first = tl.program_id(0) % COLS * BLOCK_N
    rows = tl.program_id(0) // COLS * BLOCK_M + tl.arange(0, BLOCK_M)
    cols = first + tl.arange(0, BLOCK_N)
    live = rows < count
    sum_of, added = tl.load(sums + cols), tl.load(bias + cols)
    wait_for_earlier(PDL)
    product = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    total, squares = empty_sums(BLOCK_M, BLOCK_K), empty_sums(BLOCK_M, BLOCK_K)
    for c in tl.range(0, DIM, BLOCK_K):
        ks = c + tl.arange(0, BLOCK_K)
        a = tl.load(y + rows[:, None] * DIM + ks[None, :], mask=live[:, None], other=0.0)
        product = tl.dot(a, tl.load(w + cols[None, :] * DIM + ks[:, None]), product)
        total, squares = add_up(a, total, squares, BLOCK_K)
    mean, rstd = moments(total, squares, DIM, EPS)
    product = activated(product_of_norm(product, mean, rstd, sum_of, added), ACTIVATION)
    tl.store(u + rows[:, None] * WIDE + cols[None, :], product.to(u.dtype.element_ty), mask=live[:, None])
    if first < DIM:
        x = normalised(y, scale, shift, rows, live, cols, mean, rstd, DIM)
        tl.store(x_to + rows[:, None] * DIM + cols[None, :], x, mask=live[:, None])
