#include "ipr/order.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "simd/kernel_table.h"

namespace ipr {
namespace {

// By cost - worth * quality; ties to the higher quality, then the lower tie rank: a total order of candidates.
struct ByObjective {
  const Results& row;
  const float* tie_rank;
  float worth;

  float objective(int32_t m) const { return row.cost_usd[m] - worth * row.quality[m]; }
  bool operator()(int32_t a, int32_t b) const {
    const float first = objective(a), second = objective(b);
    if (first != second) return first < second;
    if (row.quality[a] != row.quality[b]) return row.quality[a] > row.quality[b];
    return tie_rank[a] < tie_rank[b];
  }
};

bool has_finite(const Results& row, int64_t m) {
  return std::isfinite(row.quality[m]) && std::isfinite(row.cost_usd[m]);
}

}  // namespace

int64_t failover(const DecidePolicy& policy, const Results& row, const uint8_t* allowed, int32_t* order) {
  const PackedPolicy& packed = policy.packed();
  const bool unsupported = *row.cause == Cause::unsupported;
  const bool by_cost = unsupported && policy.unsupported() == kCheapest;
  int64_t left = 0;
  for (int64_t m = 0; m < policy.models(); ++m)
    if (allowed[m] && !(unsupported && m == *row.index) && has_finite(row, m)) order[left++] = static_cast<int32_t>(m);
  std::sort(order, order + left, ByObjective{row, policy.tie_rank(), by_cost ? 0.0f : packed.worth});
  int32_t* next = order;
  int32_t* const end = order + left;
  for (; !by_cost && next != end; ++next) {  // those from `next` on are left, in their order
    float hi = -std::numeric_limits<float>::infinity(), lo = -hi;
    for (const int32_t* m = next; m != end; ++m) {
      hi = std::max(hi, row.quality[*m]);
      lo = std::min(lo, row.quality[*m]);
    }
    const float threshold = std::min((packed.alpha_hi * hi + packed.alpha_lo * lo) + packed.offset, hi);
    int32_t* const chosen = std::find_if(next, end, [&](int32_t m) { return row.quality[m] >= threshold; });
    std::rotate(next, chosen, chosen + 1);
  }
  if (!unsupported) return left;
  std::copy_backward(order, end, end + 1);
  order[0] = *row.index;
  return left + 1;
}

void send_unsupported(const DecidePolicy& policy, const Results& row, const uint8_t* allowed) {
  *row.cause = Cause::unsupported;
  int64_t to = policy.unsupported();
  if (to == kCheapest) {
    const ByObjective cheaper{row, policy.tie_rank(), 0.0f};
    for (int64_t m = 0; m < policy.models(); ++m)
      if (allowed[m] && has_finite(row, m) && (to < 0 || cheaper(static_cast<int32_t>(m), static_cast<int32_t>(to))))
        to = m;
  }
  if (to < 0 || !allowed[to] || !has_finite(row, to)) return;
  *row.index = static_cast<int32_t>(to);
  *row.threshold = 0;
  *row.gap = std::numeric_limits<float>::infinity();
}

}  // namespace ipr
