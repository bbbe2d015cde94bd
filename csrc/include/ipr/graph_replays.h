// GraphReplays: CUDA graphs launched and waited for without Python and without a link to CUDA.
//
//   GraphReplays replays(calls, context, stream);
//   replays.start(pass);
//   replays.wait(pass);                                      // landed(pass) is true
//
// The calls are addresses of the driver's functions, which Python found in the library that the process has loaded: a
// machine without a GPU needs neither the library nor its headers. A pass is launched by the handle of a graph that was
// made ready before. The host then polls the number behind its answers; the driver is asked only now and then, whether
// the work failed. So an answer costs one launch, and no event.
//
// A thread that has not used the device yet gets its context for the call and loses it afterwards: what the thread had
// current stays.
#pragma once

#include "ipr/recorded_route.h"

namespace ipr {

// Functions of CUDA's driver, each under the name and with the meaning that it has there; the versions are those of
// cuda.h (cuCtxPushCurrent_v2 and cuCtxPopCurrent_v2). None may be null. Each returns a CUresult: 0 where it did what
// its name says, and stream_query 600 (CUDA_ERROR_NOT_READY) while there is work.
struct CudaCalls {
  int (*graph_launch)(void* exec, void* stream);
  int (*stream_query)(void* stream);
  int (*ctx_get_current)(void** context);
  int (*ctx_push_current)(void* context);
  int (*ctx_pop_current)(void** context);
};

// Replays passes in one stream of one context: what is replayed later begins when what came before is done. Immutable;
// of one stream only one call at a time makes sense, since a pass's buffers are those of one request.
class GraphReplays : public Replays {
 public:
  // context: the device's primary one, in which the passes were recorded. stream: that of its other work.
  GraphReplays(const CudaCalls& calls, void* context, void* stream);

  // Launches the pass. Throws std::runtime_error with the driver's error; OutOfDeviceMemory or BackendUnavailable where
  // this launch alone was refused and the device goes on. Nothing of Python is touched here or in wait, so its lock may
  // be given up.
  void start(const RecordedPass& pass) const override;

  // Polls until the answers are there; the calling thread does nothing else meanwhile. Throws std::runtime_error with
  // the driver's error, or where the work ended without its answers.
  void wait(const RecordedPass& pass) const override;

 private:
  CudaCalls calls_;
  void *context_, *stream_;
};

// Throws the error of a pass whose work failed with the driver's `code`, or, where that is 0, ended without its
// answers; Python knows a lost device by its first words (ipr_engine/cuda/lost_device.py).
[[noreturn]] void fail_pass(const RecordedPass& pass, int code);

}  // namespace ipr
