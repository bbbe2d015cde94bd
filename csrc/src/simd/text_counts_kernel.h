// The terms of a text (ipr/text_terms.h), counted in one pass over windows of 64 bytes; written once over the bytes.
// Included after one bytes_*.h.
#pragma once

#include <cstring>

#include "kernel_table.h"

namespace ipr {
namespace {

// kPairs[before][after], 0 to 255: 0 is no letter, 1 to 26 are a to z.
#include "text_counts_pairs.inc"

constexpr size_t kWindow = 64;
constexpr size_t kBlock = 16;  // code points that share a term; every script's range is a multiple of it

struct Range {
  uint32_t first, end;
  Term term;
};
// Later ranges win. A part's is one of kOther3.
constexpr Range kRanges[] = {
    {0x0080, 0x0800, Term::kOther2},
    {0x0800, 0x10000, Term::kOther3},
    {0x00C0, 0x0250, Term::kAccented},
    {0x0370, 0x0400, Term::kGreek},
    {0x0400, 0x0450, Term::kCyrillic},
    {0x0450, 0x0530, Term::kCyrillicOther},
    {0x0530, 0x0590, Term::kArmenian},
    {0x0590, 0x0600, Term::kHebrew},
    {0x0600, 0x0700, Term::kArabic},
    {0x0750, 0x0780, Term::kArabic},
    {0x0900, 0x0980, Term::kDevanagari},
    {0x0980, 0x0E00, Term::kIndic},
    {0x0E00, 0x0F00, Term::kThai},
    {0x10A0, 0x1100, Term::kGeorgian},
    {0x1100, 0x1200, Term::kHangul},
    {0x1E00, 0x1F00, Term::kLatinAdditional},
    {0x1F00, 0x2000, Term::kGreek},
    {0x2000, 0x2070, Term::kGeneralPunctuation},
    {0x3000, 0x3040, Term::kWidePunctuation},
    {0x3040, 0x3100, Term::kKana},
    {0x3400, 0xA000, Term::kHan},
    {0xAC00, 0xD7B0, Term::kHangul},
    {0xF900, 0xFB00, Term::kHan},
    {0xFB50, 0xFE00, Term::kArabic},
    {0xFE70, 0xFF00, Term::kArabic},
    {0xFF00, 0xFFF0, Term::kWidePunctuation},
    {0x2300, 0x2400, Term::kPictographs},
    {0x2600, 0x27C0, Term::kPictographs},
    {0x2B00, 0x2C00, Term::kPictographs},
    {0xFE00, 0xFE10, Term::kVariationSelectors},
};

struct Blocks {
  Term of[0x10000 / kBlock]{};
};
constexpr Blocks blocks() {
  Blocks made{};
  for (const Range& range : kRanges)
    for (size_t block = range.first / kBlock; block < range.end / kBlock; ++block) made.of[block] = range.term;
  return made;
}
constexpr Blocks kBlocks = blocks();

constexpr int kColumns = sizeof(kPairs[0]);

// 1 to 26 for a letter, 0 for anything else.
inline uint8_t letter_of(uint8_t byte) {
  const uint8_t low = byte | 0x20;
  return low >= 'a' && low <= 'z' ? static_cast<uint8_t>(low - 0x60) : 0;
}

// The bytes of a window by kind, a bit each.
struct Kinds {
  uint64_t letters = 0, capitals = 0, digits = 0, punctuation = 0, breaks = 0, controls = 0, spaces = 0;
  uint64_t leads = 0;  // first bytes of code points beyond ASCII
  uint64_t same = 0;   // bytes equal to the one before
};

// from[-1] to from[kWindow - 1] are readable. pair receives where kPairs, as one array, holds each byte with the one
// before it, in any order.
inline Kinds kinds_of(const uint8_t* from, uint16_t* pair) {
  Kinds kinds;
  for (int part = 0; part < static_cast<int>(kWindow) / kBytes; ++part) {
    const Bytes bytes = load_bytes(from + kBytes * part), before = load_bytes(from - 1 + kBytes * part);
    const auto put = [&](uint64_t& all, Bytes mask) { all |= bits(mask) << (kBytes * part); };
    const Bytes low = either(bytes, all_bytes(0x20)), low_before = either(before, all_bytes(0x20));
    const Bytes letters = within(low, 'a', 26), digits = within(bytes, '0', 10), feeds = equal(bytes, all_bytes('\n'));
    const Bytes now = both(letters, minus(low, all_bytes(0x60)));
    const Bytes last = both(within(low_before, 'a', 26), minus(low_before, all_bytes(0x60)));
    store_pairs<kColumns>(last, now, pair + kBytes * part);
    put(kinds.letters, letters);
    put(kinds.capitals, within(bytes, 'A', 26));
    put(kinds.digits, digits);
    put(kinds.punctuation, but_not(within(bytes, '!', 94), either(letters, digits)));
    put(kinds.same, equal(bytes, before));
    put(kinds.breaks, feeds);
    put(kinds.controls, but_not(within(bytes, '\t', 5), feeds));
    put(kinds.spaces, equal(bytes, all_bytes(' ')));
    put(kinds.leads, within(bytes, 0xC0, 64));
  }
  return kinds;
}

// A window's bits behind those of the window before it.
struct Bits {
  uint64_t before, now;
  // Bit i of the result is bit i - steps of the text.
  uint64_t shifted(int steps) const { return now << steps | before >> (64 - steps); }
  // Runs that start here.
  uint64_t starts() const { return now & ~shifted(1); }
};

inline uint64_t count(uint64_t bits) { return static_cast<uint64_t>(__builtin_popcountll(bits)); }

constexpr bool has_words(Term term) {
  return term == Term::kGreek || term == Term::kCyrillic || term == Term::kHebrew || term == Term::kArabic ||
         term == Term::kHangul || term == Term::kKana || term == Term::kHan;
}

class Counter {
 public:
  // sums: (kTerms), added to.
  explicit Counter(uint64_t* sums) : sums_(sums) {}

