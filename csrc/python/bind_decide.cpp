// decide in Python: reading heads and policies, and DecidePlan.run, which is written against the C API since a call
// through pybind11's dispatcher costs more than the decision itself.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cmath>
#include <cstring>
#include <string_view>

#include "bind_arrays.h"
#include "bind_errors.h"
#include "bind_result.h"
#include "ipr/decide.h"
#include "ipr/isa.h"

namespace ipr {
namespace {

// Above this many multiply-adds (about 10 us) run releases the GIL; below, taking it back would cost more than it
// gives.
constexpr int64_t kReleaseGilAbove = int64_t{1} << 18;

PyTypeObject *plan_type = nullptr, *policy_type = nullptr;

py::ssize_t size_of(py::handle heads, const char* name, size_t ndim, size_t axis) {
  const py::object array = heads.attr(name);
  if (array.is_none()) return 0;
  const py::tuple shape = py::getattr(array, "shape", py::tuple());
  IPR_CHECK(shape.size() == ndim, name, ": expected an array of ", ndim, " dimensions, got ", describe(array));
  return shape[axis].cast<py::ssize_t>();
}

// The Python object ipr_engine.decide.Heads as its C++ mirror; pointers live as long as its arrays, which its fields
// hold.
Heads read_heads(py::handle python) {
  IPR_CHECK(py::isinstance(python, py::module_::import("ipr_engine.decide").attr("Heads")),
            "heads: expected ipr_engine.decide.Heads, got ", Py_TYPE(python.ptr())->tp_name);
  Heads heads;
  const auto first_of = [](std::initializer_list<py::ssize_t> sizes) {
    for (py::ssize_t size : sizes)
      if (size) return size;
    return py::ssize_t{0};
  };
  heads.models = first_of({size_of(python, "bias", 1, 0), size_of(python, "skip", 2, 0), size_of(python, "out", 2, 0)});
  heads.width = first_of({size_of(python, "skip", 2, 1), size_of(python, "trunk", 2, 1), size_of(python, "down", 3, 2),
                          size_of(python, "len_skip", 2, 1)});
  const py::object dim = python.attr("dim");
  IPR_CHECK(dim.is_none() || PyLong_CheckExact(dim.ptr()), "dim: expected an int or None, got ", describe(dim));
  int too_long = 0;
  heads.dim = dim.is_none() ? heads.width : PyLong_AsLongLongAndOverflow(dim.ptr(), &too_long);
  IPR_CHECK(too_long == 0, "dim: expected the columns of x, got an int of more than 64 bits");
  heads.hidden = first_of({size_of(python, "out", 2, 1), size_of(python, "trunk", 2, 0),
                           size_of(python, "identity", 2, 1), size_of(python, "up", 3, 1)});
  heads.rank = first_of({size_of(python, "up", 3, 2), size_of(python, "down", 3, 1)});

  heads.trees = first_of({size_of(python, "tree_column", 2, 0), size_of(python, "tree_threshold", 2, 0),
                          size_of(python, "tree_leaf", 3, 0)});
  const py::ssize_t leaves = first_of({size_of(python, "tree_leaf", 3, 1), size_of(python, "tree_column", 2, 1) + 1});
  IPR_CHECK(
      (leaves & (leaves - 1)) == 0,
      "tree_leaf: expected (trees, 2^depth, models) float32, beside tree_column and tree_threshold of 2^depth - 1 "
      "nodes a tree, got ",
      leaves, " leaves a tree");
  while (py::ssize_t{1} << heads.depth < leaves) ++heads.depth;

  const std::string activation = py::str(python.attr("activation"));
  if (activation == "relu")
    heads.activation = Activation::relu;
  else if (activation == "silu")
    heads.activation = Activation::silu;
  else if (activation == "gelu")
    heads.activation = Activation::gelu;
  else
    fail("activation: expected 'relu', 'silu' or 'gelu', got '", activation, "'");

  const py::ssize_t models = heads.models, width = heads.width, hidden = heads.hidden, rank = heads.rank;
  const auto read = [&](const char* name, const char* letters, std::vector<py::ssize_t> shape) -> const float* {
    const py::object array = python.attr(name);
    return array.is_none() ? nullptr : array_data<float>(array, name, letters, std::move(shape));
  };
  heads.skip = read("skip", "(models, dim)", {models, width});
  heads.bias = read("bias", "(models,)", {models});
  heads.trunk = read("trunk", "(hidden, dim)", {hidden, width});
  heads.identity = read("identity", "(models, hidden)", {models, hidden});
  heads.up = read("up", "(models, hidden, rank)", {models, hidden, rank});
  heads.down = read("down", "(models, rank, dim)", {models, rank, width});
  heads.out = read("out", "(models, hidden)", {models, hidden});
  heads.len_skip = read("len_skip", "(models, dim)", {models, width});
  heads.len_bias = read("len_bias", "(models,)", {models});
  heads.len_cap = read("len_cap", "(models,)", {models});
  heads.tree_threshold = read("tree_threshold", "(trees, 2^depth - 1)", {heads.trees, leaves - 1});
  heads.tree_leaf = read("tree_leaf", "(trees, 2^depth, models)", {heads.trees, leaves, models});
  const py::object tree_column = python.attr("tree_column");
  if (!tree_column.is_none())
    heads.tree_column =
        array_data<int32_t>(tree_column, "tree_column", "(trees, 2^depth - 1)", {heads.trees, leaves - 1});
  const py::object tie_rank = python.attr("tie_rank");
  if (!tie_rank.is_none()) heads.tie_rank = array_data<int32_t>(tie_rank, "tie_rank", "(models,)", {models});
  return heads;
}

std::unique_ptr<DecidePolicy> make_policy(const DecidePlan& plan, double alpha_hi, double alpha_lo, double offset,
                                          double worth, py::handle in_rate, py::handle out_rate, py::handle fixed_usd,
                                          py::handle allowed, double min_support, int64_t unsupported,
                                          py::handle unsupported_allowed, py::handle tier_above) {
  const py::ssize_t models = plan.models();
  py::ssize_t tiers = 1;
  const float* above = nullptr;
  if (!tier_above.is_none()) {
    const ArrayView<float> view(tier_above);
    IPR_CHECK(view.ndim == 2 && view.shape[0] >= 1 && view.shape[1] == models,
              "tier_above: expected (tiers - 1, models) = (1 or more, ", models,
              ") float32, C-contiguous, or None, got ", describe(tier_above));
    tiers = view.shape[0] + 1;
    above = view.data;
  }
  const auto rates = [&](py::handle array, const char* name) {
    if (above) return array_data<float>(array, name, "(tiers, models)", {tiers, models});
    return array_data<float>(array, name, "(models,)", {models});
  };
  const auto mask = [&](py::handle array, const char* name) {
    return reinterpret_cast<const uint8_t*>(array_data<bool>(array, name, "(models,)", {models}));
  };
  const PolicySpec spec{static_cast<float>(alpha_hi),
                        static_cast<float>(alpha_lo),
                        static_cast<float>(offset),
                        static_cast<float>(worth),
                        tiers,
                        rates(in_rate, "in_rate"),
                        rates(out_rate, "out_rate"),
                        above,
                        array_data<float>(fixed_usd, "fixed_usd", "(models,)", {models}),
                        mask(allowed, "allowed"),
                        plan.tie_rank(),
                        min_support,
                        unsupported,
                        unsupported_allowed.is_none() ? nullptr : mask(unsupported_allowed, "unsupported_allowed")};
  return std::make_unique<DecidePolicy>(models, spec);
}

// A compiled policy in a pickle, as (models, tiers, numbers, rates, allowed, tie_rank, min_support, unsupported,
// unsupported_allowed); the arrays are bytes.
py::tuple policy_state(const DecidePolicy& policy) {
  const auto bytes = [](const auto* data, size_t count) {
    return py::bytes(reinterpret_cast<const char*>(data), count * sizeof *data);
  };
  std::vector<float> rates;
  const PolicySpec spec = policy.spec(rates);
  const auto models = static_cast<size_t>(policy.models());
  return py::make_tuple(policy.models(), spec.tiers,
                        py::make_tuple(spec.alpha_hi, spec.alpha_lo, spec.offset, spec.worth),
                        bytes(rates.data(), rates.size()), bytes(spec.allowed, models), bytes(spec.tie_rank, models),
                        spec.min_support, spec.unsupported, bytes(spec.unsupported_allowed, models));
}

std::unique_ptr<DecidePolicy> policy_of_state(const py::tuple& state) {
  IPR_CHECK(state.size() == 9, "DecidePolicy: expected a state of 9 parts, got ", state.size());
  const auto models = state[0].cast<int64_t>(), tiers = state[1].cast<int64_t>();
  const auto numbers = state[2].cast<std::array<float, 4>>();
  IPR_CHECK(models >= 1 && models < (int64_t{1} << 24) && tiers >= 1 && tiers < (int64_t{1} << 24),
            "DecidePolicy: expected a state of at least 1 model and 1 tier, got ", models, " and ", tiers);
  // Copied: bytes are aligned for no number.
  const auto read = [&](size_t part, auto zero, int64_t count) {
    const auto data = state[part].cast<std::string_view>();
    const size_t expected = static_cast<size_t>(count) * sizeof zero;
    IPR_CHECK(data.size() == expected, "DecidePolicy: expected ", expected, " bytes in part ", part,
              " of a state, got ", data.size());
    std::vector<decltype(zero)> values(static_cast<size_t>(count));
    std::memcpy(values.data(), data.data(), data.size());
    return values;
  };
  const std::vector<float> rates = read(3, float{}, 3 * tiers * models), tie_rank = read(5, float{}, models);
  const std::vector<uint8_t> allowed = read(4, uint8_t{}, models), unsupported_allowed = read(8, uint8_t{}, models);
  const float* const out_rate = rates.data() + tiers * models;
  const float* const tier_above = out_rate + tiers * models;
  const PolicySpec spec{numbers[0],
                        numbers[1],
                        numbers[2],
                        numbers[3],
                        tiers,
                        rates.data(),
                        out_rate,
                        tiers > 1 ? tier_above : nullptr,
                        tier_above + (tiers - 1) * models,
                        allowed.data(),
                        tie_rank.data(),
                        state[6].cast<double>(),
                        state[7].cast<int64_t>(),
                        unsupported_allowed.data()};
  return std::make_unique<DecidePolicy>(models, spec);
}

template <class T>
const T& cpp_object(PyObject* object) {
  const T* value = reinterpret_cast<py::detail::instance*>(object)->get_value_and_holder().value_ptr<T>();
  IPR_CHECK(value, Py_TYPE(object)->tp_name, ": __init__ was not called");
  return *value;
}

struct RunArguments {
  PyObject *x = nullptr, *policy = nullptr, *billed_tokens = nullptr;
  PyObject *tokens_out = Py_None, *extra_usd = Py_None, *allowed = Py_None;
};

PyObject* run(const DecidePlan& plan, const RunArguments& given) {
  const int64_t models = plan.models(), dim = plan.dim();
  Rows rows{};

  const ArrayView<float> x(given.x);
  IPR_CHECK((x.ndim == 1 || x.ndim == 2) && x.shape[x.ndim - 1] == dim, "x: expected (dim,) = (", dim, ",) or (batch, ",
            dim, ") float32, C-contiguous, got ", describe(given.x));
  rows.batch = x.ndim == 1 ? 1 : x.shape[0];
  rows.x = x.data;
  rows.x_stride = dim;

  IPR_CHECK(Py_TYPE(given.policy) == policy_type, "policy: expected DecidePolicy, got ", describe(given.policy));

  float billed = 0;
  if (const ArrayView<float> array(given.billed_tokens); array.ndim == 1 && array.shape[0] == rows.batch) {
    rows.billed_tokens = array.data;
    rows.billed_stride = 1;
  } else if (array.ndim == 2 && array.shape[0] == rows.batch && array.shape[1] == models) {
    rows.billed_tokens = array.data;
    rows.billed_stride = models;
    rows.billed_per_model = true;
  } else {
    const double value = PyFloat_AsDouble(given.billed_tokens);
    if (value == -1.0 && PyErr_Occurred()) {
      PyErr_Clear();
      fail("billed_tokens: expected a number, (batch,) = (", rows.batch, ",) or (batch, models) = (", rows.batch, ", ",
           models, ") float32, C-contiguous, got ", describe(given.billed_tokens));
    }
    billed = static_cast<float>(value);
    rows.billed_tokens = &billed;
  }
  if (given.tokens_out != Py_None)
    rows.tokens_out = per_model<float>(given.tokens_out, "tokens_out", rows.batch, models, rows.tokens_stride);
  if (given.extra_usd != Py_None)
    rows.extra_usd = per_model<float>(given.extra_usd, "extra_usd", rows.batch, models, rows.extra_stride);
  if (given.allowed != Py_None)
    rows.allowed = reinterpret_cast<const uint8_t*>(
        per_model<bool>(given.allowed, "allowed", rows.batch, models, rows.allowed_stride));

  const DecidePolicy& policy = cpp_object<DecidePolicy>(given.policy);
  Results results;
  py::object result = new_decide_result(rows.batch, models, results);
  if (plan.work(rows.batch) > kReleaseGilAbove) {
    const py::gil_scoped_release unlocked;
    plan.run(policy, rows, results);
  } else {
    plan.run(policy, rows, results);
  }
  return result.release().ptr();
}

// The order of RunArguments. Interned at bind time, so that a keyword is usually found by its address.
constexpr const char* kNames[] = {"x", "policy", "billed_tokens", "tokens_out", "extra_usd", "allowed"};
PyObject* names[6];

bool parse(PyObject* const* args, Py_ssize_t positional, PyObject* keywords, RunArguments& given) {
  PyObject** const slots[] = {&given.x,          &given.policy,    &given.billed_tokens,
                              &given.tokens_out, &given.extra_usd, &given.allowed};
  if (positional > 6) return PyErr_Format(PyExc_TypeError, "run() takes at most 6 arguments (%zd given)", positional);
  for (Py_ssize_t i = 0; i < positional; ++i) *slots[i] = args[i];
  const Py_ssize_t count = keywords ? PyTuple_GET_SIZE(keywords) : 0;
  for (Py_ssize_t k = 0; k < count; ++k) {
    PyObject* const keyword = PyTuple_GET_ITEM(keywords, k);
    int slot = 0;
    while (slot < 6 && keyword != names[slot]) ++slot;
    if (slot == 6)
      for (slot = 0; slot < 6 && PyUnicode_CompareWithASCIIString(keyword, kNames[slot]) != 0;) ++slot;
    if (slot == 6) return PyErr_Format(PyExc_TypeError, "run() got an unexpected keyword argument '%U'", keyword);
    if (slot < positional) return PyErr_Format(PyExc_TypeError, "run() got multiple values for '%U'", keyword);
    *slots[slot] = args[positional + k];
  }
  for (int slot = 0; slot < 3; ++slot)
    if (!*slots[slot]) return PyErr_Format(PyExc_TypeError, "run() missing argument '%s'", kNames[slot]);
  return true;
}

PyObject* run_method(PyObject* self, PyObject* const* args, Py_ssize_t positional, PyObject* keywords) {
  RunArguments given;
  if (!parse(args, positional, keywords, given)) return nullptr;
  try {
    return run(cpp_object<DecidePlan>(self), given);
  } catch (...) {
    raise_from_callback(std::current_exception());
  }
  return nullptr;
}

PyMethodDef run_definition{"run", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(run_method)),
                           METH_FASTCALL | METH_KEYWORDS,
                           "run($self, x, policy, billed_tokens, tokens_out=None, extra_usd=None, allowed=None)\n--\n\n"
                           "Decide each row of x; see ipr_engine/decide/contract.py for the contract."};

}  // namespace

