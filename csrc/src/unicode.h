// What `tokenizers` does to each code point, and UTF-8 in and out. Included by wordpiece.cpp alone: the tables have
// internal linkage, and a second file would have a second copy of them.
#pragma once

#include <cstddef>
#include <cstdint>

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

struct Decoded {
  uint32_t code;
  uint32_t bytes;
};

// Of ill-formed UTF-8: some code, never a read past the end.
inline Decoded decode(const uint8_t* from, size_t left) {
  const uint32_t lead = from[0];
  if (lead < 0x80 || left < 2) return {lead, 1};
  if (lead < 0xE0) return {(lead & 0x1F) << 6 | (from[1] & 0x3Fu), 2};
  if (left < 3) return {0xFFFD, 1};
  if (lead < 0xF0) return {(lead & 0x0F) << 12 | (from[1] & 0x3Fu) << 6 | (from[2] & 0x3Fu), 3};
  if (left < 4) return {0xFFFD, 1};
  return {(lead & 0x07) << 18 | (from[1] & 0x3Fu) << 12 | (from[2] & 0x3Fu) << 6 | (from[3] & 0x3Fu), 4};
}

inline uint32_t put_utf8(uint32_t code, char* to) {
  if (code < 0x80) {
    to[0] = static_cast<char>(code);
    return 1;
  }
  if (code < 0x800) {
    to[0] = static_cast<char>(0xC0 | code >> 6);
    to[1] = static_cast<char>(0x80 | (code & 0x3F));
    return 2;
  }
  if (code < 0x10000) {
    to[0] = static_cast<char>(0xE0 | code >> 12);
    to[1] = static_cast<char>(0x80 | (code >> 6 & 0x3F));
    to[2] = static_cast<char>(0x80 | (code & 0x3F));
    return 3;
  }
  to[0] = static_cast<char>(0xF0 | code >> 18);
  to[1] = static_cast<char>(0x80 | (code >> 12 & 0x3F));
  to[2] = static_cast<char>(0x80 | (code >> 6 & 0x3F));
  to[3] = static_cast<char>(0x80 | (code & 0x3F));
  return 4;
}

}  // namespace
}  // namespace ipr
