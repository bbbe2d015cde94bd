// exp, sigmoid and the activations over the lanes: the same operations, hence the same bits, on every instruction set.
// Included after one lanes_*.h.
#pragma once

namespace ipr {
namespace {

// 2^n for integral n in [-126, 127].
inline Lanes power_of_two(Lanes n) { return shift_left_23(n + broadcast(8388608.0f + 127.0f)); }

inline Lanes round_even(Lanes a) {
  const Lanes magic = broadcast(12582912.0f);  // 1.5 * 2^23
  return (a + magic) - magic;
}

// e^x within 1 ulp; subnormal results are rounded once, +-inf and NaN are right.
inline Lanes exp(Lanes x) {
  x = max(broadcast(-104.0f), min(broadcast(89.0f), x));  // past both ends of float; NaN passes through
  const Lanes n = round_even(x * broadcast(1.44269504f));
  Lanes r = fma(n, broadcast(-0.693147182f), x);  // ln 2 in two floats
  r = fma(n, broadcast(1.90465421e-9f), r);
  // (e^r - 1 - r) / r^2, minimax on |r| <= ln(2) / 2: relative error of e^r 3.7e-9
  Lanes q = broadcast(0x1.6a23d0p-10f);
  q = fma(q, r, broadcast(0x1.123a20p-7f));
  q = fma(q, r, broadcast(0x1.5558f2p-5f));
  q = fma(q, r, broadcast(0x1.555492p-3f));
  q = fma(q, r, broadcast(0x1.fffffcp-2f));
  const Lanes p = fma(q, r * r, r) + broadcast(1.0f);
  const Lanes half = round_even(n * broadcast(0.5f));
  return (p * power_of_two(half)) * power_of_two(n - half);
}

inline Lanes sigmoid(Lanes a) { return broadcast(1.0f) / (broadcast(1.0f) + exp(broadcast(0.0f) - a)); }

struct Relu {
  Lanes operator()(Lanes a) const { return max(broadcast(0.0f), a); }
};
struct Silu {
  Lanes operator()(Lanes a) const { return a * sigmoid(a); }
};
struct Gelu {  // 0.5 a (1 + tanh y) = a sigmoid(2y), y = sqrt(2 / pi) (a + 0.044715 a^3)
  Lanes operator()(Lanes a) const {
    const Lanes cubed = (a * a) * a;
    return a * sigmoid(broadcast(1.59576912f) * fma(broadcast(0.044715f), cubed, a));
  }
};

}  // namespace
}  // namespace ipr
