// What follows from a decided row's qualities and costs (docs/decide.md): who is next when others are away,
// and who answers a row that is unlike the fitting data. ipr_engine/decide/reference.py defines both.
//
// Both functions take one row: Results whose pointers stand at that row (row_of of ipr/decide_types.h), of the
// candidates that `policy` was compiled for. Sizes are the caller's promise; nothing is checked. Candidates are ordered
// as the op orders them: by cost - worth * quality in float32, of equal ones the higher quality, then the lower tie
// rank. A candidate whose quality or cost is not finite is passed over. Any number of threads may call either function
// at once on rows of their own.
#pragma once

#include <cstdint>

#include "ipr/decide.h"

namespace ipr {

// Writes the positions of candidates to `order`, each as it would be chosen were all before it away, and returns how
// many these are. Where `allowed` is what the row was decided under, the first is the row's choice.
//
// order: room for (models). allowed: (models), 0 = never. status must be ok. An unsupported row has its own
// answer first, then the plain order; where the policy sends such rows to the cheapest, the others follow by cost.
int64_t failover(const DecidePolicy& policy, const Results& row, const uint8_t* allowed, int32_t* order);

// Gives a row with status ok to the candidate that the policy names for unsupported rows. The row gets cause
// unsupported, threshold 0 and gap +inf, since no quality decides it.
//
// allowed: (models), 0 = may not answer this row. Where the candidate that is named is not allowed, index, threshold
// and gap stay those of the op, and only the cause changes. Qualities and costs stay as predicted.
void send_unsupported(const DecidePolicy& policy, const Results& row, const uint8_t* allowed);

}  // namespace ipr
