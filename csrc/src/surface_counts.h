// Counts over a text's symbols: the second half of SurfaceFeatures (ipr_engine/encoders/surface_reference.py).
// Included by surface_features.cpp alone: the tables have internal linkage.
//
// 64 symbols are told apart at a time, a bit each. Words come from the bits where runs begin and end; only punctuation
// is looked at one by one.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "surface_symbols.h"

namespace ipr {
namespace {

// What 64 symbols are, a bit each. numbers are part of words; closers end list markers.
struct Block {
  uint64_t words, numbers, unspaced, spaces, quotes, closers;
};

#if defined(__SSE2__)
inline uint64_t bits_of(__m128i flags) { return static_cast<uint32_t>(_mm_movemask_epi8(flags)); }

inline Block block_of(const uint8_t* from) {
  Block block{};
  for (int part = 0; part < 4; ++part) {
    const __m128i values = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + 16 * part));
    const __m128i numbers = in_span(values, '0', 9);
    const __m128i words = _mm_or_si128(_mm_or_si128(in_span(values, 'a', 25), numbers), values);  // high bits count
    const __m128i closers =
        _mm_or_si128(_mm_or_si128(is_byte(values, ')'), is_byte(values, ':')), is_byte(values, '.'));
    block.words |= bits_of(words) << 16 * part;
    block.numbers |= bits_of(numbers) << 16 * part;
    block.unspaced |= bits_of(is_byte(values, kLetter)) << 16 * part;
    block.spaces |= bits_of(is_byte(values, kSpace)) << 16 * part;
    block.quotes |= bits_of(is_byte(values, kQuote)) << 16 * part;
    block.closers |= bits_of(closers) << 16 * part;
  }
  return block;
}
#else
inline Block block_of(const uint8_t* from) {
  Block block{};
  for (int k = 0; k < 64; ++k) {
    const uint8_t symbol = from[k];
    const bool number = within(symbol, '0', '9');
    block.words |= static_cast<uint64_t>(number || within(symbol, 'a', 'z') || symbol >= 0x80) << k;
    block.numbers |= static_cast<uint64_t>(number) << k;
    block.unspaced |= static_cast<uint64_t>(symbol == kLetter) << k;
    block.spaces |= static_cast<uint64_t>(symbol == kSpace) << k;
    block.quotes |= static_cast<uint64_t>(symbol == kQuote) << k;
    block.closers |= static_cast<uint64_t>(symbol == ')' || symbol == ':' || symbol == '.') << k;
  }
  return block;
}
#endif

inline uint32_t bit_count(uint64_t bits) {
  bits -= bits >> 1 & 0x5555555555555555u;
  bits = (bits & 0x3333333333333333u) + (bits >> 2 & 0x3333333333333333u);
  return static_cast<uint32_t>(((bits + (bits >> 4)) & 0x0F0F0F0F0F0F0F0Fu) * 0x0101010101010101u >> 56);
}

inline uint32_t first_bit(uint64_t bits) { return static_cast<uint32_t>(__builtin_ctzll(bits)); }

// Where kinds of neighbours stand in kContexts.
enum Kind : uint8_t { kAtSpace, kAtLetter, kAtDigit, kAtSame, kAtOther };

struct SymbolTable {
  std::array<uint8_t, 256> kind{}, place{};

  SymbolTable() {
    kind.fill(kAtOther);
    place.fill(static_cast<uint8_t>(kSymbolCount));
    for (int k = 0x80; k < 256; ++k) kind[k] = kAtLetter;
    for (int k = 'a'; k <= 'z'; ++k) kind[k] = kAtLetter;
    for (int k = '0'; k <= '9'; ++k) kind[k] = kAtDigit;
    kind[kLetter] = kAtLetter;
    kind[kSpace] = kAtSpace;
    for (size_t k = 0; k < kSymbolCount; ++k) place[kPlaced[k]] = static_cast<uint8_t>(k);
  }
};

// What list markers tell.
struct Markers {
  uint32_t letters = 0, numbers = 0, first = 0, last = 0, numeric = 0;
};

// Finds list markers and puts spaces in their place. The text lies between spaces.
class MarkerReader {
 public:
  MarkerReader(const uint8_t* begin, const uint8_t* end) : end_(end), counted_to_(begin) {}

  // Takes the marker that ends with the closer at `at`, if there is one.
  void read(uint8_t* at) {
    if (at[1] != kSpace) return;
    const uint8_t mark = at[-1];
    uint8_t* begin = at - 1;
    uint32_t value = mark;
    const bool letter = within(mark, 'a', 'j');
    if (!letter) {
      if (!within(mark, '0', '9') || *at == ':') return;
      value = mark - '0';
      if (within(begin[-1], '0', '9')) value += 10u * static_cast<uint32_t>(*--begin - '0');
      if (*begin == '0') return;
    }
    if (*at == ')' && begin[-1] == '(') --begin;
    if (begin[-1] != kSpace) return;
    uint32_t& due = letter ? due_letter_ : due_number_;
    if (value > due) return;
    due = std::max(due, value + 1);
    if (letter) {
      close();
      opened_ = at + 1;
      for (; counted_to_ < begin; ++counted_to_) counted_ += *counted_to_ != kSpace && *counted_to_ != kQuote;
      found_.last = counted_;
      if (found_.letters == 0) found_.first = counted_;
      ++found_.letters;
    } else {
      ++found_.numbers;
    }
    std::memset(begin, kSpace, static_cast<size_t>(at + 1 - begin));
  }

  // Reads what follows the last letter; once, after all markers.
  Markers finish() {
    close();
    return found_;
  }

 private:
  void close() {
    if (opened_ == nullptr) return;
    const uint8_t* at = opened_;
    while (at < end_ && (*at == kSpace || *at == kQuote)) ++at;
    at += *at == '-' || *at == '$';
    found_.numeric += within(*at, '0', '9');
  }

  const uint8_t* end_;
  const uint8_t* counted_to_;
  const uint8_t* opened_ = nullptr;
  uint32_t counted_ = 0, due_letter_ = 'a', due_number_ = 1;
  Markers found_;
};

inline Markers take_markers(uint8_t* begin, const uint8_t* end) {
  MarkerReader reader(begin, end);
  uint64_t word_before = 0, letters_before = 0;  // of the block before, at its end
  for (uint8_t* at = begin; at < end; at += 64) {
    const Block block = block_of(at);
    const uint64_t letters = block.words & ~block.numbers;
    // A marker is one letter or two digits: a letter two places before a closer is in a longer word.
    uint64_t may = block.closers & (block.words << 1 | word_before) & ~(letters << 2 | letters_before) &
                   (block.spaces >> 1 | 1ull << 63);
    word_before = block.words >> 63;
    letters_before = letters >> 62;
    for (; may; may &= may - 1) reader.read(at + first_bit(may));
  }
  return reader.finish();
}

}  // namespace
}  // namespace ipr
