#include "ipr/wordpiece.h"

#include <algorithm>
#include <cstring>

#include "ipr/errors.h"
#include "vocabulary.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace ipr {
namespace {

// What the library does to one code point, as probed by make_unicode_tables.py.
struct Record {
  uint8_t flags;
  uint8_t rank;                               // of its canonical combining class; 0: a starter, NFD never moves it
  uint8_t decomposed_length, lowered_length;  // in code points; 0: unchanged
  uint16_t decomposed, lowered;               // into kPool
};

#include "unicode_tables.inc"

constexpr uint8_t kWhitespace = 1, kCleaned = 2, kChinese = 4, kPunctuation = 8, kNonspacing = 16, kHangulSyllable = 32;

inline uint32_t record_index(uint32_t code) {
  code = code <= 0x10FFFF ? code : 0xFFFD;  // only ill-formed UTF-8 gets there
  return kStage2[(kStage1[code >> kBlockBits] << kBlockBits) + (code & ((1u << kBlockBits) - 1))];
}
inline const Record& record_of(uint32_t code) { return kRecords[record_index(code)]; }

struct Decoded {
  uint32_t code;
  uint32_t bytes;
};

// Of ill-formed UTF-8: some code, never a read past the end.
inline Decoded decode(const uint8_t* from, size_t left) {
  const uint32_t lead = from[0];
  if (lead < 0x80 || left < 2) return {lead, 1};
  if (lead < 0xE0) return {(lead & 0x1F) << 6 | (from[1] & 0x3Fu), 2};
  if (left < 3) return {0xFFFD, 1};
  if (lead < 0xF0) return {(lead & 0x0F) << 12 | (from[1] & 0x3Fu) << 6 | (from[2] & 0x3Fu), 3};
  if (left < 4) return {0xFFFD, 1};
  return {(lead & 0x07) << 18 | (from[1] & 0x3Fu) << 12 | (from[2] & 0x3Fu) << 6 | (from[3] & 0x3Fu), 4};
}

inline uint32_t put_utf8(uint32_t code, char* to) {
  if (code < 0x80) {
    to[0] = static_cast<char>(code);
    return 1;
  }
  if (code < 0x800) {
    to[0] = static_cast<char>(0xC0 | code >> 6);
    to[1] = static_cast<char>(0x80 | (code & 0x3F));
    return 2;
  }
  if (code < 0x10000) {
    to[0] = static_cast<char>(0xE0 | code >> 12);
    to[1] = static_cast<char>(0x80 | (code >> 6 & 0x3F));
    to[2] = static_cast<char>(0x80 | (code & 0x3F));
    return 3;
  }
  to[0] = static_cast<char>(0xF0 | code >> 18);
  to[1] = static_cast<char>(0x80 | (code >> 12 & 0x3F));
  to[2] = static_cast<char>(0x80 | (code >> 6 & 0x3F));
  to[3] = static_cast<char>(0x80 | (code & 0x3F));
  return 4;
}

// All steps for a code point, folded when the tokenizer is built; one per record.
enum class Kind : uint8_t {
  kCopy,            // a character of a word, unchanged
  kDrop,            // removed by clean_text, before NFD sees it
  kDeletedStarter,  // removed by strip_accents, though it keeps the marks on its two sides apart
  kDeletedMark,     // removed by strip_accents
  kSpace,           // ends a word
  kAlone,           // a word of its own, unchanged
  kReplace,         // other characters of a word
  kReplaceAlone,    // a word of its own, another character
  kHangul,          // decomposed by arithmetic
  kGeneral,         // a mark may move, or anything else rare: the steps one by one
};

struct Action {
  Kind kind;
  uint8_t bytes, chars;  // of text
  char text[13];
};

// The ASCII letters and digits of 64 bytes, as bits; lowered receives the bytes, in lower case if asked.
inline uint64_t alphanumerics(const uint8_t* from, bool lowercase, char* lowered) {
  uint64_t bits = 0;
#if defined(__SSE2__)
  const __m128i case_bit = _mm_set1_epi8(0x20), lower_if = _mm_set1_epi8(lowercase ? 0x20 : 0);
  for (int part = 0; part < 4; ++part) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from) + part);
    const auto within = [&](__m128i value, char first, char count) {
      const __m128i distance = _mm_sub_epi8(value, _mm_set1_epi8(first));
      return _mm_cmpeq_epi8(_mm_min_epu8(distance, _mm_set1_epi8(static_cast<char>(count - 1))), distance);
    };
    const __m128i letter = within(_mm_or_si128(bytes, case_bit), 'a', 26);
    const __m128i word = _mm_or_si128(letter, within(bytes, '0', 10));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(lowered) + part, _mm_or_si128(bytes, _mm_and_si128(letter, lower_if)));
    bits |= static_cast<uint64_t>(static_cast<uint32_t>(_mm_movemask_epi8(word))) << (16 * part);
  }
#else
  for (int at = 0; at < 64; ++at) {
    const uint8_t byte = from[at], low = byte | 0x20;
    const bool letter = low >= 'a' && low <= 'z';
    lowered[at] = static_cast<char>(letter && lowercase ? low : byte);
    if (letter || (byte >= '0' && byte <= '9')) bits |= uint64_t{1} << at;
  }
#endif
  return bits;
}

}  // namespace

struct WordPiece::Tables {
  WordPieceOptions options;
  Vocabulary vocabulary;
  std::vector<Action> actions;  // by record
  Kind ascii[128];
  uint32_t alone_id[128];  // the id of an ASCII character that is a word of its own
};

void TokenIds::shrink() {
  if (ids_.capacity() <= kKept) return;
  size_ = 0;
  std::vector<uint32_t>().swap(ids_);
}

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

