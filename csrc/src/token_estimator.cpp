#include "ipr/token_estimator.h"

#include <algorithm>
#include <cmath>

#include "ipr/text_counts.h"

namespace ipr {

TokenEstimator::TokenEstimator(const double* coefficients, const double* per_request, size_t profiles)
    : stride_((profiles + kLanes - 1) / kLanes * kLanes),
      coefficients_(kTerms * stride_),
      per_request_(per_request, per_request + profiles) {
  for (size_t profile = 0; profile < profiles; ++profile)
    for (size_t term = 0; term < kTerms; ++term)
      coefficients_[term * stride_ + profile] = coefficients[profile * kTerms + term];
}

void TokenEstimator::estimate(const double* terms, double* tokens) const {
  size_t present[kTerms], count = 0;  // most scripts are not in most texts
  for (size_t term = 0; term < kTerms; ++term) {
    present[count] = term;
    count += terms[term] != 0;
  }
  for (size_t first = 0; first < profiles(); first += kLanes) {
    double sums[kLanes]{};
    for (size_t at = 0; at < count; ++at) {
      const double* const row = &coefficients_[present[at] * stride_ + first];
      for (size_t lane = 0; lane < kLanes; ++lane) sums[lane] += row[lane] * terms[present[at]];
    }
    for (size_t profile = first; profile < std::min(first + kLanes, profiles()); ++profile)
      tokens[profile] = std::max(count > 0 ? 1.0 : 0.0, std::nearbyint(sums[profile - first] + per_request_[profile]));
  }
}

}  // namespace ipr
