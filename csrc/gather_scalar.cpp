#include <cstring>

#include "gather.h"

namespace ipr {
namespace {

constexpr int kGatherWidth = 1;

struct Lanes {
  float at[16];
};

template <class Op>
inline Lanes each(Op op) {
  Lanes out;
  for (int i = 0; i < 16; ++i) out.at[i] = op(i);
  return out;
}

inline float widen(Half half) {
  const uint32_t sign = static_cast<uint32_t>(half.bits & 0x8000) << 16;
  const uint32_t exponent = half.bits >> 10 & 0x1F, fraction = half.bits & 0x3FF;
  uint32_t bits;
  if (exponent == 0) {
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f;  // zero or subnormal, exact
    std::memcpy(&bits, &magnitude, 4);
  } else {
    bits = (exponent == 31 ? 0x7F800000u : (exponent + 112) << 23) | fraction << 13;
    if (exponent == 31 && fraction != 0) bits |= 0x400000;  // a quiet NaN, as the hardware gives
  }
  bits |= sign;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

inline Lanes broadcast(float value) {
  return each([&](int) { return value; });
}
inline Lanes load(const float* p) {
  return each([&](int i) { return p[i]; });
}
inline Lanes load(const Half* p) {
  return each([&](int i) { return widen(p[i]); });
}
inline Lanes load(const int8_t* p) {
  return each([&](int i) { return static_cast<float>(p[i]); });
}
inline void store(float* p, Lanes a) { std::memcpy(p, a.at, sizeof a.at); }
inline Lanes operator+(Lanes a, Lanes b) {
  return each([&](int i) { return a.at[i] + b.at[i]; });
}
inline Lanes operator/(Lanes a, Lanes b) {
  return each([&](int i) { return a.at[i] / b.at[i]; });
}
inline Lanes fma(Lanes a, Lanes b, Lanes c) {
  return each([&](int i) { return __builtin_fmaf(a.at[i], b.at[i], c.at[i]); });
}
inline float sum(Lanes a) {
  for (int half = 8; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) a.at[i] += a.at[i + half];
  return a.at[0];
}

}  // namespace
}  // namespace ipr

#include "gather_kernel.h"

namespace ipr {
const GatherKernels kGatherScalar{"scalar", {mean<float>, mean<Half>, mean<int8_t>}, normalize};
}  // namespace ipr
