// How close an embedding is to the data the heads were fitted on (docs/design.md section 6).
#pragma once

#include <cstdint>
#include <vector>

#include "ipr/isa.h"
#include "packed.h"

namespace ipr {

class Support {
 public:
  // centroids (k, dim) and distances (percentiles), nondecreasing: the 0th to 100th percentile of held-out distances.
  // Throws InvalidInput for shapes that do not fit.
  Support(const float* centroids, int64_t k, int64_t dim, const float* distances, int64_t percentiles,
          const std::string& isa);

  // Share of the held-out prompts that lie farther from their nearest centroid: 1 close, 0 farther than all and for
  // x = 0 (no token of the prompt was known), NaN for a non-finite x. x: (dim).
  float of(const float* x) const;

 private:
  PackedMatrix centroids_;
  std::vector<float> squared_norms_;  // (k)
  std::vector<float> distances_;      // (percentiles)
  const Kernels* kernels_;
};

}  // namespace ipr
