// Latencies in logarithmic buckets, and the clock that they are measured by, for the counters of ipr_engine/serving.
//
// Both are plain arithmetic without state; any number of threads may use them at once. The counts themselves live in
// the Python objects Tally and LatencyHistogram (csrc/python/bind_counters.cpp).
#pragma once

#include <chrono>
#include <cmath>
#include <cstdint>

namespace ipr {

// Bucket 0 holds all below 1 us. Then come four buckets an octave, up to 2^26 us (67 s), and the last bucket holds what
// is above:
//
//   0           below 1 us
//   1 to 4      1 to 1.25, to 1.5, to 1.75, to 2 us
//   5 to 8      2 to 2.5, to 3, to 3.5, to 4 us
//   ...
//   105         2^26 us and above
//
// A bucket holds its lower edge and not its upper one. So a latency is told apart from another that is a quarter
// longer, and a histogram is 106 whole numbers. Python reads the edges as `latency_edges_us`: the upper edge of every
// bucket but the last.
//
//   histogram.counts[LatencyBuckets::of(clock_ns() - start)] += 1;
struct LatencyBuckets {
  static constexpr int kPerOctave = 4, kOctaves = 26;
  static constexpr int kCount = kPerOctave * kOctaves + 2;

  // The bucket of `ns` nanoseconds, in [0, kCount). A negative latency falls into bucket 0. The arithmetic is exact for
  // every edge, since an edge in nanoseconds over 1000 is a short binary fraction.
  static int of(int64_t ns) {
    if (ns < 1000) return 0;
    // ns is mantissa * 2^exponent us, and the mantissa is in [0.5, 1): the exponent tells the octave, and the mantissa
    // which quarter of it.
    int exponent = 0;
    const double mantissa = std::frexp(static_cast<double>(ns) / 1000.0, &exponent);
    if (exponent > kOctaves) return kCount - 1;
    return 1 + (exponent - 1) * kPerOctave + static_cast<int>((mantissa - 0.5) * 2 * kPerOctave);
  }

  // The upper edge of bucket i in microseconds, i in [0, kCount - 1); the last bucket has none. Every edge is exact in
  // float64.
  static double upper_us(int i) {
    return std::ldexp(1.0 + static_cast<double>(i % kPerOctave) / kPerOctave, i / kPerOctave);
  }
};

// Nanoseconds of a clock that only goes forward, the same in every thread. Its zero means nothing: only differences do.
// A clock of the day would jump where the machine's time is set, and a latency would be negative.
inline int64_t clock_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace ipr
