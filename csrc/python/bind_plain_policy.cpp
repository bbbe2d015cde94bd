// PlainPolicy for Python: from a request of text to the JSON of its decision, in one call. It decides what one policy
// and the request's texts tell alone; whatever else may have a say, it leaves to ipr_engine.
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "bind_result.h"
#include "bind_router.h"
#include "plain_request.h"
#include "row_json.h"

namespace ipr {
namespace {

namespace py = pybind11;

// Where a request stands above one of these, it may be kept from a candidate that the policy allows.
struct PlainBounds {
  double billed, own;     // tokens of its prompt, by the bundle's tokenizer and by any candidate's own: below it
  double window;          // of the prompt and of the answer that it states: at most
  long long most_stated;  // output tokens that it states: at most
  Py_ssize_t characters;  // of its texts: at most
};

class PlainPolicy {
 public:
  // words: as decision_json takes it. rest: keys and values from "excluded" on, with the brace behind them. best:
  // position of the candidate that savings are counted against; -1: they are not known.
  PlainPolicy(py::object policy, py::tuple words, std::string rest, int64_t best, PlainBounds bounds)
      : policy_(std::move(policy)), words_(std::move(words)), rest_(std::move(rest)), best_(best), bounds_(bounds) {
    compiled_ = policy_of(policy_.ptr());
    if (!compiled_ || !taken_.take(words_.ptr(), compiled_->models())) throw py::error_already_set();
    IPR_CHECK(best >= -1 && best < compiled_->models(), "best: expected -1 to ", compiled_->models() - 1, ", got ",
              best);
  }

  // (JSON as bytes, facts as of Router.route_one, the output tokens that are stated or None); None where more than this
  // policy decides. The id of the decision is the prefix, letters and digits, and the number in at least 8 hexadecimal
  // digits.
  py::object route(const PyRouter& router, py::handle request, std::string_view prefix, uint64_t number) const {
    IPR_CHECK(router.router.plan().models() == compiled_->models(), "router: expected one of ", compiled_->models(),
              " models, got ", router.router.plan().models());
    IPR_CHECK(std::all_of(prefix.begin(), prefix.end(), [](unsigned char one) { return std::isalnum(one); }),
              "prefix: expected letters and digits");
    PlainRequest plain;
    if (!PyDict_CheckExact(request.ptr()) || !plain.read(request.ptr(), bounds_.most_stated) ||
        plain.characters() > bounds_.characters)
      return py::none();
    const RoutedAlone made = routed(router, plain);
    const int64_t stated = stated_by(plain);
    if (*made.row.status != Status::ok || *made.row.cause == Cause::unsupported || may_keep_out(made, stated))
      return py::none();
    thread_local std::string text;
    text.clear();
    write(text, made, prefix, number);
    return py::make_tuple(py::bytes(text), made.facts(),
                          stated < 0 ? py::none() : py::reinterpret_borrow<py::object>(plain.limit()));
  }

 private:
  static int64_t stated_by(const PlainRequest& plain) { return plain.limit() ? PyLong_AsLongLong(plain.limit()) : -1; }

  RoutedAlone routed(const PyRouter& router, const PlainRequest& plain) const {
    const auto steal = [](PyObject* object) {
      if (!object) throw py::error_already_set();
      return py::reinterpret_steal<py::object>(object);
    };
    const py::object encoded = steal(plain.encoded());
    const Utf8 text = utf8_of(encoded, "encoded");
    const BorrowedTexts beside(plain.other(), "billed_only");
    const bool apart = plain.user().size() > 1 && router.router.conversation() != Conversation::kAll;
    const BorrowedTexts turns(apart ? plain.user() : std::vector<PyObject*>(), "turns");
    const int64_t stated = stated_by(plain), answers = 1;
    return route_alone(router, *compiled_, {{&text.data, &text.bytes, 1}, beside.texts(), nullptr, turns.texts()},
                       {nullptr, &stated, &answers}, text.bytes + beside.bytes());
  }

  // As ResultRow.may_keep_out has it; tests/server/test_plain_policy.py holds the two together.
  bool may_keep_out(const RoutedAlone& made, int64_t stated) const {
    const char* const own = made.own_data();
    if (!own) return stated >= 0 || !(static_cast<double>(made.billed) < bounds_.billed);
    const auto most = static_cast<double>(largest_of(own, compiled_->models()));
    return stated < 0 ? !(most < bounds_.own) : !(most + static_cast<double>(stated) <= bounds_.window);
  }

