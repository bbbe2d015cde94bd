#include "ipr/static_encoder.h"

#include <algorithm>

#include "cut_between_words.h"
#include "ipr/errors.h"
#include "ipr/isa.h"
#include "simd/kernel_table.h"

namespace ipr {
namespace {

struct Scratch {
  TokenIds ids;
  std::vector<uint32_t> kept, rows;
  std::vector<float> weights, turn;
};

Scratch& scratch() {
  thread_local Scratch scratch;
  return scratch;
}

constexpr size_t kScratchKept = 1 << 16;

template <class T>
void shrink(std::vector<T>& values) {
  if (values.capacity() > kScratchKept) std::vector<T>().swap(values);
}

}  // namespace

StaticEncoder::StaticEncoder(StaticEncoderConfig config)
    : config_(std::move(config)), unk_id_(UINT32_MAX), kernels_(&kernels_for(config_.isa)) {
  const StaticTable& table = config_.table;
  IPR_CHECK(table.dim > 0, "embeddings: expected at least one column");
  IPR_CHECK(table.rows <= kIdMask, "embeddings: expected below 2^31 rows, got ", table.rows);
  IPR_CHECK(config_.max_tokens > 0, "max_tokens: expected at least 1, got 0");
  IPR_CHECK(config_.task_columns <= kMostTaskColumns, "task_columns: expected at most ", kMostTaskColumns, ", got ",
            config_.task_columns);
  for (size_t id = 0; id < config_.mapping.size(); ++id) {
    IPR_CHECK(config_.mapping[id] < table.rows, "mapping: expected rows below ", table.rows, ", got ",
              config_.mapping[id], " at token ", id);
  }
  IPR_CHECK(config_.weights.empty() || config_.weights.size() == token_count(), "weights: expected one for each of ",
            token_count(), " tokens, got ", config_.weights.size());
  if (config_.tokenizer) {
    IPR_CHECK(config_.tokenizer->max_id() < token_count(), "tokenizer: its ids reach ", config_.tokenizer->max_id(),
              ", but the table knows only ", token_count(), " tokens");
    unk_id_ = config_.tokenizer->unk_id();
  } else if (config_.unk_id >= 0) {
    IPR_CHECK(static_cast<size_t>(config_.unk_id) < token_count(), "unk_id: expected below ", token_count(), ", got ",
              config_.unk_id);
    unk_id_ = static_cast<uint32_t>(config_.unk_id);
  }
}

const char* StaticEncoder::isa() const { return kernels_->isa; }

size_t StaticEncoder::token_count() const {
  return config_.mapping.empty() ? config_.table.rows : config_.mapping.size();
}

EncodeInfo StaticEncoder::encode(const char* utf8, size_t bytes, float* x) const {
  TokenIds& ids = scratch().ids;
  ids.clear();
  config_.tokenizer->tokenize(utf8, bytes, ids);
  const EncodeInfo info = encode_ids(ids.data(), ids.size(), x);
  ids.shrink();
  float* behind = std::fill_n(x + embedding_dim(), config_.task_columns, 0.0f);
  if (config_.surface) config_.surface->write(utf8, bytes, behind);
  return info;
}

EncodeInfo StaticEncoder::encode_turns(const Texts& turns, Conversation what, float* x) const {
  EncodeInfo info{0, 0, false};
  int64_t newest = -1, summed = 0;
  std::vector<float>& mean = scratch().turn;
  mean.resize(config_.table.dim);
  for (int64_t turn = turns.count - 1; turn >= 0; --turn) {
    const char* const utf8 = turns.utf8[turn];
    const size_t bytes = turns.bytes[turn];
    if (newest >= 0 && (what == Conversation::kLast || summed == kMostFadingTurns)) {  // which is billed alone
      info.tokens += config_.tokenizer->count(utf8, bytes);
      continue;
    }
    TokenIds& ids = scratch().ids;
    ids.clear();
    config_.tokenizer->tokenize(utf8, bytes, ids);
    EncodeInfo own{ids.size(), 0, false};
    if (newest < 0 && own.tokens > 0) {
      newest = turn;
      own = encode_ids(ids.data(), ids.size(), x);
      summed += own.kept > 0;
    } else if (own.tokens > 0) {
      own = embed(ids.data(), ids.size(), mean.data(), nullptr);
      if (own.kept > 0) add_faded(mean.data(), summed++, x);
    }
    ids.shrink();
    info = {info.tokens + own.tokens, info.kept + own.kept, info.truncated || own.truncated};
  }
  if (newest < 0) return encode(turns.utf8[turns.count - 1], turns.bytes[turns.count - 1], x);
  finish_faded(summed, x);
  float* behind = std::fill_n(x + embedding_dim(), config_.task_columns, 0.0f);
  if (config_.surface) config_.surface->write(turns.utf8[newest], turns.bytes[newest], behind);
  return info;
}

void StaticEncoder::fade(const float* means, int64_t count, float* x) const {
  std::fill_n(x, config_.table.dim, 0.0f);
  for (int64_t turn = 0; turn < count; ++turn)
    add_faded(means + turn * static_cast<int64_t>(config_.table.dim), turn, x);
  finish_faded(count, x);
}

void StaticEncoder::add_faded(const float* mean, int64_t before, float* x) const {
  if (before == 0) {
    std::copy_n(mean, config_.table.dim, x);
    return;
  }
  float weight = 1;
  for (int64_t newer = 0; newer < before; ++newer) weight *= kFading;
  for (size_t column = 0; column < config_.table.dim; ++column) x[column] += weight * mean[column];
}

void StaticEncoder::finish_faded(int64_t count, float* x) const {
  if (count < 2) return;
  float weight = 1, sum = 0;
  for (int64_t turn = 0; turn < count; ++turn, weight *= kFading) sum += weight;
  for (size_t column = 0; column < config_.table.dim; ++column) x[column] /= sum;
  if (config_.normalize) kernels_->normalize(x, config_.table.dim);
}

EncodeInfo StaticEncoder::encode_ids(const uint32_t* ids, size_t count, float* x) const {
  return embed(ids, count, x, config_.head_tokens > 0 ? x + config_.table.dim : nullptr);
}

EncodeInfo StaticEncoder::embed(const uint32_t* ids, size_t count, float* mean, float* head) const {
  std::vector<uint32_t>& kept = scratch().kept;
  if (kept.size() < count) kept.resize(count);
  size_t size = 0;
  uint32_t start = 0;  // the word start of a dropped token passes to the next one
  for (size_t k = 0; k < count; ++k) {
    const uint32_t id = ids[k] | start;
    const bool known = (id & kIdMask) != unk_id_;
    kept[size] = id;
    size += known;
    start = known ? 0 : id & kWordStart;
  }

  if (head) mean_of(kept.data(), std::min(size, config_.head_tokens), head);
  EncodeInfo info{count, size, false};
  if (size > config_.max_tokens) {
    const Cut cut = cut_between_words(kept.data(), size, config_.max_tokens);
    std::copy(kept.begin() + cut.tail, kept.begin() + size, kept.begin() + cut.head);
    size = cut.head + (size - cut.tail);
    info = {count, size, true};
  }
  mean_of(kept.data(), size, mean);
  shrink(kept);
  shrink(scratch().rows);
  shrink(scratch().weights);
  return info;
}

void StaticEncoder::mean_of(const uint32_t* known, size_t size, float* x) const {
  if (size == 0) {
    std::fill_n(x, config_.table.dim, 0.0f);
    return;
  }
  std::vector<uint32_t>& rows = scratch().rows;
  std::vector<float>& weights = scratch().weights;
  if (rows.size() < size) rows.resize(size);
  for (size_t k = 0; k < size; ++k) {
    const uint32_t id = known[k] & kIdMask;
    rows[k] = config_.mapping.empty() ? id : config_.mapping[id];
  }
  if (!config_.weights.empty()) {
    if (weights.size() < size) weights.resize(size);
    for (size_t k = 0; k < size; ++k) weights[k] = config_.weights[known[k] & kIdMask];
  }
  kernels_->gather_mean[static_cast<int>(config_.table.type)](
      config_.table.data, config_.table.dim, rows.data(), config_.weights.empty() ? nullptr : weights.data(), size, x);
  if (config_.normalize) kernels_->normalize(x, config_.table.dim);
}

}  // namespace ipr
