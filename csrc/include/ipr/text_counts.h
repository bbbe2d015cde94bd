// count_text: what a text is made of, in the terms of ipr/text_terms.h.
//
//   TextCounts counts = count_text("2 + 2?", 6);
//   counts[Term::kDigits];                                   // 2
//
// An LLM's own tokens of a text are estimated from these counts (ipr/token_estimator.h, docs/tokens.md). A text is
// counted in one pass, without an allocation, and every instruction set gives the same counts. Texts that are separate
// in a request are counted on their own and their counts are added up, since no word spans two of them.
//
// Any number of threads may call these functions at once.
#pragma once

#include <array>
#include <cstddef>
#include <string>

#include "ipr/text_terms.h"

namespace ipr {

// The counts of a text, by term: whole numbers, but for the two sums over letter pairs, which are multiples of 1/255.
struct TextCounts {
  std::array<double, kTerms> of{};

  double& operator[](Term term) { return of[static_cast<size_t>(term)]; }
};

// The loop that counts on the instruction set `isa`, "auto" included; it lives as long as the process. Throws as
// kernels_for of ipr/isa.h does.
CountTerms term_counter(const std::string& isa);

// The counts of a text. utf8 is well-formed UTF-8 of `bytes` bytes, NUL bytes included and not needed at the end; of
// ill-formed bytes only memory safety is promised. `count` is what term_counter gave; without it, that of "auto".
TextCounts count_text(const char* utf8, size_t bytes);
TextCounts count_text(const char* utf8, size_t bytes, CountTerms count);

}  // namespace ipr
