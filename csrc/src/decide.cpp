#include "ipr/decide.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>
#include <vector>

#include "ipr/errors.h"
#include "ipr/isa.h"
#include "packed.h"

namespace ipr {
namespace {

template <class Good>
void check_each(const float* data, int64_t count, const char* name, const char* expected, Good good) {
  if (!data) return;
  for (int64_t i = 0; i < count; ++i)
    IPR_CHECK(good(data[i]), name, ": expected ", expected, " values, got ", data[i], " at flat position ", i);
}

void check_finite(const float* data, int64_t count, const char* name) {
  check_each(data, count, name, "finite", [](float value) { return std::isfinite(value); });
}

void check_not_negative(const float* data, int64_t count, const char* name) {
  check_each(data, count, name, "finite, nonnegative", [](float value) { return std::isfinite(value) && value >= 0; });
}

// NaN and inf pass: they are a row's own trouble and become its status.
void check_no_negative_rows(const float* data, int64_t rows, int64_t stride, int64_t count, const char* name) {
  for (int64_t row = 0; row < (stride ? rows : std::min<int64_t>(rows, 1)); ++row)
    for (int64_t i = 0; i < count; ++i)
      IPR_CHECK(!(data[row * stride + i] < 0), name, ": expected values >= 0, got ", data[row * stride + i], " at row ",
                row);
}

void check_tiers(const float* tier_above, int64_t rows, int64_t models) {
  for (int64_t i = 0; i < rows * models; ++i) {
    IPR_CHECK(tier_above[i] >= 0, "tier_above: expected values >= 0, got ", tier_above[i], " at flat position ", i);
    IPR_CHECK(i < models || tier_above[i] >= tier_above[i - models],
              "tier_above: expected thresholds that do not fall from one tier to the next, got ", tier_above[i],
              " after ", tier_above[i - models], " for candidate ", i % models);
  }
}

// Candidates in order of their tie rank.
std::vector<int32_t> order_of(const Heads& heads) {
  std::vector<int32_t> order(static_cast<size_t>(heads.models));
  std::iota(order.begin(), order.end(), 0);
  if (heads.tie_rank)
    std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return heads.tie_rank[a] < heads.tie_rank[b]; });
  return order;
}

// Grows to the largest plan its thread has run, and stays.
float* thread_scratch(int64_t floats) {
  thread_local AlignedArray<float> memory;
  thread_local int64_t size = 0;
  if (size < floats) {
    memory = AlignedArray<float>(floats);
    size = floats;
  }
  return memory.get();
}

void check_forest(const Heads& heads) {
  IPR_CHECK(heads.trees >= 1 && heads.trees <= 1024, "tree_column: expected 1 to 1024 trees, got ", heads.trees);
  IPR_CHECK(heads.depth >= 1 && heads.depth <= 10,
            "tree_leaf: expected (trees, 2^depth, models) float32 of a depth from 1 to 10, got depth ", heads.depth);
  const int64_t leaves = int64_t{1} << heads.depth, nodes = heads.trees * (leaves - 1);
  for (int64_t i = 0; i < nodes; ++i)
    IPR_CHECK(heads.tree_column[i] >= 0 && heads.tree_column[i] < heads.dim, "tree_column: expected values in [0, ",
              heads.dim, "), got ", heads.tree_column[i], " at flat position ", i);
  check_each(heads.tree_threshold, nodes, "tree_threshold", "non-NaN", [](float value) { return !std::isnan(value); });
  check_finite(heads.tree_leaf, heads.trees * leaves * heads.models, "tree_leaf");
}

// Packs a tree as PackedForest says, its leaves without the padding.
void pack_tree(const Heads& from, int64_t tree, TreeNode* layer, float* leaves) {
  const int64_t inner = (int64_t{1} << from.depth) - 1, models = from.models;
  std::vector<int64_t> places{tree};  // what a level consists of, from the left: where each part is in the packed form
  int64_t levels = top_levels(from.depth);
  for (int64_t above = 0; above < from.depth; above += levels, levels = kBlockLevels) {
    for (int64_t& place : places) place <<= levels;
    for (int64_t level = 0; level < levels; ++level) {
      int64_t node = tree * inner + static_cast<int64_t>(places.size()) - 1;  // heap order
      std::vector<int64_t> below;
      for (const int64_t place : places) {
        layer[place + level] = {from.tree_threshold[node], static_cast<uint32_t>(from.tree_column[node])};
        below.insert(below.end(), {place, place + static_cast<int64_t>(block_step(levels, level))});
        ++node;
      }
      places.swap(below);
    }
    layer += layer_nodes(from.trees, above, levels);
  }
  const float* leaf = from.tree_leaf + tree * (inner + 1) * models;
  for (const int64_t place : places) {
    std::copy_n(leaf, models, leaves + place * models);
    leaf += models;
  }
}

}  // namespace

