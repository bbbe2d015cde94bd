#include "ipr/wordpiece.h"

#include <algorithm>

#include "ipr/errors.h"
#include "wordpiece_run.h"

namespace ipr {

void TokenIds::shrink() {
  if (ids_.capacity() <= kKept) return;
  size_ = 0;
  std::vector<uint32_t>().swap(ids_);
}

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
