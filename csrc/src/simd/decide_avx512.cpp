// decide for CPUs with AVX-512 F, BW, DQ and VL.
#include "lanes16_avx512.h"
//
#include "decide_kernel.h"

namespace ipr {

const Kernels kernels_avx512 = kKernels;

}  // namespace ipr