void check(const Heads& heads) {
  // 2^24: tie ranks are compared as floats.
  IPR_CHECK(heads.models >= 1 && heads.models < (1 << 24), "bias: expected 1 to 2^24 - 1 models, got ", heads.models);
  IPR_CHECK(heads.bias, "bias: expected (models,) float32, got None");
  IPR_CHECK(heads.out || !(heads.trunk || heads.identity || heads.up || heads.down),
            "out: expected (models, hidden) float32 beside trunk, identity, up or down, got None");
  IPR_CHECK(!heads.up == !heads.down, heads.up ? "down" : "up",
            ": expected an array, since up and down go together, got None");
  IPR_CHECK(!heads.len_skip == !heads.len_bias, heads.len_skip ? "len_bias" : "len_skip",
            ": expected an array, since len_skip and len_bias go together, got None");
  IPR_CHECK(!heads.len_cap || heads.len_skip, "len_cap: expected None without len_skip and len_bias, got an array");
  IPR_CHECK(!heads.tree_column == !heads.tree_threshold && !heads.tree_column == !heads.tree_leaf,
            !heads.tree_column      ? "tree_column"
            : !heads.tree_threshold ? "tree_threshold"
                                    : "tree_leaf",
            ": expected an array, since tree_column, tree_threshold and tree_leaf go together, got None");
  IPR_CHECK(
      heads.skip || heads.trunk || heads.down,
      "skip: expected (models, dim) float32, since trunk and down are absent too, got None; quality must depend on x");
  IPR_CHECK(heads.width >= 1, "dim: expected at least 1, got ", heads.width);
  IPR_CHECK(heads.dim >= heads.width, "dim: expected at least ", heads.width,
            ", the columns of skip, trunk, down and len_skip, got ", heads.dim);
  IPR_CHECK(heads.dim == heads.width || heads.tree_column, "dim: expected ", heads.width,
            ", the columns of skip, trunk, down and len_skip, since no forest reads the others, got ", heads.dim);
  IPR_CHECK(!heads.out || heads.hidden >= 1, "hidden: expected at least 1 beside out, got ", heads.hidden);
  IPR_CHECK(!heads.up || heads.rank >= 1, "rank: expected at least 1 beside up and down, got ", heads.rank);

  const int64_t models = heads.models, dim = heads.width, hidden = heads.hidden, rank = heads.rank;
  check_finite(heads.skip, models * dim, "skip");
  check_finite(heads.bias, models, "bias");
  check_finite(heads.trunk, hidden * dim, "trunk");
  check_finite(heads.identity, models * hidden, "identity");
  check_finite(heads.up, models * hidden * rank, "up");
  check_finite(heads.down, models * rank * dim, "down");
  check_finite(heads.out, models * hidden, "out");
  check_finite(heads.len_skip, models * dim, "len_skip");
  check_finite(heads.len_bias, models, "len_bias");
  check_not_negative(heads.len_cap, models, "len_cap");
  if (heads.tree_column) check_forest(heads);

  const std::vector<int32_t> order = order_of(heads);
  for (size_t i = 1; heads.tie_rank && i < order.size(); ++i)
    IPR_CHECK(heads.tie_rank[order[i - 1]] != heads.tie_rank[order[i]], "tie_rank: expected distinct values, got ",
              heads.tie_rank[order[i]], " for candidates ", order[i - 1], " and ", order[i]);
}

struct DecidePolicy::Compiled {
  Compiled(int64_t models, int64_t tiers)
      : rates(3 * tiers * round_up_16(models)), allowed(round_up_16(models)), tie_rank(static_cast<size_t>(models)) {}

  AlignedArray<float> rates;
  AlignedArray<uint8_t> allowed;
  std::vector<float> tie_rank;
  std::vector<uint8_t> unsupported_allowed;
  PackedPolicy packed{};
};

