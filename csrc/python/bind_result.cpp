// Written against the C API: creating a result costs one allocation and no look-up.
#include "bind_result.h"

#include <pybind11/numpy.h>

#include <algorithm>

#include "bind_arrays.h"
#include "bind_errors.h"
#include "ipr/order.h"

namespace ipr {
namespace {

namespace py = pybind11;

struct DecideResult {
  PyObject_VAR_HEAD  // ob_size: bytes of the block that follows
      int64_t batch,
      models;
  float block[1];
};

PyTypeObject* result_type = nullptr;

Results parts_of(DecideResult* self) {
  const int64_t batch = self->batch, all = batch * self->models;
  float* f = self->block;
  Results parts;
  parts.quality = f;
  parts.tokens_out = f + all;
  parts.cost_usd = f + 2 * all;
  parts.threshold = f + 3 * all;
  parts.gap = parts.threshold + batch;
  parts.index = reinterpret_cast<int32_t*>(parts.gap + batch);
  parts.status = reinterpret_cast<Status*>(parts.index + batch);
  parts.cause = reinterpret_cast<Cause*>(parts.status + batch);
  return parts;
}

int64_t block_bytes(int64_t batch, int64_t models) { return batch * (3 * models * 4 + 3 * 4 + 2); }

DecideResult* as_result(PyObject* self) { return reinterpret_cast<DecideResult*>(self); }

template <class T>
py::dtype dtype_of() {
  if constexpr (std::is_enum_v<T>)
    return py::dtype::of<std::underlying_type_t<T>>();
  else
    return py::dtype::of<T>();
}

PyObject* to_python(float value) { return PyFloat_FromDouble(value); }
PyObject* to_python(int32_t value) { return PyLong_FromLong(value); }
PyObject* to_python(Status value) { return PyLong_FromLong(static_cast<long>(value)); }
PyObject* to_python(Cause value) { return PyLong_FromLong(static_cast<long>(value)); }

// What follows is made once per part; Axes is 2 for (batch, models), 1 for (batch,).

// The property: a read-only view that keeps the result alive.
template <auto Part, int Axes>
PyObject* view(PyObject* self, void*) {
  DecideResult* result = as_result(self);
  auto* data = parts_of(result).*Part;
  try {
    std::vector<py::ssize_t> shape{result->batch, result->models};
    shape.resize(Axes);
    py::array array(dtype_of<std::remove_pointer_t<decltype(data)>>(), shape, {}, data, py::handle(self));
    py::detail::array_proxy(array.ptr())->flags &= ~py::detail::npy_api::NPY_ARRAY_WRITEABLE_;
    return array.release().ptr();
  } catch (...) {
    raise_from_callback(std::current_exception());
    return nullptr;
  }
}

// The method: one element as a Python number, at (row) or (row, model).
template <auto Part, int Axes>
PyObject* at(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  const DecideResult* result = as_result(self);
  if (count != Axes) return PyErr_Format(PyExc_TypeError, "expected %d position(s), got %zd", Axes, count);
  int64_t flat = 0;
  const int64_t sizes[] = {result->batch, result->models};
  for (int i = 0; i < Axes; ++i) {
    const Py_ssize_t position = PyNumber_AsSsize_t(args[i], PyExc_IndexError);
    if (position == -1 && PyErr_Occurred()) return nullptr;
    if (position < 0 || position >= sizes[i])
      return PyErr_Format(PyExc_IndexError, "%s %zd is out of range: there are %lld", i ? "model" : "row", position,
                          static_cast<long long>(sizes[i]));
    flat = i ? flat * sizes[i] + position : position;
  }
  return to_python((parts_of(as_result(self)).*Part)[flat]);
}

template <auto Part, int Axes>
constexpr PyGetSetDef property(const char* name, const char* doc) {
  return {name, view<Part, Axes>, nullptr, doc, nullptr};
}
template <auto Part, int Axes>
PyMethodDef method(const char* name, const char* doc) {
  return {name, reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(at<Part, Axes>)), METH_FASTCALL, doc};
}

// ranked(row, policy, names, allowed): names is a tuple (models,), allowed bytes (models,), or None for the policy's.
PyObject* ranked(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  const DecideResult* result = as_result(self);
  if (count != 4) return PyErr_Format(PyExc_TypeError, "expected ranked(row, policy, names, allowed)");
  const Py_ssize_t row = PyNumber_AsSsize_t(args[0], PyExc_IndexError);
  if (row == -1 && PyErr_Occurred()) return nullptr;
  if (row < 0 || row >= result->batch)
    return PyErr_Format(PyExc_IndexError, "row %zd is out of range: there are %lld", row,
                        static_cast<long long>(result->batch));
  const DecidePolicy* policy = policy_of(args[1]);
  if (!policy) return nullptr;
  const auto models = static_cast<Py_ssize_t>(result->models);
  const bool given = args[3] != Py_None;
  if (policy->models() != result->models || !PyTuple_Check(args[2]) || PyTuple_GET_SIZE(args[2]) != models ||
      (given && (!PyBytes_Check(args[3]) || PyBytes_GET_SIZE(args[3]) != models)))
    return PyErr_Format(PyExc_TypeError, "expected a policy, a tuple of names and bytes or None, for %zd models",
                        models);
  const auto* allowed = given ? reinterpret_cast<const uint8_t*>(PyBytes_AS_STRING(args[3])) : policy->allowed();
  const Results parts = row_of(parts_of(as_result(self)), row, result->models);
  thread_local std::vector<int32_t> order;
  order.resize(static_cast<size_t>(models) + 1);
  const int64_t found = *parts.status == Status::ok ? failover(*policy, parts, allowed, order.data()) : 0;
  PyObject* const made = PyTuple_New(static_cast<Py_ssize_t>(found));
  for (Py_ssize_t i = 0; made && i < found; ++i) {
    PyObject* const name = PyTuple_GET_ITEM(args[2], order[static_cast<size_t>(i)]);
    Py_INCREF(name);
    PyTuple_SET_ITEM(made, i, name);
  }
  return made;
}

void dealloc(PyObject* self) {
  PyTypeObject* type = Py_TYPE(self);
  PyObject_Free(self);
  Py_DECREF(type);
}

// Arrays decided elsewhere (on a GPU) as a result; the shapes were checked by array_data.
py::object decide_result(py::handle quality, py::handle tokens_out, py::handle cost_usd, py::handle threshold,
                         py::handle gap, py::handle index, py::handle status, py::handle cause) {
  const ArrayView<float> given(quality.ptr());
  IPR_CHECK(given.ndim == 2, "quality: expected (batch, models) float32, C-contiguous, got ", describe(quality));
  const py::ssize_t batch = given.shape[0], models = given.shape[1];
  const auto copy = [](auto* to, const auto* from, py::ssize_t count) {
    std::copy_n(from, count, reinterpret_cast<std::remove_const_t<std::remove_pointer_t<decltype(from)>>*>(to));
  };
  const auto floats = [](py::handle array, const char* name, const char* letters, std::vector<py::ssize_t> shape) {
    return array_data<float>(array, name, letters, std::move(shape));
  };
  Results to;
  py::object result = new_decide_result(batch, models, to);
  copy(to.quality, given.data, batch * models);
  copy(to.tokens_out, floats(tokens_out, "tokens_out", "(batch, models)", {batch, models}), batch * models);
  copy(to.cost_usd, floats(cost_usd, "cost_usd", "(batch, models)", {batch, models}), batch * models);
  copy(to.threshold, floats(threshold, "threshold", "(batch,)", {batch}), batch);
  copy(to.gap, floats(gap, "gap", "(batch,)", {batch}), batch);
  copy(to.index, array_data<int32_t>(index, "index", "(batch,)", {batch}), batch);
  copy(to.status, array_data<uint8_t>(status, "status", "(batch,)", {batch}), batch);
  copy(to.cause, array_data<uint8_t>(cause, "cause", "(batch,)", {batch}), batch);
  for (py::ssize_t row = 0; row < batch; ++row)
    IPR_CHECK(to.index[row] >= -1 && to.index[row] < models, "index: expected -1 to ", models - 1, ", got ",
              to.index[row], " at row ", row);
  return result;
}

PyObject* all_ok(PyObject* self, void*) {
  const Status* status = parts_of(as_result(self)).status;
  const auto failed = [](Status one) { return one != Status::ok; };
  return PyBool_FromLong(std::none_of(status, status + as_result(self)->batch, failed));
}

Py_ssize_t length(PyObject* self) { return static_cast<Py_ssize_t>(as_result(self)->batch); }

PyObject* repr(PyObject* self) {
  return PyUnicode_FromFormat("DecideResult(batch=%lld, models=%lld)", static_cast<long long>(as_result(self)->batch),
                              static_cast<long long>(as_result(self)->models));
}

}  // namespace

