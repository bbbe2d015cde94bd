#include <immintrin.h>

#include "gather.h"

namespace ipr {
namespace {

struct Lanes {
  static constexpr int kGroups = 4;  // 8 of the 16 registers hold sums
  __m256 low, high;

  static Lanes all(float value) { return {_mm256_set1_ps(value), _mm256_set1_ps(value)}; }
  static Lanes load(const float* from) { return {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)}; }
  static Lanes load(const Half* from) {
    const auto* at = reinterpret_cast<const __m128i*>(from);
    return {_mm256_cvtph_ps(_mm_loadu_si128(at)), _mm256_cvtph_ps(_mm_loadu_si128(at + 1))};
  }
  static Lanes load(const int8_t* from) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)),
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8)))};
  }
  static Lanes fma(const Lanes& a, const Lanes& b, const Lanes& c) {
    return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
  }
  Lanes operator+(const Lanes& other) const { return {_mm256_add_ps(low, other.low), _mm256_add_ps(high, other.high)}; }
  Lanes operator/(const Lanes& other) const { return {_mm256_div_ps(low, other.low), _mm256_div_ps(high, other.high)}; }
  void store(float* to) const {
    _mm256_storeu_ps(to, low);
    _mm256_storeu_ps(to + 8, high);
  }
};

}  // namespace
}  // namespace ipr

#include "gather_kernel.h"

namespace ipr {
const GatherKernels kGatherAvx2{"avx2", {mean<float>, mean<Half>, mean<int8_t>}, normalize};
}  // namespace ipr
