// Which instruction sets this machine has, and the kernels of each.
//
//   const Kernels& kernels = kernels_for("auto");              // throws BackendUnavailable
//   kernels.dot16(matrix.view(), x, batch, x_stride, out, out_stride);
#pragma once

#include <string>
#include <vector>

#include "simd/kernels.h"

namespace ipr {

// Names that work here, slowest first: "scalar", then "avx2", "avx512" where the CPU and the build have them.
std::vector<std::string> available_isas();

// The kernels of `isa`; "auto" is the last of available_isas(). Throws InvalidInput for
// an unknown name, BackendUnavailable for one that this machine lacks.
const Kernels& kernels_for(const std::string& isa);

// Runs independent chains of multiply-adds, `steps` long, and returns how many multiply-adds that was: timed by
// a benchmark, it is the arithmetic roof of one thread.
int64_t fma_chains(const std::string& isa, int64_t steps);

}  // namespace ipr
