// One text through the tokenizer: windows of 64 bytes, words of ASCII straight from the window, all else by character.
#pragma once

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "full_width.h"
#include "ipr/wordpiece.h"
#include "simd/bytes_scalar.h"
#include "unicode.h"
#include "vocabulary.h"
#include "wordpiece_steps.h"

namespace ipr {
namespace {

// The ASCII letters and digits of 64 bytes, as bits; lowered receives the bytes, in lower case if asked.
inline uint64_t alphanumerics(const uint8_t* from, bool lowercase, char* lowered) {
  const Bytes lower_if = all_bytes(lowercase ? 0x20 : 0);
  uint64_t word_bits = 0;
  for (int at = 0; at < 64; at += kBytes) {
    const Bytes bytes = load_bytes(from + at);
    const Bytes letters = within(either(bytes, all_bytes(0x20)), 'a', 26);
    store_bytes(lowered + at, either(bytes, both(letters, lower_if)));
    word_bits |= bits(either(letters, within(bytes, '0', 10))) << at;
  }
  return word_bits;
}

}  // namespace

struct WordPiece::Tables {
  WordPieceOptions options;
  Vocabulary vocabulary;
  std::vector<Action> actions;  // by record
  Kind ascii[128];
  uint32_t alone_id[128];  // the id of an ASCII character that is a word of its own
};

// One text on its way to ids, to a number of ids, or to words.
class WordPieceRun {
 public:
  enum class Output { kIds, kCount, kWords };

  WordPieceRun(const WordPiece& tokenizer, TokenIds& ids, Output output, std::vector<std::string>* words)
      : tokenizer_(tokenizer),
        tables_(*tokenizer.tables_),
        options_(tables_.options),
        ids_(ids),
        output_(output),
        words_(words),
        carry_(scratch().carry),
        pending_(scratch().pending) {
    if (carry_.size() < kCarry) carry_.resize(kCarry);
    pending_.clear();
  }

  ~WordPieceRun() {
    if (carry_.capacity() > kCarryKept) std::vector<char>().swap(carry_);
    if (pending_.capacity() > kCarryKept) std::vector<Mark>().swap(pending_);
  }

  // Returns the number of ids.
  size_t run(const uint8_t* text, size_t bytes) {
    alignas(16) char window[kWindow + Vocabulary::kPadding];  // the next bytes of the text, in lower case
    uint8_t last[kWindow];                                    // the end of the text, padded
    size_t at = 0;
    while (at < bytes) {
      const size_t left = bytes - at;
      const size_t size = std::min(left, kWindow);
      const uint8_t* from = text + at;
      if (size < kWindow) {
        std::memset(last, 0, kWindow);
        std::memcpy(last, from, size);
        from = last;
      }
      uint64_t word_bits = alphanumerics(from, options_.lowercase, window);
      if (size < kWindow) word_bits &= (uint64_t{1} << size) - 1;

      size_t here = 0;
      while (here < size) {
        const uint64_t gaps = ~(word_bits >> here);
        const size_t length = gaps == 0 ? kWindow : std::min<size_t>(__builtin_ctzll(gaps), size - here);
        const size_t end = here + length;
        if (end == size) {
          if (size == left) {  // the text ends here
            word(window + here, length);
            here = end;
          } else if (here > 0 && carry_chars_ == 0) {
            break;  // the next window starts with this word
          } else {
            append(window + here, length, length);
            here = end;
          }
          continue;
        }
        const uint8_t byte = from[end];
        const Kind kind = byte < 0x80 ? tables_.ascii[byte] : Kind::kGeneral;
        if (kind == Kind::kSpace || kind == Kind::kAlone) {
          word(window + here, length);
          if (kind == Kind::kAlone) alone(byte);
          here = end + 1;
          continue;
        }
        append(window + here, length, length);
        here = end;
        if (byte < 0x80) {  // a control character: removed, or part of the word
          if (kind == Kind::kCopy) append(window + here, 1, 1);
          ++here;
          continue;
        }
        do {
          here += character(text + at + here, left - here);
        } while (here < left && text[at + here] >= 0x80);
      }
      at += here;
    }
    end_word();
    return counted_ + ids_.size_;
  }

