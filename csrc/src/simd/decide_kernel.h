// decide (docs/decide.md), written once over the lanes. Included after one lanes_*.h.
#pragma once

#include "dot16_kernel.h"
#include "forest_kernel.h"
#include "kernel_table.h"
#include "math16.h"
#include "unroll.h"

namespace ipr {
namespace {

constexpr float kInf = __builtin_inff(), kNan = __builtin_nanf("");

inline bool any(Mask mask) { return bits(mask) != 0; }
inline Lanes keep(Mask mask, Lanes a) { return select(mask, a, broadcast(0.0f)); }
inline Lanes without_nan_payload(Lanes a) { return select(a == a, a, broadcast(kNan)); }
inline float min(float a, float b) { return a < b ? a : b; }
inline float max(float a, float b) { return a > b ? a : b; }

// One thread's working memory. Lanes past the last candidate hold stale numbers; they are never allowed.
struct Scratch {
  int64_t dots_stride;
  float* dots;       // (rows_per_block, dots_stride): by_x . x
  float* quality;    // (models): NaN where not allowed, so that no comparison holds there
  float* objective;  // (models)
  float* head;       // (models): out . h
  float* forest;     // (models): the sum of the leaves
  uint32_t* rows;    // (padded_trees): which row of the forest's leaves each tree ends in
};

inline int64_t dots_stride(const PackedHeads& heads) { return round_up_16(heads.by_x.rows + 16); }

int64_t decide_scratch(const PackedHeads& heads) {
  return rows_per_block(heads.dim) * dots_stride(heads) + 4 * round_up_16(heads.models) +
         padded_trees(heads.forest.trees);
}

inline Scratch split(const PackedHeads& heads, float* memory) {
  const int64_t padded = round_up_16(heads.models), stride = dots_stride(heads);
  float* per_model = memory + rows_per_block(heads.dim) * stride;
  float* forest = per_model + 3 * padded;
  auto* rows = reinterpret_cast<uint32_t*>(forest + padded);
  return {stride, memory, per_model, per_model + padded, per_model + 2 * padded, forest, rows};
}

// Adds out[m] * act((u + identity[m]) + up[m] d[m]) of hidden units i .. i + 16 U - 1 to the 16 partial sums.
template <int U, class Act>
inline Lanes add_hidden(const PackedHeads& heads, const float* dots, int64_t m, int64_t i, Lanes sums, Act act) {
  const int64_t at = m * round_up_16(heads.hidden) + i;
  Lanes h[U];
  IPR_UNROLL(4)
  for (int j = 0; j < U; ++j) {
    h[j] = heads.trunk_at >= 0 ? load(dots + heads.trunk_at + i + 16 * j) : broadcast(0.0f);
    if (heads.identity) h[j] = h[j] + load(heads.identity + at + 16 * j);
  }
  for (int64_t k = 0; k < heads.rank; ++k) {
    const Lanes d = broadcast(dots[heads.down_at + m * heads.rank + k]);
    const float* up = heads.up + (m * heads.rank + k) * round_up_16(heads.hidden) + i;
    IPR_UNROLL(4)
    for (int j = 0; j < U; ++j) h[j] = fma(load(up + 16 * j), d, h[j]);
  }
  IPR_UNROLL(4)
  for (int j = 0; j < U; ++j) {
    // stale and padding lanes could be inf, and inf * 0 is not 0
    if (i + 16 * (j + 1) > heads.hidden) h[j] = keep(first(heads.hidden - i - 16 * j), h[j]);
    sums = fma(load(heads.out + at + 16 * j), act(h[j]), sums);
  }
  return sums;
}

// head[m] = out[m] . h[m]
template <class Act>
inline void hidden_heads(const PackedHeads& heads, const float* dots, float* head, Act act) {
  const int64_t padded = round_up_16(heads.hidden);
  for (int64_t m = 0; m < heads.models; ++m) {
    Lanes sums = broadcast(0.0f);
    int64_t i = 0;
    for (; i + 64 <= padded; i += 64) sums = add_hidden<4>(heads, dots, m, i, sums, act);
    for (; i < padded; i += 16) sums = add_hidden<1>(heads, dots, m, i, sums, act);
    head[m] = sum(sums);
  }
}

inline void hidden_heads(const PackedHeads& heads, const float* dots, float* head) {
  switch (heads.activation) {
    case Activation::relu:
      return hidden_heads(heads, dots, head, Relu{});
    case Activation::silu:
      return hidden_heads(heads, dots, head, Silu{});
    case Activation::gelu:
      return hidden_heads(heads, dots, head, Gelu{});
  }
}

// What the first pass over the candidates finds; hi and lo are over the allowed ones.
struct Seen {
  int allowed = 0;
  bool nonfinite_quality = false, nonfinite_cost = false;
  float hi = -kInf, lo = kInf;
};

inline Mask allowed_mask(const PackedPolicy& policy, const uint8_t* allowed, int64_t m, int64_t left) {
  const Mask mask = nonzero(policy.allowed + m);
  if (!allowed) return mask;
  if (left >= 16) return mask & nonzero(allowed + m);
  uint8_t tail[16] = {};
  for (int64_t i = 0; i < left; ++i) tail[i] = allowed[m + i];
  return mask & nonzero(tail);
}

struct Rates {
  Lanes in, out;
};

// The rates of candidates m .. m + 15 in the price tier of their input tokens.
inline Rates tier_rates(const PackedPolicy& policy, int64_t models, int64_t m, Lanes billed) {
  const int64_t padded = round_up_16(models);
  Rates rates{load(policy.in_rate + m), load(policy.out_rate + m)};
  for (int64_t tier = 1; tier < policy.tiers; ++tier) {
    const Mask above = billed > load(policy.tier_above + (tier - 1) * padded + m);
    rates.in = select(above, load(policy.in_rate + tier * padded + m), rates.in);
    rates.out = select(above, load(policy.out_rate + tier * padded + m), rates.out);
  }
  return rates;
}

// Quality, tokens, cost and objective of every candidate of row r. kFlat: one price tier, one bill for all candidates.
template <bool kOneGroup, bool kFlat>
inline Seen predict(const PackedHeads& heads, const PackedPolicy& policy, const Rows& rows, const Results& results,
                    int64_t r, const float* dots, const Scratch& scratch) {
  const int64_t models = heads.models;
  const float* const row_billed = rows.billed_tokens + r * rows.billed_stride;
  Lanes billed = broadcast(kFlat || !rows.billed_per_model ? *row_billed : 0.0f);
  const uint8_t* row_allowed = rows.allowed ? rows.allowed + r * rows.allowed_stride : nullptr;
  Seen seen;
  Lanes hi = broadcast(-kInf), lo = broadcast(kInf);
  for (int64_t m = 0; m < (kOneGroup ? 1 : models); m += 16) {
    const int64_t left = models - m;
    Lanes logit = broadcast(0.0f);
    if (heads.skip_at >= 0) logit = load(dots + heads.skip_at + m);
    if (heads.out) logit = logit + load(scratch.head + m);
    logit = logit + load(heads.bias + m);
    if (heads.forest.trees) logit = logit + load(scratch.forest + m);
    const Lanes quality = sigmoid(logit);

    Lanes tokens;
    if (rows.tokens_out) {
      tokens = load_first(rows.tokens_out + r * rows.tokens_stride + m, left);
    } else {
      tokens = exp(load(dots + heads.len_at + m) + load(heads.len_bias + m));
      if (heads.len_cap) tokens = min(load(heads.len_cap + m), tokens);
    }
    Lanes in_rate, out_rate;
    if constexpr (kFlat) {
      in_rate = load(policy.in_rate + m);
      out_rate = load(policy.out_rate + m);
    } else {
      if (rows.billed_per_model) billed = load_first(row_billed + m, left);
      const Rates rates = tier_rates(policy, models, m, billed);
      in_rate = rates.in;
      out_rate = rates.out;
    }
    Lanes cost = load(policy.fixed_usd + m) + (in_rate * billed + out_rate * tokens);
    if (rows.extra_usd) cost = cost + load_first(rows.extra_usd + r * rows.extra_stride + m, left);

    store_first(results.quality + r * models + m, left, without_nan_payload(quality));
    store_first(results.tokens_out + r * models + m, left, without_nan_payload(tokens));
    store_first(results.cost_usd + r * models + m, left, without_nan_payload(cost));

    const Mask allowed = allowed_mask(policy, row_allowed, m, left);
    // a - a is 0 for finite a and NaN otherwise
    seen.nonfinite_quality |= any(allowed & (logit - logit != broadcast(0.0f)));
    seen.nonfinite_cost |= any(allowed & (cost - cost != broadcast(0.0f)));
    seen.allowed += __builtin_popcount(bits(allowed));
    const Lanes seen_quality = select(allowed, quality, broadcast(kNan));
    hi = max(seen_quality, hi);  // max and min pass over a NaN in their first argument
    lo = min(seen_quality, lo);
    store(scratch.quality + m, seen_quality);
    store(scratch.objective + m, cost - broadcast(policy.worth) * quality);
  }
  seen.hi = highest(hi);
  seen.lo = lowest(lo);
  return seen;
}

struct Choice {
  int64_t index;
  float quality, objective, tie_rank;
};

// Of the candidates with quality >= threshold and exactly this objective: the higher quality, then the lower tie rank.
inline int64_t break_tie(const PackedHeads& heads, const Scratch& scratch, float threshold, float objective) {
  Lanes best = broadcast(threshold), rank = broadcast(kInf);
  for (int64_t m = 0; m < heads.models; m += 16) {
    const Lanes quality = load(scratch.quality + m);
    const Mask tied = (quality >= best) & (load(scratch.objective + m) == broadcast(objective));
    best = max(select(tied, quality, best), best);
  }
  best = broadcast(highest(best));
  for (int64_t m = 0; m < heads.models; m += 16) {
    const Mask tied = (load(scratch.quality + m) == best) & (load(scratch.objective + m) == broadcast(objective));
    rank = min(rank, select(tied, load(heads.tie_rank + m), broadcast(kInf)));
  }
  return heads.by_tie_rank[static_cast<int64_t>(lowest(rank))];
}

// The cheapest by objective of those with quality >= threshold.
template <bool kOneGroup>
inline Choice choose(const PackedHeads& heads, const Scratch& scratch, float threshold) {
  const int64_t end = kOneGroup ? 1 : heads.models;
  Lanes least = broadcast(kInf);
  for (int64_t m = 0; m < end; m += 16) {
    const Mask feasible = load(scratch.quality + m) >= broadcast(threshold);
    least = min(least, select(feasible, load(scratch.objective + m), broadcast(kInf)));
  }
  const float objective = lowest(least);
  int64_t index = 0;
  int count = 0;
  for (int64_t m = 0; m < end; m += 16) {
    const Mask feasible = load(scratch.quality + m) >= broadcast(threshold);
    const unsigned cheapest = bits(feasible & (load(scratch.objective + m) == broadcast(objective)));
    if (cheapest) index = m + __builtin_ctz(cheapest);
    count += __builtin_popcount(cheapest);
  }
  if (count > 1) index = break_tie(heads, scratch, threshold, objective);
  return {index, scratch.quality[index], objective, heads.tie_rank[index]};
}

inline float level(const PackedPolicy& policy, float hi, float lo) {
  return (policy.alpha_hi * hi + policy.alpha_lo * lo) + policy.offset;
}

// The smallest change of one candidate's quality that changes the choice.
template <bool kOneGroup>
inline float gap(const PackedHeads& heads, const PackedPolicy& policy, const Scratch& scratch, const Choice& choice,
                 float threshold, float hi) {
  const Lanes zero = broadcast(0.0f), never = broadcast(kInf);
  Lanes hi_others = broadcast(-kInf), lo_others = never, entering = never;
  for (int64_t m = 0; m < (kOneGroup ? 1 : heads.models); m += 16) {
    const Lanes quality = load(scratch.quality + m), objective = load(scratch.objective + m);
    const Mask others = (quality == quality) & (load(heads.tie_rank + m) != broadcast(choice.tie_rank));
    const Lanes other_quality = select(others, quality, broadcast(kNan));
    hi_others = max(other_quality, hi_others);
    lo_others = min(other_quality, lo_others);

    const Mask dearer = objective > broadcast(choice.objective);
    const Lanes to_pay = policy.worth > 0 ? (objective - broadcast(choice.objective)) / broadcast(policy.worth) : never;
    const Lanes needed = max(max(broadcast(threshold) - quality, zero), keep(dearer, to_pay));
    entering = min(entering, select(others, needed, never));
  }
  const float hi_left = highest(hi_others), left = min(level(policy, hi_left, lowest(lo_others)), hi_left);
  const float leaving = choice.quality - (choice.quality == hi ? left : threshold);
  return max(min(leaving, lowest(entering)), 0.0f);
}

template <bool kOneGroup, bool kFlat>
inline void decide_row(const PackedHeads& heads, const PackedPolicy& policy, const Rows& rows, const Results& results,
                       int64_t r, const float* dots, const Scratch& scratch) {
  if (heads.out) hidden_heads(heads, dots, scratch.head);
  if (heads.forest.trees)
    sum_leaves(heads.forest, heads.models, rows.x + r * rows.x_stride, scratch.rows, scratch.forest);
  const Seen seen = predict<kOneGroup, kFlat>(heads, policy, rows, results, r, dots, scratch);

  const Status status = seen.allowed == 0        ? Status::none_allowed
                        : seen.nonfinite_quality ? Status::nonfinite_quality
                        : seen.nonfinite_cost    ? Status::nonfinite_cost
                                                 : Status::ok;
  results.status[r] = status;
  if (status != Status::ok) {
    results.index[r] = -1;
    results.cause[r] = Cause::failed;
    results.threshold[r] = results.gap[r] = kNan;
    return;
  }
  const float wanted = level(policy, seen.hi, seen.lo), threshold = min(wanted, seen.hi);
  const bool fixed = policy.alpha_hi == 0 && policy.alpha_lo == 0;
  const Choice choice = choose<kOneGroup>(heads, scratch, threshold);
  results.index[r] = static_cast<int32_t>(choice.index);
  results.threshold[r] = threshold;
  results.gap[r] = seen.allowed == 1 ? kInf : gap<kOneGroup>(heads, policy, scratch, choice, threshold, seen.hi);
  results.cause[r] = seen.allowed == 1           ? Cause::only_allowed
                     : fixed && wanted > seen.hi ? Cause::below_fixed_level
                     : choice.quality == seen.hi ? Cause::best_quality
                                                 : Cause::within_tolerance;
}

template <bool kOneGroup, bool kFlat>
void decide_rows(const PackedHeads& heads, const PackedPolicy& policy, const Rows& rows, const Results& results,
                 Scratch scratch) {
  alignas(64) float local[32];
  if (kOneGroup) {  // the compiler can keep these in registers
    scratch.quality = local;
    scratch.objective = local + 16;
  }
  const int64_t block = rows_per_block(heads.dim);
  for (int64_t begin = 0; begin < rows.batch; begin += block) {
    const int64_t count = rows.batch - begin < block ? rows.batch - begin : block;
    dot16(heads.by_x, rows.x + begin * rows.x_stride, count, rows.x_stride, scratch.dots, scratch.dots_stride);
    for (int64_t i = 0; i < count; ++i)
      decide_row<kOneGroup, kFlat>(heads, policy, rows, results, begin + i, scratch.dots + i * scratch.dots_stride,
                                   scratch);
  }
}

void decide(const PackedHeads& heads, const PackedPolicy& policy, const Rows& rows, const Results& results,
            float* memory) {
  const bool flat = policy.tiers == 1 && !rows.billed_per_model;
  const auto run = heads.models <= 16 ? (flat ? decide_rows<true, true> : decide_rows<true, false>)
                                      : (flat ? decide_rows<false, true> : decide_rows<false, false>);
  run(heads, policy, rows, results, split(heads, memory));
}

}  // namespace
}  // namespace ipr
