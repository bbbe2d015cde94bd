// TokenEstimator: what a text is made of -> the tokens that LLMs make of it (docs/tokens.md).
//
//   TokenEstimator estimator(coefficients, per_request, 2);   // two tokenizers
//   estimator.estimate(count_text(utf8, bytes).of.data(), tokens);
//
// A profile describes one tokenizer by a coefficient for each term of ipr/text_terms.h and a constant for each request.
// Tokens are counted in float64, each product rounded before it is added, so the same bits come out everywhere.
#pragma once

#include <cstddef>
#include <vector>

namespace ipr {

// Immutable: any number of threads may use one at once.
class TokenEstimator {
 public:
  // Copies coefficients (profiles, kTerms), tokens for one of each term, and per_request (profiles), tokens that a
  // request has beside its texts. All are finite and at least 0; the caller promises that, nothing is checked.
  TokenEstimator(const double* coefficients, const double* per_request, size_t profiles);

  // How many profiles there are.
  size_t profiles() const { return per_request_.size(); }

  // Writes tokens (profiles) of a request whose texts sum up to `terms` (kTerms): the sum of coefficient * term in the
  // order of terms, plus per_request, rounded to the nearest even. It is at least 1 where there is text, that is where
  // a term is not 0. Allocates nothing.
  void estimate(const double* terms, double* tokens) const;

 private:
  // Profiles whose sums stay in registers.
  static constexpr size_t kLanes = 4;

  // The number of profiles, rounded up to whole lanes. coefficients_ is (kTerms, stride_): one term's coefficients of
  // all profiles lie side by side, and padding is 0.
  size_t stride_;
  std::vector<double> coefficients_;
  std::vector<double> per_request_;
};

}  // namespace ipr
