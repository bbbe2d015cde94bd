// Memory as kernels want it: 64-byte aligned, rows padded with zeros to a multiple of 16 floats.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <new>

#include "simd/kernel_table.h"

namespace ipr {

// `count` zeroed elements on a 64-byte boundary; owns them.
template <class T>
class AlignedArray {
 public:
  AlignedArray() = default;
  explicit AlignedArray(int64_t count) : data_(static_cast<T*>(::operator new(bytes(count), std::align_val_t{64}))) {
    std::memset(data_.get(), 0, bytes(count));
  }
  T* get() const { return data_.get(); }

 private:
  struct Free {
    void operator()(T* p) const { ::operator delete(p, std::align_val_t{64}); }
  };
  static size_t bytes(int64_t count) { return static_cast<size_t>(count) * sizeof(T); }
  std::unique_ptr<T, Free> data_;
};

// Copies (rows, dim) into `to`, whose rows are round_up_16(dim) long.
inline void copy_rows(const float* from, int64_t rows, int64_t dim, float* to) {
  for (int64_t row = 0; row < rows; ++row)
    std::memcpy(to + row * round_up_16(dim), from + row * dim, static_cast<size_t>(dim) * sizeof(float));
}

// A matrix (rows, dim) that dot16 can read; owns its packed copy.
class PackedMatrix {
 public:
  PackedMatrix(const float* data, int64_t rows, int64_t dim)
      : memory_(rows * round_up_16(dim)), view_{memory_.get(), rows, dim, round_up_16(dim)} {
    copy_rows(data, rows, dim, memory_.get());
  }
  const PackedRows& view() const { return view_; }

 private:
  AlignedArray<float> memory_;
  PackedRows view_;
};

}  // namespace ipr
