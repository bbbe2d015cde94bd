#include <cstring>

#include "gather.h"

namespace ipr {
namespace {

inline float widen(Half half) {
  const uint32_t sign = static_cast<uint32_t>(half.bits & 0x8000) << 16;
  const uint32_t exponent = half.bits >> 10 & 0x1F, fraction = half.bits & 0x3FF;
  float magnitude;
  if (exponent == 0) {
    magnitude = static_cast<float>(fraction) * 0x1p-24f;  // zero or subnormal, exact
  } else {
    uint32_t bits = (exponent == 31 ? 0x7F800000u : (exponent + 112) << 23) | fraction << 13;
    if (exponent == 31 && fraction != 0) bits |= 0x400000;  // a quiet NaN, as the hardware gives
    std::memcpy(&magnitude, &bits, 4);
  }
  uint32_t bits;
  std::memcpy(&bits, &magnitude, 4);
  bits |= sign;
  std::memcpy(&magnitude, &bits, 4);
  return magnitude;
}

struct Lanes {
  static constexpr int kGroups = 1;
  float lane[16];

  static Lanes all(float value) {
    Lanes out;
    for (float& each : out.lane) each = value;
    return out;
  }
  static Lanes load(const float* from) {
    Lanes out;
    std::memcpy(out.lane, from, sizeof(out.lane));
    return out;
  }
  static Lanes load(const Half* from) {
    Lanes out;
    for (int k = 0; k < 16; ++k) out.lane[k] = widen(from[k]);
    return out;
  }
  static Lanes load(const int8_t* from) {
    Lanes out;
    for (int k = 0; k < 16; ++k) out.lane[k] = from[k];
    return out;
  }
  static Lanes fma(const Lanes& a, const Lanes& b, const Lanes& c) {
    Lanes out;
    for (int k = 0; k < 16; ++k) out.lane[k] = __builtin_fmaf(a.lane[k], b.lane[k], c.lane[k]);
    return out;
  }
  Lanes operator+(const Lanes& other) const {
    Lanes out;
    for (int k = 0; k < 16; ++k) out.lane[k] = lane[k] + other.lane[k];
    return out;
  }
  Lanes operator/(const Lanes& other) const {
    Lanes out;
    for (int k = 0; k < 16; ++k) out.lane[k] = lane[k] / other.lane[k];
    return out;
  }
  void store(float* to) const { std::memcpy(to, lane, sizeof(lane)); }
};

}  // namespace
}  // namespace ipr

#include "gather_kernel.h"

namespace ipr {
const GatherKernels kGatherScalar{"scalar", {mean<float>, mean<Half>, mean<int8_t>}, normalize};
}  // namespace ipr
