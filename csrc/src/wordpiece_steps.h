// The steps of BertNormalizer and BertPreTokenizer for one code point, folded into an action when a tokenizer is built.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "ipr/wordpiece.h"
#include "unicode.h"

namespace ipr {

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

namespace {

// The steps of a record, folded. Must say the same as WordPieceRun::step_by_step, to which it leaves what is rare.
inline Action fold(const Record& record, const WordPieceOptions& options) {
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
}  // namespace ipr
