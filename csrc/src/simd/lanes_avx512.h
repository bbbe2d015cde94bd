// Sixteen float lanes as one AVX-512 register. What each operation means stands in lanes_scalar.h.
#pragma once

// gcc 12 takes the deliberately undefined registers of its own header for mistakes (GCC bug 105593).
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#include <cstdint>

#include "kernel_table.h"

namespace ipr {
namespace {

// 4 x 4 tiles hold 16 sums, 4 weight parts and 1 x part in 32 registers: 8 loads per 16 multiply-adds.
constexpr int kTileRows = 4, kTileCols = 4, kTileColsOneRow = 8;

// 16 of the 32 registers hold sums of gather_kernel.h: 256 columns in one go.
constexpr int kGatherSums = 16;

struct Lanes {
  __m512 all;
};

using Part = __m512;
constexpr int kParts = 1, kPartLanes = 16;

struct Mask {
  __mmask16 all;
};

inline Lanes broadcast(float value) { return {_mm512_set1_ps(value)}; }
inline Mask first(int64_t n) { return {static_cast<__mmask16>(n < 16 ? (1u << n) - 1 : 0xffffu)}; }
inline Lanes load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline Lanes load(const Half* p) { return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))}; }
inline Lanes load(const int8_t* p) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
}
inline Part zero_part() { return _mm512_setzero_ps(); }
inline Part load_part(const float* p) {
  Part part = _mm512_loadu_ps(p);
  asm("" : "+v"(part));  // else gcc loads it again for every use
  return part;
}
inline void store_part(float* p, Part part) { _mm512_storeu_ps(p, part); }
inline Part fma(Part a, Part b, Part c) { return _mm512_fmadd_ps(a, b, c); }
inline Lanes join(const Part (&parts)[kParts]) { return {parts[0]}; }
inline Part part_of(Lanes a, int) { return a.all; }
inline Lanes load_first(const float* p, int64_t n) { return {_mm512_maskz_loadu_ps(first(n).all, p)}; }
inline void store(float* p, Lanes a) { _mm512_storeu_ps(p, a.all); }
inline void store_first(float* p, int64_t n, Lanes a) { _mm512_mask_storeu_ps(p, first(n).all, a.all); }

inline Lanes operator+(Lanes a, Lanes b) { return {_mm512_add_ps(a.all, b.all)}; }
inline Lanes operator-(Lanes a, Lanes b) { return {_mm512_sub_ps(a.all, b.all)}; }
inline Lanes operator*(Lanes a, Lanes b) { return {_mm512_mul_ps(a.all, b.all)}; }
inline Lanes operator/(Lanes a, Lanes b) { return {_mm512_div_ps(a.all, b.all)}; }
inline Lanes fma(Lanes a, Lanes b, Lanes c) { return {_mm512_fmadd_ps(a.all, b.all, c.all)}; }
inline Lanes min(Lanes a, Lanes b) { return {_mm512_min_ps(a.all, b.all)}; }
inline Lanes max(Lanes a, Lanes b) { return {_mm512_max_ps(a.all, b.all)}; }
inline Lanes shift_left_23(Lanes a) { return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(a.all), 23))}; }

template <int Predicate>
inline Mask compare(Lanes a, Lanes b) {
  return {_mm512_cmp_ps_mask(a.all, b.all, Predicate)};
}
inline Mask operator==(Lanes a, Lanes b) { return compare<_CMP_EQ_OQ>(a, b); }
inline Mask operator!=(Lanes a, Lanes b) { return compare<_CMP_NEQ_UQ>(a, b); }
inline Mask operator>=(Lanes a, Lanes b) { return compare<_CMP_GE_OQ>(a, b); }
inline Mask operator>(Lanes a, Lanes b) { return compare<_CMP_GT_OQ>(a, b); }
inline Mask operator&(Mask a, Mask b) { return {static_cast<__mmask16>(a.all & b.all)}; }
inline Mask nonzero(const uint8_t* p) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {_mm_test_epi8_mask(bytes, bytes)};
}
inline unsigned bits(Mask a) { return a.all; }
inline Lanes select(Mask mask, Lanes yes, Lanes no) { return {_mm512_mask_blend_ps(mask.all, no.all, yes.all)}; }

// Folds 16 lanes to 1: lane l with l+8, l+4, l+2, l+1.
template <class Op8, class Op4>
inline float fold16(__m512 a, Op8 op8, Op4 op4) {
  const __m256 eight = op8(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
  __m128 four = op4(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  four = op4(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(op4(four, _mm_movehdup_ps(four)));
}
inline float sum(Lanes a) {
  return fold16(
      a.all, [](__m256 p, __m256 q) { return _mm256_add_ps(p, q); },
      [](__m128 p, __m128 q) { return _mm_add_ps(p, q); });
}
inline float lowest(Lanes a) {
  return fold16(
      a.all, [](__m256 p, __m256 q) { return _mm256_min_ps(p, q); },
      [](__m128 p, __m128 q) { return _mm_min_ps(p, q); });
}
inline float highest(Lanes a) {
  return fold16(
      a.all, [](__m256 p, __m256 q) { return _mm256_max_ps(p, q); },
      [](__m128 p, __m128 q) { return _mm_max_ps(p, q); });
}

}  // namespace
}  // namespace ipr
