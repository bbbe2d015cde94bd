#include "ipr/recorded_route.h"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <string>

#include "cut_between_words.h"
#include "ipr/errors.h"

namespace ipr {
namespace {

constexpr int64_t kChunk = 256;  // rows that are tokenized while those before them run

// Some rows of a call as the encoder sees them, special ids included.
struct ReadRows {
  int64_t first = 0;               // of the call
  std::vector<int32_t> ids;        // of all rows, one after the other
  std::vector<size_t> begins;      // (rows + 1): where each begins
  std::vector<int64_t> by_length;  // rows of the call, longest first

  int64_t length(int64_t row) const {
    const auto at = static_cast<size_t>(row - first);
    return static_cast<int64_t>(begins[at + 1] - begins[at]);
  }
  const int32_t* of(int64_t row) const { return ids.data() + begins[static_cast<size_t>(row - first)]; }
};

// Rows that pass a second time, and what with: who may be chosen, and output tokens, (rows, models) each.
struct Again {
  std::vector<int64_t> rows;
  std::vector<uint8_t> allowed;
  std::vector<float> tokens_out;

  void clear() {
    rows.clear();
    allowed.clear();
    tokens_out.clear();
  }
};

// A pass in flight, and the rows in it: by_length[begin, end).
struct Flying {
  const RecordedPass* pass;
  size_t begin, end;
};

struct Scratch {
  TokenIds text;
  ReadRows rows[2];  // those that run, and those that are being read
  Again again;
  std::vector<int64_t> order;
  std::vector<Flying> flying;
  std::vector<size_t> turns;
  std::vector<uint8_t> allowed;
  std::vector<float> tokens_out;
};

Scratch& scratch() {
  thread_local Scratch scratch;
  return scratch;
}

template <class Integer>
void write_ids(const RecordedPass& pass, int64_t at, const int32_t* ids, int64_t length, int64_t pad_id) {
  Integer* const to = static_cast<Integer*>(pass.ids) + at * pass.tokens;
  std::copy_n(ids, length, to);
  std::fill(to + length, to + pass.tokens, static_cast<Integer>(pad_id));
  if (!pass.mask) return;
  Integer* const mask = static_cast<Integer*>(pass.mask) + at * pass.tokens;
  std::fill_n(mask, length, Integer{1});
  std::fill(mask + length, mask + pass.tokens, Integer{0});
}

template <class T>
void sort_unique(std::vector<T>& values) {
  std::sort(values.begin(), values.end());
  values.erase(std::unique(values.begin(), values.end()), values.end());
}

}  // namespace

RecordedRoute::RecordedRoute(const Router& router, const WordPiece& tokenizer, PromptShape shape,
                             std::vector<RecordedPass> passes)
    : router_(router), tokenizer_(tokenizer), shape_(std::move(shape)), passes_(std::move(passes)) {
  const auto special = static_cast<int64_t>(shape_.before.size() + shape_.after.size());
  IPR_CHECK(shape_.max_tokens > special, "max_tokens: expected more than the ", special, " special ids, got ",
            shape_.max_tokens);
  std::stable_sort(passes_.begin(), passes_.end(), [](const RecordedPass& a, const RecordedPass& b) {
    return a.tokens != b.tokens ? a.tokens < b.tokens : a.batch < b.batch;
  });
  for (size_t at = 0; at < passes_.size(); ++at) {
    const RecordedPass& pass = passes_[at];
    IPR_CHECK(pass.batch >= 1 && pass.tokens >= 1, "passes: expected at least one row and one token, got ", pass.batch,
              " x ", pass.tokens);
    if (shapes_.empty() || shapes_.back().tokens != pass.tokens || shapes_.back().batch != pass.batch)
      shapes_.push_back({pass.tokens, pass.batch, at, 0});
    ++shapes_.back().copies;
    sizes_.push_back(pass.tokens);
    batches_.push_back(pass.batch);
  }
  sort_unique(sizes_);
  sort_unique(batches_);
  IPR_CHECK(!passes_.empty() && sizes_.back() >= shape_.max_tokens, "passes: expected one of ", shape_.max_tokens,
            " tokens");
  IPR_CHECK(shapes_.size() == sizes_.size() * batches_.size(), "passes: expected every number of rows with every ",
            "number of tokens: ", sizes_.size() * batches_.size(), " shapes, got ", shapes_.size());
}

// One call of route, with its arguments.
struct RecordedRoute::Call {
  const RecordedRoute& self;
  int32_t policy_row;
  const Prompts& prompts;
  const RequestLimits& limits;
  const Replays& replays;
  const Results& results;
  const Facts& facts;
  int64_t models = self.router_.plan().models(), dim = self.router_.plan().dim();
  InputTokens input{facts.billed_tokens, facts.own_tokens};
  Scratch& kept = scratch();

