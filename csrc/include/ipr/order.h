// What follows from a decided row's qualities and costs: who is next when others are away, and who answers a row that
// is unlike the fitting data. docs/design.md section 3.
#pragma once

#include <cstdint>

#include "ipr/decide.h"

namespace ipr {

// Writes the candidates to `order` (models) as each would be chosen were all before it away, and returns how many.
// allowed: (models), 0 = never; quality and cost of the others are finite. An unsupported row has its own answer first.
int64_t failover(const DecidePolicy& policy, const Results& row, const uint8_t* allowed, int32_t* order);

// Gives a row that was decided (status ok) to the candidate that the policy names for unsupported rows: cause
// unsupported, threshold 0, gap infinite, since no quality decides it. Where that candidate is not in `allowed`
// (models) the plain decision stands but for its cause.
void send_unsupported(const DecidePolicy& policy, const Results& row, const uint8_t* allowed);

}  // namespace ipr
