#include "ipr/graph_replays.h"

#include <chrono>
#include <stdexcept>
#include <string>

#include "ipr/errors.h"

namespace ipr {
namespace {

// How long to poll before the driver is asked, and between two questions: an answer takes 50 to 500 us, a question 1.
constexpr auto kPatience = std::chrono::microseconds(500);
constexpr int kLooks = 64;      // at the word between two looks at the clock
constexpr int kNotReady = 600;  // CUDA_ERROR_NOT_READY
constexpr int kOutOfMemory = 2;
constexpr int kOutOfResources = 701;  // CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES: nothing was launched

// Another thread of the process captures a graph in "global" mode: CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED to
// _WRONG_THREAD.
inline bool somebody_captures(int code) { return 900 <= code && code <= 908; }

inline void relax() {
#if IPR_X86
  __builtin_ia32_pause();
#endif
}

// Runs `call`, which gives a CUresult, in the context.
template <class Call>
int within(const CudaCalls& calls, void* context, Call&& call) {
  void* current = nullptr;
  if (const int code = calls.ctx_get_current(&current)) return code;
  if (current == context) return call();
  if (const int code = calls.ctx_push_current(context)) return code;  // a thread that has not used this device yet
  const int code = call();
  const int popped = calls.ctx_pop_current(&current);
  return code ? code : popped;
}

// Throws where a launch was refused with a code that says nothing of the context: the next one may go through.
void fail_launch(const RecordedPass& pass, int code) {
  const std::string bucket = "bucket " + std::to_string(pass.batch) + " x " + std::to_string(pass.tokens);
  if (code == kOutOfMemory)
    fail<OutOfDeviceMemory>(bucket,
                            ": out of memory on the device when its recording was launched (CUDA driver, error ", code,
                            "); the engine goes on: free memory of the device, or use smaller or fewer batches");
  if (code == kOutOfResources || somebody_captures(code))
    fail<BackendUnavailable>(bucket, ": the CUDA driver refused to launch its recording with error ", code,
                             somebody_captures(code) ? ", since another thread captures a graph" : "",
                             "; the engine goes on: ask again");
}

}  // namespace

void fail_pass(const RecordedPass& pass, int code) {
  const std::string what =
      "CUDA driver: the recording of " + std::to_string(pass.batch) + " x " + std::to_string(pass.tokens);
  throw std::runtime_error(code ? what + " failed with error " + std::to_string(code)
                                : what + " ended without its answers");
}

GraphReplays::GraphReplays(const CudaCalls& calls, void* context, void* stream)
    : calls_(calls), context_(context), stream_(stream) {}

void GraphReplays::start(const RecordedPass& pass) const {
  const int code = within(calls_, context_, [&] { return calls_.graph_launch(pass.exec, stream_); });
  if (!code) return;
  fail_launch(pass, code);
  fail_pass(pass, code);
}

void GraphReplays::wait(const RecordedPass& pass) const {
  auto ask = std::chrono::steady_clock::now() + kPatience;
  for (;;) {
    for (int look = 0; look < kLooks; ++look) {
      if (landed(pass)) return;
      relax();
    }
    if (std::chrono::steady_clock::now() < ask) continue;
    const int code = within(calls_, context_, [&] { return calls_.stream_query(stream_); });
    if (code == 0 && landed(pass)) return;
    if (code != kNotReady && !somebody_captures(code)) fail_pass(pass, code);
    ask = std::chrono::steady_clock::now() + kPatience;
  }
}

}  // namespace ipr
