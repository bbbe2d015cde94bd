// WordPiece: UTF-8 text -> the token ids that the `tokenizers` library gives with BertNormalizer, BertPreTokenizer and
// WordPiece.
//
//   WordPiece tokenizer(vocab, {});                          // throws InvalidInput
//   TokenIds ids;
//   tokenizer.tokenize("Unbelievable!", 13, ids);            // "un", "##bel", "##ie", "##vable", "!", where vocab has
//   them
//
// The steps, in this order: fold_width turns full width forms into ASCII; clean_text drops control characters and turns
// white space into spaces; Chinese characters get spaces around them; strip_accents decomposes (NFD) and drops
// nonspacing marks; lowercase; then the text is split at white space, and every punctuation character is a word of its
// own. A word is one id where the vocabulary has it, else the longest pieces that match from its start on, else one
// UNK. Special tokens written out in a text ("[CLS]") are text, as with Tokenizer.encode_special_tokens = True, and
// none is added.
//
// Where the steps meet: NFD reorders marks of a letter, so a mark that strip_accents keeps may change places; a Chinese
// character and a punctuation character end the word before them; max_chars_per_word counts what is left of a word
// after all steps. A text of white space alone has no ids.
//
// What the library does to each code point was asked of the library itself (csrc/tools/make_unicode_tables.py). One
// pass over the text; time is linear in its bytes, also for one word of 10 MB.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace ipr {

// Set on the first id of every word (a piece of text that BertPreTokenizer does not split), so that a reader can cut
// between words. kIdMask takes it away again.
constexpr uint32_t kWordStart = 1u << 31;
constexpr uint32_t kIdMask = kWordStart - 1;

// The arguments of BertNormalizer and WordPiece, under the library's names and with its defaults. A tokenizer that was
// made with others has to be made with the same here: the ids of a text, and so its embedding, depend on all of them.
struct WordPieceOptions {
  // Whether control characters are dropped and white space becomes spaces; whether Chinese characters are words of
  // their own.
  bool clean_text = true;
  bool handle_chinese_chars = true;

  // Whether nonspacing marks are dropped: "é" becomes "e". BertNormalizer's None means: the value of lowercase; the
  // caller resolves it.
  bool strip_accents = true;
  bool lowercase = true;

  // Whether full width forms are what they stand for, before every other step: U+FF01 to U+FF5E become U+0021 to
  // U+007E, and U+3000 a space. The library does the same with a Replace for each before its BertNormalizer. Not one of
  // its defaults: a bundle's encoder says so.
  bool fold_width = false;

  // What every piece but a word's first starts with in the vocabulary, and what stands for a word without pieces.
  std::string continuing_prefix = "##";
  std::string unk_token = "[UNK]";

  // A word of more characters, counted after normalization, is one UNK: the time that pieces of such a word would take
  // is not spent.
  size_t max_chars_per_word = 100;
};

// The ids of one text. It grows while a text is tokenized: keep one per thread and hand it in again.
class TokenIds {
 public:
  // The ids that were appended since clear(), size() of them, each below 2^31 but for kWordStart; valid until the next
  // call that takes these TokenIds.
  const uint32_t* data() const { return ids_.data(); }
  size_t size() const { return size_; }

  // Forgets the ids and keeps the memory, so that the next text of the usual length allocates nothing.
  void clear() { size_ = 0; }

  // Gives memory back after a huge text, and forgets the ids then: what a thread keeps is bounded by kKept ids.
  void shrink();

 private:
  friend class WordPieceRun;
  static constexpr size_t kKept = 1 << 16;
  std::vector<uint32_t> ids_;
  size_t size_ = 0;
};

// Immutable: every method may be called from many threads at once.
//
// Every utf8 is well-formed UTF-8 of `bytes` bytes, NUL bytes included and not needed at the end. Of ill-formed bytes
// only memory safety is promised.
class WordPiece {
 public:
  // vocab: (token as UTF-8, id), no token twice, ids below 2^31; an empty token is never found. It is copied
  // into a hash of whole words and a trie of pieces: look-ups are cheap, making one is not.
  //
  // Throws InvalidInput for an id or a token that is not as above, and where unk_token is not in vocab.
  WordPiece(const std::vector<std::pair<std::string, uint32_t>>& vocab, const WordPieceOptions& options);
  ~WordPiece();
  WordPiece(const WordPiece&) = delete;
  WordPiece& operator=(const WordPiece&) = delete;

  // Appends the ids of the text, the first of each word with kWordStart. Allocates only where `ids` has to grow, or a
  // word of the text does not lie in it as it is looked up.
  void tokenize(const char* utf8, size_t bytes, TokenIds& ids) const;

  // The number of ids that tokenize would append, in constant memory whatever the text: what a limit on prompts is held
  // against.
  size_t count(const char* utf8, size_t bytes) const;

  // The words that are looked up in the vocabulary: the text normalized and pre-tokenized. For tests, and for
  // explaining a result.
  std::vector<std::string> words(const char* utf8, size_t bytes) const;

  // The id of unk_token, and the largest id of the vocabulary: a table needs a row for each id up to it.
  uint32_t unk_id() const { return unk_id_; }
  uint32_t max_id() const { return max_id_; }

 private:
  friend class WordPieceRun;
  struct Tables;

  std::unique_ptr<const Tables> tables_;
  uint32_t unk_id_ = 0;
  uint32_t max_id_ = 0;
};

}  // namespace ipr
