// Plain requests for Python, taken apart in one call.
#include <pybind11/pybind11.h>

#include <array>

#include "bind_errors.h"
#include "plain_request.h"

namespace ipr {
namespace {

// The fields of a ParsedRequest, in its order, and what the last ones are of a plain request.
constexpr std::array kFields{"encoded",           "billed_only", "uncountable", "features",
                             "max_output_tokens", "answers",     "images",      "turns"};
std::array<PyObject*, kFields.size()> field_names;
PyObject *no_texts, *one, *zero;

// What the dataclass's own __init__ does, field by field.
PyObject* made_of(const PlainRequest& plain, PyTypeObject* type) {
  const auto steal = [](PyObject* object) { return py::reinterpret_steal<py::object>(object); };
  const auto borrow = [](PyObject* object) { return py::reinterpret_borrow<py::object>(object); };
  py::object made = steal(PyBaseObject_Type.tp_new(type, no_texts, nullptr));
  if (!made) return nullptr;
  const std::array<py::object, kFields.size()> values{steal(plain.encoded()),
                                                      steal(plain.billed_only()),
                                                      borrow(no_texts),
                                                      steal(PyDict_New()),
                                                      borrow(plain.limit() ? plain.limit() : Py_None),
                                                      borrow(one),
                                                      borrow(zero),
                                                      steal(plain.turns())};
  for (size_t i = 0; i < values.size(); ++i)
    if (!values[i] || PyObject_GenericSetAttr(made.ptr(), field_names[i], values[i].ptr()) < 0) return nullptr;
  return made.release().ptr();
}

bool are_texts(PyObject* value) {
  std::string_view text;
  if (!PyTuple_CheckExact(value)) return false;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(value); ++i)
    if (!text_of(PyTuple_GET_ITEM(value, i), text)) return false;
  return true;
}

// Whether the turns are none, or texts that a blank line each joins to the one that is encoded.
bool are_joined(PyObject* turns, std::string_view encoded) {
  if (!PyTuple_CheckExact(turns)) return false;
  const Py_ssize_t count = PyTuple_GET_SIZE(turns);
  for (Py_ssize_t i = 0; i < count; ++i) {
    std::string_view text;
    if (!text_of(PyTuple_GET_ITEM(turns, i), text)) return false;
    const std::string_view between = i > 0 ? "\n\n"sv : ""sv;
    if (encoded.substr(0, between.size()) != between) return false;
    encoded.remove_prefix(between.size());
    if (encoded.substr(0, text.size()) != text) return false;
    encoded.remove_prefix(text.size());
  }
  return count == 0 || (count > 1 && encoded.empty());
}

// Whether an instance of the class, which anyone may have made, is as made_of makes one, but for parts that cannot be
// counted.
bool is_made(PyObject* request, long long most_tokens) {
  std::array<py::object, kFields.size()> fields;
  for (size_t i = 0; i < fields.size(); ++i) {
    fields[i] = py::reinterpret_steal<py::object>(PyObject_GenericGetAttr(request, field_names[i]));
    if (!fields[i]) {
      PyErr_Clear();
      return false;
    }
  }
  const auto& [encoded, billed_only, uncountable, features, limit, answers, images, turns] = fields;
  std::string_view text;
  return text_of(encoded.ptr(), text) && are_texts(billed_only.ptr()) && are_texts(uncountable.ptr()) &&
         PyDict_CheckExact(features.ptr()) && PyDict_Size(features.ptr()) == 0 &&
         (limit.is_none() || is_limit(limit.ptr(), most_tokens)) && answers.ptr() == one && images.ptr() == zero &&
         are_joined(turns.ptr(), text);
}

// plain_request(request, type, most_tokens)
PyObject* plain_request(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 3 || !PyType_Check(args[1]))
    return PyErr_Format(PyExc_TypeError, "expected plain_request(request, type, most_tokens)");
  auto* const type = reinterpret_cast<PyTypeObject*>(args[1]);
  if (type->tp_new != PyBaseObject_Type.tp_new)  // what is made otherwise is not ours to make
    return PyErr_Format(PyExc_TypeError, "type: expected a class without __new__, got %s", type->tp_name);
  const long long most_tokens = PyLong_AsLongLong(args[2]);
  if (most_tokens == -1 && PyErr_Occurred()) return nullptr;
  try {
    if (Py_TYPE(args[0]) == type) {
      PyObject* const same = is_made(args[0], most_tokens) ? args[0] : Py_None;
      Py_INCREF(same);
      return same;
    }
    PlainRequest plain;
    if (!plain.read(args[0], most_tokens)) Py_RETURN_NONE;
    return made_of(plain, type);
  } catch (...) {
    raise_from_callback(std::current_exception());
    return nullptr;
  }
}

}  // namespace
}  // namespace ipr

void bind_request(pybind11::module_& m) {
  using namespace ipr;
  for (size_t i = 0; i < kFields.size(); ++i) field_names[i] = PyUnicode_InternFromString(kFields[i]);
  no_texts = PyTuple_New(0);
  one = PyLong_FromLong(1);
  zero = PyLong_FromLong(0);
  static PyMethodDef plain{"plain_request", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(plain_request)),
                           METH_FASTCALL, "plain_request(request, type, most_tokens) -> type or None"};
  m.attr("plain_request") = py::reinterpret_steal<py::object>(PyCFunction_New(&plain, nullptr));
}
