// SurfaceFeatures for Python; ipr_engine/encoders/surface.py wraps it.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>

#include "ipr/surface_features.h"
#include "py_text.h"

namespace py = pybind11;

namespace {

using ipr::SurfaceFeatures;

// (batch, dim) float32
py::array_t<float> write_texts(const SurfaceFeatures& self, const py::object& prompts) {
  IPR_CHECK(PyList_Check(prompts.ptr()) || PyTuple_Check(prompts.ptr()),
            "prompts: expected a list or tuple of str, got ", Py_TYPE(prompts.ptr())->tp_name);
  const py::tuple held(prompts);  // a list could change once the GIL is given up
  std::vector<ipr::Utf8> texts(held.size());
  size_t bytes = 0;
  for (size_t row = 0; row < texts.size(); ++row) {
    texts[row] = ipr::utf8_of(held[row], "prompts[" + std::to_string(row) + "]");
    bytes += texts[row].bytes;
  }
  py::array_t<float> x({texts.size(), self.dim()});
  float* to = x.mutable_data();
  ipr::run_released(bytes, [&] {
    for (const ipr::Utf8& text : texts) {
      self.write(text.data, text.bytes, to);
      to += self.dim();
    }
  });
  return x;
}

// (dim,) float32, of bytes that may be ill-formed UTF-8: they lie in memory of their own size, so that a checker of
// memory sees a read past their end.
py::array_t<float> write_bytes(const SurfaceFeatures& self, const py::bytes& utf8) {
  const std::string_view held = utf8;
  const std::unique_ptr<char[]> own(new char[held.size()]);
  held.copy(own.get(), held.size());
  py::array_t<float> x(static_cast<py::ssize_t>(self.dim()));
  self.write(own.get(), held.size(), x.mutable_data());
  return x;
}

}  // namespace

void bind_surface_features(py::module_& m) {
  py::class_<SurfaceFeatures, std::shared_ptr<SurfaceFeatures>>(m, "SurfaceFeatures")
      .def(py::init([](std::vector<std::vector<std::string>> categories, std::vector<size_t> flags) {
             return std::make_shared<SurfaceFeatures>(ipr::SurfaceLexicon{std::move(categories), std::move(flags)});
           }),
           py::arg("categories"), py::arg("flags"))
      .def("write", &write_texts, py::arg("prompts"))
      .def("write_bytes", &write_bytes, py::arg("utf8"))
      .def_property_readonly("dim", &SurfaceFeatures::dim);
}
