// numpy arrays as pointers, checked: dtype, shape, C order. One message for every mistake.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "ipr/errors.h"

namespace ipr {

namespace py = pybind11;

template <class T>
constexpr const char* dtype_name() {
  if constexpr (std::is_same_v<T, float>) return "float32";
  if constexpr (std::is_same_v<T, double>) return "float64";
  if constexpr (std::is_same_v<T, int32_t>) return "int32";
  if constexpr (std::is_same_v<T, int64_t>) return "int64";
  if constexpr (std::is_same_v<T, uint8_t>) return "uint8";
  if constexpr (std::is_same_v<T, bool>) return "bool";
}

inline std::string describe(py::handle object) {
  if (object.is_none()) return "None";
  if (!py::isinstance<py::array>(object)) return Py_TYPE(object.ptr())->tp_name;
  const auto array = py::reinterpret_borrow<py::array>(object);
  const bool contiguous = array.flags() & py::array::c_style;
  return py::str(array.dtype()).cast<std::string>() + " " + py::str(array.attr("shape")).cast<std::string>() +
         (contiguous ? "" : ", not C-contiguous");
}

// A borrowed view of an aligned, C-contiguous array of T in native byte order; ndim < 0 when `object` is none.
template <class T>
struct ArrayView {
  const T* data = nullptr;
  int ndim = -1;
  const py::ssize_t* shape = nullptr;

  explicit ArrayView(py::handle object) {
    static PyTypeObject* const ndarray = py::detail::npy_api::get().PyArray_Type_;
    static PyObject* const dtype = py::dtype::of<T>().release().ptr();
    if (Py_TYPE(object.ptr()) != ndarray && !PyObject_TypeCheck(object.ptr(), ndarray)) return;
    const auto* array = py::detail::array_proxy(object.ptr());
    constexpr int needed = py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_ | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
    if ((array->flags & needed) != needed) return;
    if (array->descr != dtype && !py::detail::npy_api::get().PyArray_EquivTypes_(array->descr, dtype)) return;
    data = reinterpret_cast<const T*>(array->data);
    ndim = array->nd;
    shape = array->dimensions;
  }
};

// The data of `object` when its shape is exactly `shape`, else InvalidInput. `letters` names the dimensions.
template <class T>
const T* array_data(py::handle object, const char* name, const char* letters, std::vector<py::ssize_t> shape) {
  const ArrayView<T> view(object);
  const bool fits = view.ndim == static_cast<int>(shape.size()) && std::equal(shape.begin(), shape.end(), view.shape);
  if (fits) return view.data;
  std::string sizes;
  for (py::ssize_t size : shape) sizes += (sizes.empty() ? "" : ", ") + std::to_string(size);
  fail(name, ": expected ", letters, " = (", sizes, shape.size() == 1 ? ",)" : ")", " ", dtype_name<T>(),
       ", C-contiguous, got ", describe(object), "; see numpy.ascontiguousarray(", name, ", dtype=", dtype_name<T>(),
       ")");
}

// (models,) for every row, stride 0, or (batch, models).
template <class T>
const T* per_model(py::handle object, const char* name, int64_t batch, int64_t models, int64_t& stride) {
  const ArrayView<T> view(object);
  if (view.ndim == 1 && view.shape[0] == models) {
    stride = 0;
    return view.data;
  }
  stride = models;
  if (view.ndim == 2 && view.shape[0] == batch && view.shape[1] == models) return view.data;
  fail(name, ": expected (models,) = (", models, ",) or (batch, models) = (", batch, ", ", models, ") ",
       dtype_name<T>(), ", C-contiguous, or None, got ", describe(object));
}

}  // namespace ipr
