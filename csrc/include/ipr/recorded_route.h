// RecordedRoute: one prompt -> decision through work that was recorded for a GPU once and is replayed (docs/gpu.md).
//
//   RecordedRoute route(router, tokenizer, shape, passes);   // throws InvalidInput
//   const RecordedPass* pass = route.fill(prompts, limits, policy_row, facts);
//   // replay *pass, and wait until landed(*pass)            // GraphReplays does both where CUDA recorded
//   bool stands = route.collect(*pass, policy, limits, results, facts);
//
// A pass is a batch of fixed shape with its own buffers in memory that host and device both see. The host writes one
// request into its first row, with a new sequence number; the recording encodes, decides, writes the answers and last
// of all the number. So the host has the answers once it sees the number: no copy, no event. The other rows of a pass
// hold what they held before and are decided for nobody.
//
// What a request asks that the recording cannot know beforehand is left to the caller: where an output, known only
// after the decision, does not fit a context window or is over a stated limit, `collect` says that the decision does
// not stand.
#pragma once

#include <cstdint>
#include <vector>

#include "ipr/recorded_pass.h"
#include "ipr/router.h"
#include "ipr/wordpiece.h"

namespace ipr {

// What of a prompt the encoder sees.
struct PromptShape {
  // Ids before and after those of the text, as the model wants them.
  std::vector<int64_t> before, after;

  // The most ids in all, above those of before and after. A longer text loses its middle, between words where that is
  // possible.
  int64_t max_tokens;

  // What fills a row up.
  int64_t pad_id;
};

// Its methods are for one caller at a time: they write into the passes' buffers. They allocate nothing beyond a
// thread's first calls.
class RecordedRoute {
 public:
  // router and tokenizer are borrowed. passes: of any order; of several that hold a prompt the one of fewest tokens,
  // then of the smallest batch, is taken. One must hold max_tokens.
  //
  // Throws InvalidInput for a shape or passes that are not as above.
  RecordedRoute(const Router& router, const WordPiece& tokenizer, PromptShape shape, std::vector<RecordedPass> passes);

  // Writes one request (a batch of one) into the pass that fits it, and counts its tokens into facts. policy_row: the
  // policy's row on the device. Returns the pass to replay; null for a text without a token, and nothing was written.
  const RecordedPass* fill(const Prompts& prompts, const RequestLimits& limits, int32_t policy_row,
                           const Facts& facts) const;

  // Reads the answers of a pass that has landed, for the request that fill wrote. Returns whether they stand; false:
  // they are those of a request without limits, and what facts says of its tokens alone holds.
  bool collect(const RecordedPass& pass, const DecidePolicy& policy, const RequestLimits& limits,
               const Results& results, const Facts& facts) const;

  // All passes, by tokens, then by batch.
  const std::vector<RecordedPass>& passes() const { return passes_; }

 private:
  // Borrowed; passes by tokens, then by batch.
  const Router& router_;
  const WordPiece& tokenizer_;
  PromptShape shape_;
  std::vector<RecordedPass> passes_;
};

}  // namespace ipr
