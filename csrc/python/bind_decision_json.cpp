// A decision's own figures as JSON, for Python, in one call. Written against the C API: it stands on the path of every
// decision that a server answers.
#include <pybind11/pybind11.h>

#include <cmath>
#include <limits>
#include <string>

#include "bind_errors.h"
#include "bind_result.h"
#include "row_json.h"

namespace ipr {
namespace {

namespace py = pybind11;

// decision_json(result, row, policy, words, own_tokens, billed_tokens, truncated, support)
PyObject* decision_json(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 8) return PyErr_Format(PyExc_TypeError, "decision_json: expected 8 arguments, got %zd", count);
  const Py_ssize_t at = PyNumber_AsSsize_t(args[1], PyExc_IndexError);
  if (at == -1 && PyErr_Occurred()) return nullptr;
  Results row;
  int64_t models = 0;
  if (!row_of_result(args[0], at, row, models)) return nullptr;
  const DecidePolicy* policy = policy_of(args[2]);
  if (!policy) return nullptr;
  if (policy->models() != models)
    return PyErr_Format(PyExc_TypeError, "expected a policy for %lld models", static_cast<long long>(models));
  Words words;
  Beside beside;
  if (!words.take(args[3], models) || !beside.take(args[4], args[5], args[6], args[7], models)) return nullptr;
  if (*row.status != Status::ok || *row.cause == Cause::unsupported) Py_RETURN_NONE;
  try {
    thread_local std::string text;
    text.clear();
    add_row(text, row, *policy, words, beside);
    return PyBytes_FromStringAndSize(text.data(), static_cast<Py_ssize_t>(text.size()));
  } catch (...) {
    raise_from_callback(std::current_exception());
    return nullptr;
  }
}

// largest(values)
PyObject* largest(PyObject*, PyObject* values) {
  constexpr auto kSize = static_cast<Py_ssize_t>(sizeof(float));
  if (!PyBytes_Check(values) || PyBytes_GET_SIZE(values) < kSize || PyBytes_GET_SIZE(values) % kSize != 0)
    return PyErr_Format(PyExc_TypeError, "values: expected the bytes of one float32 or more");
  return PyFloat_FromDouble(largest_of(PyBytes_AS_STRING(values), PyBytes_GET_SIZE(values) / kSize));
}

}  // namespace
}  // namespace ipr

void bind_decision_json(pybind11::module_& m) {
  using namespace ipr;
  static PyMethodDef json{"decision_json", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(decision_json)),
                          METH_FASTCALL,
                          "decision_json(result, row, policy, words, own_tokens, billed_tokens, truncated, support) -> "
                          "bytes or None"};
  static PyMethodDef most{"largest", largest, METH_O, "largest(values) -> float, of float32 as bytes"};
  m.attr("decision_json") = py::reinterpret_steal<py::object>(PyCFunction_New(&json, nullptr));
  m.attr("largest") = py::reinterpret_steal<py::object>(PyCFunction_New(&most, nullptr));
}
