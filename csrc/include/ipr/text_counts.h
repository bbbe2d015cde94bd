// What a text is made of, counted: the terms of which an LLM's own tokens are estimated (docs/tokens.md).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace ipr {

// Each term is counted over the text's bytes or code points in one pass. A "word" is a run of Latin letters, accented
// ones included; its length is in bytes of UTF-8. A word of
// another script is a run of its letters. Coefficients in bundles name these terms, so a term never changes its
// meaning: another definition is another name.
enum class Term : uint8_t {
  kWords,
  kLetterPairs,   // sum over adjacent ASCII letters, case ignored, of how hard the pair is to tokenize, 0 to 1 each;
                  // a word's edge is one of a pair (text_counts_pairs.inc)
  kBeyond4,       // bytes of words beyond the fourth
  kBeyond8,       // bytes of words beyond the eighth
  kCapitals,      // A to Z
  kCapitalPairs,  // A to Z after another
  kCamel,         // A to Z after a to z
  kDigits,
  kDigitRuns,
  kBeyond3Digits,  // digits of a run beyond the third
  kSpacedNumbers,  // digits after a space
  kPunctuation,    // printable ASCII that is no letter, digit or space
  kPunctuationRuns,
  kRepeated,          // punctuation after the very same character
  kAfterPunctuation,  // ASCII letters after punctuation
  kLineBreaks,        // runs of line feeds
  kControls,          // tabs, carriage returns, form feeds
  kSpaces,            // spaces after another space
  kSpaceRuns,         // runs of two spaces or more
  kAccented,          // U+00C0 to U+024F
  kLatinAdditional,   // U+1E00 to U+1EFF, Vietnamese most of all
  kGreek,
  kGreekWords,
  kCyrillic,  // U+0400 to U+044F, what Russian uses
  kCyrillicWords,
  kCyrillicOther,  // U+0450 to U+052F: Ukrainian, Serbian, Kazakh
  kArmenian,
  kHebrew,
  kHebrewWords,
  kArabic,
  kArabicWords,
  kDevanagari,
  kIndic,  // the other scripts from U+0980 to U+0DFF
  kThai,   // Thai and Lao
  kGeorgian,
  kHangul,
  kHangulWords,
  kKana,
  kKanaWords,
  kHan,
  kHanWords,
  kWidePunctuation,     // CJK punctuation and full-width forms
  kGeneralPunctuation,  // U+2000 to U+206F: dashes, curly quotes
  kOther2,              // other code points of two bytes
  kOther3,              // of three
  kOther4,              // of four
  // Parts: each counts some of what a term above counts too, which one is in brackets (ipr_engine/tokens/parts.py).
  kEmoji,               // U+1F000 to U+1F8FF, but the two below [other_4]
  kLateEmoji,           // U+1F900 to U+1FAFF [other_4]
  kSkinTones,           // U+1F3FB to U+1F3FF [other_4]
  kFlagLetters,         // U+1F1E6 to U+1F1FF, two a flag [other_4]
  kStyledLetters,       // U+1D400 to U+1D7FF, letters and digits of mathematics [other_4]
  kRareHan,             // U+20000 to U+3FFFF [other_4]
  kPictographs,         // U+2300 to U+23FF, U+2600 to U+27BF, U+2B00 to U+2BFF: hearts, check marks, stars [other_3]
  kVariationSelectors,  // U+FE00 to U+FE0F [other_3]
  // "Long": after four of the very same character.
  kLongPunctuation,  // [punctuation]
  kLongLetterPairs,  // the pair of such a letter and the one before [letter_pairs]
  kLongLetters,      // ASCII; no part
  kLongControls,     // [controls]
  kLongLineBreaks,   // line feeds; no part: runs of them count once
};
constexpr size_t kTerms = static_cast<size_t>(Term::kLongLineBreaks) + 1;
extern const char* const kTermNames[kTerms];

struct TextCounts {
  std::array<double, kTerms> of{};  // whole numbers, but for the sums over letter pairs, in 255ths
  double& operator[](Term term) { return of[static_cast<size_t>(term)]; }
};

// Adds a text's terms to sums (kTerms), letter pairs in 255ths; one per instruction set.
using CountTerms = void (*)(const char* utf8, size_t bytes, uint64_t* sums);
void count_terms_scalar(const char* utf8, size_t bytes, uint64_t* sums);
#if IPR_X86
void count_terms_avx2(const char* utf8, size_t bytes, uint64_t* sums);
#endif
// The one that `isa` runs; throws as `kernels_for`.
CountTerms term_counter(const std::string& isa);

// utf8 is well-formed UTF-8, NUL bytes included; of ill-formed bytes only memory safety is promised. The same counts on
// every machine. Allocates nothing. The counts of texts that are separate in a request are added up.
TextCounts count_text(const char* utf8, size_t bytes);
TextCounts count_text(const char* utf8, size_t bytes, CountTerms count);

}  // namespace ipr
