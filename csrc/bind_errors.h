// C++ errors as Python exceptions, for pybind11's translator and for functions written against the C API.
#pragma once

#include <pybind11/pybind11.h>

#include <exception>

#include "errors.h"

namespace ipr {

inline void raise_as(const char* name, const char* message) {
  pybind11::object type = pybind11::module_::import("ipr_engine.errors").attr(name);
  PyErr_SetString(type.ptr(), message);
}

// Sets the Python error that belongs to `pending` if it is one of errors.h; rethrows anything else.
inline void raise_as_python(std::exception_ptr pending) {
  try {
    std::rethrow_exception(pending);
  } catch (const InvalidInput& error) {
    raise_as("InvalidInputError", error.what());
  } catch (const BackendUnavailable& error) {
    raise_as("BackendUnavailableError", error.what());
  }
}

}  // namespace ipr
