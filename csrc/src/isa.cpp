#include "ipr/isa.h"

#if IPR_X86
#include <cpuid.h>
#endif

#include "ipr/errors.h"
#include "simd/kernel_table.h"

namespace ipr {
namespace {

#if IPR_X86
// __builtin_cpu_supports knows "f16c" in gcc and in late clangs only.
bool has_f16c() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C);
}
#endif

std::vector<const Kernels*> find_available() {
  std::vector<const Kernels*> found{&kernels_scalar};
#if IPR_X86
  __builtin_cpu_init();
  // Each set is all that setup.py lets the compiler use in the file of that set.
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
  if (avx2) found.push_back(&kernels_avx2);
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    found.push_back(&kernels_avx512);
#endif
  return found;
}

// Asked of the CPU once: its answer takes microseconds where a hypervisor gives it.
const std::vector<const Kernels*>& available() {
  static const std::vector<const Kernels*> found = find_available();
  return found;
}

}  // namespace

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const Kernels* kernels : available()) names.emplace_back(kernels->isa);
  return names;
}

const Kernels& kernels_for(const std::string& isa) {
  IPR_CHECK(isa == "auto" || isa == "scalar" || isa == "avx2" || isa == "avx512",
            "isa: expected auto, scalar, avx2 or avx512, got ", isa);
  const std::vector<const Kernels*>& found = available();
  if (isa == "auto") return *found.back();
  std::string names;
  for (const Kernels* kernels : found) {
    if (isa == kernels->isa) return *kernels;
    names += std::string(names.empty() ? "" : ", ") + kernels->isa;
  }
  fail<BackendUnavailable>("isa: this machine has ", names, ", not ", isa, "; pass isa='auto' to take the fastest");
}

int64_t fma_chains(const std::string& isa, int64_t steps) {
  float sink[512];
  for (int lane = 0; lane < 512; ++lane) sink[lane] = 0.5f / static_cast<float>(1 + lane);
  return kernels_for(isa).fma_chains(steps, sink);
}

}  // namespace ipr
