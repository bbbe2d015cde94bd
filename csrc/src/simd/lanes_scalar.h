// Sixteen float lanes in C++ for any CPU. This file is the meaning of every operation; the other
// lanes_*.h give the same bits (NaN payloads aside).
//
// The lanes are four of the compiler's (GCC's, Clang's) own vectors, which it lowers to what the baseline has. Plain
// arrays stay in memory and take more than twice as long. Everything is in an anonymous namespace: no code compiled for
// one instruction set may be merged by the linker into another.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "kernel_table.h"

namespace ipr {
namespace {

// Register tile of dot16_kernel.h: x rows by weight rows, and weight rows when there is a single x row.
constexpr int kTileRows = 1, kTileCols = 1, kTileColsOneRow = 1;

// Groups of 16 sums that gather_kernel.h keeps in registers.
constexpr int kGatherSums = 2;

using Floats = float __attribute__((vector_size(16)));
using Ints = int32_t __attribute__((vector_size(16)));
using Words = uint32_t __attribute__((vector_size(16)));

// Lane l is element l % 4 of quarter l / 4.
struct Lanes {
  Floats quarter[4];
};

// One register's worth of Lanes, for loops that must count registers: part i holds lanes kPartLanes * i and on. Here it
// is memory: all that such a loop does is fma, which is a call of fmaf for each lane, and a call takes every register.
struct Part {
  float at[16];
};
constexpr int kParts = 1, kPartLanes = 16;

// All bits of a lane that is true, none of one that is false.
struct Mask {
  Ints quarter[4];
};

template <class Op>
inline Lanes each_quarter(Op op) {
  return {{op(0), op(1), op(2), op(3)}};
}

template <class Op>
inline Mask each_mask(Op op) {
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
  using HalfBits = uint16_t __attribute__((vector_size(8)));
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
  using Quarter = int8_t __attribute__((vector_size(4)));
  return each_quarter([&](int q) { return __builtin_convertvector(bits_of<Quarter>(p + 4 * q), Floats); });
}
// Number by number: what is copied whole the compiler keeps whole, and spills around every call.
template <class Op>
inline Part each(Op op) {
  Part out;
  for (int i = 0; i < 16; ++i) out.at[i] = op(i);
  return out;
}
inline Part zero_part() {
  return each([](int) { return 0.0f; });
}
inline Part load_part(const float* p) {
  return each([&](int i) { return p[i]; });
}
inline Lanes join(const Part (&parts)[kParts]) { return load(parts[0].at); }
inline Part part_of(const Lanes& a, int) { return bits_of<Part>(a.quarter); }
// The first n lanes, the others 0. 0 <= n; no byte behind lane n is touched.
inline Lanes load_first(const float* p, int64_t n) {
  if (n >= 16) return load(p);
  float padded[16] = {};
  for (int64_t i = 0; i < n; ++i) padded[i] = p[i];
  return load(padded);
}
inline void store(float* p, const Lanes& a) { std::memcpy(p, a.quarter, sizeof a.quarter); }
inline void store_part(float* p, const Part& part) { std::memcpy(p, part.at, sizeof part.at); }
// The first n lanes. 0 <= n; no byte behind lane n is touched.
inline void store_first(float* p, int64_t n, const Lanes& a) {
  if (n >= 16) return store(p, a);
  float padded[16];
  store(padded, a);
  for (int64_t i = 0; i < n; ++i) p[i] = padded[i];
}

inline Lanes operator+(const Lanes& a, const Lanes& b) {
  return each_quarter([&](int q) { return a.quarter[q] + b.quarter[q]; });
}
inline Lanes operator-(const Lanes& a, const Lanes& b) {
  return each_quarter([&](int q) { return a.quarter[q] - b.quarter[q]; });
}
inline Lanes operator*(const Lanes& a, const Lanes& b) {
  return each_quarter([&](int q) { return a.quarter[q] * b.quarter[q]; });
}
inline Lanes operator/(const Lanes& a, const Lanes& b) {
  return each_quarter([&](int q) { return a.quarter[q] / b.quarter[q]; });
}
// a * b + c, rounded once.
inline Part fma(const Part& a, const Part& b, const Part& c) {
  return each([&](int i) { return __builtin_fmaf(a.at[i], b.at[i], c.at[i]); });
}
inline Lanes fma(const Lanes& a, const Lanes& b, const Lanes& c) {
  return load(fma(part_of(a, 0), part_of(b, 0), part_of(c, 0)).at);
}
// Both return b when a or b is NaN and when both are zeros.
inline Floats min(Floats a, Floats b) { return a < b ? a : b; }
inline Floats max(Floats a, Floats b) { return a > b ? a : b; }
inline Lanes min(const Lanes& a, const Lanes& b) {
  return each_quarter([&](int q) { return min(a.quarter[q], b.quarter[q]); });
}
inline Lanes max(const Lanes& a, const Lanes& b) {
  return each_quarter([&](int q) { return max(a.quarter[q], b.quarter[q]); });
}
// The bits of each lane shifted left by 23: the lowest bits of a mantissa become the exponent.
inline Lanes shift_left_23(const Lanes& a) {
  return each_quarter([&](int q) {
    const Words bits = bits_of<Words>(&a.quarter[q]) << 23;
    return bits_of<Floats>(&bits);
  });
}

// Comparisons with NaN are false, except that a NaN differs from everything.
inline Mask operator==(const Lanes& a, const Lanes& b) {
  return each_mask([&](int q) { return a.quarter[q] == b.quarter[q]; });
}
inline Mask operator!=(const Lanes& a, const Lanes& b) {
  return each_mask([&](int q) { return a.quarter[q] != b.quarter[q]; });
}
inline Mask operator>=(const Lanes& a, const Lanes& b) {
  return each_mask([&](int q) { return a.quarter[q] >= b.quarter[q]; });
}
inline Mask operator>(const Lanes& a, const Lanes& b) {
  return each_mask([&](int q) { return a.quarter[q] > b.quarter[q]; });
}
inline Mask operator&(const Mask& a, const Mask& b) {
  return each_mask([&](int q) { return a.quarter[q] & b.quarter[q]; });
}
inline Mask first(int64_t n) {
  const auto count = static_cast<int32_t>(n < 16 ? n : 16);
  return each_mask([&](int q) { return Ints{4 * q, 4 * q + 1, 4 * q + 2, 4 * q + 3} < count; });
}
// Lane i is true where byte i is not 0.
inline Mask nonzero(const uint8_t* p) {
  using Quarter = uint8_t __attribute__((vector_size(4)));
  return each_mask([&](int q) { return __builtin_convertvector(bits_of<Quarter>(p + 4 * q), Ints) != 0; });
}
// Bit i is lane i.
inline unsigned bits(const Mask& a) {
  unsigned out = 0;
  for (int q = 0; q < 4; ++q) {
#if defined(__SSE2__)
    out |= static_cast<unsigned>(_mm_movemask_ps((__m128)a.quarter[q])) << (4 * q);
#else
    for (int i = 0; i < 4; ++i) out |= static_cast<unsigned>(a.quarter[q][i] & 1) << (4 * q + i);
#endif
  }
  return out;
}
inline Lanes select(const Mask& mask, const Lanes& yes, const Lanes& no) {
  return each_quarter([&](int q) { return mask.quarter[q] ? yes.quarter[q] : no.quarter[q]; });
}

// Folds 16 lanes to 1 with op: lane l with l+8, l+4, l+2, l+1.
template <class Op>
inline float fold16(const Lanes& a, Op op) {
  const Floats four = op(op(a.quarter[0], a.quarter[2]), op(a.quarter[1], a.quarter[3]));
  const Floats two = op(four, Floats{four[2], four[3], 0, 0});
  return op(two, Floats{two[1], 0, 0, 0})[0];
}
inline float sum(const Lanes& a) {
  return fold16(a, [](Floats p, Floats q) { return p + q; });
}
// The smallest and the largest lane; none may be NaN.
inline float lowest(const Lanes& a) {
  return fold16(a, [](Floats p, Floats q) { return min(p, q); });
}
inline float highest(const Lanes& a) {
  return fold16(a, [](Floats p, Floats q) { return max(p, q); });
}

}  // namespace
}  // namespace ipr
