// Errors that reach Python as ipr_engine.errors classes (bindings.cpp translates them).
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>

namespace ipr {

// A bad argument: names it, says what was expected, what came, and what to do. -> InvalidInputError
struct InvalidInput : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// A back end (an instruction set, a device) that was asked for and is missing. -> BackendUnavailableError
struct BackendUnavailable : std::runtime_error {
  using std::runtime_error::runtime_error;
};

template <class Error = InvalidInput, class... Parts>
[[noreturn]] void fail(Parts&&... parts) {
  std::ostringstream message;
  (message << ... << std::forward<Parts>(parts));
  throw Error(message.str());
}

}  // namespace ipr

// IPR_CHECK(x_dim == plan_dim, "x: expected dim ", plan_dim, ", got ", x_dim);
#define IPR_CHECK(condition, ...)               \
  do {                                          \
    if (!(condition)) ::ipr::fail(__VA_ARGS__); \
  } while (0)
