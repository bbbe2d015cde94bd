// Router for Python. A plan and an encoder are kept alive by the router that borrows them.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <limits>
#include <memory>
#include <optional>
#include <vector>

#include "bind_arrays.h"
#include "bind_encoder.h"
#include "bind_result.h"
#include "bind_router.h"

namespace ipr {
namespace {

namespace py = pybind11;

using FloatArray = py::array_t<float, py::array::c_style>;
using DoubleArray = py::array_t<double, py::array::c_style>;

// A decided row takes about as long as tokenizing this much text: what run_released weighs.
constexpr size_t kBytesPerRow = 128;

std::unique_ptr<PyRouter> make_router(const py::object& plan, const py::object& encoder,
                                      std::vector<double> context_window, std::vector<double> token_ratio,
                                      std::vector<double> most_output, const std::optional<FloatArray>& centroids,
                                      const std::optional<FloatArray>& distances,
                                      const std::optional<DoubleArray>& coefficients,
                                      const std::optional<DoubleArray>& per_request, std::vector<int32_t> tokenizer_of,
                                      const std::string& conversation) {
  const auto& native_plan = plan.cast<const DecidePlan&>();
  const StaticEncoder* native_encoder = encoder.is_none() ? nullptr : &encoder.cast<const PyStaticEncoder&>().encoder;
  IPR_CHECK(native_encoder == nullptr || native_encoder->has_tokenizer(),
            "encoder: expected one with a tokenizer of its own, got one without; pass None");
  std::optional<Support> support;
  if (centroids) {
    IPR_CHECK(centroids->ndim() == 2 && centroids->shape(1) >= 1 && centroids->shape(1) <= native_plan.dim(),
              "centroids: expected shape (k, 1 to ", native_plan.dim(), "), the columns of x that they measure");
    IPR_CHECK(distances && distances->ndim() == 1, "distances: expected shape (percentiles,) beside centroids");
    support.emplace(centroids->data(), centroids->shape(0), centroids->shape(1), distances->data(), distances->shape(0),
                    native_plan.isa());
  }
  ContextLimits limits{std::move(context_window), std::move(token_ratio), std::move(most_output)};
  std::optional<OwnTokenizers> tokenizers;
  if (coefficients) {
    IPR_CHECK(coefficients->ndim() == 2 && coefficients->shape(1) == static_cast<py::ssize_t>(kTerms),
              "coefficients: expected shape (profiles, ", kTerms, ")");
    IPR_CHECK(per_request && per_request->ndim() == 1 && per_request->size() == coefficients->shape(0),
              "per_request: expected shape (profiles,) beside coefficients");
    tokenizers.emplace(OwnTokenizers{
        TokenEstimator(coefficients->data(), per_request->data(), static_cast<size_t>(coefficients->shape(0))),
        std::move(tokenizer_of)});
  }
  return std::unique_ptr<PyRouter>(
      new PyRouter{plan, encoder,
                   Router(native_plan, native_encoder, std::move(limits), std::move(support), std::move(tokenizers),
                          conversation_of(conversation))});
}

// Room for own_tokens (batch, models), where a candidate has a profile.
std::optional<FloatArray> own_array(const PyRouter& self, py::ssize_t batch) {
  if (!self.router.tokenizers()) return std::nullopt;
  return FloatArray({batch, static_cast<py::ssize_t>(self.router.plan().models())});
}

// Throws InvalidInput for what is neither -1 nor a column of x.
void check_task_column(const PyRouter& self, int64_t column) {
  const int64_t dim = self.router.plan().dim();
  IPR_CHECK(column >= -1 && column < dim, "task_column: expected -1 to ", dim - 1, ", got ", column);
}

// A plain text.
py::tuple route_one(const PyRouter& self, py::handle prompt, const DecidePolicy& policy, int64_t task_column) {
  check_task_column(self, task_column);
  const Utf8 text = utf8_of(prompt, "prompt");
  const Prompts prompts{{&text.data, &text.bytes, 1}, nullptr, &task_column};
  return route_alone(self, policy, prompts, {nullptr, nullptr, nullptr}, text.bytes).facts();
}

// A whole request.
py::tuple route_request(const PyRouter& self, py::handle encoded, const py::tuple& billed_only,
                        const DecidePolicy& policy, py::handle allowed, int64_t max_tokens, int64_t answers,
                        int64_t task_column, const py::tuple& turns) {
  check_task_column(self, task_column);
  const AskedTexts asked(encoded, billed_only, allowed, max_tokens, answers, self.router.plan().models(), turns);
  Prompts prompts = asked.prompts();
  prompts.task_column = &task_column;
  return route_alone(self, policy, prompts, asked.limits(), asked.bytes()).facts();
}

py::tuple route_many(const PyRouter& self, const py::list& prompts, const DecidePolicy& policy) {
  const ListedTexts texts(prompts);
  RoutedMany made(self, texts.count());
  const Facts facts = made.facts();
  run_released(texts.bytes(),
               [&] { self.router.route(policy, texts.prompts(), {nullptr, nullptr, nullptr}, made.rows, facts); });
  return made.told();
}

// Own tokens (batch, models) from terms (batch, kTerms), NaN where not known; null terms: of no row.
void fill_own_tokens(const PyRouter& self, const double* terms, const int64_t* billed, py::ssize_t batch, float* to) {
  static const std::vector<double> unknown(kTerms, std::numeric_limits<double>::quiet_NaN());
  const auto models = static_cast<py::ssize_t>(self.router.plan().models());
  for (py::ssize_t row = 0; row < batch; ++row)
    self.router.own_tokens(terms ? terms + row * static_cast<py::ssize_t>(kTerms) : unknown.data(), billed[row],
                           to + row * models);
}

// (DecideResult, support (batch,) float32 or None, own_tokens (batch, models) float32 or None) of embeddings x (batch,
// dim), billed_tokens (batch,) int64. own_tokens: as given, else estimated from terms (batch, kTerms) where a candidate
// has a profile.
py::tuple decide(const PyRouter& self, py::handle x, const DecidePolicy& policy, py::handle billed_tokens,
                 py::handle tokens_out, py::handle extra_usd, py::handle allowed, py::handle max_tokens,
                 py::handle answers, py::handle own_tokens, py::handle terms) {
  const int64_t models = self.router.plan().models(), dim = self.router.plan().dim();
  Rows rows{};
  const ArrayView<float> view(x);
  IPR_CHECK(view.ndim == 2 && view.shape[1] == dim, "x: expected (batch, ", dim, ") float32, C-contiguous, got ",
            describe(x));
  rows.batch = view.shape[0];
  rows.x = view.data;
  rows.x_stride = dim;
  InputTokens input{array_data<int64_t>(billed_tokens, "billed_tokens", "(batch,)", {view.shape[0]}), nullptr};
  py::object own = py::reinterpret_borrow<py::object>(own_tokens);
  if (!own.is_none()) {
    input.own =
        array_data<float>(own, "own_tokens", "(batch, models)", {view.shape[0], static_cast<py::ssize_t>(models)});
  } else if (std::optional<FloatArray> made = own_array(self, view.shape[0])) {
    const double* known = terms.is_none() ? nullptr
                                          : array_data<double>(terms, "terms", "(batch, terms)",
                                                               {view.shape[0], static_cast<py::ssize_t>(kTerms)});
    fill_own_tokens(self, known, input.billed, view.shape[0], made->mutable_data());
    input.own = made->data();
    own = std::move(*made);
  }
  if (!tokens_out.is_none())
    rows.tokens_out = per_model<float>(tokens_out, "tokens_out", rows.batch, models, rows.tokens_stride);
  if (!extra_usd.is_none())
    rows.extra_usd = per_model<float>(extra_usd, "extra_usd", rows.batch, models, rows.extra_stride);
  RequestLimits limits{nullptr, nullptr, nullptr};
  if (!allowed.is_none())
    limits.allowed = reinterpret_cast<const uint8_t*>(
        array_data<bool>(allowed, "allowed", "(batch, models)", {view.shape[0], static_cast<py::ssize_t>(models)}));
  if (!max_tokens.is_none())
    limits.max_tokens = array_data<int64_t>(max_tokens, "max_tokens", "(batch,)", {view.shape[0]});
  if (!answers.is_none()) limits.answers = array_data<int64_t>(answers, "answers", "(batch,)", {view.shape[0]});
  std::optional<FloatArray> support;
  if (self.router.support()) support.emplace(view.shape[0]);
  float* const support_data = support ? support->mutable_data() : nullptr;
  Results results;
  py::object result = new_decide_result(rows.batch, models, results);
  const auto work = [&] { self.router.decide(policy, rows, input, limits, results, support_data); };
  run_released(static_cast<size_t>(rows.batch) * kBytesPerRow, work);
  return py::make_tuple(std::move(result), support, std::move(own));
}

// Changes `result` in place: what a caller decided and has not given away yet.
void send_unsupported(const PyRouter& self, py::handle result, const DecidePolicy& policy, py::handle billed_tokens,
                      bool tokens_given, py::handle allowed, py::handle max_tokens, py::handle answers,
                      py::handle support, py::handle own_tokens) {
  const auto models = static_cast<py::ssize_t>(self.router.plan().models());
  const py::ssize_t batch = static_cast<py::ssize_t>(py::len(result));
  const Results results = results_of(result, batch, models);
  RequestLimits limits{nullptr, nullptr, nullptr};
  if (!allowed.is_none())
    limits.allowed =
        reinterpret_cast<const uint8_t*>(array_data<bool>(allowed, "allowed", "(batch, models)", {batch, models}));
  if (!max_tokens.is_none()) limits.max_tokens = array_data<int64_t>(max_tokens, "max_tokens", "(batch,)", {batch});
  if (!answers.is_none()) limits.answers = array_data<int64_t>(answers, "answers", "(batch,)", {batch});
  InputTokens input{array_data<int64_t>(billed_tokens, "billed_tokens", "(batch,)", {batch}), nullptr};
  if (!own_tokens.is_none())
    input.own = array_data<float>(own_tokens, "own_tokens", "(batch, models)", {batch, models});
  self.router.send_unsupported(policy, batch, input, tokens_given, limits,
                               array_data<float>(support, "support", "(batch,)", {batch}), results);
}

// (batch, models) float32, or None where no candidate has a profile. terms (batch, kTerms), NaN where not known.
py::object own_tokens_of(const PyRouter& self, const DoubleArray& terms, py::handle billed_tokens) {
  if (!self.router.tokenizers()) return py::none();
  const py::ssize_t batch = terms.ndim() > 0 ? terms.shape(0) : 0;
  IPR_CHECK(terms.ndim() == 2 && terms.shape(1) == static_cast<py::ssize_t>(kTerms), "terms: expected shape (batch, ",
            kTerms, ")");
  const int64_t* billed = array_data<int64_t>(billed_tokens, "billed_tokens", "(batch,)", {batch});
  std::optional<FloatArray> own = own_array(self, batch);
  fill_own_tokens(self, terms.data(), billed, batch, own->mutable_data());
  return *own;
}

// (batch,) float32, or None without centroids
py::object support_of(const PyRouter& self, const FloatArray& x) {
  if (!self.router.support()) return py::none();
  const py::ssize_t dim = static_cast<py::ssize_t>(self.router.plan().dim());
  IPR_CHECK(x.ndim() == 2 && x.shape(1) == dim, "x: expected (batch, ", dim, ") float32");
  FloatArray support(x.shape(0));
  float* const to = support.mutable_data();
  run_released(static_cast<size_t>(x.shape(0)) * kBytesPerRow, [&] {
    for (py::ssize_t row = 0; row < x.shape(0); ++row) to[row] = self.router.support()->of(x.data() + row * dim);
  });
  return support;
}

}  // namespace
}  // namespace ipr

