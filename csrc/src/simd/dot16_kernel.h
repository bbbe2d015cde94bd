// Many rows of a packed matrix times rows of x, over the lanes. Included after one lanes_*.h.
#pragma once

#include "kernel_table.h"
#include "unroll.h"

namespace ipr {
namespace {

// R x rows against C weight rows. Each product keeps its own 16 partial sums, so no tiling changes a bit of it.
template <int R, int C>
inline void dot_tile(const PackedRows& weights, int64_t row, const float* x, int64_t x_stride, float* out,
                     int64_t out_stride) {
  const float* w = weights.data + row * weights.stride;
  const int64_t dim = weights.dim;
  Part sums[R][C][kParts];
  IPR_UNROLL(8)
  for (int r = 0; r < R; ++r) IPR_UNROLL(8)
  for (int c = 0; c < C; ++c) IPR_UNROLL(2)
  for (int p = 0; p < kParts; ++p) sums[r][c][p] = zero_part();

  // Lanes of part p at element i; the shorter side waits in registers while the longer one passes.
  const auto step = [&](int64_t i, int p, auto load_x) {
    if constexpr (R < C) {
      Part xs[R];
      IPR_UNROLL(8)
      for (int r = 0; r < R; ++r) xs[r] = load_x(x + r * x_stride, i, p);
      IPR_UNROLL(8)
      for (int c = 0; c < C; ++c) {
        const Part ws = load_part(w + c * weights.stride + i + p * kPartLanes);
        IPR_UNROLL(8)
        for (int r = 0; r < R; ++r) sums[r][c][p] = fma(ws, xs[r], sums[r][c][p]);
      }
    } else {
      Part ws[C];
      IPR_UNROLL(8)
      for (int c = 0; c < C; ++c) ws[c] = load_part(w + c * weights.stride + i + p * kPartLanes);
      IPR_UNROLL(8)
      for (int r = 0; r < R; ++r) {
        const Part xs = load_x(x + r * x_stride, i, p);
        IPR_UNROLL(8)
        for (int c = 0; c < C; ++c) sums[r][c][p] = fma(ws[c], xs, sums[r][c][p]);
      }
    }
  };
  const auto whole = [](const float* row, int64_t i, int p) { return load_part(row + i + p * kPartLanes); };
  const auto tail = [&](const float* row, int64_t i, int p) { return part_of(load_first(row + i, dim - i), p); };

  // One x row is bound by loads and keeps all parts of its sums in flight; more rows are bound by registers.
  constexpr int kTogether = R == 1 ? kParts : 1;
  IPR_UNROLL(2)
  for (int p = 0; p < kParts; p += kTogether) {
    int64_t i = 0;
    for (; i + 16 <= dim; i += 16) IPR_UNROLL(2)
    for (int q = p; q < p + kTogether; ++q) step(i, q, whole);
    if (i < dim) IPR_UNROLL(2)
    for (int q = p; q < p + kTogether; ++q) step(i, q, tail);
  }

  IPR_UNROLL(8)
  for (int r = 0; r < R; ++r) IPR_UNROLL(8)
  for (int c = 0; c < C; ++c) out[r * out_stride + row + c] = sum(join(sums[r][c]));
}

// Weight rows outermost: a tile of them stays in L1 while every x row passes.
template <int R, int C>
inline void dot_tiles(const PackedRows& weights, int64_t row, const float* x, int64_t batch, int64_t x_stride,
                      float* out, int64_t out_stride) {
  for (; row + C <= weights.rows; row += C)
    for (int64_t b = 0; b < batch; b += R)
      dot_tile<R, C>(weights, row, x + b * x_stride, x_stride, out + b * out_stride, out_stride);
  if constexpr (C > 1) dot_tiles<R, C - 1>(weights, row, x, batch, x_stride, out, out_stride);
}

// How many x rows to take at once: 16 KiB of them, half of a usual L1.
inline int64_t rows_per_block(int64_t dim) {
  const int64_t rows = 4096 / dim / kTileRows * kTileRows;
  return rows < kTileRows ? kTileRows : rows > 64 ? 64 : rows;
}

void dot16(const PackedRows& weights, const float* x, int64_t batch, int64_t x_stride, float* out, int64_t out_stride) {
  const int64_t block = rows_per_block(weights.dim);
  for (; batch > 0; batch -= block, x += block * x_stride, out += block * out_stride) {
    const int64_t rows = batch < block ? batch : block, tiled = rows / kTileRows * kTileRows;
    dot_tiles<kTileRows, kTileCols>(weights, 0, x, tiled, x_stride, out, out_stride);
    dot_tiles<1, kTileColsOneRow>(weights, 0, x + tiled * x_stride, rows - tiled, x_stride, out + tiled * out_stride,
                                  out_stride);
  }
}

// One chain per register that a tile keeps sums in.
int64_t fma_chains(int64_t steps, float* sink) {
  constexpr int kChains = kTileRows * kTileCols;
  const Part factor = load_part(sink), step = load_part(sink + kPartLanes);
  Part sums[kChains];
  IPR_UNROLL(16)
  for (int i = 0; i < kChains; ++i) sums[i] = load_part(sink + i * kPartLanes);
  for (int64_t s = 0; s < steps; ++s) {
    IPR_UNROLL(16)
    for (int i = 0; i < kChains; ++i) sums[i] = fma(sums[i], factor, step);
  }
  IPR_UNROLL(16)
  for (int i = 0; i < kChains; ++i) store_part(sink + i * kPartLanes, sums[i]);
  return steps * kChains * kPartLanes;
}

}  // namespace
}  // namespace ipr
