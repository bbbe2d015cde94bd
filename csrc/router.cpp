#include "router.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "errors.h"

namespace ipr {
namespace {

constexpr int64_t kChunk = 64;  // rows encoded before they are decided: their embeddings stay in the L2 cache

// Scratch of this thread: grows to the largest it has needed, and stays.
template <class T>
T* thread_scratch(size_t count) {
  thread_local std::vector<T> memory;
  if (memory.size() < count) memory.resize(count);
  return memory.data();
}

Results from_row(const Results& all, int64_t row, int64_t models) {
  const int64_t flat = row * models;
  return {all.quality + flat, all.tokens_out + flat, all.cost_usd + flat, all.threshold + row,
          all.gap + row,      all.index + row,       all.status + row,    all.cause + row};
}

}  // namespace

Router::Router(const DecidePlan& plan, const StaticEncoder* encoder, ContextLimits limits,
               std::optional<Support> support)
    : plan_(plan),
      encoder_(encoder),
      limits_(std::move(limits)),
      fits_all_(std::numeric_limits<double>::infinity()),
      support_(std::move(support)) {
  const auto models = static_cast<size_t>(plan.models());
  IPR_CHECK(limits_.context_window.size() == models && limits_.token_ratio.size() == models,
            "context_window, token_ratio: expected ", models, " values each, got ", limits_.context_window.size(),
            " and ", limits_.token_ratio.size());
  IPR_CHECK(encoder == nullptr || static_cast<int64_t>(encoder->dim()) == plan.dim(), "encoder: expected dim ",
            plan.dim(), " as the heads have, got ", encoder ? encoder->dim() : 0);
  for (size_t m = 0; m < models; ++m) {
    IPR_CHECK(limits_.token_ratio[m] > 0, "token_ratio: expected values > 0, got ", limits_.token_ratio[m]);
    IPR_CHECK(limits_.context_window[m] > 0, "context_window: expected values > 0, got ", limits_.context_window[m]);
    fits_all_ = std::min(fits_all_, limits_.context_window[m] / limits_.token_ratio[m]);
  }
  fits_all_ = std::floor(fits_all_ * (1 - 1e-12));  // rounding may only send a row to the exact test
}

bool Router::context_mask(const int64_t* billed_tokens, int64_t batch, uint8_t* allowed) const {
  if (std::all_of(billed_tokens, billed_tokens + batch,
                  [this](int64_t tokens) { return static_cast<double>(tokens) <= fits_all_; }))
    return false;
  const int64_t models = plan_.models();
  for (int64_t row = 0; row < batch; ++row)
    for (int64_t m = 0; m < models; ++m)
      allowed[row * models + m] =
          static_cast<double>(billed_tokens[row]) * limits_.token_ratio[m] <= limits_.context_window[m];
  return true;
}

void Router::route(const DecidePolicy& policy, const Prompts& prompts, const Results& results,
                   const Facts& facts) const {
  const int64_t models = plan_.models(), dim = plan_.dim();
  const int64_t room = std::min(prompts.batch, kChunk);
  float* const x = thread_scratch<float>(static_cast<size_t>(room * (dim + 1)));
  float* const billed = x + room * dim;  // (room), as the op wants it
  uint8_t* const allowed = thread_scratch<uint8_t>(static_cast<size_t>(room * models));

  for (int64_t first = 0; first < prompts.batch; first += kChunk) {
    const int64_t rows = std::min(kChunk, prompts.batch - first);
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t at = first + row;
      const EncodeInfo info = encoder_->encode(prompts.utf8[at], prompts.bytes[at], x + row * dim);
      const int64_t other = prompts.other_tokens ? prompts.other_tokens[at] : 0;
      facts.billed_tokens[at] = static_cast<int64_t>(info.tokens) + other;
      facts.truncated[at] = info.truncated;
      billed[row] = static_cast<float>(facts.billed_tokens[at]);
      if (facts.support) facts.support[at] = support_->of(x + row * dim);
    }
    Rows inputs{};
    inputs.batch = rows;
    inputs.x = x;
    inputs.x_stride = dim;
    inputs.billed_tokens = billed;
    inputs.billed_stride = 1;
    if (context_mask(facts.billed_tokens + first, rows, allowed)) {
      inputs.allowed = allowed;
      inputs.allowed_stride = models;
    }
    plan_.run(policy, inputs, from_row(results, first, models));
  }
}

}  // namespace ipr
