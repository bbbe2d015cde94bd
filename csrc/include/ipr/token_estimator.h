// What a text is made of -> the tokens that LLMs make of it (docs/tokens.md).
#pragma once

#include <cstddef>
#include <vector>

namespace ipr {

// Immutable: any number of threads may use it at once.
class TokenEstimator {
 public:
  // coefficients (profiles, kTerms), per_request (profiles): finite, >= 0.
  TokenEstimator(const double* coefficients, const double* per_request, size_t profiles);

  size_t profiles() const { return per_request_.size(); }

  // tokens (profiles) of a request whose texts sum up to `terms` (kTerms): the sum of coefficient * term in the order
  // of terms, plus per_request, rounded to even, at least 1 where there is text. Not fused: the same bits everywhere.
  void estimate(const double* terms, double* tokens) const;

 private:
  static constexpr size_t kLanes = 4;  // profiles whose sums stay in registers

  size_t stride_;                     // profiles, rounded up to whole lanes
  std::vector<double> coefficients_;  // (kTerms, stride_)
  std::vector<double> per_request_;
};

}  // namespace ipr
