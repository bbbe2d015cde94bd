// The mean of some rows of a table, in float32: the inner loop of the static encoder, one version per instruction set.
//
// Numbers (docs/design.md, sections 3 and 7): every sum starts at +0 and takes the rows in order, by fused multiply-add
// with the row's weight; the sum is divided by n; the norm's sum of squares keeps 16 partial sums. All versions agree
// bit for bit.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ipr {

enum class TableType : uint8_t { kFloat32, kFloat16, kInt8 };

// A float16, by its bits.
struct Half {
  uint16_t bits;
};

struct GatherKernels {
  const char* isa;
  // x[d] = (sum over k < n of weights[k] * table[rows[k]][d]) / n, d < dim; by TableType. weights may be null (all 1).
  // n > 0.
  void (*mean[3])(const void* table, size_t dim, const uint32_t* rows, const float* weights, size_t n, float* x);
  // x = x / (||x|| + 1e-32)
  void (*normalize)(float* x, size_t dim);
};

extern const GatherKernels kGatherScalar;
#if IPR_X86
extern const GatherKernels kGatherAvx2;
extern const GatherKernels kGatherAvx512;
#endif

}  // namespace ipr
