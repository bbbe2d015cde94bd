// The errors of the C++ code. The bindings turn each into the class of ipr_engine.errors that is named beside it; any
// other exception that reaches Python is a bug.
//
// Every message names the argument, says what was expected and what came, and what to do where that is not plain:
//
//   x: expected dim 256, got 384
//   isa: this machine has scalar, avx2, not avx512; pass isa='auto' to take the fastest
//
// A message must not repeat a prompt: it tells lengths and positions of texts, never their words.
//
// Checks stand at the boundary, in one block before any work. Constructors check what they keep, and run paths check
// what a caller gives anew; kernels check nothing. So an object that exists is sound, and a call that throws has
// written nothing that may be read. A row that cannot be decided is no error: it gets a status (ipr/decide_types.h).
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>

namespace ipr {

// A bad argument, whose caller can mend it. -> InvalidInputError
struct InvalidInput : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// A back end (an instruction set, a device) that was asked for by name and is missing here; "auto" never throws it.
// -> BackendUnavailableError
struct BackendUnavailable : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// A device's memory did not hold what one call needs, and the call did nothing: the device is not lost, and a later
// call may go through, once memory of it is free again. The message names the shape that was too large.
// -> OutOfDeviceMemoryError
struct OutOfDeviceMemory : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Throws Error with the parts written one after another as its message. A part is anything that a stream takes; floats
// are told in the stream's six digits.
//
//   fail<BackendUnavailable>("isa: this machine has ", names, ", not ", isa);
template <class Error = InvalidInput, class... Parts>
[[noreturn]] void fail(Parts&&... parts) {
  std::ostringstream message;
  (message << ... << std::forward<Parts>(parts));
  throw Error(message.str());
}

}  // namespace ipr

// Throws InvalidInput with the parts behind the condition, unless the condition holds. The parts are evaluated only
// where it fails.
//
//   IPR_CHECK(x_dim == plan_dim, "x: expected dim ", plan_dim, ", got ", x_dim);
#define IPR_CHECK(condition, ...)               \
  do {                                          \
    if (!(condition)) ::ipr::fail(__VA_ARGS__); \
  } while (0)
