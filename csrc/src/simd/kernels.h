// What a per-instruction-set file takes and gives: plain structs and one table of functions. No standard container
// appears here, since these headers are compiled with instructions that the CPU at hand may lack.
#pragma once

#include <cstdint>

namespace ipr {

static constexpr int64_t round_up_16(int64_t n) { return (n + 15) / 16 * 16; }

enum class Activation : int32_t { relu, silu, gelu };
enum class Status : uint8_t { ok, nonfinite_quality, nonfinite_cost, none_allowed };
// The last is the router's own: the op never makes it.
enum class Cause : uint8_t { failed, only_allowed, below_fixed_level, best_quality, within_tolerance, unsupported };

// A matrix (rows, dim) whose rows are 64-byte aligned and zero-padded to stride = round_up_16(dim).
struct PackedRows {
  const float* data;
  int64_t rows, dim, stride;
};

// The heads as kernels read them. Arrays over models and over hidden are zero-padded to a multiple of 16; null =
// absent.
struct PackedHeads {
  int64_t models, dim, hidden, rank;
  Activation activation;
  PackedRows by_x;                             // everything that multiplies x, one after another:
  int64_t skip_at, len_at, trunk_at, down_at;  //   the first row of each part in it, -1 = absent
  const float *bias, *len_bias, *len_cap;      // (models)
  const float *identity, *up, *out;            // (models, hidden), (models, rank, hidden), (models, hidden)
  const float* tie_rank;                       // (models) 0 .. models-1, as floats
  const int32_t* by_tie_rank;                  // (models) the candidate of each tie rank
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

// The inputs of `batch` rows. A stride counts elements from one row to the next; 0 gives every row the same values.
struct Rows {
  int64_t batch;
  const float* x;  // (batch, dim)
  int64_t x_stride;
  const float* billed_tokens;  // (batch) or, with billed_per_model, (batch, models)
  int64_t billed_stride;
  bool billed_per_model;
  const float* tokens_out;  // (batch, models); null = predicted
  int64_t tokens_stride;
  const float* extra_usd;  // (batch, models); null = none
  int64_t extra_stride;
  const uint8_t* allowed;  // (batch, models), anded with the policy's; null = all
  int64_t allowed_stride;
};

// Where the answers go, C-contiguous; every element is written.
struct Results {
  float *quality, *tokens_out, *cost_usd;  // (batch, models)
  float *threshold, *gap;                  // (batch)
  int32_t* index;                          // (batch)
  Status* status;                          // (batch)
  Cause* cause;                            // (batch)
};

// The answers of `row` and those after it.
static inline Results row_of(const Results& all, int64_t row, int64_t models) {
  const int64_t flat = row * models;
  return {all.quality + flat, all.tokens_out + flat, all.cost_usd + flat, all.threshold + row,
          all.gap + row,      all.index + row,       all.status + row,    all.cause + row};
}

// One instruction set. The functions check nothing; decide.h and isa.h do.
struct Kernels {
  const char* isa;
  // out[b * out_stride + j] = row j of weights . x row b, summed as docs/design.md section 3 says.
  void (*dot16)(const PackedRows& weights, const float* x, int64_t batch, int64_t x_stride, float* out,
                int64_t out_stride);
  // Floats of scratch (64-byte aligned) that decide needs.
  int64_t (*decide_scratch)(const PackedHeads& heads);
  void (*decide)(const PackedHeads& heads, const PackedPolicy& policy, const Rows& rows, const Results& results,
                 float* scratch);
  // Runs independent chains of multiply-adds and returns how many it did; sink: 512 floats, read and written.
  int64_t (*fma_chains)(int64_t steps, float* sink);
};

extern const Kernels kernels_scalar;
#if IPR_X86
extern const Kernels kernels_avx2, kernels_avx512;
#endif

}  // namespace ipr
