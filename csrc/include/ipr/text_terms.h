// The terms in which a text is counted: what an LLM's own tokens of a text are estimated from (docs/tokens.md).
//
// Each term counts bytes or code points of the text, or runs of them. A "word" is a run of Latin letters, accented ones
// included; its length is in bytes of UTF-8. A word of another script is a run of its letters.
//
// Coefficients in bundles name these terms, so a term never changes its meaning: another definition is another name. A
// new term goes to the end, before kTerms, and its name into src/text_counts.cpp.
//
// The files in src/simd include this header, so it holds no standard container (ipr/decide_types.h says why).
#pragma once

#include <cstddef>
#include <cstdint>

namespace ipr {

enum class Term : uint8_t {
  // Words.
  kWords,
  // The sum over adjacent ASCII letters, case ignored, of how hard the pair is to tokenize, 0 to 1 each; a word's edge
  // is
  // one of a pair (src/simd/text_counts_pairs.inc).
  kLetterPairs,
  // Bytes of words beyond the fourth.
  kBeyond4,
  // Bytes of words beyond the eighth.
  kBeyond8,
  // A to Z.
  kCapitals,
  // A to Z after another of these.
  kCapitalPairs,
  // A to Z after a to z.
  kCamel,
  // 0 to 9.
  kDigits,
  // Runs of digits.
  kDigitRuns,
  // Digits of a run beyond the third.
  kBeyond3Digits,
  // Digits after a space.
  kSpacedNumbers,
  // Printable ASCII that is no letter, digit or space.
  kPunctuation,
  // Runs of punctuation.
  kPunctuationRuns,
  // Punctuation after the very same character.
  kRepeated,
  // ASCII letters after punctuation.
  kAfterPunctuation,
  // Runs of line feeds.
  kLineBreaks,
  // Tabs, vertical tabs, form feeds, carriage returns.
  kControls,
  // Spaces after another space.
  kSpaces,
  // Runs of two spaces or more.
  kSpaceRuns,
  // U+00C0 to U+024F.
  kAccented,
  // U+1E00 to U+1EFF, Vietnamese most of all.
  kLatinAdditional,
  // Greek: U+0370 to U+03FF, U+1F00 to U+1FFF.
  kGreek,
  // Words of it.
  kGreekWords,
  // U+0400 to U+044F, what Russian uses.
  kCyrillic,
  // Words of it.
  kCyrillicWords,
  // U+0450 to U+052F: Ukrainian, Serbian, Kazakh.
  kCyrillicOther,
  // U+0530 to U+058F.
  kArmenian,
  // U+0590 to U+05FF.
  kHebrew,
  // Words of it.
  kHebrewWords,
  // U+0600 to U+06FF, U+0750 to U+077F, U+FB50 to U+FDFF, U+FE70 to U+FEFF.
  kArabic,
  // Words of it.
  kArabicWords,
  // U+0900 to U+097F.
  kDevanagari,
  // The other scripts from U+0980 to U+0DFF.
  kIndic,
  // Thai and Lao: U+0E00 to U+0EFF.
  kThai,
  // U+10A0 to U+10FF.
  kGeorgian,
  // U+1100 to U+11FF, U+AC00 to U+D7AF.
  kHangul,
  // Words of it.
  kHangulWords,
  // U+3040 to U+30FF.
  kKana,
  // Words of it.
  kKanaWords,
  // U+3400 to U+9FFF, U+F900 to U+FAFF.
  kHan,
  // Words of it.
  kHanWords,
  // CJK punctuation and full-width forms: U+3000 to U+303F, U+FF00 to U+FFEF.
  kWidePunctuation,
  // U+2000 to U+206F: dashes, curly quotes.
  kGeneralPunctuation,
  // Other code points of two bytes.
  kOther2,
  // Other code points of three bytes.
  kOther3,
  // Code points of four bytes.
  kOther4,
  // ---- Parts: each counts some of what a term above counts too; that term is in brackets
  // (ipr_engine/tokens/token_profile.py).
  // U+1F000 to U+1F8FF, but the two below. [other_4]
  kEmoji,
  // U+1F900 to U+1FAFF. [other_4]
  kLateEmoji,
  // U+1F3FB to U+1F3FF. [other_4]
  kSkinTones,
  // U+1F1E6 to U+1F1FF, two a flag. [other_4]
  kFlagLetters,
  // U+1D400 to U+1D7FF: letters and digits of mathematics. [other_4]
  kStyledLetters,
  // U+20000 to U+3FFFF. [other_4]
  kRareHan,
  // U+2300 to U+23FF, U+2600 to U+27BF, U+2B00 to U+2BFF: hearts, check marks, stars. [other_3]
  kPictographs,
  // U+FE00 to U+FE0F. [other_3]
  kVariationSelectors,
  // Punctuation after four of the very same character. [punctuation]
  kLongPunctuation,
  // The pair of such a letter and the one before. [letter_pairs]
  kLongLetterPairs,
  // ASCII letters after four of the same; no part.
  kLongLetters,
  // Controls after four of the same. [controls]
  kLongControls,
  // Line feeds after four of the same; no part, since runs of them count once.
  kLongLineBreaks,
};

// How many terms there are, and the name of each as bundles and Python write it.
constexpr size_t kTerms = static_cast<size_t>(Term::kLongLineBreaks) + 1;
extern const char* const kTermNames[kTerms];

// Adds a text's terms to sums (kTerms), letter pairs in 255ths. One such function exists for each instruction set;
// term_counter of ipr/text_counts.h gives it. utf8 as for count_text.
using CountTerms = void (*)(const char* utf8, size_t bytes, uint64_t* sums);

}  // namespace ipr
