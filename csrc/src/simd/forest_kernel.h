// The forest of decide (docs/decide.md): which leaf of each tree a row of x ends in, and the sum of those leaves,
// written once over the lanes. Included after one lanes_*.h.
#pragma once

#include "kernel_table.h"
#include "unroll.h"

namespace ipr {
namespace {

// Writes the leaves that kTreesTogether trees from `tree` on end in, as rows of forest.leaves. They are walked side by
// side: a step waits for the one above it, and only the steps of other trees can fill that time.
inline void walk_trees(const PackedForest& forest, int64_t tree, const float* x, int32_t* leaves) {
  constexpr int64_t kTrees = kTreesTogether;
  const int64_t count = int64_t{1} << forest.depth;
  const TreeNode* const nodes = forest.nodes + tree * count;
  int64_t at[kTrees] = {};  // kTrees times the node
  for (int64_t level = 0; level < forest.depth; ++level) {
    IPR_UNROLL(8)
    for (int64_t t = 0; t < kTrees; ++t) {
      const TreeNode& node = nodes[at[t] + t];
      const int64_t right = x[node.column] > node.threshold;
      at[t] = 2 * at[t] + kTrees + kTrees * right;
    }
  }
  IPR_UNROLL(8)
  for (int64_t t = 0; t < kTrees; ++t)
    leaves[tree + t] = static_cast<int32_t>((tree + t) * count + at[t] / kTrees - (count - 1));
}

// sums[m] = the sum over the trees, in order, from +0, of what the leaf of row x adds to the logit of candidate m.
// leaves: room for padded_trees(forest.trees) numbers.
__attribute__((noinline)) void sum_leaves(const PackedForest& forest, int64_t models, const float* x, int32_t* leaves,
                                          float* sums) {
  for (int64_t tree = 0; tree < forest.trees; tree += kTreesTogether) walk_trees(forest, tree, x, leaves);

  const int64_t padded = round_up_16(models);
  for (int64_t m = 0; m < models; m += 16) {
    Lanes sum = broadcast(0.0f);
    for (int64_t tree = 0; tree < forest.trees; ++tree) sum = sum + load(forest.leaves + leaves[tree] * padded + m);
    store(sums + m, sum);
  }
}

}  // namespace
}  // namespace ipr
