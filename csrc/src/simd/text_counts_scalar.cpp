// Terms of a text on any CPU.
#include "text_counts_kernel.h"

namespace ipr {

void count_terms_scalar(const char* utf8, size_t bytes, uint64_t* sums) { count_windows(utf8, bytes, sums); }

}  // namespace ipr
