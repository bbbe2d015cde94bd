#include "ipr/router.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "ipr/errors.h"
#include "ipr/order.h"

namespace ipr {
namespace {

constexpr int64_t kChunk = 64;  // rows encoded before they are decided: their embeddings stay in the L2 cache

enum Use { kEmbeddings, kBilled, kAllowed, kTokens, kEstimates, kUses };

// Scratch of this thread, one buffer a use: grows to the largest it has needed, and stays.
template <class T>
T* thread_scratch(Use use, int64_t count) {
  thread_local std::vector<T> memory[kUses];
  if (memory[use].size() < static_cast<size_t>(count)) memory[use].resize(static_cast<size_t>(count));
  return memory[use].data();
}

size_t at_least_floor(size_t tokens, size_t bytes) {
  return std::max(tokens, (bytes + kBytesPerToken - 1) / kBytesPerToken);
}

}  // namespace

Router::Router(const DecidePlan& plan, const StaticEncoder* encoder, ContextLimits limits,
               std::optional<Support> support, std::optional<OwnTokenizers> tokenizers, Conversation conversation)
    : plan_(plan),
      encoder_(encoder),
      limits_(std::move(limits)),
      fits_all_(std::numeric_limits<double>::infinity()),
      fits_all_own_(std::numeric_limits<double>::infinity()),
      support_(std::move(support)),
      tokenizers_(std::move(tokenizers)),
      conversation_(conversation) {
  const auto models = static_cast<size_t>(plan.models());
  IPR_CHECK(limits_.context_window.size() == models && limits_.token_ratio.size() == models &&
                limits_.most_output.size() == models,
            "context_window, token_ratio, most_output: expected ", models, " values each, got ",
            limits_.context_window.size(), ", ", limits_.token_ratio.size(), " and ", limits_.most_output.size());
  IPR_CHECK(encoder == nullptr || static_cast<int64_t>(encoder->dim()) == plan.dim(), "encoder: expected dim ",
            plan.dim(), " as the heads have, got ", encoder ? encoder->dim() : 0);
  if (tokenizers_) {
    const auto profiles = static_cast<int32_t>(tokenizers_->estimator.profiles());
    IPR_CHECK(tokenizers_->of_model.size() == models, "tokenizer_of: expected ", models, " values, got ",
              tokenizers_->of_model.size());
    for (const int32_t of : tokenizers_->of_model)
      IPR_CHECK(of >= -1 && of < profiles, "tokenizer_of: expected -1 to ", profiles - 1, ", got ", of);
  }
  for (size_t m = 0; m < models; ++m) {
    IPR_CHECK(limits_.token_ratio[m] > 0, "token_ratio: expected values > 0, got ", limits_.token_ratio[m]);
    IPR_CHECK(limits_.context_window[m] > 0, "context_window: expected values > 0, got ", limits_.context_window[m]);
    IPR_CHECK(limits_.most_output[m] >= 0, "most_output: expected values >= 0, got ", limits_.most_output[m]);
    if (std::isfinite(limits_.context_window[m])) {
      const double most = limits_.context_window[m] - limits_.most_output[m];
      fits_all_ = std::min(fits_all_, most / limits_.token_ratio[m]);
      fits_all_own_ = std::min(fits_all_own_, most);
    }
  }
  fits_all_ = std::floor(fits_all_ * (1 - 1e-12));  // rounding may only send a row to the exact test
  fits_all_own_ = std::floor(fits_all_own_ * (1 - 1e-12));
}

void Router::decide(const DecidePolicy& policy, Rows rows, const InputTokens& input, const RequestLimits& limits,
                    const Results& results, float* support) const {
  const int64_t models = plan_.models();
  float* const billed = thread_scratch<float>(kBilled, input.own ? rows.batch * models : rows.batch);
  if (input.own) {  // the policy's rates are of the bundle's tokens: token_ratio is in them
    for (int64_t row = 0; row < rows.batch; ++row) this->billed(input, row, billed + row * models);
  } else {
    std::copy(input.billed, input.billed + rows.batch, billed);
  }
  rows.billed_tokens = billed;
  rows.billed_per_model = input.own != nullptr;
  rows.billed_stride = input.own ? models : 1;
  if (limits.allowed) {
    rows.allowed = limits.allowed;
    rows.allowed_stride = models;
  }
  plan_.run(policy, rows, results);
  for (int64_t row = 0; row < rows.batch; ++row) {
    const int64_t max_tokens = limits.max_tokens ? limits.max_tokens[row] : -1;
    const int64_t answers = limits.answers ? limits.answers[row] : 1;
    if (max_tokens < 0 && answers == 1 && !rows.tokens_out && surely_fits(input, row)) continue;
    Rows one = rows;
    one.batch = 1;
    one.x += row * rows.x_stride;
    one.billed_tokens += row * rows.billed_stride;
    if (rows.tokens_out) one.tokens_out += row * rows.tokens_stride;
    if (rows.extra_usd) one.extra_usd += row * rows.extra_stride;
    if (rows.allowed) one.allowed += row * rows.allowed_stride;
    const InputTokens own{input.billed + row, input.own ? input.own + row * models : nullptr};
    decide_within(policy, one, own, max_tokens, answers, row_of(results, row, models));
  }
  if (!support) return;
  for (int64_t row = 0; row < rows.batch; ++row) support[row] = support_->of(rows.x + row * rows.x_stride);
  send_unsupported(policy, rows.batch, input, rows.tokens_out != nullptr, limits, support, results);
}

void Router::send_unsupported(const DecidePolicy& policy, int64_t batch, const InputTokens& input, bool tokens_given,
                              const RequestLimits& limits, const float* support, const Results& results) const {
  if (policy.min_support() <= 0) return;
  const int64_t models = plan_.models();
  uint8_t* const allowed = thread_scratch<uint8_t>(kAllowed, models);
  for (int64_t row = 0; row < batch; ++row) {
    if (results.status[row] != Status::ok || !(support[row] < policy.min_support())) continue;
    const Results one = row_of(results, row, models);
    const int64_t stated = limits.max_tokens && !tokens_given ? limits.max_tokens[row] : -1;
    const auto answers = static_cast<double>(limits.answers ? limits.answers[row] : 1);
    for (int64_t m = 0; m < models; ++m)
      allowed[m] = policy.unsupported_allowed()[m] && (!limits.allowed || limits.allowed[row * models + m]) &&
                   fits(m, input, row,
                        stated >= 0 ? static_cast<double>(stated) : static_cast<double>(one.tokens_out[m]) / answers);
    ipr::send_unsupported(policy, one, allowed);
  }
}

bool Router::surely_fits(const InputTokens& input, int64_t row) const {
  if (!input.own) return static_cast<double>(input.billed[row]) <= fits_all_;
  const int64_t models = plan_.models();
  const float* const own = input.own + row * models;
  bool within = true;
  for (int64_t m = 0; m < models; ++m) within &= static_cast<double>(own[m]) <= fits_all_own_;
  return within;
}

bool Router::fits(int64_t m, const InputTokens& input, int64_t row, double output) const {
  const auto at = static_cast<size_t>(m);
  const double window = limits_.context_window[at];
  const double prompt = input.own ? static_cast<double>(input.own[row * plan_.models() + m])
                                  : static_cast<double>(input.billed[row]) * limits_.token_ratio[at];
  return !(prompt > window || prompt + output > window);  // an output of NaN adds nothing: its cost fails
}

void Router::billed(const InputTokens& input, int64_t at, float* to) const {
  const int64_t models = plan_.models();
  for (int64_t m = 0; m < models; ++m)
    to[m] = input.own ? static_cast<float>(static_cast<double>(input.own[at * models + m]) /
                                           limits_.token_ratio[static_cast<size_t>(m)])
                      : static_cast<float>(input.billed[at]);
}

bool Router::limits_bind(const InputTokens& input, int64_t at, int64_t max_tokens, int64_t answers, bool given,
                         const uint8_t* row_allowed, const Results& row, uint8_t* allowed, float* tokens_out) const {
  const bool states = !given && max_tokens >= 0;
  bool binds = answers > 1;
  for (int64_t m = 0; m < plan_.models(); ++m) {
    const float tokens = row.tokens_out[m];
    const double output = states ? static_cast<double>(max_tokens) : static_cast<double>(tokens);
    const bool over = !fits(m, input, at, output);
    allowed[m] = !over && (row_allowed == nullptr || row_allowed[m]);
    tokens_out[m] = states && tokens > static_cast<float>(max_tokens) ? static_cast<float>(max_tokens) : tokens;
    binds |= over || tokens_out[m] < tokens;
    tokens_out[m] *= static_cast<float>(answers);
  }
  return binds;
}

void Router::decide_within(const DecidePolicy& policy, const Rows& row, const InputTokens& input, int64_t max_tokens,
                           int64_t answers, const Results& results) const {
  uint8_t* const allowed = thread_scratch<uint8_t>(kAllowed, plan_.models());
  float* const tokens_out = thread_scratch<float>(kTokens, plan_.models());
  const bool given = row.tokens_out != nullptr;
  if (!limits_bind(input, 0, max_tokens, answers, given, row.allowed, results, allowed, tokens_out)) return;
  Rows again = row;
  again.allowed = allowed;
  again.allowed_stride = plan_.models();
  if (!given || answers > 1) {
    again.tokens_out = tokens_out;
    again.tokens_stride = plan_.models();
  }
  plan_.run(policy, again, results);
}

void Router::own_tokens(const double* terms, int64_t billed, float* own) const {
  const auto models = static_cast<size_t>(plan_.models());
  double* const estimates = thread_scratch<double>(kEstimates, static_cast<int64_t>(tokenizers_->estimator.profiles()));
  const bool known = !std::isnan(terms[0]);
  if (known) tokenizers_->estimator.estimate(terms, estimates);
  for (size_t m = 0; m < models; ++m) {
    const int32_t of = tokenizers_->of_model[m];
    own[m] =
        static_cast<float>(known && of >= 0 ? estimates[of] : static_cast<double>(billed) * limits_.token_ratio[m]);
  }
}

void Router::count(const WordPiece& tokenizer, const Prompts& prompts, int64_t at, size_t tokens,
                   const Facts& facts) const {
  const Texts none{nullptr, nullptr, 0}, &beside = prompts.billed_only ? prompts.billed_only[at] : none;
  size_t billed = at_least_floor(tokens, prompts.encoded.bytes[at]);
  for (int64_t text = 0; text < beside.count; ++text)
    billed += at_least_floor(tokenizer.count(beside.utf8[text], beside.bytes[text]), beside.bytes[text]);
  facts.billed_tokens[at] = static_cast<int64_t>(billed);
  if (!facts.own_tokens) return;
  TextCounts terms = count_text(prompts.encoded.utf8[at], prompts.encoded.bytes[at]);
  for (int64_t text = 0; text < beside.count; ++text) {
    const TextCounts more = count_text(beside.utf8[text], beside.bytes[text]);
    for (size_t term = 0; term < kTerms; ++term) terms.of[term] += more.of[term];
  }
  own_tokens(terms.of.data(), facts.billed_tokens[at], facts.own_tokens + at * plan_.models());
}

void Router::route(const DecidePolicy& policy, const Prompts& prompts, const RequestLimits& limits,
                   const Results& results, const Facts& facts) const {
  IPR_CHECK(encoder_ != nullptr, "encoder: this router has none; encode first, then decide");
  const WordPiece& tokenizer = *encoder_->tokenizer();
  const Texts& encoded = prompts.encoded;
  const int64_t models = plan_.models(), dim = plan_.dim();
  float* const x = thread_scratch<float>(kEmbeddings, std::min(encoded.count, kChunk) * dim);
  for (int64_t first = 0; first < encoded.count; first += kChunk) {
    Rows rows{};
    rows.batch = std::min(kChunk, encoded.count - first);
    rows.x = x;
    rows.x_stride = dim;
    for (int64_t row = 0; row < rows.batch; ++row) {
      const int64_t at = first + row;
      const bool whole = conversation_ == Conversation::kAll || !prompts.turns || prompts.turns[at].count == 0;
      const EncodeInfo info = whole ? encoder_->encode(encoded.utf8[at], encoded.bytes[at], x + row * dim)
                                    : encoder_->encode_turns(prompts.turns[at], conversation_, x + row * dim);
      IPR_CHECK(info.tokens > 0, encoded.count == 1 ? "prompt" : "prompts[" + std::to_string(at) + "]",
                ": expected text, got ", encoded.bytes[at], " bytes without one token");
      if (prompts.task_column && prompts.task_column[at] >= 0) x[row * dim + prompts.task_column[at]] = 1.0f;
      facts.truncated[at] = info.truncated;
      count(tokenizer, prompts, at, info.tokens, facts);
    }
    const InputTokens input{facts.billed_tokens + first,
                            facts.own_tokens ? facts.own_tokens + first * models : nullptr};
    const RequestLimits own{limits.allowed ? limits.allowed + first * models : nullptr,
                            limits.max_tokens ? limits.max_tokens + first : nullptr,
                            limits.answers ? limits.answers + first : nullptr};
    decide(policy, rows, input, own, row_of(results, first, models), facts.support ? facts.support + first : nullptr);
  }
}

}  // namespace ipr
