// Tally, LatencyHistogram and clock_ns for Python. Written against the C API: they stand on the path of every request.
#include <pybind11/pybind11.h>

#include <algorithm>
#include <vector>

#include "bind_result.h"
#include "ipr/latency_buckets.h"

namespace ipr {
namespace {

namespace py = pybind11;

struct Tally {
  PyObject_VAR_HEAD  // ob_size: how many counts follow
      int64_t counts[1];
};

struct Histogram {
  PyObject_HEAD int64_t sum_ns;
  int64_t counts[LatencyBuckets::kCount];
};

Tally* as_tally(PyObject* self) { return reinterpret_cast<Tally*>(self); }
Histogram* as_histogram(PyObject* self) { return reinterpret_cast<Histogram*>(self); }

bool take_count(Py_ssize_t count, Py_ssize_t expected, const char* what) {
  if (count == expected) return true;
  PyErr_Format(PyExc_TypeError, "expected %s, got %zd argument(s)", what, count);
  return false;
}

bool take_int(PyObject* value, int64_t& result) {
  result = PyLong_AsLongLong(value);
  return result != -1 || !PyErr_Occurred();
}

PyObject* list_of(const int64_t* values, Py_ssize_t size) {
  PyObject* list = PyList_New(size);
  for (Py_ssize_t i = 0; list && i < size; ++i) {
    PyObject* item = PyLong_FromLongLong(values[i]);
    if (!item) {
      Py_CLEAR(list);
      break;
    }
    PyList_SET_ITEM(list, i, item);
  }
  return list;
}

// ---- Tally

PyObject* tally_new(PyTypeObject* type, PyObject* args, PyObject* kwargs) {
  static const char* names[] = {"size", nullptr};
  Py_ssize_t size = 0;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "n", const_cast<char**>(names), &size)) return nullptr;
  if (size < 1 || size > (1 << 24)) return PyErr_Format(PyExc_ValueError, "size: expected 1 to 2**24, got %zd", size);
  return type->tp_alloc(type, size);  // zeroed
}

PyObject* tally_count(PyObject* self, int64_t position, int64_t by) {
  if (position < 0 || position >= Py_SIZE(self))
    return PyErr_Format(PyExc_IndexError, "position %lld of %zd counts", static_cast<long long>(position),
                        Py_SIZE(self));
  as_tally(self)->counts[position] += by;
  Py_RETURN_NONE;
}

PyObject* tally_add(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  int64_t position = 0, by = 1;
  if (count != 1 && !take_count(count, 2, "add(position, by=1)")) return nullptr;
  if (!take_int(args[0], position) || (count == 2 && !take_int(args[1], by))) return nullptr;
  return tally_count(self, position, by);
}

PyObject* tally_add_decision(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  int64_t row = 0, causes = 0, kinds = 0, kind = 0;
  if (!take_count(count, 5, "add_decision(result, row, causes, kinds, kind)")) return nullptr;
  if (!take_int(args[1], row) || !take_int(args[2], causes) || !take_int(args[3], kinds) || !take_int(args[4], kind))
    return nullptr;
  Results answers;
  int64_t models = 0;
  if (!row_of_result(args[0], row, answers, models)) return nullptr;
  const int64_t index = *answers.index, cause = static_cast<int64_t>(*answers.cause);
  if (cause >= causes || kind < 0 || kind >= kinds)
    return PyErr_Format(PyExc_IndexError, "cause %lld of %lld, kind %lld of %lld", static_cast<long long>(cause),
                        static_cast<long long>(causes), static_cast<long long>(kind), static_cast<long long>(kinds));
  return tally_count(self, ((index + 1) * causes + cause) * kinds + kind, 1);
}

PyObject* tally_counts(PyObject* self, PyObject*) { return list_of(as_tally(self)->counts, Py_SIZE(self)); }

PyObject* tally_clear(PyObject* self, PyObject*) {
  std::fill_n(as_tally(self)->counts, Py_SIZE(self), 0);
  Py_RETURN_NONE;
}

// ---- LatencyHistogram

PyObject* histogram_new(PyTypeObject* type, PyObject* args, PyObject* kwargs) {
  static const char* names[] = {nullptr};
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "", const_cast<char**>(names))) return nullptr;
  return type->tp_alloc(type, 0);
}

PyObject* histogram_count(PyObject* self, int64_t ns, int64_t by) {
  ns = std::max<int64_t>(ns, 0);
  as_histogram(self)->sum_ns += ns * by;
  as_histogram(self)->counts[LatencyBuckets::of(ns)] += by;
  Py_RETURN_NONE;
}