  // Tokenizes and counts the rows from `first` on. Throws InvalidInput for one without a token.
  void read(ReadRows& rows, int64_t first, int64_t count) {
    const PromptShape& shape = self.shape_;
    const size_t room = static_cast<size_t>(shape.max_tokens) - shape.before.size() - shape.after.size();
    rows.first = first;
    rows.ids.clear();
    rows.begins.assign(1, 0);
    rows.by_length.clear();
    const auto put = [&rows](auto begin, auto end, auto value) {
      for (; begin != end; ++begin) rows.ids.push_back(value(*begin));
    };
    const auto special = [](int64_t id) { return static_cast<int32_t>(id); };
    const auto own = [](uint32_t id) { return static_cast<int32_t>(id & kIdMask); };
    for (int64_t row = first; row < first + count; ++row) {
      TokenIds& ids = kept.text;
      ids.clear();
      self.tokenizer_.tokenize(prompts.encoded.utf8[row], prompts.encoded.bytes[row], ids);
      const size_t tokens = ids.size();
      IPR_CHECK(tokens > 0, prompts.encoded.count == 1 ? "prompt" : "prompts[" + std::to_string(row) + "]",
                ": expected text, got ", prompts.encoded.bytes[row], " bytes without one token");
      const bool over = tokens > room;
      const Cut cut = over ? cut_between_words(ids.data(), tokens, room) : Cut{tokens, tokens};
      put(shape.before.begin(), shape.before.end(), special);
      put(ids.data(), ids.data() + cut.head, own);
      put(ids.data() + cut.tail, ids.data() + tokens, own);
      put(shape.after.begin(), shape.after.end(), special);
      rows.begins.push_back(rows.ids.size());
      rows.by_length.push_back(row);
      facts.truncated[row] = over;
      self.router_.count(self.tokenizer_, prompts, row, tokens, facts);
      ids.shrink();
    }
    sort_by_length(rows, rows.by_length);
  }

  void sort_by_length(const ReadRows& rows, std::vector<int64_t>& order) const {
    std::stable_sort(order.begin(), order.end(),
                     [&rows](int64_t a, int64_t b) { return rows.length(a) > rows.length(b); });
  }

  // The shape for the rows order[begin, ...), and how many of them it takes: the longest decides the tokens; those that
  // need as many decide the batch, and shorter ones ride along where it has room.
  const Shape& shape_for(const ReadRows& rows, const std::vector<int64_t>& order, size_t begin) const {
    const auto size = std::lower_bound(self.sizes_.begin(), self.sizes_.end(), rows.length(order[begin]));
    const int64_t below = size == self.sizes_.begin() ? 0 : *(size - 1);
    size_t end = begin;
    while (end < order.size() && rows.length(order[end]) > below) ++end;
    const auto run = static_cast<int64_t>(end - begin);
    auto batch = std::lower_bound(self.batches_.begin(), self.batches_.end(), run);
    if (batch == self.batches_.end()) --batch;
    const auto at = (size - self.sizes_.begin()) * static_cast<int64_t>(self.batches_.size());
    return self.shapes_[static_cast<size_t>(at + (batch - self.batches_.begin()))];
  }

  // Starts the passes of order, which holds rows of `rows`; lands earlier ones where their buffers are needed. again:
  // what the rows pass with the second time, else null.
  void start(const ReadRows& rows, const std::vector<int64_t>& order, const Again* again) {
    for (size_t begin = 0; begin < order.size();) {
      const Shape& shape = shape_for(rows, order, begin);
      size_t& turn = kept.turns[static_cast<size_t>(&shape - self.shapes_.data())];
      const RecordedPass& pass = self.passes_[shape.first + turn++ % shape.copies];
      const auto taken = std::find_if(kept.flying.begin(), kept.flying.end(),
                                      [&pass](const Flying& one) { return one.pass == &pass; });
      if (taken != kept.flying.end()) land(order, again, static_cast<size_t>(taken - kept.flying.begin()) + 1);
      const size_t end = std::min(begin + static_cast<size_t>(shape.batch), order.size());
      fill(pass, rows, order, begin, end, again);
      ipr::begin(pass);
      kept.flying.push_back({&pass, begin, end});  // before the start: an interrupted one may run
      replays.start(pass);
      begin = end;
    }
  }

