#include "ipr/recorded_route.h"

#include <algorithm>
#include <limits>

#include "cut_between_words.h"
#include "ipr/errors.h"

namespace ipr {
namespace {

TokenIds& scratch_ids() {
  thread_local TokenIds ids;
  return ids;
}

// Scratch of this thread for what limits_bind writes, which nobody reads here.
template <class T>
T* unread(int64_t count) {
  thread_local std::vector<T> memory;
  if (memory.size() < static_cast<size_t>(count)) memory.resize(static_cast<size_t>(count));
  return memory.data();
}

// The ids of a row, from its first place on.
template <class Integer>
class RowWriter {
 public:
  RowWriter(const RecordedPass& pass, int64_t pad_id)
      : ids_(static_cast<Integer*>(pass.ids)), mask_(static_cast<Integer*>(pass.mask)) {
    std::fill_n(ids_, pass.tokens, static_cast<Integer>(pad_id));
    if (mask_) std::fill_n(mask_, pass.tokens, Integer{0});
  }
  void put(int64_t id) {
    if (mask_) mask_[at_] = 1;
    ids_[at_++] = static_cast<Integer>(id);
  }

 private:
  Integer *ids_, *mask_;
  int64_t at_ = 0;
};

template <class Integer>
void write_ids(const RecordedPass& pass, const PromptShape& shape, const TokenIds& ids, const Cut& cut) {
  RowWriter<Integer> row(pass, shape.pad_id);
  for (const int64_t id : shape.before) row.put(id);
  for (size_t at = 0; at < cut.head; ++at) row.put(ids.data()[at] & kIdMask);
  for (size_t at = cut.tail; at < ids.size(); ++at) row.put(ids.data()[at] & kIdMask);
  for (const int64_t id : shape.after) row.put(id);
}

}  // namespace

RecordedRoute::RecordedRoute(const Router& router, const WordPiece& tokenizer, PromptShape shape,
                             std::vector<RecordedPass> passes)
    : router_(router), tokenizer_(tokenizer), shape_(std::move(shape)), passes_(std::move(passes)) {
  const auto special = static_cast<int64_t>(shape_.before.size() + shape_.after.size());
  IPR_CHECK(shape_.max_tokens > special, "max_tokens: expected more than the ", special, " special ids, got ",
            shape_.max_tokens);
  std::sort(passes_.begin(), passes_.end(), [](const RecordedPass& a, const RecordedPass& b) {
    return a.tokens != b.tokens ? a.tokens < b.tokens : a.batch < b.batch;
  });
  for (const RecordedPass& pass : passes_)
    IPR_CHECK(pass.batch >= 1 && pass.tokens >= 1, "passes: expected at least one row and one token, got ", pass.batch,
              " x ", pass.tokens);
  IPR_CHECK(!passes_.empty() && passes_.back().tokens >= shape_.max_tokens, "passes: expected one of ",
            shape_.max_tokens, " tokens");
}

const RecordedPass* RecordedRoute::fill(const Prompts& prompts, const RequestLimits& limits, int32_t policy_row,
                                        const Facts& facts) const {
  TokenIds& ids = scratch_ids();
  ids.clear();
  tokenizer_.tokenize(prompts.encoded.utf8[0], prompts.encoded.bytes[0], ids);
  if (ids.size() == 0) return nullptr;
  const size_t special = shape_.before.size() + shape_.after.size();
  const size_t room = static_cast<size_t>(shape_.max_tokens) - special;
  const bool over = ids.size() > room;
  const Cut cut = over ? cut_between_words(ids.data(), ids.size(), room) : Cut{ids.size(), ids.size()};
  const auto length = static_cast<int64_t>(special + cut.head + ids.size() - cut.tail);
  const auto pass =
      std::find_if(passes_.begin(), passes_.end(), [length](const RecordedPass& one) { return one.tokens >= length; });
  pass->wide ? write_ids<int64_t>(*pass, shape_, ids, cut) : write_ids<int32_t>(*pass, shape_, ids, cut);
  facts.truncated[0] = over;
  router_.count(tokenizer_, prompts, 0, ids.size(), facts);
  ids.shrink();
  const int64_t models = router_.plan().models();
  router_.billed({facts.billed_tokens, facts.own_tokens}, 0, pass->billed_tokens);
  std::fill_n(pass->tokens_out, models, std::numeric_limits<float>::quiet_NaN());
  std::fill_n(pass->extra_usd, models, 0.0f);
  if (limits.allowed)
    std::copy_n(limits.allowed, models, pass->allowed);
  else
    std::fill_n(pass->allowed, models, uint8_t{1});
  *pass->lengths = static_cast<int32_t>(length);
  *pass->policy_of_row = policy_row;
  begin(*pass);
  return &*pass;
}

bool RecordedRoute::collect(const RecordedPass& pass, const DecidePolicy& policy, const RequestLimits& limits,
                            const Results& results, const Facts& facts) const {
  const int64_t models = router_.plan().models();
  const Results& from = pass.answers;
  std::copy_n(from.quality, models, results.quality);
  std::copy_n(from.tokens_out, models, results.tokens_out);
  std::copy_n(from.cost_usd, models, results.cost_usd);
  *results.threshold = *from.threshold;
  *results.gap = *from.gap;
  *results.index = *from.index;
  *results.status = *from.status;
  *results.cause = *from.cause;
  IPR_CHECK(*results.index >= -1 && *results.index < models, "index: expected -1 to ", models - 1, ", got ",
            *results.index);
  const InputTokens input{facts.billed_tokens, facts.own_tokens};
  const int64_t max_tokens = limits.max_tokens ? *limits.max_tokens : -1,
                answers = limits.answers ? *limits.answers : 1;
  if (router_.limits_bind(input, 0, max_tokens, answers, false, limits.allowed, results, unread<uint8_t>(models),
                          unread<float>(models)))
    return false;
  if (facts.support) {
    *facts.support = router_.support()->of(pass.x);
    router_.send_unsupported(policy, 1, input, false, limits, facts.support, results);
  }
  return true;
}

}  // namespace ipr
