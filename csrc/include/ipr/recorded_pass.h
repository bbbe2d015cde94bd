// RecordedPass: the buffers of a batch whose work on a GPU was recorded, as the host sees them (docs/gpu.md).
//
// They lie in memory that host and device both see, so that nothing is copied: the host writes a request and a new
// number, the recording reads them, and writes the answers and last of all the number. Whoever makes a pass owns the
// memory, and keeps it as long as the recording.
//
// The device reads what the host wrote before the launch. It must not be written again before the number is back.
#pragma once

#include <cstdint>

#include "ipr/decide_types.h"

namespace ipr {

// The buffers of one recorded batch, borrowed; `models` and `dim` are the router's.
struct RecordedPass {
  // Rows, and the most ids of one: the shape that was recorded.
  int64_t batch, tokens;

  // (batch, tokens): ids, and 1 for each of them in mask, 0 for padding, both int32 or int64. mask is null where the
  // recording reads lengths alone.
  void *ids, *mask;
  bool wide;

  // (batch): how many ids each row has, at least 1, the others of it being padding; which row of the device's policies
  // it is decided under.
  int32_t *lengths, *policy_of_row;

  // (batch, models): bills in the bundle's tokens; output tokens, NaN for the predicted ones; USD to add; who may be
  // chosen.
  float *billed_tokens, *tokens_out, *extra_usd;
  uint8_t* allowed;

  // The number of this request, and where the recording writes it when everything else is written. Numbers of two
  // requests in turn differ.
  int32_t* sequence;
  const int32_t* done;

  // The answers, and what they were made of, the embeddings x (batch, dim): for the support of a prompt.
  Results answers;
  const float* x;

  // What replays the pass: a graph of CUDA's that is ready to launch (CUgraphExec).
  void* exec;
};

// Gives the request that is being filled in a number of its own: from here on landed says whether its answers are
// there.
inline void begin(const RecordedPass& pass) { *pass.sequence = *pass.sequence == INT32_MAX ? 1 : *pass.sequence + 1; }

// Whether the answers to the request that was filled in last are there. They may be read after this has said so, and
// by the thread that asked.
inline bool landed(const RecordedPass& pass) { return __atomic_load_n(pass.done, __ATOMIC_ACQUIRE) == *pass.sequence; }

}  // namespace ipr
