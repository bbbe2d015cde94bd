#include "ipr/support.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "ipr/errors.h"
#include "ipr/isa.h"
#include "packed.h"

namespace ipr {
namespace {

constexpr int64_t kMaxCentroids = 1024;

// 16 partial sums, as everywhere, so that the compiler may use vectors without changing the result.
float squared_norm(const float* x, int64_t dim) {
  float sums[16] = {};
  int64_t i = 0;
  for (; i + 16 <= dim; i += 16)
    for (int64_t lane = 0; lane < 16; ++lane) sums[lane] += x[i + lane] * x[i + lane];
  for (; i < dim; ++i) sums[i % 16] += x[i] * x[i];
  for (int width = 8; width > 0; width /= 2)
    for (int lane = 0; lane < width; ++lane) sums[lane] += sums[lane + width];
  return sums[0];
}

}  // namespace

struct Support::Fitted {
  PackedMatrix centroids;
  std::vector<float> squared_norms;  // (k)
  std::vector<float> distances;      // (percentiles)
  const Kernels* kernels;
};

Support::Support(const float* centroids, int64_t k, int64_t dim, const float* distances, int64_t percentiles,
                 const std::string& isa) {
  auto fitted = std::make_unique<Fitted>(Fitted{
      PackedMatrix(centroids, k, dim), {}, std::vector<float>(distances, distances + percentiles), &kernels_for(isa)});
  IPR_CHECK(k >= 1 && k <= kMaxCentroids, "centroids: expected 1 to ", kMaxCentroids, " rows, got ", k);
  IPR_CHECK(percentiles >= 2, "distances: expected at least 2 percentiles, got ", percentiles);
  IPR_CHECK(std::is_sorted(fitted->distances.begin(), fitted->distances.end()),
            "distances: expected nondecreasing percentiles");
  for (int64_t c = 0; c < k; ++c) fitted->squared_norms.push_back(squared_norm(centroids + c * dim, dim));
  fitted_ = std::move(fitted);
}

Support::Support(Support&&) noexcept = default;
Support::~Support() = default;

float Support::of(const float* x) const {
  const std::vector<float>& distances = fitted_->distances;
  const PackedRows rows = fitted_->centroids.view();
  float dots[kMaxCentroids];
  fitted_->kernels->dot16(rows, x, 1, rows.dim, dots, rows.rows);
  float nearest = std::numeric_limits<float>::infinity();  // ||c||^2 - 2 c.x, the part that depends on c
  for (int64_t c = 0; c < rows.rows; ++c) nearest = std::min(nearest, fitted_->squared_norms[c] - 2.0f * dots[c]);
  const float norm = squared_norm(x, rows.dim);
  if (norm == 0.0f) return 0.0f;  // nothing of the prompt was known
  const float squared = norm + nearest;
  if (!std::isfinite(squared)) return std::numeric_limits<float>::quiet_NaN();
  const float distance = std::sqrt(std::max(squared, 0.0f));
  const auto above = std::upper_bound(distances.begin(), distances.end(), distance);
  if (above == distances.begin()) return 1.0f;
  if (above == distances.end()) return 0.0f;
  const float low = *(above - 1), high = *above;
  const float below = static_cast<float>(above - distances.begin() - 1) + (distance - low) / (high - low);
  return 1.0f - below / static_cast<float>(distances.size() - 1);
}

}  // namespace ipr
