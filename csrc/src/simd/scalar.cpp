// The kernels of "scalar": baseline code, which runs on any CPU of the platform.
#include "bytes_scalar.h"
#include "lanes_scalar.h"
//
#include "decide_kernel.h"
#include "gather_kernel.h"
#include "text_counts_kernel.h"

namespace ipr {

const Kernels kernels_scalar = {
    "scalar",  dot16,         decide_scratch, decide, {mean<float>, mean<Half>, mean<int8_t>},
    normalize, count_windows, fma_chains,
};

}  // namespace ipr
