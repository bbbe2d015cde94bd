// decide: embeddings -> the cheapest good-enough candidate of each row.
//
//   DecidePlan plan(heads);                                  // packs the weights; throws InvalidInput
//   DecidePolicy policy(plan.models(), spec);                // compiles the policy; throws InvalidInput
//   plan.run(policy, rows, results);                         // allocates nothing after a thread's first call
//
// What stands for the rule of a caller (minmax, max, fixed, path, calibrated) is folded into four numbers of the
// policy; the op knows no rules (docs/decide.md). The host folds prices, too: token_ratio is in in_rate.
//
// Plans and policies are immutable once made: any number of threads may run one plan with one policy at once.
//
// For row r, first over every candidate m, then over those that are allowed:
//
//   v           = the first `width` columns of x: all of them, but where a forest reads more
//   u           = trunk v                                              (hidden,)  shared by all candidates
//   d[m]        = down[m] v                                            (rank,)
//   h[m]        = act( (u + identity[m]) + up[m] d[m] )                (hidden,)
//   node        = 0; depth times: 2 node + 1 + ( x[tree_column[t,node]] > tree_threshold[t,node] )         tree t
//   forest[m]   = sum over t of tree_leaf[t, node - (2^depth - 1), m]
//   logit[m]    = ( ( skip[m].v + out[m].h[m] ) + bias[m] ) + forest[m]
//   quality[m]  = sigmoid(logit[m])
//   tokens[m]   = given, or min( exp( len_skip[m].v + len_bias[m] ), len_cap[m] )
//   t           = how many of tier_above[.,m] lie below billed[m]      the price tier
//   cost[m]     = ( fixed_usd[m] + ( in_rate[t,m]*billed[m] + out_rate[t,m]*tokens[m] ) ) + extra_usd[r,m]
//
//   hi, lo      = max, min of quality over the allowed
//   level       = ( alpha_hi*hi + alpha_lo*lo ) + offset
//   threshold   = min( level, hi )
//   objective   = cost[m] - worth*quality[m]
//   choice      = argmin of objective over { allowed, quality >= threshold }
//   ties        -> higher quality, then lower tie_rank
//
// gap is the minimum of two changes of one candidate's quality, all others held, clamped at 0:
//   leaving     = quality of the choice - threshold; where the choice is the best allowed candidate, hi and lo of the
//                 threshold are taken over the other allowed ones
//   entering    for every other allowed m the larger of threshold - quality[m], where that is positive, and
//                 (objective[m] - objective[choice]) / worth, where m's objective is larger: +inf at worth 0
//
// Numbers: float32. A dot product keeps 16 partial sums (element i goes to sum i mod 16, by fused multiply-add, from
// +0), then adds lanes l and l+8, l+4, l+2, l+1. `up d` accumulates over rank in index order by fused multiply-add on
// top of u + identity. A forest's leaves are added in the order of its trees, from +0; a NaN goes left, since it is not
// greater than a threshold. Everything else is in the written order, never contracted. exp is our own. Hence every
// instruction set gives the same bits, and a row of a batch equals that row alone. docs/decide.md is the same
// contract with its reasons; ipr_engine/decide/reference.py is the definition in float64.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "ipr/decide_types.h"

namespace ipr {

// The packed forms, which the files in src/ know (src/simd/kernel_table.h).
struct Kernels;
struct PackedHeads;
struct PackedPolicy;

// Trained heads, C order, float32. A plan copies them: the pointers need to live as long as its constructor runs.
//
// Null means absent. Absent together are up and down; len_skip and len_bias; out and everything hidden (trunk,
// identity, up, down); the three arrays of a forest. At least one of skip, trunk and down is present, since a quality
// must depend on x.
struct Heads {
  // models >= 1 and below 2^24, dim >= 1. hidden = 0 without `out`, rank = 0 without `up`. width: how many of x's dim
  // columns, the first ones, its products take; dim, but beside a forest it may be less, which may read all of them.
  int64_t models = 0, dim = 0, width = 0, hidden = 0, rank = 0;
  Activation activation = Activation::relu;

  // (models, width) and (models): the linear part of the logit. bias is required.
  const float* skip = nullptr;
  const float* bias = nullptr;

  // (hidden, width), (models, hidden), (models, hidden, rank), (models, rank, width), (models, hidden): what is hidden.
  const float* trunk = nullptr;
  const float* identity = nullptr;
  const float* up = nullptr;
  const float* down = nullptr;
  const float* out = nullptr;

  // A forest: 1 to 1024 trees, of depth 1 to 10. (trees, 2^depth - 1) twice: each node's element of x, in [0, dim), and
  // its threshold, not NaN, in heap order; the children of node i are 2 i + 1 and 2 i + 2. Infinity is always left: a
  // branch that ends earlier has it. (trees, 2^depth, models): what each leaf adds to the logits.
  int64_t trees = 0, depth = 0;
  const int32_t* tree_column = nullptr;
  const float* tree_threshold = nullptr;
  const float* tree_leaf = nullptr;

