// Counters of the serving layer: plain integers, exact because every call holds the GIL; tens of nanoseconds a count.
#pragma once

#include <chrono>
#include <cmath>
#include <cstdint>

namespace ipr {

// Where latencies fall: below 1 us, four buckets an octave up to 2^26 us (67 s), above. A bucket holds its lower edge.
struct LatencyBuckets {
  static constexpr int kPerOctave = 4, kOctaves = 26;
  static constexpr int kCount = kPerOctave * kOctaves + 2;

  static int of(int64_t ns) {
    if (ns < 1000) return 0;
    int exponent = 0;
    const double mantissa = std::frexp(static_cast<double>(ns) / 1000.0, &exponent);  // in [0.5, 1)
    if (exponent > kOctaves) return kCount - 1;
    return 1 + (exponent - 1) * kPerOctave + static_cast<int>((mantissa - 0.5) * 2 * kPerOctave);
  }

  // Upper edge of bucket i in microseconds, i in [0, kCount - 1); the last bucket has none.
  static double upper_us(int i) {
    return std::ldexp(1.0 + static_cast<double>(i % kPerOctave) / kPerOctave, i / kPerOctave);
  }
};

// A clock that only goes forward; its zero means nothing.
inline int64_t clock_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace ipr
