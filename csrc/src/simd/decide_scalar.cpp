// decide for any CPU.
#include "lanes16_scalar.h"
//
#include "decide_kernel.h"

namespace ipr {

const Kernels kernels_scalar = kKernels;

}  // namespace ipr
