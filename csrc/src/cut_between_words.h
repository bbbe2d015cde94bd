// Which tokens of a prompt that is too long are kept; docs/decide.md defines it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ipr/wordpiece.h"

namespace ipr {

// How much of ids[0, count) to use: its head [0, head) and its tail [tail, count).
struct Cut {
  size_t head, tail;
};

// Half of max_tokens (the head rounded up) from each end, less what it takes to end the head and start the tail between
// words. A half that one word alone overfills is cut inside that word. count is above max_tokens.
inline Cut cut_between_words(const uint32_t* ids, size_t count, size_t max_tokens) {
  const size_t head_room = max_tokens - max_tokens / 2, tail_room = max_tokens / 2;
  size_t head = head_room;
  while (head > 0 && !(ids[head] & kWordStart)) --head;
  if (head == 0) head = head_room;
  size_t tail = count - tail_room;
  while (tail < count && !(ids[tail] & kWordStart)) ++tail;
  if (tail == count) tail = count - tail_room;
  return {head, tail};
}

}  // namespace ipr
