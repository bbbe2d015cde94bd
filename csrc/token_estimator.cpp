#include "token_estimator.h"

#include <algorithm>
#include <cmath>

#include "text_counts.h"

namespace ipr {

TokenEstimator::TokenEstimator(const double* coefficients, const double* per_request, size_t profiles)
    : coefficients_(kTerms * profiles), per_request_(per_request, per_request + profiles) {
  for (size_t profile = 0; profile < profiles; ++profile)
    for (size_t term = 0; term < kTerms; ++term)
      coefficients_[term * profiles + profile] = coefficients[profile * kTerms + term];
}

void TokenEstimator::estimate(const double* terms, double* tokens) const {
  const size_t count = profiles();
  std::fill_n(tokens, count, 0.0);
  bool text = false;
  for (size_t term = 0; term < kTerms; ++term) {
    if (terms[term] == 0) continue;  // most scripts are not in most texts
    text = true;
    const double* const row = &coefficients_[term * count];
    for (size_t profile = 0; profile < count; ++profile) tokens[profile] += row[profile] * terms[term];
  }
  for (size_t profile = 0; profile < count; ++profile)
    tokens[profile] = std::max(text ? 1.0 : 0.0, std::nearbyint(tokens[profile] + per_request_[profile]));
}

}  // namespace ipr
