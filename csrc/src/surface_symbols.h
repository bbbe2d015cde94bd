// A text as symbols, one byte a character: the first half of SurfaceFeatures (ipr_engine/encoders/surface_text.py).
// Included by surface_features.cpp alone: the tables have internal linkage.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <vector>

#include "full_width.h"
#include "utf8.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace ipr {
namespace {

#include "surface_tables.inc"

constexpr uint8_t kSpace = ' ', kQuote = '\'', kLetter = 1;
constexpr size_t kClasses = kClassHan + 1;

// The symbol of a class that is neither ignored, folded nor of letters.
constexpr uint8_t kSymbolOfClass[] = {2, kSpace, kQuote, 0, 3, 4, 5, 0};

inline bool within(uint32_t code, uint32_t first, uint32_t last) { return code - first <= last - first; }

// The lower case of a Latin, Greek or Cyrillic letter, where it is one letter.
inline uint32_t lowered(uint32_t code) {
  if (within(code, 0x430, 0x45F) || within(code, 0xDF, 0xFF)) return code;
  if (within(code, 0xC0, 0xDE)) return code + 32;  // 0xD7 is no letter
  if (within(code, 0x410, 0x42F) || within(code, 0x391, 0x3A1) || within(code, 0x3A3, 0x3AB)) return code + 32;
  if (within(code, 0x139, 0x148) || within(code, 0x179, 0x17E) || within(code, 0x4C1, 0x4CE)) return code + code % 2;
  if (within(code, 0x100, 0x177)) return code == 0x130 || code == 0x131 || code == 0x138 ? code : code | 1;
  if (within(code, 0x1E00, 0x1E95) || within(code, 0x1EA0, 0x1EFF)) return code | 1;
  if (within(code, 0x460, 0x481) || within(code, 0x48A, 0x4BF) || within(code, 0x4D0, 0x52F)) return code | 1;
  if (within(code, 0x400, 0x40F)) return code + 80;
  if (within(code, 0x388, 0x38A)) return code + 37;
  switch (code) {
    case 0x178:
      return 0xFF;
    case 0x386:
      return 0x3AC;
    case 0x38C:
      return 0x3CC;
    case 0x38E:
      return 0x3CD;
    case 0x38F:
      return 0x3CE;
    case 0x3C2:
      return 0x3C3;
    default:
      return code;
  }
}

// Writes what a folded character stands for; returns the end.
inline uint8_t* put_folded(uint32_t code, uint8_t* to) {
  if (is_full_width(code)) {
    *to = kAscii[ascii_of(code)];
    return to + 1;
  }
  for (const Fold& fold : kFolds) {
    if (fold.code != code) continue;
    for (const char* from = fold.to; *from; ++from) *to++ = static_cast<uint8_t>(*from);
  }
  return to;
}

// The class of each character below 0x20000, in pages of 128: a page is all of one class, or has a table.
class CharClasses {
 public:
  // What a character below 0x800 becomes: a symbol, or none (width 0), and the class that it is counted under.
  struct Short {
    uint8_t symbol, width, of;
  };

  CharClasses() : pages_(kEnd >> 7), shorts_(0x800) {
    for (uint32_t page = 0; page < kEnd >> 7; ++page) {
      uint8_t own[128];
      bool same = true;
      for (uint32_t k = 0; k < 128; ++k) {
        own[k] = searched((page << 7) + k);
        same &= own[k] == own[0];
      }
      pages_[page] = own[0];
      if (same) continue;
      pages_[page] = static_cast<uint8_t>(kClasses + tables_.size() / 128);
      tables_.insert(tables_.end(), own, own + 128);
    }
    for (uint32_t code = 0; code < 0x800; ++code) shorts_[code] = short_of(code);
  }

  const Short& of_short(uint32_t code) const { return shorts_[code]; }

  uint8_t of(uint32_t code) const { return code < kEnd ? of_page(code) : searched(code); }