  void write(std::string& to, const RoutedAlone& made, std::string_view prefix, uint64_t number) const {
    char digits[16];
    const size_t count = static_cast<size_t>(std::to_chars(digits, digits + sizeof digits, number, 16).ptr - digits);
    to += "{\"id\":\"";
    to += prefix;
    to.append(count < 8 ? 8 - count : 0, '0');
    to.append(digits, count);
    to += "\",";
    add_row(to, made.row, *compiled_, taken_,
            {made.billed, made.truncated, made.has_support, static_cast<double>(made.support), made.own_data()});
    to += ",\"saved_usd\":";
    const float* const cost = made.row.cost_usd;
    add_number(to, best_ < 0 ? std::numeric_limits<double>::quiet_NaN()
                             : static_cast<double>(cost[best_]) - static_cast<double>(cost[*made.row.index]));
    to += ",\"assumed_tokens\":0,";
    to += rest_;
  }

  py::object policy_;
  py::tuple words_;  // what taken_ points into
  std::string rest_;
  int64_t best_;
  PlainBounds bounds_;
  const DecidePolicy* compiled_;
  Words taken_;
};

// has_header(headers, names, prefix): headers is a list of (name, value), bytes; prefix None: none.
PyObject* has_header(PyObject*, PyObject* const* args, Py_ssize_t count) {
  const auto view = [](PyObject* bytes) {
    return std::string_view(PyBytes_AS_STRING(bytes), static_cast<size_t>(PyBytes_GET_SIZE(bytes)));
  };
  const auto wrong = [] {
    return PyErr_Format(PyExc_TypeError, "expected has_header(list of pairs of bytes, tuple of bytes, bytes or None)");
  };
  if (count != 3 || !PyList_Check(args[0]) || !PyTuple_Check(args[1])) return wrong();
  if (args[2] != Py_None && !PyBytes_Check(args[2])) return wrong();
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(args[1]); ++i)
    if (!PyBytes_Check(PyTuple_GET_ITEM(args[1], i))) return wrong();
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(args[0]); ++i) {
    PyObject* const header = PyList_GET_ITEM(args[0], i);  // a tuple, or of some servers a list
    if (!(PyTuple_Check(header) || PyList_Check(header)) || PySequence_Fast_GET_SIZE(header) != 2 ||
        !PyBytes_Check(PySequence_Fast_GET_ITEM(header, 0)))
      return wrong();
    const std::string_view name = view(PySequence_Fast_GET_ITEM(header, 0));
    if (args[2] != Py_None && name.substr(0, view(args[2]).size()) == view(args[2])) Py_RETURN_TRUE;
    for (Py_ssize_t j = 0; j < PyTuple_GET_SIZE(args[1]); ++j)
      if (name == view(PyTuple_GET_ITEM(args[1], j))) Py_RETURN_TRUE;
  }
  Py_RETURN_FALSE;
}

}  // namespace
}  // namespace ipr

void bind_plain_policy(pybind11::module_& m) {
  using namespace ipr;
  py::class_<PlainPolicy>(m, "PlainPolicy", py::is_final())
      .def(py::init([](py::object policy, py::tuple words, const py::bytes& rest, int64_t best, double billed,
                       double own, double window, long long most_stated, Py_ssize_t characters) {
             return PlainPolicy(std::move(policy), std::move(words), std::string(rest), best,
                                {billed, own, window, most_stated, characters});
           }),
           py::arg("policy"), py::arg("words"), py::arg("rest"), py::arg("best"), py::arg("billed"), py::arg("own"),
           py::arg("window"), py::arg("most_stated"), py::arg("characters"))
      .def("route", &PlainPolicy::route, py::arg("router"), py::arg("request"), py::arg("prefix"), py::arg("number"));
  static PyMethodDef named{"has_header", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(has_header)),
                           METH_FASTCALL, "has_header(headers, names, prefix) -> bool"};
  m.attr("has_header") = py::reinterpret_steal<py::object>(PyCFunction_New(&named, nullptr));
}
