#include "isa.h"

#include <algorithm>
#include <chrono>

#include "errors.h"

namespace ipr {
namespace {

std::vector<const Kernels*> available() {
  std::vector<const Kernels*> found{&kernels_scalar};
#if IPR_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) found.push_back(&kernels_avx2);
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl"))
    found.push_back(&kernels_avx512);
#endif
  return found;
}

}  // namespace

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const Kernels* kernels : available()) names.emplace_back(kernels->isa);
  return names;
}

const Kernels& kernels_for(const std::string& isa) {
  const auto found = available();
  if (isa == "auto") return *found.back();
  std::string names;
  for (const Kernels* kernels : found) {
    if (isa == kernels->isa) return *kernels;
    names += std::string(names.empty() ? "" : ", ") + kernels->isa;
  }
  fail<BackendUnavailable>("isa: expected auto or one of those available here (", names, "), got ", isa,
                           "; pass isa='auto' to take the fastest");
}

double measure_fma_gflops(const std::string& isa) {
  const Kernels& kernels = kernels_for(isa);
  using Clock = std::chrono::steady_clock;
  double best = 0;
  for (int i = 0; i < 20; ++i) {
    float sink[32];
    for (int lane = 0; lane < 32; ++lane) sink[lane] = 0.5f / static_cast<float>(1 + lane);
    const auto begin = Clock::now();
    const int64_t multiply_adds = kernels.fma_chains(20000, sink);
    const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    best = std::max(best, 2.0 * static_cast<double>(multiply_adds) / seconds / 1e9);
  }
  return best;
}

}  // namespace ipr
