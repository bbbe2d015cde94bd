// For any processor. The 16 lanes are four of the compiler's (GCC's, Clang's) own vectors, which it lowers to what the
// baseline has; plain arrays stay in memory and take more than twice as long.
#include <cstring>

#include "gather.h"

namespace ipr {
namespace {

constexpr int kGatherWidth = 2;

using Floats = float __attribute__((vector_size(16)));
using Words = uint32_t __attribute__((vector_size(16)));
using HalfBits = uint16_t __attribute__((vector_size(8)));
using Bytes = int8_t __attribute__((vector_size(4)));

struct Lanes {
  Floats quarter[4];
};

template <class Op>
inline Lanes each_quarter(Op op) {
  return {{op(0), op(1), op(2), op(3)}};
}

template <class To, class From>
inline To bits_of(const From* p) {
  To out;
  std::memcpy(&out, p, sizeof out);
  return out;
}

inline Lanes broadcast(float value) {
  return each_quarter([&](int) { return Floats{value, value, value, value}; });
}
inline Lanes load(const float* p) {
  return each_quarter([&](int q) { return bits_of<Floats>(p + 4 * q); });
}
// The bits of a float16's magnitude, moved into place, are 2^-112 of its value, exactly, subnormals included; only
// infinity and NaN keep an exponent of their own.
inline Lanes load(const Half* p) {
  return each_quarter([&](int q) {
    const Words half = __builtin_convertvector(bits_of<HalfBits>(p + 4 * q), Words);
    const Words magnitude = half & 0x7FFFu, moved = magnitude << 13;
    const Floats scaled = bits_of<Floats>(&moved) * 0x1p112f;
    const Words special = (Words)(magnitude >= 0x7C00u);
    const Words finite = bits_of<Words>(&scaled);
    const Words bits = (special & (moved | 0x7F800000u)) | (~special & finite) | (half & 0x8000u) << 16;
    return bits_of<Floats>(&bits);
  });
}
inline Lanes load(const int8_t* p) {
  return each_quarter([&](int q) { return __builtin_convertvector(bits_of<Bytes>(p + 4 * q), Floats); });
}
inline void store(float* p, const Lanes& a) { std::memcpy(p, a.quarter, sizeof a.quarter); }
inline Lanes operator+(const Lanes& a, const Lanes& b) {
  return each_quarter([&](int q) { return a.quarter[q] + b.quarter[q]; });
}
inline Lanes operator/(const Lanes& a, const Lanes& b) {
  return each_quarter([&](int q) { return a.quarter[q] / b.quarter[q]; });
}
inline Lanes fma(const Lanes& a, const Lanes& b, const Lanes& c) {
  return each_quarter([&](int q) {
    Floats out = c.quarter[q];
    for (int i = 0; i < 4; ++i) out[i] = __builtin_fmaf(a.quarter[q][i], b.quarter[q][i], out[i]);
    return out;
  });
}
// Adds lanes l and l+8, then l+4, l+2, l+1.
inline float sum(const Lanes& a) {
  const Floats four = (a.quarter[0] + a.quarter[2]) + (a.quarter[1] + a.quarter[3]);
  return (four[0] + four[2]) + (four[1] + four[3]);
}

}  // namespace
}  // namespace ipr

#include "gather_kernel.h"

namespace ipr {
const GatherKernels kGatherScalar{"scalar", {mean<float>, mean<Half>, mean<int8_t>}, normalize};
}  // namespace ipr
