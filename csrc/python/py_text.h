// Python strings as UTF-8, and work on them.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

#include "ipr/errors.h"

namespace ipr {

struct Utf8 {
  const char* data;
  size_t bytes;
};

// The bytes live as long as the str does. Throws InvalidInput, naming the argument, for what is not a str or has no
// UTF-8 form.
inline Utf8 utf8_of(pybind11::handle text, const std::string& argument) {
  IPR_CHECK(PyUnicode_Check(text.ptr()), argument, ": expected str, got ", Py_TYPE(text.ptr())->tp_name);
  Py_ssize_t bytes = 0;
  const char* data = PyUnicode_AsUTF8AndSize(text.ptr(), &bytes);
  if (data == nullptr) {
    if (!PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) throw pybind11::error_already_set();
    PyErr_Clear();
    fail(argument,
         ": expected Unicode text, got a lone surrogate; decode with errors='replace', not 'surrogateescape'");
  }
  return {data, static_cast<size_t>(bytes)};
}

// Below it, giving the GIL up costs more than it gives to others: 4 kB are tokenized in some 25 us.
constexpr size_t kReleaseBytes = 4096;

// Runs `work` over `bytes` of text, without the GIL when that is worth it.
template <class Work>
void run_released(size_t bytes, Work&& work) {
  if (bytes < kReleaseBytes) return work();
  pybind11::gil_scoped_release released;
  work();
}

}  // namespace ipr
