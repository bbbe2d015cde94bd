// DecideResult: the Python object that holds the answers of one call, itself the one block of memory they live in.
#pragma once

#include <pybind11/pybind11.h>

#include "ipr/decide.h"

namespace ipr {

// A new result with room for `batch` rows of `models` candidates; `results` points into it, uninitialised.
pybind11::object new_decide_result(int64_t batch, int64_t models, Results& results);

// One row of a DecideResult, as ipr/order.h takes it, and how many candidates it has; false with a Python error set
// when it is none, or has no such row.
bool row_of_result(PyObject* result, int64_t row, Results& answers, int64_t& models);

// The answers of a DecideResult, to be written while nobody else has it; throws InvalidInput for anything else.
Results results_of(pybind11::handle result, int64_t batch, int64_t models);

// The compiled policy of a Python object; null with a Python error set when it is none. Of bind_decide.cpp.
const DecidePolicy* policy_of(PyObject* object);

void bind_result(pybind11::module_& m);

}  // namespace ipr
