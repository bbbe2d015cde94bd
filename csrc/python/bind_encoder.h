// What Python holds of a static encoder: the encoder, and the array it borrows.
#pragma once

#include <pybind11/numpy.h>

#include <string>

#include "ipr/errors.h"
#include "ipr/static_encoder.h"

namespace ipr {

struct PyStaticEncoder {
  pybind11::array table;
  StaticEncoder encoder;
};

// "all", "last" or "recency". Throws InvalidInput for another.
inline Conversation conversation_of(const std::string& name) {
  if (name == "all") return Conversation::kAll;
  if (name == "last") return Conversation::kLast;
  if (name == "recency") return Conversation::kRecency;
  fail("conversation: expected all, last or recency, got ", name);
}

}  // namespace ipr
