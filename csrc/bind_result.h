// DecideResult: the Python object that holds the answers of one call, itself the one block of memory they live in.
#pragma once

#include <pybind11/pybind11.h>

#include "kernels.h"

namespace ipr {

// A new result with room for `batch` rows of `models` candidates; `results` points into it, uninitialised.
pybind11::object new_decide_result(int64_t batch, int64_t models, Results& results);

// What row `row` of a DecideResult chose and why; false with a Python error set when it is none, or has no such row.
bool decided_row(PyObject* result, int64_t row, int64_t& index, int64_t& cause);

void bind_result(pybind11::module_& m);

}  // namespace ipr
