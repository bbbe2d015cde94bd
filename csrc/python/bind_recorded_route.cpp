// RecordedRoute for Python: texts to decisions through recordings, in one call. Router, tokenizer and buffers are kept
// alive by the route that borrows them.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bind_arrays.h"
#include "bind_result.h"
#include "bind_router.h"
#include "ipr/graph_replays.h"
#include "ipr/recorded_route.h"

namespace ipr {
namespace {

namespace py = pybind11;

// Passes that are callables of Python's, which do the work and return when it is done.
class PythonReplays : public Replays {
 public:
  void start(const RecordedPass& pass) const override { py::handle(static_cast<PyObject*>(pass.exec))(); }
  void wait(const RecordedPass& pass) const override {
    if (!landed(pass)) fail_pass(pass, 0);
  }
};

struct PyRecordedRoute {
  py::object router, tokenizer;
  py::list buffers;
  const PyRouter* on;
  std::optional<GraphReplays> graphs;  // absent where passes are callables
  PythonReplays callables;
  RecordedRoute route;

  // Runs `work`, which takes the replays; without the GIL where that is not needed.
  template <class Work>
  void run(Work&& work) const {
    if (!graphs) return work(static_cast<const Replays&>(callables));
    py::gil_scoped_release released;
    work(static_cast<const Replays&>(*graphs));
  }
};

void* address(py::handle number) { return reinterpret_cast<void*>(number.cast<uintptr_t>()); }

// A function of this address; null where there is none by this name.
template <class Function>
void take_function(const py::dict& calls, const char* name, Function*& to) {
  IPR_CHECK(calls.contains(name), "calls: expected the address of ", name);
  to = reinterpret_cast<Function*>(calls[name].cast<uintptr_t>());
  IPR_CHECK(to != nullptr, "calls: expected an address of ", name, ", got 0");
}

CudaCalls calls_of(const py::dict& calls) {
  CudaCalls to{};
  take_function(calls, "cuGraphLaunch", to.graph_launch);
  take_function(calls, "cuStreamQuery", to.stream_query);
  take_function(calls, "cuCtxGetCurrent", to.ctx_get_current);
  take_function(calls, "cuCtxPushCurrent_v2", to.ctx_push_current);
  take_function(calls, "cuCtxPopCurrent_v2", to.ctx_pop_current);
  return to;
}

// The array `name` of a pass, writable.
template <class T>
T* buffer(const py::dict& pass, const char* name, std::vector<py::ssize_t> shape) {
  IPR_CHECK(pass.contains(name), "passes: expected an array ", name);
  const py::object array = pass[name];
  T* const data = const_cast<T*>(array_data<T>(array, name, "passes' shape", std::move(shape)));
  IPR_CHECK(py::reinterpret_borrow<py::array>(array).writeable(), name, ": expected a writable array");
  return data;
}

RecordedPass pass_of(const py::dict& pass, py::ssize_t models, py::ssize_t dim, bool with_callables) {
  IPR_CHECK(pass.contains("ids") && py::isinstance<py::array>(pass["ids"]), "passes: expected an array ids");
  const auto ids = py::reinterpret_borrow<py::array>(pass["ids"]);
  IPR_CHECK(ids.ndim() == 2, "ids: expected (batch, tokens) int32 or int64, got ", describe(ids));
  const py::ssize_t batch = ids.shape(0), tokens = ids.shape(1);
  RecordedPass to{};
  to.batch = batch;
  to.tokens = tokens;
  to.wide = ids.itemsize() == sizeof(int64_t);
  const auto integers = [&](const char* name) -> void* {
    if (to.wide) return buffer<int64_t>(pass, name, {batch, tokens});
    return buffer<int32_t>(pass, name, {batch, tokens});
  };
  to.ids = integers("ids");
  to.mask = pass.contains("mask") ? integers("mask") : nullptr;
  to.lengths = buffer<int32_t>(pass, "lengths", {batch});
  to.policy_of_row = buffer<int32_t>(pass, "policy_of_row", {batch});
  to.billed_tokens = buffer<float>(pass, "billed_tokens", {batch, models});
  to.tokens_out = buffer<float>(pass, "tokens_out", {batch, models});
  to.extra_usd = buffer<float>(pass, "extra_usd", {batch, models});
  to.allowed = buffer<uint8_t>(pass, "allowed", {batch, models});
  to.sequence = buffer<int32_t>(pass, "sequence", {1});
  to.done = buffer<int32_t>(pass, "done", {1});
  const py::dict answers = pass["answers"];
  to.answers = {buffer<float>(answers, "quality", {batch, models}),
                buffer<float>(answers, "tokens_out", {batch, models}),
                buffer<float>(answers, "cost_usd", {batch, models}),
                buffer<float>(answers, "threshold", {batch}),
                buffer<float>(answers, "gap", {batch}),
                buffer<int32_t>(answers, "index", {batch}),
                reinterpret_cast<Status*>(buffer<uint8_t>(answers, "status", {batch})),
                reinterpret_cast<Cause*>(buffer<uint8_t>(answers, "cause", {batch}))};
  to.x = buffer<float>(pass, "x", {batch, dim});
  IPR_CHECK(pass.contains("replay"), "passes: expected replay, a callable or the address of a graph");
  const py::object replay = pass["replay"];
  if (with_callables) {
    IPR_CHECK(PyCallable_Check(replay.ptr()), "replay: expected a callable where no calls are given");
    to.exec = replay.ptr();  // kept alive with the buffers
  } else {
    to.exec = address(replay);
    IPR_CHECK(to.exec != nullptr, "replay: expected the address of a graph, got 0");
  }
  return to;
}

std::unique_ptr<PyRecordedRoute> make_recorded_route(const py::object& router, const py::object& tokenizer,
                                                     std::vector<int64_t> before, std::vector<int64_t> after,
                                                     int64_t max_tokens, int64_t pad_id, const py::list& passes,
                                                     const std::optional<py::dict>& calls, uintptr_t context,
                                                     uintptr_t stream) {
  const auto& on = router.cast<const PyRouter&>();
  const auto models = static_cast<py::ssize_t>(on.router.plan().models());
  const auto dim = static_cast<py::ssize_t>(on.router.plan().dim());
  std::vector<RecordedPass> native;
  for (const py::handle pass : passes) native.push_back(pass_of(pass.cast<py::dict>(), models, dim, !calls));
  std::optional<GraphReplays> replays;
  if (calls) replays.emplace(calls_of(*calls), reinterpret_cast<void*>(context), reinterpret_cast<void*>(stream));
  return std::unique_ptr<PyRecordedRoute>(
      new PyRecordedRoute{router, tokenizer, py::list(passes), &on, std::move(replays), PythonReplays(),
                          RecordedRoute(on.router, tokenizer.cast<const WordPiece&>(),
                                        {std::move(before), std::move(after), max_tokens, pad_id}, std::move(native))});
}

// Replays every pass once, whatever stands in its buffers.
void replay_each(const PyRecordedRoute& self) {
  self.run([&](const Replays& replays) {
    for (const RecordedPass& pass : self.route.passes()) {
      begin(pass);
      replays.start(pass);
      replays.wait(pass);
    }
  });
}

py::tuple routed(const PyRecordedRoute& self, const DecidePolicy& policy, int32_t policy_row, const Prompts& prompts,
                 const RequestLimits& limits) {
  RoutedAlone made{{}, {}, py::none(), 0, false, false, 0};
  Facts facts{};
  make_room(*self.on, made, facts);
  self.run(
      [&](const Replays& replays) { self.route.route(policy, policy_row, prompts, limits, replays, made.row, facts); });
  return made.facts();
}

py::tuple route_one(const PyRecordedRoute& self, py::handle prompt, const DecidePolicy& policy, int32_t policy_row) {
  const Utf8 text = utf8_of(prompt, "prompt");
  return routed(self, policy, policy_row, {{&text.data, &text.bytes, 1}, nullptr}, {nullptr, nullptr, nullptr});
}

py::tuple route_request(const PyRecordedRoute& self, py::handle encoded, const py::tuple& billed_only,
                        const DecidePolicy& policy, int32_t policy_row, py::handle allowed, int64_t max_tokens,
                        int64_t answers) {
  const AskedTexts asked(encoded, billed_only, allowed, max_tokens, answers, self.on->router.plan().models());
  return routed(self, policy, policy_row, asked.prompts(), asked.limits());
}

py::tuple route_many(const PyRecordedRoute& self, const py::list& prompts, const DecidePolicy& policy,
                     int32_t policy_row) {
  const ListedTexts texts(prompts);
  RoutedMany made(*self.on, texts.count());
  const Facts facts = made.facts();
  self.run([&](const Replays& replays) {
    self.route.route(policy, policy_row, texts.prompts(), {nullptr, nullptr, nullptr}, replays, made.rows, facts);
  });
  return made.told();
}

}  // namespace
}  // namespace ipr

void bind_recorded_route(pybind11::module_& m) {
  using namespace ipr;
  py::class_<PyRecordedRoute>(m, "RecordedRoute", py::is_final())
      .def(py::init(&make_recorded_route), py::arg("router"), py::arg("tokenizer"), py::kw_only(), py::arg("before"),
           py::arg("after"), py::arg("max_tokens"), py::arg("pad_id"), py::arg("passes"), py::arg("calls") = py::none(),
           py::arg("context") = 0, py::arg("stream") = 0)
      .def("replay_each", &replay_each)
      .def("route_one", &route_one, py::arg("prompt"), py::arg("policy"), py::arg("policy_row"))
      .def("route_request", &route_request, py::arg("encoded"), py::arg("billed_only"), py::arg("policy"),
           py::arg("policy_row"), py::arg("allowed"), py::arg("max_tokens"), py::arg("answers"))
      .def("route_many", &route_many, py::arg("prompts"), py::arg("policy"), py::arg("policy_row"));
}