namespace {

// The steps of a record, folded. Must say the same as WordPieceRun::step_by_step, to which it leaves what is rare.
Action fold(const Record& record, const WordPieceOptions& options) {
  Action action{Kind::kGeneral, 0, 0, {}};
  const auto of_kind = [&action](Kind kind) {
    action.kind = kind;
    return action;
  };
  if (options.clean_text && (record.flags & kCleaned)) return of_kind(Kind::kDrop);
  if (options.clean_text && (record.flags & kWhitespace)) return of_kind(Kind::kSpace);
  const bool chinese = options.handle_chinese_chars && (record.flags & kChinese);

  constexpr uint32_t kItself = UINT32_MAX;
  std::vector<uint32_t> codes{kItself};
  if (options.strip_accents) {
    if (record.flags & kHangulSyllable) return of_kind(Kind::kHangul);
    if (record.decomposed_length != 0) {
      codes.assign(kPool + record.decomposed, kPool + record.decomposed + record.decomposed_length);
    }
    const auto describe = [&](uint32_t code) -> const Record& { return code == kItself ? record : record_of(code); };
    const bool starts_with_mark = describe(codes.front()).rank != 0;
    const size_t before = codes.size();
    const auto deleted = [&](uint32_t code) { return (describe(code).flags & kNonspacing) != 0; };
    codes.erase(std::remove_if(codes.begin(), codes.end(), deleted), codes.end());
    const bool marks_only = starts_with_mark && codes.empty();
    if (before > 1 && codes.empty() && !marks_only) return action;
    for (const uint32_t code : codes) {
      if (starts_with_mark || describe(code).rank != 0) return action;
    }
    if (codes.empty()) return of_kind(marks_only ? Kind::kDeletedMark : Kind::kDeletedStarter);
  }
  if (options.lowercase) {
    std::vector<uint32_t> lowered;
    for (const uint32_t code : codes) {
      const Record& now = code == kItself ? record : record_of(code);
      if (now.lowered_length == 0) {
        lowered.push_back(code);
      } else {
        lowered.insert(lowered.end(), kPool + now.lowered, kPool + now.lowered + now.lowered_length);
      }
    }
    codes = lowered;
  }

  const auto flags = [&](uint32_t code) { return code == kItself ? record.flags : record_of(code).flags; };
  const uint32_t first = codes.front();
  if (codes.size() == 1) {
    if (flags(first) & kWhitespace) return of_kind(Kind::kSpace);
    const bool is_alone = chinese || (flags(first) & kPunctuation);
    if (first == kItself) return of_kind(is_alone ? Kind::kAlone : Kind::kCopy);
    action.bytes = static_cast<uint8_t>(put_utf8(first, action.text));
    action.chars = 1;
    return of_kind(is_alone ? Kind::kReplaceAlone : Kind::kReplace);
  }
  if (chinese || codes.size() > 3) return action;
  for (const uint32_t code : codes) {
    if (code == kItself || (flags(code) & (kWhitespace | kPunctuation))) {
      action.bytes = action.chars = 0;
      return action;
    }
    action.bytes = static_cast<uint8_t>(action.bytes + put_utf8(code, action.text + action.bytes));
    ++action.chars;
  }
  return of_kind(Kind::kReplace);
}

}  // namespace

WordPiece::WordPiece(const std::vector<std::pair<std::string, uint32_t>>& vocab, const WordPieceOptions& options) {
  bool found = false;
  for (const auto& [token, id] : vocab) {
    IPR_CHECK(id <= kIdMask, "vocab: expected ids below 2^31, got ", id, " for '", token, "'");
    max_id_ = std::max(max_id_, id);
    if (token == options.unk_token) {
      unk_id_ = id;
      found = true;
    }
  }
  IPR_CHECK(found, "unk_token: '", options.unk_token, "' is not in vocab; every word without pieces needs it");

  auto tables = std::make_unique<Tables>(Tables{options, Vocabulary(vocab, options.continuing_prefix), {}, {}, {}});
  for (const Record& record : kRecords) tables->actions.push_back(fold(record, options));
  for (uint32_t code = 0; code < 128; ++code) {
    const Kind kind = tables->actions[record_index(code)].kind;
    tables->ascii[code] = kind == Kind::kReplace ? Kind::kCopy : kind;  // the window is in lower case already
    char text[1 + Vocabulary::kPadding] = {static_cast<char>(code)};
    const uint32_t id = tables->vocabulary.find(text, 1);
    const bool known = id != Vocabulary::kNone && options.max_chars_per_word >= 1;
    tables->alone_id[code] = known ? id : unk_id_;
  }
  tables_ = std::move(tables);
}

WordPiece::~WordPiece() = default;

void WordPiece::tokenize(const char* utf8, size_t bytes, TokenIds& ids) const {
  WordPieceRun(*this, ids, WordPieceRun::Output::kIds, nullptr).run(reinterpret_cast<const uint8_t*>(utf8), bytes);
}

size_t WordPiece::count(const char* utf8, size_t bytes) const {
  thread_local TokenIds ids;
  ids.clear();
  WordPieceRun run(*this, ids, WordPieceRun::Output::kCount, nullptr);
  return run.run(reinterpret_cast<const uint8_t*>(utf8), bytes);
}

std::vector<std::string> WordPiece::words(const char* utf8, size_t bytes) const {
  std::vector<std::string> words;
  TokenIds ids;
  WordPieceRun run(*this, ids, WordPieceRun::Output::kWords, &words);
  run.run(reinterpret_cast<const uint8_t*>(utf8), bytes);
  return words;
}

}  // namespace ipr
