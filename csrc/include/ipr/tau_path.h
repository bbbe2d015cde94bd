// What tau's path of a candidate set is computed from (ipr_engine/policy/tau_path.py), in float64. The definition, to
// the bit, is that of ipr_engine/decide/reference.py: `break_points` and `two_tier_choices`.
#pragma once

#include <cstdint>
#include <vector>

namespace ipr {

// Prompts with what is predicted of each candidate: quality and cost_usd (rows, models), every number finite.
struct PathTable {
  const double* quality;
  const double* cost_usd;
  int64_t rows, models;
};

// One move of one prompt: from this worth on it is at `after`, just below it at `before`. Positions of candidates.
struct PathMove {
  double worth;
  int32_t row, before, after;
};

// Every move of every prompt along its lower envelope, by rising worth; of equal worth a prompt's first moves come
// first, then the earlier row. first, last: (rows), where each prompt is at worth 0 and beyond its last move. by_rank:
// (models), the candidates by rising tie rank. A choice takes the least cost - worth * quality; of equal ones the
// higher quality, then the lower rank.
std::vector<PathMove> break_points(const PathTable& table, const int64_t* by_rank, int64_t* first, int64_t* last);

// The second heads' predictions of the same prompts, and the gap below which they decide.
struct PathTier {
  PathTable table;
  const double* realised;  // (rows, models): what a choice by this tier came to
};

// Where two tiers decide there is no envelope: their choices at each worth > 0, summed over the rows in their order.
// The first tier chooses; its gap is (second least - least objective) / worth, at most the choice's quality, and
// infinite for one candidate. Where the gap is below `below`, the second tier's choice counts in its place. realised,
// cost_usd: (worths) sums of what the choices came to and of their predicted cost; count: (worths, models).
void two_tier_choices(const PathTier& tier, const PathTier& again, const int64_t* by_rank, const double* worth,
                      int64_t worths, double below, double* realised, double* cost_usd, int64_t* count);

}  // namespace ipr
