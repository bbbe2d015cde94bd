// The kernels of "avx512": CPUs with AVX-512 F, BW, DQ and VL. setup.py compiles this file with these instructions.
#include "lanes_avx512.h"
//
#include "decide_kernel.h"
#include "gather_kernel.h"

namespace ipr {

// Texts are counted as on "avx2": windows of 64 bytes fall into 64-bit masks either way.
const Kernels kernels_avx512 = {
    "avx512",         dot16,      decide_scratch, decide, {mean<float>, mean<Half>, mean<int8_t>}, normalize,
    count_terms_avx2, fma_chains,
};

}  // namespace ipr