  // (models, width) and (models): the log of the output tokens. len_cap (models), at least 0: the most that is
  // predicted.
  const float* len_skip = nullptr;
  const float* len_bias = nullptr;
  const float* len_cap = nullptr;

  // (models), distinct: of candidates that are equal in objective and quality the lower rank wins. Null: the position.
  const int32_t* tie_rank = nullptr;
};

// Throws InvalidInput, naming the array, when a combination is not as above or a value is not finite.
void check(const Heads& heads);

// In place of a candidate's position: the cheapest one.
constexpr int64_t kCheapest = -1;

// What a policy says before it is compiled. The policy copies the arrays.
struct PolicySpec {
  // The coefficients of the threshold, finite; docs/decide.md derives them from a rule and tau. worth: USD
  // per unit of quality, finite, at least 0.
  float alpha_hi, alpha_lo, offset, worth;

  // How many price tiers there are, at least 1. (tiers, models), USD per token, finite, at least 0.
  int64_t tiers;
  const float *in_rate, *out_rate;

  // (tiers - 1, models), at least 0, not falling from one tier to the next; null with one tier. A request of more input
  // tokens than tier_above[t] is charged at the rates of tier t + 1, all of it. Infinity: no such tier.
  const float* tier_above;

  // (models), USD a request, finite. (models), 0 = never chosen.
  const float* fixed_usd;
  const uint8_t* allowed;

  // ---- What follows is not read by the op, but by what comes after it (ipr/order.h).

  // (models), the plan's; null = position.
  const float* tie_rank = nullptr;

  // A row whose support is below min_support, in [0, 1], goes to `unsupported`, a candidate or kCheapest, of those in
  // unsupported_allowed (models); null = allowed.
  double min_support = 0;
  int64_t unsupported = kCheapest;
  const uint8_t* unsupported_allowed = nullptr;
};

// A compiled policy for `models` candidates.
class DecidePolicy {
 public:
  // Throws InvalidInput, naming the field, for a value that is not as PolicySpec says.
  DecidePolicy(int64_t models, const PolicySpec& spec);
  ~DecidePolicy();

  int64_t models() const { return models_; }
  int64_t tiers() const;

  // (models): the spec's, or what null stands for there.
  const uint8_t* allowed() const;
  const float* tie_rank() const;
  const uint8_t* unsupported_allowed() const;

  double min_support() const { return min_support_; }
  int64_t unsupported() const { return unsupported_; }

  // What it was made of, to the bit. rates receives in_rate | out_rate | tier_above | fixed_usd, (3 * tiers, models),
  // which the spec points into; its other arrays live as long as the policy.
  PolicySpec spec(std::vector<float>& rates) const;

  // As kernels read it; lives as long as the policy. For the files in src/ alone: what it holds is padded and may
  // change its form.
  const PackedPolicy& packed() const;

 private:
  struct Compiled;

  int64_t models_;
  double min_support_;
  int64_t unsupported_;
  std::unique_ptr<const Compiled> compiled_;
};

// Heads packed for one instruction set.
class DecidePlan {
 public:
  // isa: "auto" or a name of available_isas() (ipr/isa.h). Throws InvalidInput as `check` does, and BackendUnavailable
  // for an instruction set that this machine lacks.
  explicit DecidePlan(const Heads& heads, const std::string& isa = "auto");
  ~DecidePlan();

  // The sizes of the heads; hidden, rank, trees and depth are 0 where the part is absent.
  int64_t models() const { return models_; }
  int64_t dim() const { return dim_; }
  int64_t hidden() const;
  int64_t rank() const;
  int64_t trees() const;
  int64_t depth() const;

  // Whether output tokens are predicted; where not, Rows::tokens_out must be given.
  bool has_tokens() const;

  // (models): 0 to models - 1, the order in which ties are broken, as floats. Heads without one have their positions
  // here.
  const float* tie_rank() const;

  // The instruction set that runs.
  const char* isa() const;

  // Multiply-adds of `batch` rows in the products with x, and what takes as long in a forest (32 for a step down a
  // tree, one for a number of a leaf): what a caller weighs against the cost of a thread switch.
  int64_t work(int64_t batch) const { return batch * row_work_; }

  // Decides rows.batch rows. The pointers must hold what ipr/decide_types.h says; that is not checked. Throws
  // InvalidInput, before anything is written, where tokens_out is absent and not predicted, where billed_tokens or
  // tokens_out hold a negative number, or where the policy was made for another number of candidates. A row that cannot
  // be decided gets a status; it throws nothing and leaves the other rows alone.
  void run(const DecidePolicy& policy, const Rows& rows, const Results& results) const;

 private:
  struct Packed;

  int64_t models_, dim_, row_work_, scratch_;
  const Kernels* kernels_;
  std::unique_ptr<const Packed> packed_;
};

}  // namespace ipr
