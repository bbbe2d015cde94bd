// The gather of the static encoder (ipr/static_encoder.h): the mean of some rows of a table, and its norm; written once
// over the lanes. Included after one lanes_*.h.
#pragma once

#include <cstring>

#include "kernel_table.h"
#include "unroll.h"

namespace ipr {
namespace {

// Rows ahead of use that are asked of memory. measured: benchmarks/ops/bench_encoder.py
constexpr size_t kPrefetch = 6;

// The first n < 16 elements, widened to float; the other lanes are 0.
template <class Element>
inline Lanes load_some(const Element* from, size_t n) {
  Element padded[16] = {};
  std::memcpy(padded, from, n * sizeof(Element));
  return load(padded);
}

// 16 * kWidth columns of all rows, the sums in registers; or, if kWidth is 0, the last `some` columns.
template <class Element, bool kWeighted, int kWidth>
inline void mean_of_columns(const Element* column, size_t dim, const uint32_t* rows, const float* weights, size_t n,
                            float* x, size_t some) {
  constexpr int kSums = kWidth == 0 ? 1 : kWidth;
  Lanes sums[kSums];
  IPR_UNROLL(16)
  for (int g = 0; g < kSums; ++g) sums[g] = broadcast(0.0f);
  for (size_t k = 0; k < n; ++k) {
    if (kWidth != 0 && k + kPrefetch < n) {
      const char* ahead = reinterpret_cast<const char*>(column + rows[k + kPrefetch] * dim);
      for (size_t byte = 0; byte < 16 * kWidth * sizeof(Element); byte += 64) __builtin_prefetch(ahead + byte);
    }
    const Element* row = column + rows[k] * dim;
    const Lanes weight = broadcast(kWeighted ? weights[k] : 1.0f);
    IPR_UNROLL(16)
    for (int g = 0; g < kSums; ++g) {
      const Lanes value = kWidth == 0 ? load_some(row, some) : load(row + 16 * g);
      sums[g] = kWeighted ? fma(weight, value, sums[g]) : sums[g] + value;  // 1 * value + sum rounds as value + sum
    }
  }
  const Lanes count = broadcast(static_cast<float>(n));
  IPR_UNROLL(16)
  for (int g = 0; g < kSums; ++g) {
    if (kWidth == 0) {
      store_first(x, static_cast<int64_t>(some), sums[g] / count);
    } else {
      store(x + 16 * g, sums[g] / count);
    }
  }
}

template <class Element, bool kWeighted, int kWidth>
inline void mean_from(size_t at, const Element* table, size_t dim, const uint32_t* rows, const float* weights, size_t n,
                      float* x) {
  for (; at + 16 * kWidth <= dim; at += 16 * kWidth) {
    mean_of_columns<Element, kWeighted, kWidth>(table + at, dim, rows, weights, n, x + at, 0);
  }
  if constexpr (kWidth > 1) {
    mean_from<Element, kWeighted, kWidth / 2>(at, table, dim, rows, weights, n, x);
  } else if (at < dim) {
    mean_of_columns<Element, kWeighted, 0>(table + at, dim, rows, weights, n, x + at, dim - at);
  }
}

template <class Element>
void mean(const void* table, size_t dim, const uint32_t* rows, const float* weights, size_t n, float* x) {
  const auto* elements = static_cast<const Element*>(table);
  if (weights != nullptr) {
    mean_from<Element, true, kGatherSums>(0, elements, dim, rows, weights, n, x);
  } else {
    mean_from<Element, false, kGatherSums>(0, elements, dim, rows, nullptr, n, x);
  }
}

void normalize(float* x, size_t dim) {
  Lanes squares = broadcast(0.0f);
  size_t at = 0;
  for (; at + 16 <= dim; at += 16) {
    const Lanes value = load(x + at);
    squares = fma(value, value, squares);
  }
  const Lanes rest = load_some(x + at, dim - at);
  squares = fma(rest, rest, squares);
  const Lanes norm = broadcast(__builtin_sqrtf(sum(squares)) + 1e-32f);
  for (at = 0; at + 16 <= dim; at += 16) store(x + at, load(x + at) / norm);
  if (at < dim) store_first(x + at, static_cast<int64_t>(dim - at), rest / norm);
}

}  // namespace
}  // namespace ipr
