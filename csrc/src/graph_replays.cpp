#include "ipr/graph_replays.h"

#include <chrono>

namespace ipr {
namespace {

// How long to poll before the driver is asked, and between two questions: an answer takes 50 to 500 us, a question 1.
constexpr auto kPatience = std::chrono::microseconds(500);
constexpr int kLooks = 64;      // at the word between two looks at the clock
constexpr int kNotReady = 600;  // CUDA_ERROR_NOT_READY
constexpr int kNoAnswer = -1;

inline void relax() {
#if IPR_X86
  __builtin_ia32_pause();
#endif
}

}  // namespace

GraphReplays::GraphReplays(const CudaCalls& calls, void* context, void* stream)
    : calls_(calls), context_(context), stream_(stream) {}

int GraphReplays::run(const RecordedPass& pass) const {
  void* current = nullptr;
  if (const int code = calls_.ctx_get_current(&current)) return code;
  if (current == context_) return launch_and_wait(pass);
  if (const int code = calls_.ctx_push_current(context_)) return code;  // a thread that has not used this device yet
  const int code = launch_and_wait(pass);
  const int popped = calls_.ctx_pop_current(&current);
  return code ? code : popped;
}

int GraphReplays::launch_and_wait(const RecordedPass& pass) const {
  if (const int code = calls_.graph_launch(pass.exec, stream_)) return code;
  auto ask = std::chrono::steady_clock::now() + kPatience;
  for (;;) {
    for (int look = 0; look < kLooks; ++look) {
      if (landed(pass)) return 0;
      relax();
    }
    if (std::chrono::steady_clock::now() < ask) continue;
    const int code = calls_.stream_query(stream_);
    if (code == 0) return landed(pass) ? 0 : kNoAnswer;
    if (code != kNotReady) return code;
    ask = std::chrono::steady_clock::now() + kPatience;
  }
}

}  // namespace ipr