py::object new_decide_result(int64_t batch, int64_t models, Results& results) {
  auto* result = PyObject_NewVar(DecideResult, result_type, block_bytes(batch, models));
  if (!result) throw py::error_already_set();
  result->batch = batch;
  result->models = models;
  results = parts_of(result);
  return py::reinterpret_steal<py::object>(reinterpret_cast<PyObject*>(result));
}

Results results_of(py::handle result, int64_t batch, int64_t models) {
  IPR_CHECK(Py_TYPE(result.ptr()) == result_type, "result: expected a DecideResult, got ", describe(result));
  DecideResult* const own = as_result(result.ptr());
  IPR_CHECK(own->batch == batch && own->models == models, "result: expected ", batch, " rows of ", models,
            " models, got ", own->batch, " of ", own->models);
  return parts_of(own);
}

bool row_of_result(PyObject* result, int64_t row, Results& answers, int64_t& models) {
  if (Py_TYPE(result) != result_type) {
    PyErr_Format(PyExc_TypeError, "expected a DecideResult, got %s", Py_TYPE(result)->tp_name);
    return false;
  }
  if (row < 0 || row >= as_result(result)->batch) {
    PyErr_Format(PyExc_IndexError, "row %lld of %lld", static_cast<long long>(row),
                 static_cast<long long>(as_result(result)->batch));
    return false;
  }
  models = as_result(result)->models;
  answers = row_of(parts_of(as_result(result)), row, models);
  return true;
}