  // from[-1] to from[kWindow + 2] are readable, and from[size] to from[kWindow - 1] are 0 where size is less.
  void window(const uint8_t* from, size_t size) {
    uint16_t pair[kWindow];
    const Kinds now = kinds_of(from, pair);
    uint64_t accented = pending_;
    pending_ = 0;
    if (now.leads != 0) accented |= beyond_ascii(from, now.leads);
    at_ += size;
    words(now.letters | accented);
    if (now.letters != 0 || letter_of(from[-1]) != 0) pairs(pair);
    const Bits capitals{before_.capitals, now.capitals}, digits{before_.digits, now.digits};
    const Bits small{before_.letters & ~before_.capitals, now.letters & ~now.capitals};
    const Bits punctuation{before_.punctuation, now.punctuation}, spaces{before_.spaces, now.spaces};
    add(Term::kCapitals, now.capitals);
    add(Term::kCapitalPairs, now.capitals & capitals.shifted(1));
    add(Term::kCamel, now.capitals & small.shifted(1));
    add(Term::kDigits, now.digits);
    add(Term::kDigitRuns, digits.starts());
    add(Term::kBeyond3Digits, now.digits & digits.shifted(1) & digits.shifted(2) & digits.shifted(3));
    add(Term::kSpacedNumbers, now.digits & spaces.shifted(1));
    add(Term::kPunctuation, now.punctuation);
    add(Term::kPunctuationRuns, punctuation.starts());
    add(Term::kRepeated, now.punctuation & now.same);
    add(Term::kAfterPunctuation, now.letters & punctuation.shifted(1));
    add(Term::kLineBreaks, Bits{before_.breaks, now.breaks}.starts());
    add(Term::kControls, now.controls);
    const uint64_t again = now.spaces & spaces.shifted(1);
    add(Term::kSpaces, again);
    add(Term::kSpaceRuns, Bits{again_, again}.starts());
    const Bits same{before_.same, now.same};
    const uint64_t long_runs = now.same & same.shifted(1) & same.shifted(2) & same.shifted(3);
    if (long_runs != 0) beyond_4_same(from, now, long_runs);
    again_ = again;
    before_ = now;
  }

 private:
  void add(Term term, uint64_t bits) { sums_[static_cast<size_t>(term)] += count(bits); }

  void words(uint64_t now) {
    const Bits word{words_, now};
    add(Term::kWords, word.starts());
    const uint64_t of2 = now & word.shifted(1);
    const uint64_t of4 = of2 & Bits{of2_, of2}.shifted(2);
    const uint64_t of8 = of4 & Bits{of4_, of4}.shifted(4);
    add(Term::kBeyond4, of4 & word.shifted(4));
    add(Term::kBeyond8, of8 & word.shifted(8));
    words_ = now;
    of2_ = of2;
    of4_ = of4;
  }

  void pairs(const uint16_t* pair) {
    const uint8_t* const hardness = &kPairs[0][0];
    uint64_t sums[4]{};
    for (size_t at = 0; at < kWindow; at += 4)
      for (size_t lane = 0; lane < 4; ++lane) sums[lane] += hardness[pair[at + lane]];
    sums_[static_cast<size_t>(Term::kLetterPairs)] += (sums[0] + sums[1]) + (sums[2] + sums[3]);
  }

