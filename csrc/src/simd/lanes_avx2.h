// Sixteen float lanes as two AVX registers. What each operation means stands in lanes_scalar.h.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernel_table.h"

namespace ipr {
namespace {

// 4 x 3 tiles hold half of 12 sums, 3 weight parts and 1 x part in 16 registers: 7 loads per 12 multiply-adds.
constexpr int kTileRows = 4, kTileCols = 3, kTileColsOneRow = 6;

// 8 of the 16 registers hold sums of gather_kernel.h.
constexpr int kGatherSums = 4;

struct Lanes {
  __m256 lo, hi;
};

// One register's worth of Lanes: part i holds lanes 8i .. 8i+7.
using Part = __m256;
constexpr int kParts = 2, kPartLanes = 8;

struct Mask {
  __m256 lo, hi;
};

inline Lanes broadcast(float value) { return {_mm256_set1_ps(value), _mm256_set1_ps(value)}; }
inline Mask first(int64_t n) {
  const __m256i count = _mm256_set1_epi32(static_cast<int>(n < 16 ? n : 16));
  const __m256i lo = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), hi = _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15);
  return {_mm256_castsi256_ps(_mm256_cmpgt_epi32(count, lo)), _mm256_castsi256_ps(_mm256_cmpgt_epi32(count, hi))};
}
inline Lanes load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline Lanes load(const Half* p) {
  const auto* at = reinterpret_cast<const __m128i*>(p);
  return {_mm256_cvtph_ps(_mm_loadu_si128(at)), _mm256_cvtph_ps(_mm_loadu_si128(at + 1))};
}
inline Lanes load(const int8_t* p) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)),
          _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8)))};
}
inline Part zero_part() { return _mm256_setzero_ps(); }
inline Part load_part(const float* p) {
  Part part = _mm256_loadu_ps(p);
  asm("" : "+x"(part));  // else gcc loads it again for every use
  return part;
}
inline void store_part(float* p, Part part) { _mm256_storeu_ps(p, part); }
inline Part fma(Part a, Part b, Part c) { return _mm256_fmadd_ps(a, b, c); }
inline Lanes join(const Part (&parts)[kParts]) { return {parts[0], parts[1]}; }
inline Part part_of(Lanes a, int part) { return part ? a.hi : a.lo; }
inline Lanes load_first(const float* p, int64_t n) {
  const Mask mask = first(n);
  return {_mm256_maskload_ps(p, _mm256_castps_si256(mask.lo)), _mm256_maskload_ps(p + 8, _mm256_castps_si256(mask.hi))};
}
inline void store(float* p, Lanes a) {
  _mm256_storeu_ps(p, a.lo);
  _mm256_storeu_ps(p + 8, a.hi);
}
// Piece by piece: a masked store is microcoded on AMD.
inline void store_first(float* p, int64_t n, Lanes a) {
  if (n >= 16) return store(p, a);
  __m256 eight = a.lo;
  if (n & 8) {
    _mm256_storeu_ps(p, eight);
    eight = a.hi;
    p += 8;
  }
  __m128 four = _mm256_castps256_ps128(eight);
  if (n & 4) {
    _mm_storeu_ps(p, four);
    four = _mm256_extractf128_ps(eight, 1);
    p += 4;
  }
  if (n & 2) {
    _mm_storel_pi(reinterpret_cast<__m64*>(p), four);
    four = _mm_movehl_ps(four, four);
    p += 2;
  }
  if (n & 1) _mm_store_ss(p, four);
}

inline Lanes operator+(Lanes a, Lanes b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
inline Lanes operator-(Lanes a, Lanes b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
inline Lanes operator*(Lanes a, Lanes b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
inline Lanes operator/(Lanes a, Lanes b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
inline Lanes fma(Lanes a, Lanes b, Lanes c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
inline Lanes min(Lanes a, Lanes b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }
inline Lanes max(Lanes a, Lanes b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
inline Lanes shift_left_23(Lanes a) {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(a.lo), 23)),
          _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(a.hi), 23))};
}

template <int Predicate>
inline Mask compare(Lanes a, Lanes b) {
  return {_mm256_cmp_ps(a.lo, b.lo, Predicate), _mm256_cmp_ps(a.hi, b.hi, Predicate)};
}
inline Mask operator==(Lanes a, Lanes b) { return compare<_CMP_EQ_OQ>(a, b); }
inline Mask operator!=(Lanes a, Lanes b) { return compare<_CMP_NEQ_UQ>(a, b); }
inline Mask operator>=(Lanes a, Lanes b) { return compare<_CMP_GE_OQ>(a, b); }
inline Mask operator>(Lanes a, Lanes b) { return compare<_CMP_GT_OQ>(a, b); }
inline Mask operator&(Mask a, Mask b) { return {_mm256_and_ps(a.lo, b.lo), _mm256_and_ps(a.hi, b.hi)}; }
inline __m256 nonzero8(const uint8_t* p) {
  const __m256i wide = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  return _mm256_castsi256_ps(_mm256_cmpgt_epi32(wide, _mm256_setzero_si256()));
}
inline Mask nonzero(const uint8_t* p) { return {nonzero8(p), nonzero8(p + 8)}; }
inline unsigned bits(Mask a) {
  return static_cast<unsigned>(_mm256_movemask_ps(a.lo)) | static_cast<unsigned>(_mm256_movemask_ps(a.hi)) << 8;
}
inline Lanes select(Mask mask, Lanes yes, Lanes no) {
  return {_mm256_blendv_ps(no.lo, yes.lo, mask.lo), _mm256_blendv_ps(no.hi, yes.hi, mask.hi)};
}

// Folds 8 lanes to 1 with op: lane l with l+4, l+2, l+1.
template <class Op>
inline float fold8(__m256 a, Op op) {
  __m128 four = op(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  four = op(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(op(four, _mm_movehdup_ps(four)));
}
inline float sum(Lanes a) {
  return fold8(_mm256_add_ps(a.lo, a.hi), [](__m128 p, __m128 q) { return _mm_add_ps(p, q); });
}
inline float lowest(Lanes a) {
  return fold8(_mm256_min_ps(a.lo, a.hi), [](__m128 p, __m128 q) { return _mm_min_ps(p, q); });
}
inline float highest(Lanes a) {
  return fold8(_mm256_max_ps(a.lo, a.hi), [](__m128 p, __m128 q) { return _mm_max_ps(p, q); });
}

}  // namespace
}  // namespace ipr