 private:
  static constexpr size_t kWindow = 64;
  static constexpr size_t kCarry = 1024;
  static constexpr size_t kCarryKept = 1 << 16;

  struct Mark {
    uint32_t code;
    uint8_t rank;
  };
  struct Scratch {
    std::vector<char> carry;
    std::vector<Mark> pending;
  };
  static Scratch& scratch() {
    thread_local Scratch scratch;
    return scratch;
  }

  // ---- words out

  uint32_t* room(size_t count) {
    if (output_ != Output::kIds && ids_.size_ >= TokenIds::kKept / 4) {
      counted_ += ids_.size_;
      ids_.size_ = 0;
    }
    const size_t needed = ids_.size_ + count;
    if (needed > ids_.ids_.size()) ids_.ids_.resize(std::max({needed, 2 * ids_.ids_.size(), size_t{1024}}));
    return ids_.ids_.data() + ids_.size_;
  }

  // A word of `bytes` bytes, kPadding more readable behind them, and `chars` characters.
  void look_up(const char* text, size_t bytes, size_t chars) {
    if (output_ == Output::kWords) words_->emplace_back(text, bytes);
    uint32_t* out = room(bytes + 1);  // bytes is 0 where append() kept no text
    size_t count = 1;
    if (chars > options_.max_chars_per_word) {
      out[0] = tokenizer_.unk_id_;
    } else if (const uint32_t id = tables_.vocabulary.find(text, bytes); id != Vocabulary::kNone) {
      out[0] = id;
    } else if (count = tables_.vocabulary.pieces(text, bytes, out); count == 0) {
      out[0] = tokenizer_.unk_id_;
      count = 1;
    }
    out[0] |= kWordStart;
    ids_.size_ += count;
  }

  void end_word() {
    if (carry_chars_ != 0) {
      look_up(carry_.data(), carry_bytes_, carry_chars_);
      carry_bytes_ = carry_chars_ = 0;
    }
  }

  // ASCII letters or digits, then a word's end.
  void word(const char* text, size_t bytes) {
    if (carry_chars_ == 0) {
      if (bytes != 0) look_up(text, bytes, bytes);
      return;
    }
    append(text, bytes, bytes);
    end_word();
  }

  void alone(uint8_t ascii) {
    if (output_ == Output::kWords) words_->emplace_back(1, static_cast<char>(ascii));
    *room(1) = tables_.alone_id[ascii] | kWordStart;
    ++ids_.size_;
  }

  void alone(const char* text, size_t bytes) {
    end_word();
    append(text, bytes, 1);
    end_word();
  }

  // Adds characters to the word under way. A word that is too long is UNK whatever it says, so its text is not kept.
  void append(const char* text, size_t bytes, size_t chars) {
    carry_chars_ += chars;
    if (carry_chars_ > options_.max_chars_per_word && output_ != Output::kWords) return;
    if (carry_bytes_ + bytes + Vocabulary::kPadding > carry_.size()) {
      carry_.resize(2 * (carry_bytes_ + bytes + Vocabulary::kPadding));
    }
    std::memcpy(carry_.data() + carry_bytes_, text, bytes);
    carry_bytes_ += bytes;
  }

  // ---- characters in

  // The character at `from`, which is not ASCII; returns how many bytes were used up.
  size_t character(const uint8_t* from, size_t left) {
    const Decoded now = decode(from, left);
    if (options_.fold_width && is_full_width(now.code)) {
      narrowed(ascii_of(now.code));
      return now.bytes;
    }
    const Action& action = tables_.actions[record_index(now.code)];
    const char* text = reinterpret_cast<const char*>(from);
    switch (action.kind) {
      case Kind::kCopy:
        append(text, now.bytes, 1);
        break;
      case Kind::kReplace:
        append(action.text, action.bytes, action.chars);
        break;
      case Kind::kAlone:
        alone(text, now.bytes);
        break;
      case Kind::kReplaceAlone:
        alone(action.text, action.bytes);
        break;
      case Kind::kSpace:
        end_word();
        break;
      case Kind::kHangul:
        hangul(now.code);
        break;
      case Kind::kDrop:
      case Kind::kDeletedStarter:
      case Kind::kDeletedMark:
        break;
      case Kind::kGeneral:
        return general(from, left);
    }
    return now.bytes;
  }