  // runs: bytes after four of the same.
  void beyond_4_same(const uint8_t* from, const Kinds& now, uint64_t runs) {
    add(Term::kLongPunctuation, runs & now.punctuation);
    add(Term::kLongLetters, runs & now.letters);
    add(Term::kLongControls, runs & now.controls);
    add(Term::kLongLineBreaks, runs & now.breaks);
    for (uint64_t left = runs & now.letters; left != 0; left &= left - 1) {
      const uint8_t letter = letter_of(from[__builtin_ctzll(left)]);
      sums_[static_cast<size_t>(Term::kLongLetterPairs)] += kPairs[letter][letter];
    }
  }

  // Counts the code points that start in the window, and returns which of its bytes are of accented Latin letters.
  uint64_t beyond_ascii(const uint8_t* from, uint64_t leads) {
    uint64_t accented = 0;
    while (leads != 0) {
      const size_t at = static_cast<size_t>(__builtin_ctzll(leads));
      leads &= leads - 1;
      const uint8_t* const here = from + at;
      const uint32_t lead = here[0];
      Term term = Term::kOther4;
      size_t length = 4;
      if (lead < 0xE0) {
        length = 2;
        term = kBlocks.of[(lead & 0x1F) << 2 | (here[1] >> 4 & 3)];
      } else if (lead < 0xF0) {
        length = 3;
        term = kBlocks.of[(lead & 0x0F) << 8 | (here[1] & 0x3F) << 2 | (here[2] >> 4 & 3)];
        if (term > Term::kOther4) {
          ++sums_[static_cast<size_t>(term)];
          term = Term::kOther3;
        }
      } else if (const Term part = part_of_4(here); part != Term::kOther4) {
        ++sums_[static_cast<size_t>(part)];
      }
      ++sums_[static_cast<size_t>(term)];
      if (has_words(term) && (term != last_ || at_ + at != end_)) ++sums_[static_cast<size_t>(term) + 1];
      if (term == Term::kAccented || term == Term::kLatinAdditional) {
        const uint64_t bytes = (uint64_t{1} << length) - 1;
        accented |= bytes << at;
        if (at + length > kWindow) pending_ |= bytes >> (kWindow - at);
      }
      last_ = term;
      end_ = at_ + at + length;
    }
    return accented;
  }

  // Which part of kOther4 a code point of four bytes is; kOther4 where of none.
  static Term part_of_4(const uint8_t* here) {
    if (here[0] != 0xF0) return Term::kOther4;
    if (here[1] >= 0xA0) return Term::kRareHan;
    if (here[1] == 0x9D && here[2] >= 0x90 && here[2] <= 0x9F) return Term::kStyledLetters;
    if (here[1] != 0x9F || here[2] > 0xAB) return Term::kOther4;
    if (here[2] == 0x87 && here[3] >= 0xA6) return Term::kFlagLetters;
    if (here[2] == 0x8F && here[3] >= 0xBB) return Term::kSkinTones;
    return here[2] >= 0xA4 ? Term::kLateEmoji : Term::kEmoji;
  }

  uint64_t* const sums_;
  Kinds before_;  // of the window before
  uint64_t words_ = 0, of2_ = 0, of4_ = 0, again_ = 0;
  uint64_t pending_ = 0;     // bytes of an accented letter that the window before began
  size_t at_ = 0, end_ = 0;  // bytes before the window; end of the last code point beyond ASCII
  Term last_ = Term::kOther4;
};

// Adds the terms of a text to sums (kTerms), letter pairs in 255ths.
inline void count_windows(const char* utf8, size_t bytes, uint64_t* sums) {
  constexpr size_t kAhead = 3;  // a code point that starts in a window may end behind it
  const auto* const text = reinterpret_cast<const uint8_t*>(utf8);
  uint8_t padded[1 + kWindow + kAhead];
  Counter counter(sums);
  for (size_t at = 0; at < bytes; at += kWindow) {
    const size_t left = bytes - at, size = left < kWindow ? left : kWindow;
    if (at > 0 && left >= kWindow + kAhead) {
      counter.window(text + at, size);
      continue;
    }
    std::memset(padded, 0, sizeof padded);
    if (at > 0) padded[0] = text[at - 1];
    std::memcpy(padded + 1, text + at, left < kWindow + kAhead ? left : kWindow + kAhead);
    counter.window(padded + 1, size);
  }
  if (bytes > 0 && bytes % kWindow == 0)  // the edge behind a letter that ends the text
    sums[static_cast<size_t>(Term::kLetterPairs)] += kPairs[letter_of(text[bytes - 1])][0];
}

}  // namespace
}  // namespace ipr
