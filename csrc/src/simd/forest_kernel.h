// The forest of decide (docs/decide.md): which leaf of each tree a row of x ends in, and the sum of those leaves,
// written once over the lanes. Included after one lanes_*.h.
#pragma once

#include "kernel_table.h"
#include "unroll.h"

namespace ipr {
namespace {

// Takes every tree down one layer of blocks. rows[tree], (padded_trees): its block of the layer, and then what it comes
// to below: a block of the next layer or a leaf. That is `stride` bytes wide and is fetched ahead, while other trees
// take their steps. Of kTreesTogether trees the steps of one level stand side by side: a step waits for the one above
// it. kTop: rows is not read, all trees are at their tops.
template <int kLevels, bool kTop>
inline void descend(const TreeNode* layer, int64_t trees, const float* x, uint32_t* rows, const void* below,
                    size_t stride) {
  constexpr int kTrees = kTreesTogether;
  for (int64_t tree = 0; tree < trees; tree += kTrees) {
    uint64_t at[kTrees];
    IPR_UNROLL(8)
    for (int t = 0; t < kTrees; ++t) at[t] = (kTop ? static_cast<uint64_t>(tree + t) : rows[tree + t]) << kLevels;
    IPR_UNROLL(3)
    for (int level = 0; level < kLevels; ++level) {
      IPR_UNROLL(8)
      for (int t = 0; t < kTrees; ++t) {
        const TreeNode& node = layer[at[t] + static_cast<uint64_t>(level)];
        at[t] += block_step(kLevels, level) * (x[node.column] > node.threshold);
      }
    }
    IPR_UNROLL(8)
    for (int t = 0; t < kTrees; ++t) {
      rows[tree + t] = static_cast<uint32_t>(at[t]);
      // an address, not a pointer: what pads the trees has no leaves
      __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(below) + at[t] * stride));
    }
  }
}

inline void descend_from_top(int64_t levels, const TreeNode* layer, int64_t trees, const float* x, uint32_t* rows,
                             const void* below, size_t stride) {
  if (levels == 3) return descend<3, true>(layer, trees, x, rows, below, stride);
  if (levels == 2) return descend<2, true>(layer, trees, x, rows, below, stride);
  descend<1, true>(layer, trees, x, rows, below, stride);
}

// sums[m] = the sum over the trees, in order, from +0, of what the leaf of row x adds to the logit of candidate m.
// rows: room for padded_trees(forest.trees) numbers; receives the rows of forest.leaves.
__attribute__((noinline)) void sum_leaves(const PackedForest& forest, int64_t models, const float* x, uint32_t* rows,
                                          float* sums) {
  constexpr size_t kBlock = sizeof(TreeNode) << kBlockLevels;
  const int64_t padded = round_up_16(models), trees = forest.trees;
  const size_t leaf = static_cast<size_t>(padded) * sizeof(float);
  const TreeNode* layer = forest.nodes;
  int64_t above = 0, levels = top_levels(forest.depth);
  while (above < forest.depth) {
    const TreeNode* const next = layer + layer_nodes(trees, above, levels);
    const bool last = above + levels == forest.depth;
    const void* const below = last ? static_cast<const void*>(forest.leaves) : next;
    const size_t stride = last ? leaf : kBlock;
    if (above == 0)
      descend_from_top(levels, layer, trees, x, rows, below, stride);
    else
      descend<kBlockLevels, false>(layer, trees, x, rows, below, stride);
    above += levels;
    levels = kBlockLevels;
    layer = next;
  }

  for (int64_t m = 0; m < models; m += 16) {
    Lanes sum = broadcast(0.0f);
    for (int64_t tree = 0; tree < trees; ++tree) sum = sum + load(forest.leaves + rows[tree] * padded + m);
    store(sums + m, sum);
  }
}

}  // namespace
}  // namespace ipr