DecidePolicy::DecidePolicy(int64_t models, const PolicySpec& spec)
    : models_(models), min_support_(spec.min_support), unsupported_(spec.unsupported) {
  check_finite(&spec.alpha_hi, 1, "alpha_hi");
  check_finite(&spec.alpha_lo, 1, "alpha_lo");
  check_finite(&spec.offset, 1, "offset");
  check_not_negative(&spec.worth, 1, "worth");
  check_not_negative(spec.in_rate, spec.tiers * models, "in_rate");
  check_not_negative(spec.out_rate, spec.tiers * models, "out_rate");
  check_finite(spec.fixed_usd, models, "fixed_usd");
  check_tiers(spec.tier_above, spec.tiers - 1, models);

  IPR_CHECK(spec.min_support >= 0 && spec.min_support <= 1, "min_support: expected a number in [0, 1], got ",
            spec.min_support);
  IPR_CHECK(spec.unsupported >= kCheapest && spec.unsupported < models, "unsupported: expected a candidate, 0 to ",
            models - 1, ", or ", kCheapest, " for the cheapest, got ", spec.unsupported);

  auto compiled = std::make_unique<Compiled>(models, spec.tiers);
  std::vector<float>& tie_rank = compiled->tie_rank;
  for (size_t m = 0; m < tie_rank.size(); ++m) tie_rank[m] = spec.tie_rank ? spec.tie_rank[m] : static_cast<float>(m);
  const uint8_t* const own = spec.unsupported_allowed ? spec.unsupported_allowed : spec.allowed;
  compiled->unsupported_allowed.assign(own, own + models);

  // in_rate (tiers, models) | out_rate (tiers, models) | tier_above (tiers - 1, models) | fixed_usd (models)
  const int64_t padded = round_up_16(models), tiers = spec.tiers;
  float* const in_rate = compiled->rates.get();
  float* const out_rate = in_rate + tiers * padded;
  float* const tier_above = out_rate + tiers * padded;
  float* const fixed_usd = tier_above + (tiers - 1) * padded;
  copy_rows(spec.in_rate, tiers, models, in_rate);
  copy_rows(spec.out_rate, tiers, models, out_rate);
  copy_rows(spec.tier_above, tiers - 1, models, tier_above);
  copy_rows(spec.fixed_usd, 1, models, fixed_usd);
  std::copy_n(spec.allowed, models, compiled->allowed.get());
  compiled->packed = {spec.alpha_hi, spec.alpha_lo,
                      spec.offset,   spec.worth,
                      tiers,         in_rate,
                      out_rate,      tiers > 1 ? tier_above : nullptr,
                      fixed_usd,     compiled->allowed.get()};
  compiled_ = std::move(compiled);
}

DecidePolicy::~DecidePolicy() = default;

PolicySpec DecidePolicy::spec(std::vector<float>& rates) const {
  const PackedPolicy& from = compiled_->packed;
  const int64_t rows = 3 * from.tiers, padded = round_up_16(models_);
  rates.resize(static_cast<size_t>(rows * models_));
  for (int64_t row = 0; row < rows; ++row)  // in the constructor's order, without its padding
    std::copy_n(from.in_rate + row * padded, models_, rates.data() + row * models_);
  const float* const in_rate = rates.data();
  const float* const out_rate = in_rate + from.tiers * models_;
  const float* const tier_above = out_rate + from.tiers * models_;
  const float* const fixed_usd = tier_above + (from.tiers - 1) * models_;
  return {from.alpha_hi, from.alpha_lo,
          from.offset,   from.worth,
          from.tiers,    in_rate,
          out_rate,      from.tiers > 1 ? tier_above : nullptr,
          fixed_usd,     allowed(),
          tie_rank(),    min_support_,
          unsupported_,  unsupported_allowed()};
}

int64_t DecidePolicy::tiers() const { return compiled_->packed.tiers; }
const uint8_t* DecidePolicy::allowed() const { return compiled_->allowed.get(); }
const float* DecidePolicy::tie_rank() const { return compiled_->tie_rank.data(); }
const uint8_t* DecidePolicy::unsupported_allowed() const { return compiled_->unsupported_allowed.data(); }
const PackedPolicy& DecidePolicy::packed() const { return compiled_->packed; }

struct DecidePlan::Packed {
  explicit Packed(const Heads& heads);

  std::vector<PackedMatrix> kept;
  AlignedArray<int32_t> by_tie_rank;
  AlignedArray<TreeNode> nodes;
  PackedHeads heads{};

 private:
  void pack_forest(const Heads& from);

  // A packed copy, or null.
  const float* keep(const float* data, int64_t rows, int64_t dim) {
    if (!data) return nullptr;
    return kept.emplace_back(data, rows, dim).view().data;
  }
};

