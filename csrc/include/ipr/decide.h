// decide: embeddings -> the cheapest good-enough candidate of each row. docs/design.md section 3 is the contract.
//
//   DecidePlan plan(heads);                                  // packs the weights; throws InvalidInput
//   DecidePolicy policy(plan.models(), spec);                // compiles the policy; throws InvalidInput
//   plan.run(policy, rows, results);                         // allocates nothing after a thread's first call
//
// Plans and policies are immutable: any number of threads may run one plan at once.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "packed.h"
#include "simd/kernels.h"

namespace ipr {

// Trained heads, C-contiguous float32; copied by the plan. Null = absent, and hidden = 0 without `out`.
// Absent together: up and down; len_skip and len_bias; out and everything hidden (trunk, identity, up, down).
struct Heads {
  int64_t models = 0, dim = 0, hidden = 0, rank = 0;
  Activation activation = Activation::relu;
  const float* skip = nullptr;        // (models, dim)
  const float* bias = nullptr;        // (models), required
  const float* trunk = nullptr;       // (hidden, dim)
  const float* identity = nullptr;    // (models, hidden)
  const float* up = nullptr;          // (models, hidden, rank)
  const float* down = nullptr;        // (models, rank, dim)
  const float* out = nullptr;         // (models, hidden)
  const float* len_skip = nullptr;    // (models, dim): log of the output tokens
  const float* len_bias = nullptr;    // (models)
  const float* len_cap = nullptr;     // (models), tokens >= 0
  const int32_t* tie_rank = nullptr;  // (models), distinct, lower wins; null = position
};

// Throws InvalidInput, naming the array, when a combination or a value is not as above.
void check(const Heads& heads);

constexpr int64_t kCheapest = -1;

// What a policy says before it is compiled. Rates are USD per token, finite and not negative; so is worth (USD per unit
// of quality). alpha_hi, alpha_lo, offset give the threshold (section 4 derives them from rule and tau). A request of
// more input tokens than tier_above[t] is charged at the rates of tier t + 1, all of it; thresholds are not negative
// and do not fall from one tier to the next; infinity: the candidate has no such tier.
struct PolicySpec {
  float alpha_hi, alpha_lo, offset, worth;
  int64_t tiers;
  const float *in_rate, *out_rate;  // (tiers, models)
  const float* tier_above;          // (tiers - 1, models), null with one tier
  const float* fixed_usd;           // (models)
  const uint8_t* allowed;           // (models), 0 = never chosen
  // What the op does not read. tie_rank: as of the plan; null = position.
  const float* tie_rank = nullptr;  // (models)
  // A row whose support is below min_support, in [0, 1], goes to `unsupported`, a candidate or kCheapest, of those in
  // unsupported_allowed (models); null = allowed.
  double min_support = 0;
  int64_t unsupported = kCheapest;
  const uint8_t* unsupported_allowed = nullptr;
};

class DecidePolicy {
 public:
  DecidePolicy(int64_t models, const PolicySpec& spec);
  int64_t models() const { return models_; }
  int64_t tiers() const { return packed_.tiers; }
  const PackedPolicy& packed() const { return packed_; }
  const float* tie_rank() const { return tie_rank_.data(); }
  double min_support() const { return min_support_; }
  int64_t unsupported() const { return unsupported_; }
  const uint8_t* unsupported_allowed() const { return unsupported_allowed_.data(); }

 private:
  int64_t models_;
  AlignedArray<float> rates_;
  AlignedArray<uint8_t> allowed_;
  std::vector<float> tie_rank_;
  double min_support_;
  int64_t unsupported_;
  std::vector<uint8_t> unsupported_allowed_;
  PackedPolicy packed_;
};

class DecidePlan {
 public:
  // isa: "auto" or a name of available_isas(); see isa.h.
  explicit DecidePlan(const Heads& heads, const std::string& isa = "auto");

  int64_t models() const { return packed_.models; }
  int64_t dim() const { return packed_.dim; }
  int64_t hidden() const { return packed_.hidden; }
  int64_t rank() const { return packed_.rank; }
  bool has_tokens() const { return packed_.len_at >= 0; }
  const float* tie_rank() const { return packed_.tie_rank; }  // (models)
  const char* isa() const { return kernels_->isa; }

  // Multiply-adds of `batch` rows in the products with x: what a caller weighs against the cost of a thread switch.
  int64_t work(int64_t batch) const { return batch * packed_.by_x.rows * packed_.dim; }

  // Decides rows.batch rows. Pointers must hold what kernels.h says; policy and plan must have the same models.
  // Throws InvalidInput: tokens_out absent without a tokens head, negative billed_tokens or tokens_out, other policy.
  // A row that cannot be decided gets a status; it throws nothing and leaves the other rows alone.
  void run(const DecidePolicy& policy, const Rows& rows, const Results& results) const;

 private:
  const float* keep(const float* data, int64_t rows, int64_t dim);  // a packed copy, or null

  const Kernels* kernels_;
  std::vector<PackedMatrix> kept_;
  AlignedArray<int32_t> by_tie_rank_;
  PackedHeads packed_;
};

}  // namespace ipr