PyObject* histogram_add(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  int64_t ns = 0, by = 1;
  if (count != 1 && !take_count(count, 2, "add(ns, by=1)")) return nullptr;
  if (!take_int(args[0], ns) || (count == 2 && !take_int(args[1], by))) return nullptr;
  return histogram_count(self, ns, by);
}

PyObject* histogram_since(PyObject* self, PyObject* start) {
  int64_t ns = 0;
  return take_int(start, ns) ? histogram_count(self, clock_ns() - ns, 1) : nullptr;
}

PyObject* histogram_counts(PyObject* self, PyObject*) {
  return list_of(as_histogram(self)->counts, LatencyBuckets::kCount);
}

PyObject* histogram_sum_ns(PyObject* self, PyObject*) { return PyLong_FromLongLong(as_histogram(self)->sum_ns); }

PyObject* histogram_clear(PyObject* self, PyObject*) {
  as_histogram(self)->sum_ns = 0;
  std::fill_n(as_histogram(self)->counts, LatencyBuckets::kCount, 0);
  Py_RETURN_NONE;
}

void dealloc(PyObject* self) {
  PyTypeObject* type = Py_TYPE(self);
  type->tp_free(self);
  Py_DECREF(type);
}

template <class Function>
constexpr PyMethodDef fast(const char* name, Function* function, const char* doc) {
  return {name, reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(function)), METH_FASTCALL, doc};
}

void add_type(py::module_& m, const char* attribute, const char* name, int basic, int item, newfunc make,
              PyMethodDef* methods, const char* doc) {
  PyType_Slot slots[] = {{Py_tp_new, reinterpret_cast<void*>(make)},
                         {Py_tp_dealloc, reinterpret_cast<void*>(dealloc)},
                         {Py_tp_methods, methods},
                         {Py_tp_doc, const_cast<char*>(doc)},
                         {0, nullptr}};
  PyType_Spec spec{name, basic, item, Py_TPFLAGS_DEFAULT, slots};
  PyObject* type = PyType_FromSpec(&spec);
  if (!type) throw py::error_already_set();
  m.attr(attribute) = py::reinterpret_steal<py::object>(type);
}

}  // namespace
}  // namespace ipr

void bind_counters(pybind11::module_& m) {
  using namespace ipr;
  static PyMethodDef tally[] = {
      fast("add", tally_add, "add(position, by=1)"),
      fast("add_decision", tally_add_decision,
           "add_decision(result, row, causes, kinds, kind): one more at ((index + 1) * causes + cause) * kinds + kind"),
      {"counts", tally_counts, METH_NOARGS, "counts() -> list[int]"},
      {"clear", tally_clear, METH_NOARGS, "clear(): every count is 0 again"},
      {nullptr, nullptr, 0, nullptr}};
  static PyMethodDef histogram[] = {
      fast("add", histogram_add, "add(ns, by=1)"),
      {"since", histogram_since, METH_O, "since(start): add the time from start, of clock_ns(), until now"},
      {"counts", histogram_counts, METH_NOARGS, "counts() -> list[int], one a bucket"},
      {"sum_ns", histogram_sum_ns, METH_NOARGS, "sum_ns() -> int, of all latencies added"},
      {"clear", histogram_clear, METH_NOARGS, "clear(): empty again"},
      {nullptr, nullptr, 0, nullptr}};
  add_type(m, "Tally", "ipr_engine._C.Tally", offsetof(Tally, counts), sizeof(int64_t), tally_new, tally,
           "Tally(size): so many counts, all 0.");
  add_type(m, "LatencyHistogram", "ipr_engine._C.LatencyHistogram", sizeof(Histogram), 0, histogram_new, histogram,
           "LatencyHistogram(): latencies in logarithmic buckets from 1 us; see latency_edges_us.");
  static PyMethodDef clock{"clock_ns",
                           [](PyObject*, PyObject*) -> PyObject* { return PyLong_FromLongLong(clock_ns()); },
                           METH_NOARGS, "clock_ns() -> int, of a clock that only goes forward"};
  m.attr("clock_ns") = py::reinterpret_steal<py::object>(PyCFunction_New(&clock, nullptr));
  py::tuple edges(LatencyBuckets::kCount - 1);
  for (int i = 0; i < LatencyBuckets::kCount - 1; ++i) edges[i] = LatencyBuckets::upper_us(i);
  m.attr("latency_edges_us") = edges;
}
