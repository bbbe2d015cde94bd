// Some bytes of a text in C++ for any CPU, sixteen at a time. This file is the meaning of every operation; bytes_avx2.h
// gives the same. A mask is bytes too: 0xFF is true, 0 is false. Like the lanes, all is in an anonymous namespace.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace ipr {
namespace {

constexpr int kBytes = 16;
using Bytes = uint8_t __attribute__((vector_size(kBytes)));

inline Bytes all_bytes(uint8_t value) { return Bytes{} + value; }
inline Bytes load_bytes(const uint8_t* p) {
  Bytes out;
  std::memcpy(&out, p, sizeof out);
  return out;
}
inline void store_bytes(char* p, Bytes a) { std::memcpy(p, &a, sizeof a); }
inline Bytes either(Bytes a, Bytes b) { return a | b; }
inline Bytes both(Bytes a, Bytes b) { return a & b; }
inline Bytes but_not(Bytes a, Bytes b) { return a & ~b; }
inline Bytes minus(Bytes a, Bytes b) { return a - b; }
inline Bytes equal(Bytes a, Bytes b) { return (Bytes)(a == b); }
// Where a byte is one of the `count` from `first` on.
inline Bytes within(Bytes a, uint8_t first, uint8_t count) {
  return (Bytes)(a - first <= all_bytes(static_cast<uint8_t>(count - 1)));
}
// Bit i is byte i of a mask.
inline uint64_t bits(Bytes mask) {
#if defined(__SSE2__)
  return static_cast<uint32_t>(_mm_movemask_epi8((__m128i)mask));
#else
  uint64_t out = 0;
  for (int i = 0; i < kBytes; ++i) out |= static_cast<uint64_t>(mask[i] & 1) << i;
  return out;
#endif
}
// to (kBytes): kColumns * row + column of each byte, in any order.
template <int kColumns>
inline void store_pairs(Bytes row, Bytes column, uint16_t* to) {
  using Half8 = uint8_t __attribute__((vector_size(8)));
  using Wide = uint16_t __attribute__((vector_size(16)));
  Half8 rows[2], columns[2];
  std::memcpy(rows, &row, sizeof row);
  std::memcpy(columns, &column, sizeof column);
  for (int half = 0; half < 2; ++half) {
    const Wide pairs = __builtin_convertvector(rows[half], Wide) * static_cast<uint16_t>(kColumns) +
                       __builtin_convertvector(columns[half], Wide);
    std::memcpy(to + 8 * half, &pairs, sizeof pairs);
  }
}

}  // namespace
}  // namespace ipr
