// The extension module ipr_engine._C: one bind_* function per op, each in its own file.
#include <pybind11/pybind11.h>

#include "errors.h"

namespace py = pybind11;

void bind_encoder(py::module_& m);

namespace {

void raise_as(const char* name, const char* message) {
  py::object type = py::module_::import("ipr_engine.errors").attr(name);
  PyErr_SetString(type.ptr(), message);
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Per-request CPU work of ipr_engine: decide, tokenise, encode, route.";

  py::register_exception_translator([](std::exception_ptr pending) {
    try {
      if (pending) std::rethrow_exception(pending);
    } catch (const ipr::InvalidInput& error) {
      raise_as("InvalidInputError", error.what());
    } catch (const ipr::BackendUnavailable& error) {
      raise_as("BackendUnavailableError", error.what());
    }
  });

  bind_encoder(m);
}
