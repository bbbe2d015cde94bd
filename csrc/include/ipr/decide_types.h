// The plain types of the op `decide` (ipr/decide.h): what it takes, what it gives, and the codes in its answers.
//
// Everything here is a struct of pointers and numbers. The files in src/simd are compiled with instructions that the
// CPU at hand may lack, and they include this header, so no standard container may appear in it: the linker would be
// free to keep the copy of a container's function that needs those instructions.
//
// Shapes are written as (batch, models): C order, without gaps unless a stride is named. A null pointer means "absent"
// where the comment allows it. None of these structs owns memory. Nothing is checked here: DecidePlan::run says which
// values it refuses, and the bindings check dtypes and shapes before they fill these structs.
#pragma once

#include <cstdint>

namespace ipr {

// What stands between the hidden layer and `out`. gelu is the tanh form.
enum class Activation : int32_t { relu, silu, gelu };

// Whether a row could be decided; the codes are those of ipr_engine.decide.STATUS.
//   ok                 all other fields of the row are answers
//   nonfinite_quality  the logit of an allowed candidate is NaN or infinite
//   nonfinite_cost     the cost of an allowed candidate is NaN or infinite, and every such quality is finite
//   none_allowed       no candidate was allowed
// A row that is not ok has index -1, cause failed, threshold and gap NaN. The other rows stand.
enum class Status : uint8_t { ok, nonfinite_quality, nonfinite_cost, none_allowed };

// Why the choice is what it is; the first that holds, in this order. The codes are those of ipr_engine.decide.CAUSE.
//   failed             the row has a status other than ok
//   only_allowed       one candidate was allowed
//   below_fixed_level  the policy names a fixed level (alpha_hi = alpha_lo = 0) that no allowed candidate reaches
//   best_quality       the choice has the highest quality of the allowed candidates
//   within_tolerance   it has not, but its objective is lower
//   unsupported        the prompt is unlike the fitting data (ipr/order.h); the op itself never gives this
enum class Cause : uint8_t { failed, only_allowed, below_fixed_level, best_quality, within_tolerance, unsupported };

// The inputs of `batch` rows. A stride counts elements from one row to the next; 0 gives every row the same values.
struct Rows {
  // How many rows are decided; 0 is fine.
  int64_t batch;

  // (batch, dim): the embeddings. Values that are not finite make their row's status, and nothing else.
  const float* x;
  int64_t x_stride;

  // Input tokens of the whole request, at least 0: (batch), or (batch, models) where billed_per_model is true. One
  // number a row counts for every candidate.
  const float* billed_tokens;
  int64_t billed_stride;
  bool billed_per_model;

  // (batch, models): output tokens, at least 0, in place of the predicted ones. Null: predicted by the heads.
  const float* tokens_out;
  int64_t tokens_stride;

  // (batch, models), USD: what the caller adds to each cost. Null: nothing.
  const float* extra_usd;
  int64_t extra_stride;

  // (batch, models), 0 = may not be chosen for this row; anded with the policy's. Null: the policy's alone.
  const uint8_t* allowed;
  int64_t allowed_stride;
};

// Where the answers go. The caller gives room for all of it; every element is written, whatever the row's status.
struct Results {
  // (batch, models), for candidates that are not allowed too: quality in [0, 1], output tokens, cost in USD (or in the
  // unit of the policy's rates). A NaN has the one payload that numpy writes.
  float *quality, *tokens_out, *cost_usd;

  // (batch): the least quality that was accepted, and the smallest change of one candidate's quality that changes the
  // choice, in units of quality, never negative, +inf where one candidate was allowed.
  float *threshold, *gap;

  // (batch): the position of the choice, -1 where status is not ok.
  int32_t* index;

  // (batch)
  Status* status;
  Cause* cause;
};

// The answers of `row` and those after it, for candidates `models` in number.
static inline Results row_of(const Results& all, int64_t row, int64_t models) {
  const int64_t flat = row * models;
  return {all.quality + flat, all.tokens_out + flat, all.cost_usd + flat, all.threshold + row,
          all.gap + row,      all.index + row,       all.status + row,    all.cause + row};
}

}  // namespace ipr
