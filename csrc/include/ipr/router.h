// Router: prompts -> decisions in one call: encode, count own tokens, hold against the context windows, decide,
// support.
//
//   Router router(plan, &encoder, limits, support, tokenizers);  // throws InvalidInput
//   router.route(policy, prompts, limits, results, facts);       // text to decision
//   router.decide(policy, rows, input, {}, results, near);       // kept embeddings to decisions
//
// A row is decided without its output's length first; only where a window, a stated limit or several answers may change
// something is it decided a second time, alone. So the usual request costs one pass.
//
// Of a request one text is encoded; the others (a system message, answers before, tool definitions) are billed alone.
// Its bill is the sum over all of them. So are the terms that own tokens are estimated from, added in float64 in the
// order of the texts, the encoded one first.
//
// A request of several turns is encoded as the router's Conversation says (ipr/static_encoder.h). Its bill and terms
// are those of its turns in one text, whatever of them is encoded.
//
// A request's input tokens are counted once by the bundle's tokenizer ("billed"), and, where candidates name tokenizers
// of their own, estimated for each of these ("own"). Candidate m can serve a request where input and output tokens are
// together at most its context window; the input is its own count, or billed * token_ratio[m].
//
// Sizes: models as the plan has them, batch as the call says. Everything that a caller hands in is borrowed for the
// call; plan and encoder are borrowed for the router's life. Arrays of a call are not checked here, only by the
// bindings: their dtypes and shapes, and that no count is negative.
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

// What each candidate can take, (models).
struct ContextLimits {
  // Tokens of prompt and output together, above 0; infinity: no limit known. token_ratio: the candidate's tokens for
  // one of the bundle's, above 0.
  std::vector<double> context_window, token_ratio;

  // No prediction of output tokens is over it, at least 0; infinity: unbounded.
  std::vector<double> most_output;
};

// Tokenizers that candidates have of their own: their vendors bill by these.
struct OwnTokenizers {
  TokenEstimator estimator;

  // (models): a profile of the estimator, or -1 for billed * token_ratio.
  std::vector<int32_t> of_model;
};

// The input tokens of each request.
struct InputTokens {
  // (batch), by the bundle's tokenizer, system and tool texts included.
  const int64_t* billed;

  // (batch, models), by each candidate's own; null: billed * token_ratio.
  const float* own;
};

// What single requests ask for; each may be null.
struct RequestLimits {
  // (batch, models), 0 = may not be chosen for this row.
  const uint8_t* allowed;

  // (batch): the most output tokens that the request states, -1 where it states none.
  const int64_t* max_tokens;

  // (batch): how many answers are asked for, 1 or more. tokens_out are of one answer, and all are billed.
  const int64_t* answers;
};

// The texts of each request.
struct Prompts {
  // What is encoded, one text a request: its count is the batch.
  Texts encoded;

  // (batch): every other text of the request, which is billed and not encoded. Null: nobody has any.
  const Texts* billed_only;

  // (batch): the column of x that is set to 1, since the request is for that column's task; -1 for none. Null: nobody
  // names a task. A recorded route (ipr/recorded_route.h) takes null alone.
  const int64_t* task_column = nullptr;

  // (batch): the turns of the user that `encoded` joins, oldest first; none where it is one turn. Null: nobody has
  // several. A router whose conversation is kAll does not read them, and a recorded route takes no request that has
  // any.
  const Texts* turns = nullptr;
};

// The bill has a floor of one token for so many bytes of each text: a word of over 100 characters (base64, say) is one
// token to WordPiece, but not to any LLM. Natural text has 2 to 5 bytes a token.
constexpr size_t kBytesPerToken = 8;

// What is told of each prompt beside its decision. The caller gives room.
struct Facts {
  // (batch): tokens of the whole request by the bundle's tokenizer, each text's no less than the floor; whether the
  // encoder cut what it encoded.
  int64_t* billed_tokens;
  bool* truncated;

  // (batch); null where the router has no Support.
  float* support;

  // (batch, models), as of InputTokens: what the windows and the bill saw. Null where no candidate has a profile.
  float* own_tokens;
};

