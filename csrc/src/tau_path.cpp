#include "ipr/tau_path.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

namespace ipr {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

// Candidates by rising tie rank, so that of equal ones the first found is the one meant.
void read_row(const double* values, int64_t row, int64_t models, const int64_t* by_rank, double* to) {
  for (int64_t k = 0; k < models; ++k) to[k] = values[row * models + by_rank[k]];
}

// The cheapest, of equally cheap ones the best predicted.
int64_t cheapest_of(const double* q, const double* c, int64_t models) {
  int64_t now = 0;
  for (int64_t k = 1; k < models; ++k)
    if (c[k] < c[now] || (c[k] == c[now] && q[k] > q[now])) now = k;
  return now;
}

// Unsigned integers in the order of the doubles they are made of; -0 as 0.
uint64_t ordered(double value) {
  value += 0.0;
  uint64_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits >> 63 ? ~bits : bits | (uint64_t{1} << 63);
}

// Sorted by worth, equal ones as they come: a radix sort, 11 bits a pass.
std::vector<PathMove> by_worth(const std::vector<PathMove>& moves) {
  constexpr int kBits = 11, kPasses = 6, kBuckets = 1 << kBits;
  struct Key {
    uint64_t bits;
    uint32_t move;
  };
  const size_t size = moves.size();
  std::vector<Key> keys(size), next(size);
  std::vector<std::array<uint32_t, kBuckets>> starts(kPasses);
  for (auto& pass : starts) pass.fill(0);
  for (size_t i = 0; i < size; ++i) {
    keys[i] = {ordered(moves[i].worth), static_cast<uint32_t>(i)};
    for (int pass = 0; pass < kPasses; ++pass) ++starts[pass][(keys[i].bits >> (pass * kBits)) & (kBuckets - 1)];
  }
  for (int pass = 0; pass < kPasses; ++pass) {
    uint32_t before = 0;
    for (auto& count : starts[pass]) before += std::exchange(count, before);
    for (const Key& key : keys) next[starts[pass][(key.bits >> (pass * kBits)) & (kBuckets - 1)]++] = key;
    keys.swap(next);
  }
  std::vector<PathMove> sorted(size);
  for (size_t i = 0; i < size; ++i) sorted[i] = moves[keys[i].move];
  return sorted;
}

// The choice at this worth, and the next best objective over its own.
struct Chosen {
  int64_t at;
  double least, second;
};

Chosen choose(const double* q, const double* c, int64_t models, double worth) {
  Chosen chosen{0, c[0] - worth * q[0], kInf};
  for (int64_t k = 1; k < models; ++k) {
    const double objective = c[k] - worth * q[k];
    if (objective < chosen.least || (objective == chosen.least && q[k] > q[chosen.at])) {
      chosen = {k, objective, chosen.least};
    } else if (objective < chosen.second) {
      chosen.second = objective;
    }
  }
  return chosen;
}

}  // namespace

std::vector<PathMove> break_points(const PathTable& table, const int64_t* by_rank, int64_t* first, int64_t* last) {
  const int64_t models = table.models;
  std::vector<double> q(models), c(models), ratio(models);
  std::vector<std::vector<PathMove>> turns;  // the first moves of all prompts, their second ones, ...
  for (int64_t row = 0; row < table.rows; ++row) {
    read_row(table.quality, row, models, by_rank, q.data());
    read_row(table.cost_usd, row, models, by_rank, c.data());
    int64_t now = cheapest_of(q.data(), c.data(), models);
    first[row] = by_rank[now];
    for (size_t turn = 0;; ++turn) {
      double least = kInf;
      for (int64_t k = 0; k < models; ++k) {
        const double step = q[k] - q[now];
        ratio[k] = step > 0 ? (c[k] - c[now]) / step : kInf;
        least = std::min(least, ratio[k]);
      }
      if (!std::isfinite(least)) break;
      int64_t then = -1;  // of those met at the same worth the best predicted one
      for (int64_t k = 0; k < models; ++k)
        if (ratio[k] == least && (then < 0 || q[k] > q[then])) then = k;
      if (turn == turns.size()) turns.emplace_back().reserve(table.rows);
      turns[turn].push_back(
          {least, static_cast<int32_t>(row), static_cast<int32_t>(by_rank[now]), static_cast<int32_t>(by_rank[then])});
      now = then;
    }
    last[row] = by_rank[now];
  }
  std::vector<PathMove> moves;
  for (const auto& turn : turns) moves.insert(moves.end(), turn.begin(), turn.end());
  return by_worth(moves);
}

void two_tier_choices(const PathTier& tier, const PathTier& again, const int64_t* by_rank, const double* worth,
                      int64_t worths, double below, double* realised, double* cost_usd, int64_t* count) {
  const int64_t models = tier.table.models;
  std::vector<double> q(models), c(models), q2(models), c2(models);
  std::fill_n(realised, worths, 0.0);
  std::fill_n(cost_usd, worths, 0.0);
  std::fill_n(count, worths * models, int64_t{0});
  for (int64_t row = 0; row < tier.table.rows; ++row) {
    read_row(tier.table.quality, row, models, by_rank, q.data());
    read_row(tier.table.cost_usd, row, models, by_rank, c.data());
    read_row(again.table.quality, row, models, by_rank, q2.data());
    read_row(again.table.cost_usd, row, models, by_rank, c2.data());
    for (int64_t i = 0; i < worths; ++i) {
      const Chosen one = choose(q.data(), c.data(), models, worth[i]);
      const double gap = models == 1 ? kInf : std::min((one.second - one.least) / worth[i], q[one.at]);
      const bool asked = gap < below;
      const int64_t k = asked ? choose(q2.data(), c2.data(), models, worth[i]).at : one.at;
      const int64_t m = by_rank[k];
      realised[i] += (asked ? again : tier).realised[row * models + m];
      cost_usd[i] += asked ? c2[k] : c[k];
      ++count[i * models + m];
    }
  }
}

}  // namespace ipr
