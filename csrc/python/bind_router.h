// What Python holds of a router, and one prompt on it.
#pragma once

#include <pybind11/pybind11.h>

#include "bind_result.h"
#include "ipr/router.h"
#include "py_text.h"

namespace ipr {

namespace py = pybind11;

// A plan and an encoder are kept alive by the router that borrows them.
struct PyRouter {
  py::object plan, encoder;
  Router router;
};

// What is known of one prompt that was decided alone.
struct RoutedAlone {
  py::object result;  // a DecideResult
  Results row;        // of it
  py::object own;     // own tokens, (models,) float32 as bytes: making an array would take a tenth of the call; or None
  int64_t billed;
  bool truncated, has_support;
  float support;

  // Of `own`; null where that is None.
  const char* own_data() const { return own.is_none() ? nullptr : PyBytes_AS_STRING(own.ptr()); }

  // (DecideResult, billed_tokens, truncated, support or None, own)
  py::tuple facts() const {
    return py::make_tuple(result, billed, truncated, has_support ? py::object(py::float_(support)) : py::none(), own);
  }
};

// Routes a batch of one, of `bytes` in all. Throws InvalidInput as Router::route does.
inline RoutedAlone route_alone(const PyRouter& self, const DecidePolicy& policy, const Prompts& prompts,
                               const RequestLimits& limits, size_t bytes) {
  RoutedAlone made{{}, {}, py::none(), 0, false, self.router.support().has_value(), 0};
  made.result = new_decide_result(1, self.router.plan().models(), made.row);
  float* own = nullptr;
  if (self.router.tokenizers()) {
    made.own = py::reinterpret_steal<py::object>(
        PyBytes_FromStringAndSize(nullptr, self.router.plan().models() * static_cast<py::ssize_t>(sizeof(float))));
    if (!made.own) throw py::error_already_set();
    own = reinterpret_cast<float*>(PyBytes_AS_STRING(made.own.ptr()));
  }
  run_released(bytes, [&] {
    self.router.route(policy, prompts, limits, made.row,
                      {&made.billed, &made.truncated, made.has_support ? &made.support : nullptr, own});
  });
  return made;
}

}  // namespace ipr
