// Prompts -> decisions in one call: encode, mask by context window, decide, support.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "ipr/decide.h"
#include "ipr/static_encoder.h"
#include "ipr/support.h"
#include "ipr/text_counts.h"
#include "ipr/token_estimator.h"

namespace ipr {

// Per candidate, (models): the prompt's tokens by the candidate's own count, billed * token_ratio, and the output's
// must not be over context_window together (infinity: no limit known). No prediction of output tokens is over
// most_output (infinity: unbounded).
struct ContextLimits {
  std::vector<double> context_window, token_ratio, most_output;
};

// Which candidates have a profile of their own tokenizer: of_model (models), a profile or -1 for billed * token_ratio.
struct OwnTokenizers {
  TokenEstimator estimator;
  std::vector<int32_t> of_model;
};

// The input tokens of each request.
struct InputTokens {
  const int64_t* billed;  // (batch), by the bundle's tokenizer
  const float* own;       // (batch, models), by each candidate's own; null: billed * token_ratio
};

// What single requests ask for; each may be null.
struct RequestLimits {
  const uint8_t* allowed;     // (batch, models), 0 = may not be chosen for this row
  const int64_t* max_tokens;  // (batch), most output tokens that the request states, -1 where it states none
  const int64_t* answers;     // (batch), how many are asked for: tokens_out are of one, and all are billed
};

// UTF-8 prompts.
struct Prompts {
  const char* const* utf8;  // (batch)
  const size_t* bytes;      // (batch)
  int64_t batch;
};

// The bill has a floor: a word of over 100 characters (base64, say) is one token to WordPiece, but not to any LLM.
// Natural text has 2 to 5 bytes a token.
constexpr size_t kBytesPerToken = 8;

// What is known of each prompt beside its decision, (batch); support may be null. own_tokens: (batch, models), as of
// InputTokens, null where no candidate has a profile.
struct Facts {
  int64_t* billed_tokens;
  bool* truncated;
  float* support;
  float* own_tokens;
};

// Borrows plan and encoder. Immutable: any number of threads may use it at once.
class Router {
 public:
  // encoder: null when prompts are encoded elsewhere; route must not be called then. Throws InvalidInput for what does
  // not fit together.
  Router(const DecidePlan& plan, const StaticEncoder* encoder, ContextLimits limits, std::optional<Support> support,
         std::optional<OwnTokenizers> tokenizers);

  // Allocates nothing after a thread's first calls.
  void route(const DecidePolicy& policy, const Prompts& prompts, const Results& results, const Facts& facts) const;

  // Rows that are encoded already. rows.billed_tokens and rows.allowed are made here from input and limits. The output
  // held against the context window is the tokens given, else max_tokens, else those predicted, which are never over
  // max_tokens.
  void decide(const DecidePolicy& policy, Rows rows, const InputTokens& input, const RequestLimits& limits,
              const Results& results, float* support) const;

  // What `decide` ends with, for rows decided elsewhere: those whose support is below the policy's min_support go to
  // the candidate that it names for them, if that can serve the request. tokens_given: by the caller, not predicted.
  void send_unsupported(const DecidePolicy& policy, int64_t batch, const InputTokens& input, bool tokens_given,
                        const RequestLimits& limits, const float* support, const Results& results) const;

  // own (models) of one request: `terms` (kTerms) are of its texts, NaN where they are not known.
  void own_tokens(const double* terms, int64_t billed, float* own) const;

  const DecidePlan& plan() const { return plan_; }
  const std::optional<OwnTokenizers>& tokenizers() const { return tokenizers_; }
  const std::optional<Support>& support() const { return support_; }

 private:
  // Decides one row again where its output, known now, does not fit a context window or is over max_tokens (-1: none),
  // or is that of several answers.
  void decide_within(const DecidePolicy& policy, const Rows& row, const InputTokens& input, int64_t max_tokens,
                     int64_t answers, const Results& results) const;

  // Whether a row fits every candidate, whatever output is predicted; false where it is not known.
  bool surely_fits(const InputTokens& input, int64_t row) const;

  // Whether a row's prompt and its output fit the candidate's context window.
  bool fits(int64_t m, const InputTokens& input, int64_t row, double output) const;

  const DecidePlan& plan_;
  const StaticEncoder* encoder_;
  ContextLimits limits_;
  // A prompt of at most this many billed tokens, or own ones by every count, fits every candidate with any output
  // predicted.
  double fits_all_, fits_all_own_;
  std::optional<Support> support_;
  std::optional<OwnTokenizers> tokenizers_;
};

}  // namespace ipr
