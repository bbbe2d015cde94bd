// SurfaceFeatures: what a prompt's text looks like, as numbers in [0, 1] that stand beside its embedding.
//
//   SurfaceFeatures surface(std::move(lexicon));             // throws InvalidInput
//   surface.write(utf8, bytes, x);                           // x (surface.dim())
//
// ipr_engine/encoders/surface_reference.py is the definition, and this gives the same bits: words, numbers, punctuation
// alone, in its context and in pairs, list markers, scripts, categories of words. A text is turned into symbols, one
// byte a character; these are counted in whole numbers; each column is one float32 division of two of them. So every
// instruction set gives the same bits, and there is one form of the code for all.
//
// Blind to case, to the width of letters, to kinds and runs of white space, to kinds of quotes, to fences around the
// whole text, and to how the items of a list are marked. No tokenizer is asked.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace ipr {

// Categories of words. A bundle keeps it as JSON (ipr_engine/bundle/surface_lexicon.py).
struct SurfaceLexicon {
  // Words of each category in UTF-8, each one word of a script with spaces between words. At most 64 categories and
  // 1,024 words, no word twice.
  std::vector<std::vector<std::string>> categories;

  // Which categories are told of a text's first word, and of its last word that is in one of them; each once.
  std::vector<size_t> flags;
};

// The lexicon's words in a table of hashes, and the columns in runs of one form; made once for a bundle.
//
// Immutable: every method may be called from many threads at once. A thread keeps scratch for its texts, of bounded
// size.
class SurfaceFeatures {
 public:
  // Throws InvalidInput for a lexicon that is not as above: a word that holds no letter or digit of a script with
  // spaces, a word that stands twice when case is left out, a flag that is no category.
  explicit SurfaceFeatures(const SurfaceLexicon& lexicon);
  SurfaceFeatures(SurfaceFeatures&&) noexcept;
  ~SurfaceFeatures();

  // How many columns there are: of every text, then two a category, then two a flag.
  size_t dim() const;

  // Writes x (dim), all 0 of a text without a character. utf8 need not end with NUL; of ill-formed bytes only memory
  // safety is promised. Of more than 4 GB the first 4 GB are read. Allocates nothing after a thread's first calls on
  // texts up to 64 KiB. Time is linear in the bytes.
  void write(const char* utf8, size_t bytes, float* x) const;

 private:
  struct Planned;

  std::unique_ptr<const Planned> planned_;
};

}  // namespace ipr