  void fill(const RecordedPass& pass, const ReadRows& rows, const std::vector<int64_t>& order, size_t begin, size_t end,
            const Again* again) const {
    std::fill_n(pass.policy_of_row, pass.batch, policy_row);
    std::fill_n(pass.lengths, pass.batch, 1);
    for (size_t of = begin; of < end; ++of) {
      const int64_t row = order[of], length = rows.length(row);
      const auto at = static_cast<int64_t>(of - begin);
      const auto write = pass.wide ? write_ids<int64_t> : write_ids<int32_t>;
      write(pass, at, rows.of(row), length, self.shape_.pad_id);
      pass.lengths[at] = static_cast<int32_t>(length);
      self.router_.billed(input, row, pass.billed_tokens + at * models);
      std::fill_n(pass.extra_usd + at * models, models, 0.0f);
      float* const tokens_out = pass.tokens_out + at * models;
      uint8_t* const allowed = pass.allowed + at * models;
      if (again) {
        const int64_t which = std::find(again->rows.begin(), again->rows.end(), row) - again->rows.begin();
        std::copy_n(again->tokens_out.data() + which * models, models, tokens_out);
        std::copy_n(again->allowed.data() + which * models, models, allowed);
        continue;
      }
      std::fill_n(tokens_out, models, std::numeric_limits<float>::quiet_NaN());
      if (limits.allowed)
        std::copy_n(limits.allowed + row * models, models, allowed);
      else
        std::fill_n(allowed, models, uint8_t{1});
    }
  }

  // Waits for the first `count` passes in flight and reads their answers.
  void land(const std::vector<int64_t>& order, const Again* again, size_t count) {
    for (; count > 0; --count) {
      const Flying one = kept.flying.front();
      replays.wait(*one.pass);
      kept.flying.erase(kept.flying.begin());
      for (size_t of = one.begin; of < one.end; ++of)
        collect(*one.pass, static_cast<int64_t>(of - one.begin), order[of], again);
    }
  }

  void collect(const RecordedPass& pass, int64_t at, int64_t row, const Again* again) {
    const Results from = row_of(pass.answers, at, models), to = row_of(results, row, models);
    std::copy_n(from.quality, models, to.quality);
    std::copy_n(from.tokens_out, models, to.tokens_out);
    std::copy_n(from.cost_usd, models, to.cost_usd);
    *to.threshold = *from.threshold;
    *to.gap = *from.gap;
    *to.index = *from.index;
    *to.status = *from.status;
    *to.cause = *from.cause;
    if (*to.index < -1 || *to.index >= models)  // no caller's fault
      throw std::runtime_error("CUDA driver: a recording chose candidate " + std::to_string(*to.index) + " of " +
                               std::to_string(models));
    if (again) return;
    if (facts.support) facts.support[row] = self.router_.support()->of(pass.x + at * dim);
    const int64_t max_tokens = limits.max_tokens ? limits.max_tokens[row] : -1;
    const int64_t answers = limits.answers ? limits.answers[row] : 1;
    kept.allowed.resize(static_cast<size_t>(models));
    kept.tokens_out.resize(static_cast<size_t>(models));
    const uint8_t* const allowed = limits.allowed ? limits.allowed + row * models : nullptr;
    if (!self.router_.limits_bind(input, row, max_tokens, answers, false, allowed, to, kept.allowed.data(),
                                  kept.tokens_out.data()))
      return;
    kept.again.rows.push_back(row);
    kept.again.allowed.insert(kept.again.allowed.end(), kept.allowed.begin(), kept.allowed.end());
    kept.again.tokens_out.insert(kept.again.tokens_out.end(), kept.tokens_out.begin(), kept.tokens_out.end());
  }

  // Lands what flies of these rows, and passes those a second time that have to.
  void finish(const ReadRows& rows) {
    land(rows.by_length, nullptr, kept.flying.size());
    if (kept.again.rows.empty()) return;
    kept.order = kept.again.rows;
    sort_by_length(rows, kept.order);
    start(rows, kept.order, &kept.again);
    land(kept.order, &kept.again, kept.flying.size());
    kept.again.clear();
  }
};

void RecordedRoute::route(const DecidePolicy& policy, int32_t policy_row, const Prompts& prompts,
                          const RequestLimits& limits, const Replays& replays, const Results& results,
                          const Facts& facts) const {
  Call call{*this, policy_row, prompts, limits, replays, results, facts};
  Scratch& kept = call.kept;
  kept.flying.clear();  // of a call that failed
  kept.again.clear();
  kept.turns.assign(shapes_.size(), 0);
  const int64_t count = prompts.encoded.count;
  try {
    const ReadRows* running = nullptr;
    for (int64_t first = 0, turn = 0; first < count; first += kChunk, ++turn) {
      ReadRows& rows = kept.rows[turn % 2];
      call.read(rows, first, std::min(kChunk, count - first));
      if (running) call.finish(*running);
      call.start(rows, rows.by_length, nullptr);
      running = &rows;
    }
    if (running) call.finish(*running);
  } catch (...) {
    // What flies reads and writes the passes' buffers still: the next request's number could end up as its own.
    try {
      for (const Flying& one : kept.flying) replays.wait(*one.pass);
    } catch (...) {  // the device failed: the first error tells it
    }
    kept.flying.clear();
    throw;
  }
  if (facts.support)
    router_.send_unsupported(policy, count, {facts.billed_tokens, facts.own_tokens}, false, limits, facts.support,
                             results);
}

}  // namespace ipr
