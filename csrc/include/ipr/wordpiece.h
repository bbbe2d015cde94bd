// BertNormalizer + BertPreTokenizer + WordPiece: UTF-8 text to the token ids that the `tokenizers` library gives.
//
// Special tokens written out in a text ("[CLS]") are text, as with Tokenizer.encode_special_tokens = True, and none is
// added. One pass over the text; time is linear in its bytes, also for one word of 10 MB.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace ipr {

// Set on the first id of every word (a piece of text that BertPreTokenizer does not split), so a reader can cut between
// words.
constexpr uint32_t kWordStart = 1u << 31;
constexpr uint32_t kIdMask = kWordStart - 1;

struct WordPieceOptions {
  bool clean_text = true;
  bool handle_chinese_chars = true;
  bool strip_accents = true;  // BertNormalizer's None means: the value of lowercase
  bool lowercase = true;
  std::string continuing_prefix = "##";
  std::string unk_token = "[UNK]";
  size_t max_chars_per_word = 100;  // a longer word is one UNK
};

// Grows while a text is tokenized; keep one per thread and hand it in again.
class TokenIds {
 public:
  const uint32_t* data() const { return ids_.data(); }
  size_t size() const { return size_; }
  void clear() { size_ = 0; }
  // Gives memory back after a huge text; what a thread keeps is bounded by kKept ids.
  void shrink();

 private:
  friend class WordPieceRun;
  static constexpr size_t kKept = 1 << 16;
  std::vector<uint32_t> ids_;
  size_t size_ = 0;
};

class WordPiece {
 public:
  // vocab: (token as UTF-8, id); it must hold unk_token; ids are below 2^31. Throws InvalidInput.
  WordPiece(const std::vector<std::pair<std::string, uint32_t>>& vocab, const WordPieceOptions& options);
  ~WordPiece();
  WordPiece(const WordPiece&) = delete;
  WordPiece& operator=(const WordPiece&) = delete;

  // Every method below may be called from many threads at once. utf8 is well-formed UTF-8, NUL bytes included; of
  // ill-formed bytes only memory safety is promised.

  // Appends the ids of the text, the first of each word with kWordStart.
  void tokenize(const char* utf8, size_t bytes, TokenIds& ids) const;
  // The number of ids tokenize would append, in constant memory.
  size_t count(const char* utf8, size_t bytes) const;
  // The words that are looked up in the vocabulary: the text normalized and pre-tokenized. For tests and for explaining
  // a result.
  std::vector<std::string> words(const char* utf8, size_t bytes) const;

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