// Immutable: any number of threads may use one at once. A thread keeps scratch of the largest call it has made, and a
// call allocates nothing beyond that.
class Router {
 public:
  // encoder: null when prompts are encoded elsewhere; route must not be called then. support and tokenizers: absent
  // where the bundle has none.
  //
  // Throws InvalidInput for lists of other sizes than the plan's, values that are not as above, an encoder of another
  // dim, and a profile that the estimator lacks.
  Router(const DecidePlan& plan, const StaticEncoder* encoder, ContextLimits limits, std::optional<Support> support,
         std::optional<OwnTokenizers> tokenizers, Conversation conversation = Conversation::kAll);

  // Encodes, bills and decides every prompt, some at a time, so that their embeddings stay in the cache; limits as of
  // `decide`. Throws InvalidInput where there is no encoder or what is encoded of a prompt has no token, and as
  // DecidePlan::run does; what was written by then is not to be read.
  void route(const DecidePolicy& policy, const Prompts& prompts, const RequestLimits& limits, const Results& results,
             const Facts& facts) const;

  // Decides rows that are encoded already. Of `rows` the batch, x, tokens_out and extra_usd count; billed_tokens and
  // allowed are made here from input and limits. The output that is held against the context window is the tokens
  // given, else max_tokens, else those predicted, which are never over max_tokens. support: room for (batch), null
  // where the router has none. Throws as DecidePlan::run does.
  void decide(const DecidePolicy& policy, Rows rows, const InputTokens& input, const RequestLimits& limits,
              const Results& results, float* support) const;

  // What `decide` ends with, for rows that were decided elsewhere: a row whose support (batch) is below the policy's
  // min_support goes to the candidate that the policy names for such rows, if that can serve the request (ipr/order.h).
  // tokens_given: output tokens came from the caller, and are not predictions.
  void send_unsupported(const DecidePolicy& policy, int64_t batch, const InputTokens& input, bool tokens_given,
                        const RequestLimits& limits, const float* support, const Results& results) const;

  // Writes own (models) of one request from the `terms` (kTerms) of its texts, NaN where they are not known: then each
  // is billed * token_ratio. tokenizers() must be present.
  void own_tokens(const double* terms, int64_t billed, float* own) const;

  // The parts of `route` and `decide` that others need who encode and decide elsewhere (ipr/recorded_route.h), for the
  // request at position `at`.
  //
  // count: its bill and own tokens, from the `tokens` of its encoded text; the texts beside it are counted by
  // `tokenizer`. billed: what each candidate is billed (models), in the bundle's tokens. limits_bind: whether the
  // decided row does not stand, since an output that is known now does not fit a context window, or is over
  // max_tokens (-1: none), or several answers are asked for; what to decide again with is in allowed and tokens_out,
  // (models) each, if so. row_allowed: who was allowed, null for everyone. given: output tokens came from the caller.
  void count(const WordPiece& tokenizer, const Prompts& prompts, int64_t at, size_t tokens, const Facts& facts) const;
  void billed(const InputTokens& input, int64_t at, float* to) const;
  bool limits_bind(const InputTokens& input, int64_t at, int64_t max_tokens, int64_t answers, bool given,
                   const uint8_t* row_allowed, const Results& row, uint8_t* allowed, float* tokens_out) const;

  // What the router was made of; tokenizers and support are absent where it was made without. Support::of may be called
  // on its own, for embeddings that are decided elsewhere.
  const DecidePlan& plan() const { return plan_; }
  const std::optional<OwnTokenizers>& tokenizers() const { return tokenizers_; }
  const std::optional<Support>& support() const { return support_; }
  Conversation conversation() const { return conversation_; }

 private:
  // Decides one row again where its output, known now, does not fit a context window or is over max_tokens (-1: none),
  // or is that of several answers.
  void decide_within(const DecidePolicy& policy, const Rows& row, const InputTokens& input, int64_t max_tokens,
                     int64_t answers, const Results& results) const;

  // Whether a row fits every candidate, whatever output is predicted; false where that is not known.
  bool surely_fits(const InputTokens& input, int64_t row) const;

  // Whether a row's prompt and its output fit the candidate's context window. An output of NaN adds nothing: its cost
  // fails the row.
  bool fits(int64_t m, const InputTokens& input, int64_t row, double output) const;

  const DecidePlan& plan_;
  const StaticEncoder* encoder_;
  ContextLimits limits_;

  // A prompt of at most this many billed tokens, or own ones by every count, fits every candidate with any output that
  // is predicted.
  double fits_all_, fits_all_own_;
  std::optional<Support> support_;
  std::optional<OwnTokenizers> tokenizers_;
  Conversation conversation_;
};

}  // namespace ipr
