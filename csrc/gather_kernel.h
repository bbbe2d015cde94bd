// The gather, written once. A gather_*.cpp defines `Lanes`, 16 floats in its instruction set, in an unnamed namespace,
// then includes this file. All is in unnamed namespaces and no standard container is used: nothing compiled for one
// instruction set may be merged by the linker into code that runs on every machine.

#include <cstring>

#include "gather.h"

namespace ipr {
namespace {

// Rows ahead of use that are asked of memory. measured: benchmarks/bench_encoder_static.py
constexpr size_t kPrefetch = 6;

// Lanes::load of up to 15 elements; the other lanes are 0.
template <class Element>
inline Lanes load_some(const Element* from, size_t count) {
  Element padded[16] = {};
  std::memcpy(padded, from, count * sizeof(Element));
  return Lanes::load(padded);
}

inline void store_some(const Lanes& lanes, float* to, size_t count) {
  float padded[16];
  lanes.store(padded);
  std::memcpy(to, padded, count * sizeof(float));
}

// 16 * kGroups columns of all rows, the sums in registers; or, if kGroups is 0, the last `some` columns.
template <class Element, bool kWeighted, int kGroups>
inline void mean_of_columns(const Element* column, size_t dim, const uint32_t* rows, const float* weights, size_t n,
                            float* x, size_t some) {
  constexpr int kSums = kGroups == 0 ? 1 : kGroups;
  Lanes sum[kSums];
  for (int g = 0; g < kSums; ++g) sum[g] = Lanes::all(0.0f);
  for (size_t k = 0; k < n; ++k) {
    if (kGroups != 0 && k + kPrefetch < n) {
      const char* ahead = reinterpret_cast<const char*>(column + rows[k + kPrefetch] * dim);
      for (size_t byte = 0; byte < 16 * kGroups * sizeof(Element); byte += 64) __builtin_prefetch(ahead + byte);
    }
    const Element* row = column + rows[k] * dim;
    const Lanes weight = Lanes::all(kWeighted ? weights[k] : 1.0f);
    for (int g = 0; g < kSums; ++g) {
      const Lanes value = kGroups == 0 ? load_some(row, some) : Lanes::load(row + 16 * g);
      sum[g] = kWeighted ? Lanes::fma(weight, value, sum[g]) : sum[g] + value;  // 1 * value + sum rounds as value + sum
    }
  }
  const Lanes count = Lanes::all(static_cast<float>(n));
  for (int g = 0; g < kSums; ++g) {
    const Lanes mean = sum[g] / count;
    if (kGroups == 0) {
      store_some(mean, x, some);
    } else {
      mean.store(x + 16 * g);
    }
  }
}

template <class Element, bool kWeighted, int kGroups>
inline void mean_from(size_t at, const Element* table, size_t dim, const uint32_t* rows, const float* weights, size_t n,
                      float* x) {
  for (; at + 16 * kGroups <= dim; at += 16 * kGroups) {
    mean_of_columns<Element, kWeighted, kGroups>(table + at, dim, rows, weights, n, x + at, 0);
  }
  if constexpr (kGroups > 1) {
    mean_from<Element, kWeighted, kGroups / 2>(at, table, dim, rows, weights, n, x);
  } else if (at < dim) {
    mean_of_columns<Element, kWeighted, 0>(table + at, dim, rows, weights, n, x + at, dim - at);
  }
}

template <class Element>
void mean(const void* table, size_t dim, const uint32_t* rows, const float* weights, size_t n, float* x) {
  const auto* elements = static_cast<const Element*>(table);
  if (weights != nullptr) {
    mean_from<Element, true, Lanes::kGroups>(0, elements, dim, rows, weights, n, x);
  } else {
    mean_from<Element, false, Lanes::kGroups>(0, elements, dim, rows, nullptr, n, x);
  }
}

void normalize(float* x, size_t dim) {
  Lanes squares = Lanes::all(0.0f);
  size_t at = 0;
  for (; at + 16 <= dim; at += 16) {
    const Lanes value = Lanes::load(x + at);
    squares = Lanes::fma(value, value, squares);
  }
  const Lanes rest = load_some(x + at, dim - at);
  squares = Lanes::fma(rest, rest, squares);
  float sums[16];
  squares.store(sums);
  for (int width = 8; width > 0; width /= 2) {
    for (int lane = 0; lane < width; ++lane) sums[lane] += sums[lane + width];
  }
  const Lanes norm = Lanes::all(__builtin_sqrtf(sums[0]) + 1e-32f);
  for (at = 0; at + 16 <= dim; at += 16) (Lanes::load(x + at) / norm).store(x + at);
  if (at < dim) store_some(load_some(x + at, dim - at) / norm, x + at, dim - at);
}

}  // namespace
}  // namespace ipr
