// RecordedRoute: prompts -> decisions through work that was recorded for a GPU once and is replayed (docs/gpu.md).
//
//   RecordedRoute route(router, tokenizer, shape, passes);             // throws InvalidInput
//   route.route(policy, row, prompts, limits, replays, results, facts);
//
// A pass is a batch of fixed shape with its own buffers in memory that host and device both see. The host writes rows
// into it, with a new number; the recording encodes, decides, writes the answers and last of all the number. So the
// host has the answers once it sees the number: no copy, no event.
//
// Prompts are tokenized some at a time, while the passes of those before them run. They are sorted by length, and each
// pass takes rows that need about as many tokens, as plan_passes of ipr_engine/cuda/buckets.py does. The rows of a pass
// that nobody fills hold one token of what was there before, and are decided for nobody.
//
// A row is decided without its output's length first, as Router does: where an output, known only afterwards, does not
// fit a context window or is over a stated limit, or several answers are asked for, the row passes a second time.
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

// How passes are replayed: GraphReplays (ipr/graph_replays.h) where CUDA recorded them. A failure is thrown, and then
// nothing of the call may be read.
class Replays {
 public:
  virtual ~Replays() = default;

  // Enqueues the pass behind all that was started before; returns without its answers.
  virtual void start(const RecordedPass& pass) const = 0;

  // Returns once landed(pass): the answers of the request that was begun last.
  virtual void wait(const RecordedPass& pass) const = 0;
};

// Its method is for one caller at a time: it writes into the passes' buffers. It allocates nothing beyond a thread's
// first calls.
class RecordedRoute {
 public:
  // router and tokenizer are borrowed. passes: of any order, every number of rows with every number of tokens; of a
  // shape there may be several, which then fly at once. One must hold max_tokens.
  //
  // The prompts of a call are decided as if each were alone, but for the last bits of an encoder whose rows depend on
  // their batch.
  //
  // Throws InvalidInput for a shape or passes that are not as above.
  RecordedRoute(const Router& router, const WordPiece& tokenizer, PromptShape shape, std::vector<RecordedPass> passes);

  // Decides every prompt, as Router::route does, under the policy that stands in that row on the device. The heads
  // must predict tokens. Throws InvalidInput where what is encoded of a prompt has no token, and what replays throw;
  // nothing is in flight then unless replays failed.
  void route(const DecidePolicy& policy, int32_t policy_row, const Prompts& prompts, const RequestLimits& limits,
             const Replays& replays, const Results& results, const Facts& facts) const;

  // All passes, by tokens, then by rows.
  const std::vector<RecordedPass>& passes() const { return passes_; }

 private:
  struct Call;

  // The passes of one shape: passes_[first, first + copies).
  struct Shape {
    int64_t tokens, batch;
    size_t first, copies;
  };

  // Borrowed; passes, and their shapes, by tokens, then by rows; the numbers of tokens and rows that there are.
  const Router& router_;
  const WordPiece& tokenizer_;
  PromptShape shape_;
  std::vector<RecordedPass> passes_;
  std::vector<Shape> shapes_;
  std::vector<int64_t> sizes_, batches_;
};

}  // namespace ipr
