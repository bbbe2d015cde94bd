// What `tokenizers` does to each code point. Included by wordpiece.cpp alone: the tables have internal linkage, and a
// second file would have a second copy of them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "utf8.h"

namespace ipr {
namespace {

// What the library does to one code point, as probed by make_unicode_tables.py.
struct Record {
  uint8_t flags;
  uint8_t rank;                               // of its canonical combining class; 0: a starter, NFD never moves it
  uint8_t decomposed_length, lowered_length;  // in code points; 0: unchanged
  uint16_t decomposed, lowered;               // into kPool
};

#include "unicode_tables.inc"

constexpr uint8_t kWhitespace = 1, kCleaned = 2, kChinese = 4, kPunctuation = 8, kNonspacing = 16, kHangulSyllable = 32;

inline uint32_t record_index(uint32_t code) {
  code = code <= 0x10FFFF ? code : 0xFFFD;  // only ill-formed UTF-8 gets there
  return kStage2[(kStage1[code >> kBlockBits] << kBlockBits) + (code & ((1u << kBlockBits) - 1))];
}
inline const Record& record_of(uint32_t code) { return kRecords[record_index(code)]; }

}  // namespace
}  // namespace ipr
