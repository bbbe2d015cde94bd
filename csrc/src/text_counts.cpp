#include "ipr/text_counts.h"

#include "ipr/isa.h"
#include "simd/kernel_table.h"

namespace ipr {

const char* const kTermNames[kTerms] = {
    "words",
    "letter_pairs",
    "beyond_4",
    "beyond_8",
    "capitals",
    "capital_pairs",
    "camel",
    "digits",
    "digit_runs",
    "beyond_3_digits",
    "spaced_numbers",
    "punctuation",
    "punctuation_runs",
    "repeated",
    "after_punctuation",
    "line_breaks",
    "controls",
    "spaces",
    "space_runs",
    "accented",
    "latin_additional",
    "greek",
    "greek_words",
    "cyrillic",
    "cyrillic_words",
    "cyrillic_other",
    "armenian",
    "hebrew",
    "hebrew_words",
    "arabic",
    "arabic_words",
    "devanagari",
    "indic",
    "thai",
    "georgian",
    "hangul",
    "hangul_words",
    "kana",
    "kana_words",
    "han",
    "han_words",
    "wide_punctuation",
    "general_punctuation",
    "other_2",
    "other_3",
    "other_4",
    "emoji",
    "late_emoji",
    "skin_tones",
    "flag_letters",
    "styled_letters",
    "rare_han",
    "pictographs",
    "variation_selectors",
    "long_punctuation",
    "long_letter_pairs",
    "long_letters",
    "long_controls",
    "long_line_breaks",
};

CountTerms term_counter(const std::string& isa) { return kernels_for(isa).count_terms; }

TextCounts count_text(const char* utf8, size_t bytes, CountTerms count) {
  uint64_t sums[kTerms]{};
  count(utf8, bytes, sums);
  TextCounts counts;
  for (size_t term = 0; term < kTerms; ++term) counts.of[term] = static_cast<double>(static_cast<int64_t>(sums[term]));
  counts[Term::kLetterPairs] /= 255;
  counts[Term::kLongLetterPairs] /= 255;
  return counts;
}

TextCounts count_text(const char* utf8, size_t bytes) {
  static const CountTerms count = term_counter("auto");
  return count_text(utf8, bytes, count);
}

}  // namespace ipr