  // Of a character below kEnd.
  uint8_t of_page(uint32_t code) const {
    const uint8_t page = pages_[code >> 7];
    return page < kClasses ? page : tables_[static_cast<size_t>(page - kClasses) << 7 | (code & 127)];
  }

 private:
  static constexpr uint32_t kEnd = 0x20000;

  static uint8_t searched(uint32_t code) {
    const auto after = [](uint32_t value, const Break& at) { return value < at.first; };
    const Break* const next = std::upper_bound(std::begin(kBreaks), std::end(kBreaks), code, after);
    return next == std::begin(kBreaks) ? uint8_t{kClassSymbol} : next[-1].of;
  }

  Short short_of(uint32_t code) const {
    if (code < 0x80) return {kAscii[code], 1, kClassSymbol};
    const uint8_t own = of(code);
    uint8_t symbols[4] = {kSymbolOfClass[own < kClassLatin ? own : 0]};
    if (own == kClassFolded) put_folded(code, symbols);  // to one symbol: only U+2026 is three
    if (own >= kClassLatin) symbols[0] = static_cast<uint8_t>(0x80 | (lowered(code) & 0x7F));
    return {symbols[0], own != kClassIgnored, own};
  }

  std::vector<uint8_t> pages_, tables_;
  std::vector<Short> shorts_;
};

#if defined(__SSE2__)
// 0xFF where first <= value <= first + span, unsigned.
inline __m128i in_span(__m128i values, int first, int span) {
  const __m128i from = _mm_sub_epi8(values, _mm_set1_epi8(static_cast<char>(first)));
  return _mm_cmpeq_epi8(_mm_min_epu8(from, _mm_set1_epi8(static_cast<char>(span))), from);
}

inline __m128i is_byte(__m128i values, int byte) {
  return _mm_cmpeq_epi8(values, _mm_set1_epi8(static_cast<char>(byte)));
}

// kAscii of 16 ASCII bytes; what is made of others is overwritten.
inline __m128i ascii_symbols(__m128i from) {
  const __m128i space = _mm_or_si128(in_span(from, 0x09, 4), in_span(from, 0x1C, 4));
  const __m128i control = _mm_or_si128(in_span(from, 0, 0x1F), is_byte(from, 0x7F));
  __m128i out = _mm_or_si128(from, _mm_and_si128(in_span(from, 'A', 25), _mm_set1_epi8(0x20)));
  out = _mm_or_si128(out, _mm_and_si128(is_byte(from, '"'), _mm_set1_epi8('"' ^ kQuote)));
  out = _mm_or_si128(_mm_andnot_si128(control, out), _mm_and_si128(control, _mm_set1_epi8(2)));
  return _mm_or_si128(_mm_andnot_si128(space, out), _mm_and_si128(space, _mm_set1_epi8(kSpace)));
}
#endif

// Writes the symbols of ASCII bytes up to the first other one, at most 16 of them more than there are; returns how
// many.
inline size_t put_ascii(const uint8_t* from, size_t bytes, uint8_t* to) {
  size_t done = 0;
#if defined(__SSE2__)
  for (; done + 16 <= bytes; done += 16) {
    const __m128i values = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + done));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + done), ascii_symbols(values));
    const int beyond = _mm_movemask_epi8(values);
    if (beyond) return done + static_cast<size_t>(__builtin_ctz(static_cast<unsigned>(beyond)));
  }
#endif
  for (; done < bytes && from[done] < 0x80; ++done) to[done] = kAscii[from[done]];
  return done;
}

// Writes the symbols of characters below 0x800 as long as there are some beyond ASCII; returns the bytes read.
inline size_t put_short(const CharClasses& classes, const uint8_t* from, size_t bytes, uint8_t*& to,
                        uint32_t* letters) {
  size_t at = 0;
  uint32_t plain = 0;  // since the last one beyond ASCII
  while (at + 1 < bytes && from[at] < 0xE0 && plain < 16) {
    // No branch tells one byte from two: accents come at random.
    const uint32_t two = from[at] >= 0x80;
    const uint32_t code = two ? (from[at] & 0x1Fu) << 6 | (from[at + 1] & 0x3Fu) : from[at];
    const CharClasses::Short& found = classes.of_short(code);
    *to = found.symbol;
    to += found.width;
    ++letters[found.of];
    at += 1 + two;
    plain = two ? 0 : plain + 1;
  }
  return at;
}

