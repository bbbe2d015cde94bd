// GCC 12 takes the deliberately undefined operand inside its own AVX-512 intrinsics for a mistake.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop

#include "gather.h"

namespace ipr {
namespace {

struct Lanes {
  static constexpr int kGroups = 16;  // 16 of the 32 registers hold sums
  __m512 value;

  static Lanes all(float each) { return {_mm512_set1_ps(each)}; }
  static Lanes load(const float* from) { return {_mm512_loadu_ps(from)}; }
  static Lanes load(const Half* from) {
    return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)))};
  }
  static Lanes load(const int8_t* from) {
    return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))))};
  }
  static Lanes fma(const Lanes& a, const Lanes& b, const Lanes& c) {
    return {_mm512_fmadd_ps(a.value, b.value, c.value)};
  }
  Lanes operator+(const Lanes& other) const { return {_mm512_add_ps(value, other.value)}; }
  Lanes operator/(const Lanes& other) const { return {_mm512_div_ps(value, other.value)}; }
  void store(float* to) const { _mm512_storeu_ps(to, value); }
};

}  // namespace
}  // namespace ipr

#include "gather_kernel.h"

namespace ipr {
const GatherKernels kGatherAvx512{"avx512", {mean<float>, mean<Half>, mean<int8_t>}, normalize};
}  // namespace ipr
