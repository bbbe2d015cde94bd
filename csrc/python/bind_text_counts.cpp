// What texts are made of, for Python.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <string>
#include <vector>

#include "ipr/text_counts.h"
#include "ipr/token_estimator.h"
#include "py_text.h"

namespace py = pybind11;

namespace {

// (texts, terms) float64
py::array_t<double> count_texts(const py::object& texts, const std::string& isa) {
  const ipr::CountTerms count = ipr::term_counter(isa);
  IPR_CHECK(PyList_Check(texts.ptr()) || PyTuple_Check(texts.ptr()), "texts: expected a list or tuple of str, got ",
            Py_TYPE(texts.ptr())->tp_name);
  const py::tuple held(texts);  // a list could change once the GIL is given up
  std::vector<ipr::Utf8> utf8(held.size());
  size_t bytes = 0;
  for (size_t row = 0; row < utf8.size(); ++row) {
    utf8[row] = ipr::utf8_of(held[row], "texts[" + std::to_string(row) + "]");
    bytes += utf8[row].bytes;
  }
  py::array_t<double> out({utf8.size(), ipr::kTerms});
  double* to = out.mutable_data();
  ipr::run_released(bytes, [&] {
    for (const ipr::Utf8& text : utf8) {
      const ipr::TextCounts counts = ipr::count_text(text.data, text.bytes, count);
      to = std::copy(counts.of.begin(), counts.of.end(), to);
    }
  });
  return out;
}

using DoubleArray = py::array_t<double, py::array::c_style>;

// (rows, profiles) float64
DoubleArray estimate_tokens(const DoubleArray& terms, const DoubleArray& coefficients, const DoubleArray& per_request) {
  const auto count = static_cast<py::ssize_t>(ipr::kTerms);
  IPR_CHECK(terms.ndim() == 2 && terms.shape(1) == count, "terms: expected shape (rows, ", count, ")");
  IPR_CHECK(coefficients.ndim() == 2 && coefficients.shape(1) == count, "coefficients: expected shape (profiles, ",
            count, ")");
  const py::ssize_t profiles = coefficients.shape(0);
  IPR_CHECK(per_request.ndim() == 1 && per_request.size() == profiles, "per_request: expected shape (", profiles, ",)");
  const ipr::TokenEstimator estimator(coefficients.data(), per_request.data(), static_cast<size_t>(profiles));
  DoubleArray out({terms.shape(0), profiles});
  for (py::ssize_t row = 0; row < terms.shape(0); ++row)
    estimator.estimate(terms.data() + row * count, out.mutable_data() + row * profiles);
  return out;
}

}  // namespace

void bind_text_counts(py::module_& m) {
  py::tuple terms(ipr::kTerms);
  for (size_t term = 0; term < ipr::kTerms; ++term) terms[term] = py::str(ipr::kTermNames[term]);
  m.attr("TEXT_TERMS") = terms;
  m.def("count_texts", &count_texts, py::arg("texts"), py::arg("isa") = "auto");
  m.def("estimate_tokens", &estimate_tokens, py::arg("terms"), py::arg("coefficients"), py::arg("per_request"));
}