const DecidePolicy* policy_of(PyObject* object) {
  if (Py_TYPE(object) != policy_type) {
    PyErr_Format(PyExc_TypeError, "expected a DecidePolicy, got %s", Py_TYPE(object)->tp_name);
    return nullptr;
  }
  const auto* policy =
      reinterpret_cast<py::detail::instance*>(object)->get_value_and_holder().value_ptr<DecidePolicy>();
  if (!policy) PyErr_SetString(PyExc_TypeError, "DecidePolicy: __init__ was not called");
  return policy;
}

}  // namespace ipr

void bind_decide(pybind11::module_& m) {
  using namespace ipr;
  bind_result(m);
  m.def("available_isas", [] { return py::tuple(py::cast(available_isas())); });
  m.def("fma_chains", &fma_chains, py::arg("isa"), py::arg("steps"));
  m.def("check_heads", [](py::handle heads) { check(read_heads(heads)); }, py::arg("heads"));

  py::class_<DecidePlan> plan(m, "DecidePlan", py::is_final());
  plan.def(py::init([](py::handle heads, const std::string& isa) {
             return std::make_unique<DecidePlan>(read_heads(heads), isa);
           }),
           py::arg("heads"), py::arg("isa") = "auto")
      .def_property_readonly("models", &DecidePlan::models)
      .def_property_readonly("dim", &DecidePlan::dim)
      .def_property_readonly("hidden", &DecidePlan::hidden)
      .def_property_readonly("rank", &DecidePlan::rank)
      .def_property_readonly("trees", &DecidePlan::trees)
      .def_property_readonly("depth", &DecidePlan::depth)
      .def_property_readonly("isa", &DecidePlan::isa)
      .def_property_readonly("has_tokens", &DecidePlan::has_tokens);
  plan_type = reinterpret_cast<PyTypeObject*>(plan.ptr());
  for (int i = 0; i < 6; ++i) names[i] = PyUnicode_InternFromString(kNames[i]);
  plan.attr("run") = py::reinterpret_steal<py::object>(PyDescr_NewMethod(plan_type, &run_definition));

  py::class_<DecidePolicy> policy(m, "DecidePolicy", py::is_final());
  policy
      .def(py::init(&make_policy), py::arg("plan"), py::arg("alpha_hi"), py::arg("alpha_lo"), py::arg("offset"),
           py::arg("worth"), py::arg("in_rate"), py::arg("out_rate"), py::arg("fixed_usd"), py::arg("allowed"),
           py::arg("min_support") = 0.0, py::arg("unsupported") = kCheapest,
           py::arg("unsupported_allowed") = py::none(), py::arg("tier_above") = py::none())
      .def_property_readonly("models", &DecidePolicy::models)
      .def_property_readonly("tiers", &DecidePolicy::tiers)
      .def(py::pickle(&policy_state, &policy_of_state));
  policy_type = reinterpret_cast<PyTypeObject*>(policy.ptr());
}
