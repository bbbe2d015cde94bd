// Which instruction sets this machine has, and the kernels of each.
//
// A set is named "scalar", "avx2" or "avx512". Every set gives the same bits, so a choice is one of speed alone. "auto"
// is settled where an object is made, once, and the object tells what it became; nothing falls back later.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace ipr {

// The functions of one set; src/simd/kernel_table.h defines it.
struct Kernels;

// Names that work here, slowest first: "scalar", then "avx2", "avx512" where the CPU and the build have them. A build
// for another platform than x86-64 has "scalar" alone.
std::vector<std::string> available_isas();

// The kernels of `isa`; "auto" is the last of available_isas(). What is returned lives as long as the process. Throws
// InvalidInput for an unknown name, BackendUnavailable for one that this machine lacks.
const Kernels& kernels_for(const std::string& isa);

// Runs independent chains of fused multiply-adds, `steps` long, and returns how many multiply-adds that was. Timed by a
// benchmark, it is the arithmetic roof of one thread. Throws as kernels_for does.
int64_t fma_chains(const std::string& isa, int64_t steps);

}  // namespace ipr
