// What one instruction set offers: plain structs and one table of functions, `Kernels`, an instance a set.
//
// A new set is one lanes header, one .cpp that names its table, a line in src/isa.cpp and its flags in setup.py. No
// standard container appears here nor in anything that those .cpp files include: the linker must never merge code
// compiled for one instruction set into code that runs on every machine.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ipr/decide_types.h"
#include "ipr/text_terms.h"

namespace ipr {

static constexpr int64_t round_up_16(int64_t n) { return (n + 15) / 16 * 16; }

// A float16, by its bits.
struct Half {
  uint16_t bits;
};

// A matrix (rows, dim) whose rows are 64-byte aligned and zero-padded to stride = round_up_16(dim).
struct PackedRows {
  const float* data;
  int64_t rows, dim, stride;
};

// A node of a tree: x[column] > threshold goes right.
struct TreeNode {
  float threshold;
  uint32_t column;
};

// Trees that kernels walk side by side.
static constexpr int64_t kTreesTogether = 8;
static constexpr int64_t padded_trees(int64_t trees) {
  return (trees + kTreesTogether - 1) / kTreesTogether * kTreesTogether;
}

// The nodes of a tree lie in blocks of kBlockLevels levels, a cache line each, so that a row reads few lines. A layer
// holds the blocks of all trees that are equally deep; the topmost one has the levels that are left over, 1 to 3.
//
// Down a block, `at` starts at its first element; element at + level decides, and going right adds block_step(levels,
// level) to at. Where it ends is the block of the layer below, or the leaf: block r of a layer has 2^levels parts below
// it, from r << levels on, not from left to right.
static constexpr int64_t kBlockLevels = 3;
static constexpr int64_t top_levels(int64_t depth) { return (depth - 1) % kBlockLevels + 1; }
static constexpr uint64_t block_step(int64_t levels, int64_t level) {
  return level == 0 ? uint64_t{1} << (levels - 1) : static_cast<uint64_t>(level);  // of three levels: 4, 1, 2
}
static constexpr int64_t layer_nodes(int64_t trees, int64_t above, int64_t levels) {
  return padded_trees(trees) << above << levels;
}

// Trees of one depth, as kernels read them; trees = 0: none.
struct PackedForest {
  int64_t trees, depth;
  const TreeNode* nodes;  // layer after layer, from the top: (padded_trees, blocks of a tree, 2^levels)
  const float* leaves;    // (trees, 2^depth, models) in the order of block_step, models zero-padded to a multiple of 16
};

// The heads as kernels read them. Arrays over models and over hidden are zero-padded to a multiple of 16; null =
// absent.
struct PackedHeads {
  int64_t models, dim, hidden, rank;  // dim: of by_x, Heads::width
  Activation activation;
  PackedRows by_x;                             // everything that multiplies x, one after another:
  int64_t skip_at, len_at, trunk_at, down_at;  //   the first row of each part in it, -1 = absent
  const float *bias, *len_bias, *len_cap;      // (models)
  const float *identity, *up, *out;            // (models, hidden), (models, rank, hidden), (models, hidden)
  const float* tie_rank;                       // (models) 0 .. models-1, as floats
  const int32_t* by_tie_rank;                  // (models) the candidate of each tie rank
  PackedForest forest;
};

// A compiled policy. Arrays over models are padded to a multiple of 16; padding is not allowed. With one price tier the
// rates are (models) and tier_above is null.
struct PackedPolicy {
  float alpha_hi, alpha_lo, offset, worth;
  int64_t tiers;
  const float *in_rate, *out_rate;  // (tiers, models)
  const float* tier_above;          // (tiers - 1, models): tier t + 1 is charged above tier_above[t] input tokens
  const float* fixed_usd;           // (models)
  const uint8_t* allowed;           // (models)
};

// One instruction set. The functions check nothing; the callers in src/ do. Every set gives the same bits.
struct Kernels {
  const char* isa;

  // out[b * out_stride + j] = row j of weights . x row b, summed as docs/decide.md says.
  void (*dot16)(const PackedRows& weights, const float* x, int64_t batch, int64_t x_stride, float* out,
                int64_t out_stride);

  // The op of ipr/decide.h. decide_scratch: floats of scratch (64-byte aligned) that decide needs.
  int64_t (*decide_scratch)(const PackedHeads& heads);
  void (*decide)(const PackedHeads& heads, const PackedPolicy& policy, const Rows& rows, const Results& results,
                 float* scratch);

  // x[d] = (sum over k < n of weights[k] * table[rows[k]][d]) / n, d < dim, n > 0; by TableType of
  // ipr/static_encoder.h. weights may be null (all 1). Every sum starts at +0 and takes the rows in order, by fused
  // multiply-add with the row's weight.
  void (*gather_mean[3])(const void* table, size_t dim, const uint32_t* rows, const float* weights, size_t n, float* x);

  // x = x / (||x|| + 1e-32); the sum of squares keeps 16 partial sums.
  void (*normalize)(float* x, size_t dim);

  CountTerms count_terms;

  // Runs independent chains of multiply-adds and returns how many it did; sink: 512 floats, read and written.
  int64_t (*fma_chains)(int64_t steps, float* sink);
};

extern const Kernels kernels_scalar;
#if IPR_X86
extern const Kernels kernels_avx2, kernels_avx512;
void count_terms_avx2(const char* utf8, size_t bytes, uint64_t* sums);  // shared by the two
#endif

}  // namespace ipr
