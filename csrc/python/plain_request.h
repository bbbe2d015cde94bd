// What a plain request holds: texts, and perhaps a limit of output tokens. Written against the C API: it stands on the
// path of every request, where the walk of ipr_engine/prompts is a hundred steps of Python.
//
// First all is read, and what is read is held; no Python code can run meanwhile, since only exact built-in types are
// looked at. Then an answer may be made of it, which may collect garbage, and so run anything.
#pragma once

#include <pybind11/pybind11.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <vector>

namespace ipr {

namespace py = pybind11;
using namespace std::string_view_literals;

// As ipr_engine/prompts/parse.py reads them; tests/prompts/test_plain.py holds the two together.
constexpr std::array kTurns{"messages"sv, "input"sv, "prompt"sv};
constexpr std::array kLimits{"max_completion_tokens"sv, "max_output_tokens"sv, "max_tokens"sv};
constexpr std::array kLeftToTheWalk{
    "tools"sv, "functions"sv, "response_format"sv,      "output_format"sv, "text"sv,      "output_config"sv,
    "n"sv,     "best_of"sv,   "previous_response_id"sv, "conversation"sv,  "modalities"sv};
// They may make the body a message, whatever their value is.
constexpr std::array kOfMessages{"role"sv, "type"sv};

template <size_t Size>
inline bool is_one_of(std::string_view name, const std::array<std::string_view, Size>& names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// The UTF-8 of an exact str, which lives as long as it does; false for anything else, and for one that has none.
inline bool text_of(PyObject* value, std::string_view& text) {
  if (!PyUnicode_CheckExact(value)) return false;
  Py_ssize_t bytes = 0;
  const char* data = PyUnicode_AsUTF8AndSize(value, &bytes);
  if (!data) {
    PyErr_Clear();
    return false;
  }
  text = {data, static_cast<size_t>(bytes)};
  return true;
}

inline bool is_limit(PyObject* value, long long most_tokens) {
  if (!PyLong_CheckExact(value)) return false;
  int overflow = 0;
  const long long tokens = PyLong_AsLongLongAndOverflow(value, &overflow);
  return overflow == 0 && tokens >= 0 && tokens <= most_tokens;
}

// What a request holds, and a reference to each. read() is false where the request is not plain: then the rest is not
// read, and nothing of it may be used.
class PlainRequest {
 public:
  PlainRequest() = default;
  PlainRequest(const PlainRequest&) = delete;
  PlainRequest& operator=(const PlainRequest&) = delete;
  ~PlainRequest() {
    for (PyObject* one : user_) Py_DECREF(one);
    for (PyObject* one : other_) Py_DECREF(one);
    Py_XDECREF(limit_);
  }

  bool read(PyObject* request, long long most_tokens) {
    if (PyDict_CheckExact(request)) return read_body(request, most_tokens) && asked_;
    return read_said(request) && asked_;
  }

  // Texts of the user as one str, each other one in a tuple; null with a Python error set where memory is short.
  PyObject* encoded() const {
    if (user_.size() == 1) {
      Py_INCREF(user_[0]);
      return user_[0];
    }
    py::object texts = py::reinterpret_steal<py::object>(tuple_of(user_));
    py::object between = py::reinterpret_steal<py::object>(PyUnicode_FromString("\n\n"));
    return texts && between ? PyUnicode_Join(between.ptr(), texts.ptr()) : nullptr;
  }
  PyObject* billed_only() const { return tuple_of(other_); }

  // The texts that `encoded` joins; none where it is one of them. Null as above.
  PyObject* turns() const { return user_.size() > 1 ? tuple_of(user_) : PyTuple_New(0); }

  const std::vector<PyObject*>& user() const { return user_; }
  const std::vector<PyObject*>& other() const { return other_; }

  // Null where none is stated.
  PyObject* limit() const { return limit_; }

  // Of all texts, as `encoded` and `billed_only` have them.
  Py_ssize_t characters() const {
    Py_ssize_t total = user_.empty() ? 0 : 2 * (static_cast<Py_ssize_t>(user_.size()) - 1);
    for (PyObject* one : user_) total += PyUnicode_GET_LENGTH(one);
    for (PyObject* one : other_) total += PyUnicode_GET_LENGTH(one);
    return total;
  }

 private:
  static PyObject* tuple_of(const std::vector<PyObject*>& held) {
    const auto count = static_cast<Py_ssize_t>(held.size());
    PyObject* texts = PyTuple_New(count);
    for (Py_ssize_t i = 0; texts && i < count; ++i) put(texts, i, held[static_cast<size_t>(i)]);
    return texts;
  }
  static void put(PyObject* tuple, Py_ssize_t at, PyObject* text) {
    Py_INCREF(text);
    PyTuple_SET_ITEM(tuple, at, text);
  }

  bool keep(std::vector<PyObject*>& texts, PyObject* value) {
    std::string_view text;
    if (!text_of(value, text)) return false;
    texts.push_back(value);
    Py_INCREF(value);
    return true;
  }

  bool read_body(PyObject* body, long long most_tokens) {
    PyObject *key = nullptr, *value = nullptr, *turns = nullptr, *system = nullptr, *instructions = nullptr;
    Py_ssize_t at = 0;
    while (PyDict_Next(body, &at, &key, &value)) {
      std::string_view name;
      if (!text_of(key, name)) return false;
      if (is_one_of(name, kOfMessages)) return false;
      if (value == Py_None) continue;  // as if it were not there
      if (is_one_of(name, kTurns)) {
        if (turns) return false;
        turns = value;
      } else if (name == "system"sv) {
        system = value;
      } else if (name == "instructions"sv) {
        instructions = value;
      } else if (is_one_of(name, kLimits)) {
        if (limit_ || !is_limit(value, most_tokens)) return false;
        limit_ = value;
        Py_INCREF(value);
      } else if (is_one_of(name, kLeftToTheWalk)) {
        return false;
      }
    }
    if (system && !keep(other_, system)) return false;
    if (instructions && !keep(other_, instructions)) return false;
    return turns && read_said(turns);
  }

  bool read_said(PyObject* said) {
    if (PyUnicode_CheckExact(said)) {
      asked_ = true;
      return keep(user_, said);
    }
    if (!PyList_CheckExact(said)) return false;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(said); ++i)
      if (!read_turn(PyList_GET_ITEM(said, i))) return false;
    return true;
  }

  bool read_turn(PyObject* turn) {
    if (!PyDict_CheckExact(turn)) return false;
    PyObject *key = nullptr, *value = nullptr, *content = nullptr;
    std::string_view name, role;
    Py_ssize_t at = 0;
    while (PyDict_Next(turn, &at, &key, &value)) {
      if (!text_of(key, name)) return false;
      if (name == "content"sv) {
        content = value;
      } else if (name == "role"sv) {
        if (!text_of(value, role)) return false;
      } else if (name != "name"sv) {
        return false;
      }
    }
    if (!content) return false;
    if (role == "user"sv) {
      asked_ = asked_ || (PyUnicode_CheckExact(content) && PyUnicode_GET_LENGTH(content) > 0);
      return keep(user_, content);
    }
    return (role == "system"sv || role == "developer"sv || role == "assistant"sv) && keep(other_, content);
  }

  std::vector<PyObject*> user_, other_;
  PyObject* limit_ = nullptr;
  bool asked_ = false;
};

}  // namespace ipr