// Writes the symbols of letters of three bytes, of scripts without spaces, as long as there are some; returns the bytes
// read.
inline size_t put_unspaced(const CharClasses& classes, const uint8_t* from, size_t bytes, uint8_t*& to,
                           uint32_t* letters) {
  size_t at = 0;
  for (; at + 3 <= bytes && from[at] >> 4 == 0xE; at += 3) {
    const uint32_t code = (from[at] & 0x0Fu) << 12 | (from[at + 1] & 0x3Fu) << 6 | (from[at + 2] & 0x3Fu);
    const uint8_t of = classes.of_page(code);
    if (of < kClassSoutheastAsian) break;
    ++letters[of];
    *to++ = kLetter;
  }
  return at;
}

// Writes the symbols of a text, and counts its characters beyond ASCII by class, of which those of letters are whole;
// returns the end. `to` has room for as many bytes as the text has, and 16 more.
inline uint8_t* put_symbols(const CharClasses& classes, const uint8_t* from, size_t bytes, uint8_t* to,
                            uint32_t* letters) {
  size_t at = 0;
  while (at < bytes) {
    if (from[at] < 0x80) {
      const size_t plain = put_ascii(from + at, bytes - at, to);
      at += plain;
      to += plain;
      continue;
    }
    if (from[at] < 0xE0 && at + 1 < bytes) {
      at += put_short(classes, from + at, bytes - at, to, letters);
      continue;
    }
    const size_t unspaced = put_unspaced(classes, from + at, bytes - at, to, letters);
    if (unspaced) {
      at += unspaced;
      continue;
    }
    const Decoded found = decode(from + at, bytes - at);
    at += found.bytes;
    const uint8_t of = found.code < 0x80 ? static_cast<uint8_t>(kClassSymbol) : classes.of(found.code);
    if (of >= kClassSoutheastAsian) {
      ++letters[of];
      *to++ = kLetter;
    } else if (of >= kClassLatin) {
      ++letters[of];
      *to++ = static_cast<uint8_t>(0x80 | (lowered(found.code) & 0x7F));
    } else if (of == kClassFolded) {
      to = put_folded(found.code, to);
    } else if (of != kClassIgnored) {
      *to++ = kSymbolOfClass[of];
    }
  }
  return to;
}

inline bool of_language(uint8_t symbol) {
  return within(symbol, 'a', 'z') || within(symbol, '0', '9') || symbol == '+' || symbol == '#' || symbol == '.' ||
         symbol == '_' || symbol == '-';
}

// Puts spaces in the place of fences around the text, which lies between spaces.
inline void blank_fences(uint8_t* begin, uint8_t* end) {
  for (;;) {
    while (begin < end && *begin == kSpace) ++begin;
    while (begin < end && end[-1] == kSpace) --end;
    if (begin == end || (*begin != '`' && *begin != '~')) return;
    const uint8_t mark = *begin;
    uint8_t* opened = begin;
    while (opened < end && *opened == mark) ++opened;
    uint8_t* closed = end;
    while (closed > opened && closed[-1] == mark) --closed;
    const auto wide = opened - begin;
    uint8_t* inside = opened;
    while (inside < closed && of_language(*inside)) ++inside;
    if (wide < 3 || end - closed != wide || inside >= closed || *inside != kSpace || closed[-1] != kSpace) return;
    std::memset(begin, kSpace, static_cast<size_t>(inside - begin));
    std::memset(closed, kSpace, static_cast<size_t>(end - closed));
    begin = inside;
    end = closed;
  }
}

}  // namespace
}  // namespace ipr
