// What tau's path of a candidate set is computed from (ipr_engine/policy/tau_path.py), in float64.
//
// Rows are prompts of the fitting data with what is predicted of each candidate. A choice at a worth takes the least
// cost - worth * quality; of equal ones the higher quality, then the lower tie rank. The definition, to the bit, is
// that of ipr_engine/decide/reference.py: `break_points` and `two_tier_choices`.
//
// The functions check nothing: the bindings check dtypes, shapes, that by_rank holds each candidate once and that every
// worth is above 0. They keep no state, so any number of threads may call them at once.
#pragma once

#include <cstdint>
#include <vector>

namespace ipr {

// Prompts with what is predicted of each candidate: quality in [0, 1] and cost in USD, (rows, models), C order, every
// number finite. Borrowed. At least 1 row and 1 model, at most 2^24 rows.
struct PathTable {
  const double* quality;
  const double* cost_usd;
  int64_t rows, models;
};

// One move of one prompt: from this worth on, in USD per unit of quality, its choice is `after`; just below it the
// choice is `before`. row is a position in the table, before and after are positions of candidates.
struct PathMove {
  double worth;
  int32_t row, before, after;
};

// Every move of every prompt along the lower envelope of its candidates, by rising worth. Of equal worth a prompt's
// first moves come before second ones, and of these the earlier row comes first.
//
// first, last: room for (rows), the choice of each prompt at worth 0 and beyond its last move. by_rank: (models), the
// candidates by rising tie rank. A prompt has at most models - 1 moves, and each takes time linear in models.
std::vector<PathMove> break_points(const PathTable& table, const int64_t* by_rank, int64_t* first, int64_t* last);

// One tier's predictions of the prompts, and what a choice by this tier came to: realised (rows, models).
struct PathTier {
  PathTable table;
  const double* realised;
};

// The choices where two tiers decide, at each worth (worths), all above 0. There is no envelope then, so each worth is
// decided on its own, and sums run over the rows in their order.
//
// `tier` chooses first. Its gap is (second least - least objective) / worth, at most the choice's quality, and +inf for
// one candidate. Where the gap is less than `below`, the choice of `again`, the same prompts by the second heads,
// counts in its place.
//
// realised, cost_usd: room for (worths), sums of what the choices came to and of their predicted cost. count: room for
// (worths, models), how often each candidate was the choice.
void two_tier_choices(const PathTier& tier, const PathTier& again, const int64_t* by_rank, const double* worth,
                      int64_t worths, double below, double* realised, double* cost_usd, int64_t* count);

}  // namespace ipr
