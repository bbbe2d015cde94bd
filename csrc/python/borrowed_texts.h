// Several Python strings as UTF-8 texts.
#pragma once

#include <pybind11/pybind11.h>

#include <vector>

#include "ipr/static_encoder.h"
#include "py_text.h"

namespace ipr {

namespace py = pybind11;

// Texts borrowed from strs that outlive it; not to be moved.
class BorrowedTexts {
 public:
  // Throws InvalidInput, naming the argument.
  template <class Strs>
  BorrowedTexts(const Strs& strs, const char* argument) {
    for (const py::handle one : strs) {
      const Utf8 text = utf8_of(one, argument);
      utf8_.push_back(text.data);
      sizes_.push_back(text.bytes);
      bytes_ += text.bytes;
    }
    texts_ = {utf8_.data(), sizes_.data(), static_cast<int64_t>(utf8_.size())};
  }
  BorrowedTexts(const BorrowedTexts&) = delete;
  BorrowedTexts& operator=(const BorrowedTexts&) = delete;

  const Texts* texts() const { return &texts_; }
  size_t bytes() const { return bytes_; }

 private:
  std::vector<const char*> utf8_;
  std::vector<size_t> sizes_;
  size_t bytes_ = 0;
  Texts texts_{};
};

}  // namespace ipr