void bind_result(py::module_& m) {
  static PyGetSetDef properties[] = {
      property<&Results::index, 1>("index", "(batch,) int32: the chosen candidate, -1 where status is not 0."),
      property<&Results::quality, 2>("quality", "(batch, models) float32 in [0, 1]: predicted quality."),
      property<&Results::tokens_out, 2>("tokens_out", "(batch, models) float32: predicted or given output tokens."),
      property<&Results::cost_usd, 2>("cost_usd", "(batch, models) float32: predicted cost in USD."),
      property<&Results::threshold, 1>("threshold",
                                       "(batch,) float32: the least quality accepted; NaN in a failed row."),
      property<&Results::gap, 1>("gap",
                                 "(batch,) float32: the smallest change of one quality that changes the choice."),
      property<&Results::status, 1>("status", "(batch,) uint8: position in STATUS; 0 is ok."),
      property<&Results::cause, 1>("cause", "(batch,) uint8: position in CAUSE."),
      {"all_ok", all_ok, nullptr, "bool: every row has status 0.", nullptr},
      {nullptr, nullptr, nullptr, nullptr, nullptr}};
  static PyMethodDef methods[] = {method<&Results::index, 1>("index_at", "index_at(row) -> int"),
                                  method<&Results::quality, 2>("quality_at", "quality_at(row, model) -> float"),
                                  method<&Results::tokens_out, 2>("tokens_at", "tokens_at(row, model) -> float"),
                                  method<&Results::cost_usd, 2>("cost_at", "cost_at(row, model) -> float, in USD"),
                                  method<&Results::threshold, 1>("threshold_at", "threshold_at(row) -> float"),
                                  method<&Results::gap, 1>("gap_at", "gap_at(row) -> float"),
                                  method<&Results::status, 1>("status_at", "status_at(row) -> int"),
                                  method<&Results::cause, 1>("cause_at", "cause_at(row) -> int"),
                                  {"ranked", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(ranked)),
                                   METH_FASTCALL, "ranked(row, policy, names, allowed) -> tuple of names"},
                                  {nullptr, nullptr, 0, nullptr}};
  static const char doc[] =
      "The answers of one decide call, in one block of memory. len() is the batch; the properties are read-only numpy\n"
      "views without a copy; the *_at methods give one element as a Python number.";
  PyType_Slot slots[] = {{Py_tp_dealloc, reinterpret_cast<void*>(dealloc)},
                         {Py_tp_doc, const_cast<char*>(doc)},
                         {Py_tp_getset, properties},
                         {Py_tp_methods, methods},
                         {Py_tp_repr, reinterpret_cast<void*>(repr)},
                         {Py_sq_length, reinterpret_cast<void*>(length)},
                         {0, nullptr}};
  PyType_Spec spec{"ipr_engine._C.DecideResult", offsetof(DecideResult, block), 1,
                   Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, slots};
  PyObject* type = PyType_FromSpec(&spec);
  if (!type) throw py::error_already_set();
  result_type = reinterpret_cast<PyTypeObject*>(type);
  m.attr("DecideResult") = py::handle(type);
  m.def("decide_result", &decide_result, py::arg("quality"), py::arg("tokens_out"), py::arg("cost_usd"),
        py::arg("threshold"), py::arg("gap"), py::arg("index"), py::arg("status"), py::arg("cause"));
}

}  // namespace ipr