  // An ASCII character that was written in full width. It is no white space and no control character.
  void narrowed(uint8_t ascii) {
    if (tables_.ascii[ascii] == Kind::kAlone) {
      end_word();
      alone(ascii);
      return;
    }
    const bool upper = ascii >= 'A' && ascii <= 'Z';
    const char text = static_cast<char>(upper && options_.lowercase ? ascii | 0x20 : ascii);
    append(&text, 1, 1);
  }

  void hangul(uint32_t code) {
    const uint32_t index = code - 0xAC00;
    char text[9];
    put_utf8(0x1100 + index / 588, text);
    put_utf8(0x1161 + index % 588 / 28, text + 3);
    const uint32_t trailing = index % 28;
    if (trailing != 0) put_utf8(0x11A7 + trailing, text + 6);
    append(text, trailing == 0 ? 6 : 9, trailing == 0 ? 2 : 3);
  }

  // From a character on whose marks may have to be reordered, to the next one that stops the reordering.
  size_t general(const uint8_t* from, size_t left) {
    size_t used = 0;
    while (used < left) {
      const Decoded now = decode(from + used, left - used);
      const Kind kind = tables_.actions[record_index(now.code)].kind;
      if (kind == Kind::kGeneral) {
        step_by_step(now.code);
      } else if (kind != Kind::kDrop && kind != Kind::kDeletedMark) {
        break;
      }
      used += now.bytes;
    }
    release_marks();
    return used;
  }

  // What clean_text removes or turns to a space never gets here: fold() has settled it.
  void step_by_step(uint32_t code) {
    const Record& record = record_of(code);
    const bool chinese = options_.handle_chinese_chars && (record.flags & kChinese);
    if (chinese) starter(' ');
    if (options_.strip_accents && record.decomposed_length != 0) {
      for (size_t k = 0; k < record.decomposed_length; ++k) stripped(kPool[record.decomposed + k]);
    } else if (options_.strip_accents) {
      stripped(code);
    } else {
      lowered(code);
    }
    if (chinese) starter(' ');
  }

  void starter(uint32_t code) {
    release_marks();
    lowered(code);
  }

  // NFD has been done; marks wait for their order.
  void stripped(uint32_t code) {
    const Record& record = record_of(code);
    const bool deleted = record.flags & kNonspacing;
    if (record.rank == 0) {
      release_marks();
      if (!deleted) lowered(code);
    } else if (!deleted) {
      pending_.push_back({code, record.rank});
    }
  }

  void release_marks() {
    if (pending_.empty()) return;
    std::stable_sort(pending_.begin(), pending_.end(), [](Mark a, Mark b) { return a.rank < b.rank; });
    for (const Mark& mark : pending_) lowered(mark.code);
    pending_.clear();
  }

  void lowered(uint32_t code) {
    const Record& record = record_of(code);
    if (options_.lowercase && record.lowered_length != 0) {
      for (size_t k = 0; k < record.lowered_length; ++k) emit(kPool[record.lowered + k]);
    } else {
      emit(code);
    }
  }

  void emit(uint32_t code) {
    const uint8_t flags = record_of(code).flags;
    char text[4];
    const uint32_t bytes = put_utf8(code, text);
    if (flags & kWhitespace) {
      end_word();
    } else if (flags & kPunctuation) {
      alone(text, bytes);
    } else {
      append(text, bytes, 1);
    }
  }

  const WordPiece& tokenizer_;
  const WordPiece::Tables& tables_;
  const WordPieceOptions& options_;
  TokenIds& ids_;
  const Output output_;
  std::vector<std::string>* const words_;
  size_t counted_ = 0;  // ids that were counted and let go

  // The word under way, when it does not lie in the window as it is.
  std::vector<char>& carry_;
  size_t carry_bytes_ = 0, carry_chars_ = 0;
  std::vector<Mark>& pending_;
};

}  // namespace ipr
