// C++ errors as Python exceptions, for pybind11's translator and for functions written against the C API.
#pragma once

#include <pybind11/pybind11.h>

#include <exception>
#include <new>

#include "ipr/errors.h"

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
  } catch (const OutOfDeviceMemory& error) {
    raise_as("OutOfDeviceMemoryError", error.what());
  }
}

// The same for functions that CPython calls itself: nothing is thrown past them.
inline void raise_from_callback(std::exception_ptr pending) noexcept {
  try {
    raise_as_python(pending);
  } catch (pybind11::error_already_set& error) {
    error.restore();
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  } catch (...) {
    PyErr_SetString(PyExc_RuntimeError, "unknown C++ exception");
  }
}

}  // namespace ipr
