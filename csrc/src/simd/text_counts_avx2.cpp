// Terms of a text for CPUs with AVX2, which count bits in one instruction too.
#include "text_counts_kernel.h"

namespace ipr {

void count_terms_avx2(const char* utf8, size_t bytes, uint64_t* sums) { count_windows(utf8, bytes, sums); }

}  // namespace ipr
