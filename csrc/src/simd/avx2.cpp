// The kernels of "avx2": CPUs with AVX2, FMA and F16C. setup.py compiles this file with these instructions.
#include "bytes_avx2.h"
#include "lanes_avx2.h"
//
#include "decide_kernel.h"
#include "gather_kernel.h"
#include "text_counts_kernel.h"

namespace ipr {

void count_terms_avx2(const char* utf8, size_t bytes, uint64_t* sums) { count_windows(utf8, bytes, sums); }

const Kernels kernels_avx2 = {
    "avx2",           dot16,      decide_scratch, decide, {mean<float>, mean<Half>, mean<int8_t>}, normalize,
    count_terms_avx2, fma_chains,
};

}  // namespace ipr