void bind_router(pybind11::module_& m) {
  using namespace ipr;
  py::class_<PyRouter>(m, "Router", py::is_final())
      .def(py::init(&make_router), py::arg("plan"), py::arg("encoder"), py::arg("context_window"),
           py::arg("token_ratio"), py::arg("most_output"), py::arg("centroids") = py::none(),
           py::arg("distances") = py::none(), py::arg("coefficients") = py::none(), py::arg("per_request") = py::none(),
           py::arg("tokenizer_of") = std::vector<int32_t>(), py::arg("conversation") = "all")
      .def("route_one", &route_one, py::arg("prompt"), py::arg("policy"), py::arg("task_column") = -1)
      .def("route_request", &route_request, py::arg("encoded"), py::arg("billed_only"), py::arg("policy"),
           py::arg("allowed"), py::arg("max_tokens"), py::arg("answers"), py::arg("task_column") = -1,
           py::arg("turns") = py::tuple())
      .def("route_many", &route_many, py::arg("prompts"), py::arg("policy"))
      .def("support", &support_of, py::arg("x"))
      .def("send_unsupported", &send_unsupported, py::arg("result"), py::arg("policy"), py::arg("billed_tokens"),
           py::arg("tokens_given"), py::arg("allowed"), py::arg("max_tokens"), py::arg("answers"), py::arg("support"),
           py::arg("own_tokens") = py::none())
      .def_property_readonly("has_tokenizers",
                             [](const PyRouter& self) { return self.router.tokenizers().has_value(); })
      .def("own_tokens", &own_tokens_of, py::arg("terms"), py::arg("billed_tokens"))
      .def("decide", &decide, py::arg("x"), py::arg("policy"), py::arg("billed_tokens"),
           py::arg("tokens_out") = py::none(), py::arg("extra_usd") = py::none(), py::arg("allowed") = py::none(),
           py::arg("max_tokens") = py::none(), py::arg("answers") = py::none(), py::arg("own_tokens") = py::none(),
           py::arg("terms") = py::none());
}
