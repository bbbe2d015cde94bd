// Support: how close an embedding lies to the data that the heads were fitted on (docs/formats.md).
//
//   Support support(centroids, k, dim, distances, 101, plan.isa());
//   const float near = support.of(x);                        // 0.93: farther away than 7 % of the held-out prompts
//
// The distance of x to its nearest centroid is read against the distances of held-out prompts. The answer is the share
// of these that lie farther away: 1 is close, 0 is farther than all of them. Distances are Euclidean, from the expanded
// square ||x||^2 + (||c||^2 - 2 c.x) in float32, clamped at 0; between two percentiles the share is linear. The same
// bits come out on every instruction set.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace ipr {

// Immutable: any number of threads may use one at once. Movable, not copyable; what was moved from may only be
// destroyed.
class Support {
 public:
  // Copies centroids (k, dim), k from 1 to 1024, and distances (percentiles), at least 2 of them, nondecreasing: the
  // 0th to 100th percentile of held-out distances, evenly spaced. isa as for DecidePlan.
  // An isa is named, since dot products with the centroids are most of the work.
  //
  // Throws InvalidInput for a k, a number of percentiles or an order that is not as above, and as kernels_for does.
  Support(const float* centroids, int64_t k, int64_t dim, const float* distances, int64_t percentiles,
          const std::string& isa);
  Support(Support&&) noexcept;
  ~Support();

  // The support of x (dim), in [0, 1]. 0 for x = 0, where no token of the prompt was known; NaN for an x whose distance
  // is not finite. Allocates nothing.
  float of(const float* x) const;

 private:
  struct Fitted;

  std::unique_ptr<const Fitted> fitted_;
};

}  // namespace ipr
