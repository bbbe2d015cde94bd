// Sixteen float lanes in plain C++, for any CPU. This file is the meaning of every operation; lanes16_avx2.h and
// lanes16_avx512.h give the same bits (NaN payloads aside). Everything is in an anonymous namespace: no code compiled
// for one instruction set may be merged by the linker into another.
#pragma once

#include <cstdint>
#include <cstring>

namespace ipr {
namespace {

constexpr char kIsa[] = "scalar";

// Register tile of dot16_kernel.h: x rows by weight rows, and weight rows when there is a single x row.
constexpr int kTileRows = 1, kTileCols = 1, kTileColsOneRow = 1;

struct Lanes {
  float at[16];
};

// One register's worth of Lanes, for loops that must count registers: part i holds lanes kPartLanes * i and on.
using Part = Lanes;
constexpr int kParts = 1, kPartLanes = 16;

struct Mask {
  bool at[16];
};

template <class Op>
inline Lanes each(Op op) {
  Lanes out;
  for (int i = 0; i < 16; ++i) out.at[i] = op(i);
  return out;
}

template <class Op>
inline Mask each_mask(Op op) {
  Mask out;
  for (int i = 0; i < 16; ++i) out.at[i] = op(i);
  return out;
}

inline Lanes broadcast(float value) {
  return each([&](int) { return value; });
}
inline Lanes load(const float* p) {
  return each([&](int i) { return p[i]; });
}
inline Part zero_part() { return broadcast(0.0f); }
inline Part load_part(const float* p) { return load(p); }
inline Lanes join(const Part (&parts)[kParts]) { return parts[0]; }
inline Part part_of(Lanes a, int) { return a; }
// The first n lanes, the others 0. 0 <= n; no byte behind lane n is touched.
inline Lanes load_first(const float* p, int64_t n) {
  return each([&](int i) { return i < n ? p[i] : 0.0f; });
}
inline void store(float* p, Lanes a) { std::memcpy(p, a.at, sizeof a.at); }
inline void store_part(float* p, Part part) { store(p, part); }
inline void store_first(float* p, int64_t n, Lanes a) {
  for (int64_t i = 0; i < n && i < 16; ++i) p[i] = a.at[i];
}

inline Lanes operator+(Lanes a, Lanes b) {
  return each([&](int i) { return a.at[i] + b.at[i]; });
}
inline Lanes operator-(Lanes a, Lanes b) {
  return each([&](int i) { return a.at[i] - b.at[i]; });
}
inline Lanes operator*(Lanes a, Lanes b) {
  return each([&](int i) { return a.at[i] * b.at[i]; });
}
inline Lanes operator/(Lanes a, Lanes b) {
  return each([&](int i) { return a.at[i] / b.at[i]; });
}
// a * b + c, rounded once.
inline Lanes fma(Lanes a, Lanes b, Lanes c) {
  return each([&](int i) { return __builtin_fmaf(a.at[i], b.at[i], c.at[i]); });
}
// Both return b when a or b is NaN and when both are zeros.
inline Lanes min(Lanes a, Lanes b) {
  return each([&](int i) { return a.at[i] < b.at[i] ? a.at[i] : b.at[i]; });
}
inline Lanes max(Lanes a, Lanes b) {
  return each([&](int i) { return a.at[i] > b.at[i] ? a.at[i] : b.at[i]; });
}
// The bits of each lane shifted left by 23: the lowest bits of a mantissa become the exponent.
inline Lanes shift_left_23(Lanes a) {
  return each([&](int i) {
    uint32_t bits;
    std::memcpy(&bits, &a.at[i], 4);
    bits <<= 23;
    float out;
    std::memcpy(&out, &bits, 4);
    return out;
  });
}

// Comparisons with NaN are false, except that a NaN differs from everything.
inline Mask operator==(Lanes a, Lanes b) {
  return each_mask([&](int i) { return a.at[i] == b.at[i]; });
}
inline Mask operator!=(Lanes a, Lanes b) {
  return each_mask([&](int i) { return a.at[i] != b.at[i]; });
}
inline Mask operator>=(Lanes a, Lanes b) {
  return each_mask([&](int i) { return a.at[i] >= b.at[i]; });
}
inline Mask operator>(Lanes a, Lanes b) {
  return each_mask([&](int i) { return a.at[i] > b.at[i]; });
}
inline Mask operator&(Mask a, Mask b) {
  return each_mask([&](int i) { return a.at[i] && b.at[i]; });
}
inline Mask first(int64_t n) {
  return each_mask([&](int i) { return i < n; });
}
// Lane i is true where byte i is not 0.
inline Mask nonzero(const uint8_t* p) {
  return each_mask([&](int i) { return p[i] != 0; });
}
// Bit i is lane i.
inline unsigned bits(Mask a) {
  unsigned out = 0;
  for (int i = 0; i < 16; ++i) out |= static_cast<unsigned>(a.at[i]) << i;
  return out;
}
inline Lanes select(Mask mask, Lanes yes, Lanes no) {
  return each([&](int i) { return mask.at[i] ? yes.at[i] : no.at[i]; });
}

// Adds lanes l and l+8, then l+4, l+2, l+1.
inline float sum(Lanes a) {
  for (int half = 8; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) a.at[i] += a.at[i + half];
  return a.at[0];
}
// The smallest and the largest lane; none may be NaN.
inline float lowest(Lanes a) {
  for (int i = 1; i < 16; ++i) a.at[0] = a.at[i] < a.at[0] ? a.at[i] : a.at[0];
  return a.at[0];
}
inline float highest(Lanes a) {
  for (int i = 1; i < 16; ++i) a.at[0] = a.at[i] > a.at[0] ? a.at[i] : a.at[0];
  return a.at[0];
}

}  // namespace
}  // namespace ipr
