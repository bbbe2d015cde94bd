// A decision's own figures as JSON. What a bundle's candidates and causes are called comes quoted from Python, once.
#pragma once

#include <pybind11/pybind11.h>

#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "ipr/order.h"

namespace ipr {

namespace py = pybind11;

// As json.dumps writes a float, but in the fewest digits that read back as it; what is not finite is null.
inline void add_number(std::string& to, double value) {
  if (!std::isfinite(value)) {
    to += "null";
    return;
  }
  char digits[32];
  const std::string_view made(digits,
                              static_cast<size_t>(std::to_chars(digits, digits + sizeof digits, value).ptr - digits));
  to += made;
  if (made.find_first_of(".e") == made.npos) to += ".0";
}

// A tuple of `count` bytes objects; false with a Python error set for anything else.
inline bool is_tuple_of_bytes(PyObject* object, Py_ssize_t count, const char* what) {
  bool good = PyTuple_Check(object) && PyTuple_GET_SIZE(object) == count;
  for (Py_ssize_t i = 0; good && i < count; ++i) good = PyBytes_Check(PyTuple_GET_ITEM(object, i));
  if (!good) PyErr_Format(PyExc_TypeError, "%s: expected a tuple of %zd bytes", what, count);
  return good;
}

inline void add_bytes(std::string& to, PyObject* tuple, int64_t at) {
  PyObject* const bytes = PyTuple_GET_ITEM(tuple, static_cast<Py_ssize_t>(at));
  to.append(PyBytes_AS_STRING(bytes), static_cast<size_t>(PyBytes_GET_SIZE(bytes)));
}

// What is written of a bundle and of the op: quoted names and priors, (models,); quoted causes; token_ratio (models,),
// float64 as bytes.
struct Words {
  PyObject *names, *priors, *causes, *ratios;

  bool take(PyObject* object, int64_t models) {
    constexpr auto kCauses = static_cast<Py_ssize_t>(Cause::unsupported) + 1;
    if (!PyTuple_Check(object) || PyTuple_GET_SIZE(object) != 4) {
      PyErr_SetString(PyExc_TypeError, "words: expected a tuple (names, priors, causes, ratios)");
      return false;
    }
    names = PyTuple_GET_ITEM(object, 0);
    priors = PyTuple_GET_ITEM(object, 1);
    causes = PyTuple_GET_ITEM(object, 2);
    ratios = PyTuple_GET_ITEM(object, 3);
    const auto count = static_cast<Py_ssize_t>(models);
    if (!is_tuple_of_bytes(names, count, "names") || !is_tuple_of_bytes(priors, count, "priors") ||
        !is_tuple_of_bytes(causes, kCauses, "causes"))
      return false;
    if (PyBytes_Check(ratios) && PyBytes_GET_SIZE(ratios) == count * static_cast<Py_ssize_t>(sizeof(double)))
      return true;
    PyErr_Format(PyExc_TypeError, "ratios: expected the bytes of %zd float64", count);
    return false;
  }
};

// What a decision knows beside its result.
struct Beside {
  int64_t billed;
  bool truncated, has_support;
  double support;
  const char* own;  // (models,) float32; null: nobody's own tokens are known

  bool take(PyObject* own_tokens, PyObject* billed_tokens, PyObject* cut, PyObject* of_support, int64_t models) {
    const auto bytes = static_cast<Py_ssize_t>(models * static_cast<int64_t>(sizeof(float)));
    if (own_tokens != Py_None && !(PyBytes_Check(own_tokens) && PyBytes_GET_SIZE(own_tokens) == bytes)) {
      PyErr_Format(PyExc_TypeError, "own_tokens: expected the bytes of %lld float32, or None",
                   static_cast<long long>(models));
      return false;
    }
    own = own_tokens == Py_None ? nullptr : PyBytes_AS_STRING(own_tokens);
    billed = PyLong_AsLongLong(billed_tokens);
    if (billed == -1 && PyErr_Occurred()) return false;
    if (!PyBool_Check(cut)) {
      PyErr_Format(PyExc_TypeError, "truncated: expected a bool, got %s", Py_TYPE(cut)->tp_name);
      return false;
    }
    truncated = cut == Py_True;
    has_support = of_support != Py_None;
    support = has_support ? PyFloat_AsDouble(of_support) : 0;
    return !(support == -1 && PyErr_Occurred());
  }
};

template <class Value>
Value element(const char* bytes, int64_t at) {
  Value value;
  std::memcpy(&value, bytes + at * static_cast<int64_t>(sizeof(Value)), sizeof(Value));
  return value;
}

// The largest of float32 values, one or more; NaN where one is.
inline float largest_of(const char* bytes, int64_t count) {
  float most = -std::numeric_limits<float>::infinity();
  for (int64_t i = 0; i < count && !std::isnan(most); ++i) {
    const float value = element<float>(bytes, i);
    if (!(value <= most)) most = value;
  }
  return most;
}

inline void add_ranked(std::string& to, const Results& row, const DecidePolicy& policy, PyObject* names) {
  thread_local std::vector<int32_t> order;
  order.resize(static_cast<size_t>(policy.models()) + 1);
  const int64_t count = failover(policy, row, policy.allowed(), order.data());
  to += '[';
  for (int64_t i = 0; i < count; ++i) {
    if (i) to += ',';
    add_bytes(to, names, order[static_cast<size_t>(i)]);
  }
  to += ']';
}

// The keys and values of Decision.to_dict, up to "ranked" and in its order, without braces.
inline void add_row(std::string& to, const Results& row, const DecidePolicy& policy, const Words& words,
                    const Beside& beside) {
  const int64_t m = *row.index;
  const double tokens_in =
      beside.own ? static_cast<double>(element<float>(beside.own, m))
                 : static_cast<double>(beside.billed) * element<double>(PyBytes_AS_STRING(words.ratios), m);
  to += "\"model\":";
  add_bytes(to, words.names, m);
  to += ",\"status\":\"ok\",\"reason\":null,\"cause\":";
  add_bytes(to, words.causes, static_cast<int64_t>(*row.cause));
  to += ",\"prior\":";
  add_bytes(to, words.priors, m);
  to += ",\"quality\":";
  add_number(to, row.quality[m]);
  to += ",\"cost_usd\":";
  const size_t cost = to.size();
  add_number(to, row.cost_usd[m]);
  const size_t digits = to.size() - cost;
  to += ",\"cost\":";
  to.append(to, cost, digits);
  to += ",\"cost_terms\":null,\"tokens_in\":";
  add_number(to, tokens_in);
  to += ",\"tokens_out\":";
  add_number(to, row.tokens_out[m]);
  to += ",\"threshold\":";
  add_number(to, *row.threshold);
  to += ",\"gap\":";
  add_number(to, *row.gap);
  to += ",\"support\":";
  add_number(to, beside.has_support ? beside.support : std::numeric_limits<double>::quiet_NaN());
  to += ",\"billed_tokens\":";
  to += std::to_string(beside.billed);
  to += beside.truncated ? ",\"truncated\":true" : ",\"truncated\":false";
  to += ",\"escalated\":false,\"ranked\":";
  add_ranked(to, row, policy, words.names);
}

}  // namespace ipr