DecidePlan::Packed::Packed(const Heads& from) {
  const int64_t models = from.models, dim = from.width, hidden = from.hidden, rank = from.rank;
  heads.models = models;
  heads.dim = dim;
  heads.hidden = from.out ? hidden : 0;
  heads.rank = from.up ? rank : 0;
  heads.activation = from.activation;

  std::vector<float> by_x;
  const auto append = [&](const float* data, int64_t rows) -> int64_t {
    if (!data) return -1;
    by_x.insert(by_x.end(), data, data + rows * dim);
    return static_cast<int64_t>(by_x.size()) / dim - rows;
  };
  heads.skip_at = append(from.skip, models);
  heads.len_at = append(from.len_skip, models);
  heads.trunk_at = append(from.trunk, hidden);
  heads.down_at = append(from.down, models * rank);
  heads.by_x = kept.emplace_back(by_x.data(), static_cast<int64_t>(by_x.size()) / dim, dim).view();

  heads.bias = keep(from.bias, 1, models);
  heads.len_bias = keep(from.len_bias, 1, models);
  heads.len_cap = keep(from.len_cap, 1, models);
  heads.identity = keep(from.identity, models, hidden);
  heads.out = keep(from.out, models, hidden);
  if (from.up) {
    std::vector<float> up(static_cast<size_t>(models * rank * hidden));  // (models, rank, hidden)
    for (int64_t m = 0; m < models; ++m)
      for (int64_t k = 0; k < rank; ++k)
        for (int64_t h = 0; h < hidden; ++h)
          up[static_cast<size_t>((m * rank + k) * hidden + h)] = from.up[(m * hidden + h) * rank + k];
    heads.up = keep(up.data(), models * rank, hidden);
  }

  const std::vector<int32_t> order = order_of(from);
  by_tie_rank = AlignedArray<int32_t>(models);
  std::copy(order.begin(), order.end(), by_tie_rank.get());
  std::vector<float> tie_rank(static_cast<size_t>(models));
  for (size_t rank_of = 0; rank_of < order.size(); ++rank_of)
    tie_rank[static_cast<size_t>(order[rank_of])] = static_cast<float>(rank_of);
  heads.tie_rank = keep(tie_rank.data(), 1, models);
  heads.by_tie_rank = by_tie_rank.get();
  if (from.tree_leaf) pack_forest(from);
}

void DecidePlan::Packed::pack_forest(const Heads& from) {
  const int64_t trees = from.trees, leaves = int64_t{1} << from.depth;
  int64_t count = 0, levels = top_levels(from.depth);
  for (int64_t above = 0; above < from.depth; above += levels, levels = kBlockLevels)
    count += layer_nodes(trees, above, levels);
  nodes = AlignedArray<TreeNode>(count);
  std::vector<float> leaf(static_cast<size_t>(trees * leaves * from.models));
  for (int64_t tree = 0; tree < trees; ++tree) pack_tree(from, tree, nodes.get(), leaf.data());
  heads.forest = {trees, from.depth, nodes.get(), keep(leaf.data(), trees * leaves, from.models)};
}

DecidePlan::DecidePlan(const Heads& heads, const std::string& isa)
    : models_(heads.models), dim_(heads.dim), kernels_(&kernels_for(isa)) {
  check(heads);
  packed_ = std::make_unique<Packed>(heads);
  const PackedHeads& packed = packed_->heads;
  const PackedForest& forest = packed.forest;
  row_work_ = packed.by_x.rows * packed.dim + forest.trees * (32 * forest.depth + round_up_16(models_));
  scratch_ = kernels_->decide_scratch(packed);
}

DecidePlan::~DecidePlan() = default;

int64_t DecidePlan::hidden() const { return packed_->heads.hidden; }
int64_t DecidePlan::rank() const { return packed_->heads.rank; }
int64_t DecidePlan::trees() const { return packed_->heads.forest.trees; }
int64_t DecidePlan::depth() const { return packed_->heads.forest.depth; }
bool DecidePlan::has_tokens() const { return packed_->heads.len_at >= 0; }
const float* DecidePlan::tie_rank() const { return packed_->heads.tie_rank; }
const char* DecidePlan::isa() const { return kernels_->isa; }

void DecidePlan::run(const DecidePolicy& policy, const Rows& rows, const Results& results) const {
  IPR_CHECK(policy.models() == models(), "policy: expected one for ", models(), " models, got one for ",
            policy.models());
  IPR_CHECK(rows.tokens_out || has_tokens(),
            "tokens_out: expected (models,) or (batch, models) float32, since these heads predict no tokens, got None");
  check_no_negative_rows(rows.billed_tokens, rows.batch, rows.billed_stride, rows.billed_per_model ? models() : 1,
                         "billed_tokens");
  if (rows.tokens_out) check_no_negative_rows(rows.tokens_out, rows.batch, rows.tokens_stride, models(), "tokens_out");

  kernels_->decide(packed_->heads, policy.packed(), rows, results, thread_scratch(scratch_));
}

}  // namespace ipr
