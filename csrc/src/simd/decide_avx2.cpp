// decide for CPUs with AVX2 and FMA.
#include "lanes16_avx2.h"
//
#include "decide_kernel.h"

namespace ipr {

const Kernels kernels_avx2 = kKernels;

}  // namespace ipr
