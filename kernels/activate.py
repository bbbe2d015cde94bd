"""This file has exp, sigmoid and the activations of kernels/decide.py, by the formulas of csrc/src/simd/math16.h."""

import triton
import triton.language as tl


@triton.jit
def _round_even(a):
    # Adding 1.5 * 2^23 leaves no bits behind the point: the hardware's own rounding, to even, does it.
    return (a + 12582912.0) - 12582912.0


@triton.jit
def _power_of_two(n):
    return ((n.to(tl.int32) + 127) << 23).to(tl.float32, bitcast=True)  # the exponent field of a float32


@triton.jit
def exp(x):
    """Return e^x within 1 ulp, subnormal results too; +-inf and NaN are right. tl.exp is ex2.approx: off by |x| 2^-24 and more.

    ln 2 stands in two floats of which the first has 9 bits, so that n times it is exact with and without fma.
    """
    x = tl.where(x > 89.0, 89.0, tl.where(x < -104.0, -104.0, x))  # past both ends of float32; NaN stays
    n = _round_even(x * 1.44269504)  # 1 / ln 2
    r = (x - n * 0.693359375) + n * 2.12194440e-4
    # (e^r - 1 - r) / r^2, minimax on |r| <= ln(2) / 2, as in csrc/src/simd/math16.h
    q = r * 0.0013814540579915047 + 0.00836874544620514
    q = q * r + 0.04166838899254799
    q = q * r + 0.1666652113199234
    q = q * r + 0.4999999403953552
    p = (q * (r * r) + r) + 1.0
    n = tl.where(x == x, n, 0.0)  # a NaN has no integer
    half = _round_even(n * 0.5)  # 2^n in two factors: at the ends n leaves the exponent field of one
    return (p * _power_of_two(half)) * _power_of_two(n - half)


@triton.jit
def sigmoid(a):
    """Return the logistic function, correctly rounded but for exp."""
    return tl.div_rn(tl.full(a.shape, 1.0, tl.float32), 1.0 + exp(-a))


@triton.jit
def activate(a, ACTIVATION: tl.constexpr):
    """Apply relu, silu or gelu to the hidden units; the division is off by 2 ulp at most."""
    if ACTIVATION == "relu":
        a = tl.where(a < 0, 0.0, a)  # NaN stays
    elif ACTIVATION == "silu":
        a = a / (1.0 + exp(-a))
    else:  # gelu, tanh form: 0.5 a (1 + tanh y) = a sigmoid(2 y), y = sqrt(2 / pi) (a + 0.044715 a^3)
        a = a / (1.0 + exp(-1.59576912 * (0.044715 * (a * a * a) + a)))
    return a
