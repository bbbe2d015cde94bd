// Thirty-two bytes of a text as one AVX register. What each operation means stands in bytes_scalar.h.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace ipr {
namespace {

constexpr int kBytes = 32;
using Bytes = __m256i;

inline Bytes all_bytes(uint8_t value) { return _mm256_set1_epi8(static_cast<char>(value)); }
inline Bytes load_bytes(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
inline Bytes either(Bytes a, Bytes b) { return _mm256_or_si256(a, b); }
inline Bytes both(Bytes a, Bytes b) { return _mm256_and_si256(a, b); }
inline Bytes but_not(Bytes a, Bytes b) { return _mm256_andnot_si256(b, a); }
inline Bytes minus(Bytes a, Bytes b) { return _mm256_sub_epi8(a, b); }
inline Bytes equal(Bytes a, Bytes b) { return _mm256_cmpeq_epi8(a, b); }
inline Bytes within(Bytes a, uint8_t first, uint8_t count) {
  const Bytes distance = minus(a, all_bytes(first));
  return equal(_mm256_min_epu8(distance, all_bytes(static_cast<uint8_t>(count - 1))), distance);
}
inline uint64_t bits(Bytes mask) { return static_cast<uint32_t>(_mm256_movemask_epi8(mask)); }
// Both halves of the register are taken apart on their own, which is why the order is left open.
template <int kColumns>
inline void store_pairs(Bytes row, Bytes column, uint16_t* to) {
  const __m256i row_and_column = _mm256_set1_epi16(kColumns << 8 | 1);
  auto* const at = reinterpret_cast<__m256i*>(to);
  _mm256_storeu_si256(at, _mm256_maddubs_epi16(_mm256_unpacklo_epi8(column, row), row_and_column));
  _mm256_storeu_si256(at + 1, _mm256_maddubs_epi16(_mm256_unpackhi_epi8(column, row), row_and_column));
}

}  // namespace
}  // namespace ipr
