// What Python holds of a router, and one prompt on it.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <string>
#include <vector>

#include "bind_result.h"
#include "borrowed_texts.h"
#include "ipr/router.h"
#include "py_text.h"

namespace ipr {

namespace py = pybind11;

// A plan and an encoder are kept alive by the router that borrows them.
struct PyRouter {
  py::object plan, encoder;
  Router router;
};

// What is known of one prompt that was decided alone.
struct RoutedAlone {
  py::object result;  // a DecideResult
  Results row;        // of it
  py::object own;     // own tokens, (models,) float32 as bytes: making an array would take a tenth of the call; or None
  int64_t billed;
  bool truncated, has_support;
  float support;

  // Of `own`; null where that is None.
  const char* own_data() const { return own.is_none() ? nullptr : PyBytes_AS_STRING(own.ptr()); }

  // (DecideResult, billed_tokens, truncated, support or None, own)
  py::tuple facts() const {
    return py::make_tuple(result, billed, truncated, has_support ? py::object(py::float_(support)) : py::none(), own);
  }
};

// Room for what is told of one prompt; facts points into it, and stays valid while neither is moved.
inline void make_room(const PyRouter& self, RoutedAlone& made, Facts& facts) {
  made.has_support = self.router.support().has_value();
  made.result = new_decide_result(1, self.router.plan().models(), made.row);
  float* own = nullptr;
  if (self.router.tokenizers()) {
    made.own = py::reinterpret_steal<py::object>(
        PyBytes_FromStringAndSize(nullptr, self.router.plan().models() * static_cast<py::ssize_t>(sizeof(float))));
    if (!made.own) throw py::error_already_set();
    own = reinterpret_cast<float*>(PyBytes_AS_STRING(made.own.ptr()));
  }
  facts = {&made.billed, &made.truncated, made.has_support ? &made.support : nullptr, own};
}

// Routes a batch of one, of `bytes` in all. Throws InvalidInput as Router::route does.
inline RoutedAlone route_alone(const PyRouter& self, const DecidePolicy& policy, const Prompts& prompts,
                               const RequestLimits& limits, size_t bytes) {
  RoutedAlone made{{}, {}, py::none(), 0, false, false, 0};
  Facts facts{};
  make_room(self, made, facts);
  run_released(bytes, [&] { self.router.route(policy, prompts, limits, made.row, facts); });
  return made;
}

// The texts of several prompts, borrowed from a list of str that may change once the GIL is given up.
class ListedTexts {
 public:
  // Throws InvalidInput, naming the prompt.
  explicit ListedTexts(const py::list& prompts) : held_(prompts), utf8_(held_.size()), sizes_(held_.size()) {
    for (size_t row = 0; row < held_.size(); ++row) {
      const Utf8 text = utf8_of(held_[row], "prompts[" + std::to_string(row) + "]");
      utf8_[row] = text.data;
      sizes_[row] = text.bytes;
      bytes_ += text.bytes;
    }
  }

  int64_t count() const { return static_cast<int64_t>(sizes_.size()); }
  Prompts prompts() const { return {{utf8_.data(), sizes_.data(), count()}, nullptr}; }
  size_t bytes() const { return bytes_; }

 private:
  py::tuple held_;
  std::vector<const char*> utf8_;
  std::vector<size_t> sizes_;
  size_t bytes_ = 0;
};

// What is known of several prompts, each (batch,); own tokens (batch, models).
struct RoutedMany {
  Results rows{};
  py::object result;
  py::array_t<int64_t> billed;
  py::array_t<bool> truncated;
  std::optional<py::array_t<float>> support, own;

  RoutedMany(const PyRouter& self, int64_t batch)
      : result(new_decide_result(batch, self.router.plan().models(), rows)), billed(batch), truncated(batch) {
    if (self.router.support()) support.emplace(batch);
    if (self.router.tokenizers())
      own.emplace(std::vector<py::ssize_t>{static_cast<py::ssize_t>(batch),
                                           static_cast<py::ssize_t>(self.router.plan().models())});
  }

  Facts facts() {
    return {billed.mutable_data(), truncated.mutable_data(), support ? support->mutable_data() : nullptr,
            own ? own->mutable_data() : nullptr};
  }

  // (DecideResult, billed_tokens int64, truncated bool, support float32 or None, own_tokens float32 or None)
  py::tuple told() const { return py::make_tuple(result, billed, truncated, support, own); }
};

// The texts and limits of one request of several texts, borrowed from what Python gave; not to be moved.
class AskedTexts {
 public:
  // allowed: (models,) as bytes, or None; max_tokens: -1 where none is stated; turns: what `encoded` joins, or nothing.
  // Throws InvalidInput, naming an argument.
  AskedTexts(py::handle encoded, const py::tuple& billed_only, py::handle allowed, int64_t max_tokens, int64_t answers,
             int64_t models, const py::tuple& turns = py::tuple())
      : encoded_(utf8_of(encoded, "encoded")),
        max_tokens_(max_tokens),
        answers_(answers),
        beside_(billed_only, "billed_only"),
        turns_(turns, "turns") {
    IPR_CHECK(answers >= 1, "answers: expected at least 1, got ", answers);
    if (allowed.is_none()) return;
    IPR_CHECK(PyBytes_Check(allowed.ptr()) && PyBytes_GET_SIZE(allowed.ptr()) == models, "allowed: expected ", models,
              " bytes or None, got ", Py_TYPE(allowed.ptr())->tp_name);
    allowed_ = reinterpret_cast<const uint8_t*>(PyBytes_AS_STRING(allowed.ptr()));
  }
  AskedTexts(const AskedTexts&) = delete;
  AskedTexts& operator=(const AskedTexts&) = delete;

  Prompts prompts() const { return {{&encoded_.data, &encoded_.bytes, 1}, beside_.texts(), nullptr, turns_.texts()}; }
  RequestLimits limits() const { return {allowed_, &max_tokens_, &answers_}; }
  size_t bytes() const { return encoded_.bytes + beside_.bytes(); }

 private:
  Utf8 encoded_;
  int64_t max_tokens_, answers_;
  BorrowedTexts beside_, turns_;
  const uint8_t* allowed_ = nullptr;
};

}  // namespace ipr
