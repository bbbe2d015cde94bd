/* A stand-in for libcuda.so.1 on host memory, for tests on machines without a GPU. Work on a stream is put off until the stream is
 * synchronised and then done in order, so that a result read too early, or staging memory reused too early, shows. Build: gcc -shared. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef void (*work_t)(void);
static struct { void *to; const void *from; size_t size; work_t work; } queue[4096];
static int queued, syncs, live, gpus = 1, failing, major = 8, minor = 9;
static size_t used, limit = (size_t)1 << 30;
static char failing_call[64];

void stand_in_reset(int count, size_t memory) {
    gpus = count; limit = memory; used = 0; queued = syncs = live = failing = 0; major = 8; minor = 9;
}
void stand_in_capability(int first, int second) { major = first; minor = second; }
void stand_in_fail(const char *call, int code) { strncpy(failing_call, call, sizeof failing_call - 1); failing = code; }
int stand_in_syncs(void) { return syncs; }
int stand_in_live(void) { return live; } /* allocations, streams and contexts not given back */
int stand_in_queued(void) { return queued; }

static int put(void *to, const void *from, size_t size, work_t work, void *stream) {
    if (!stream || queued == 4096) return 1;
    queue[queued].to = to; queue[queued].from = from; queue[queued].size = size; queue[queued++].work = work;
    return 0;
}
int stand_in_enqueue(work_t work, void *stream) { return put(0, 0, 0, work, stream); }

#define CHECK(name) if (failing && !strcmp(failing_call, name)) return failing;

int cuInit(unsigned flags) { CHECK("cuInit") return flags ? 1 : gpus ? 0 : 100; }
int cuDriverGetVersion(int *version) { *version = 13020; return 0; }
int cuDeviceGetCount(int *count) { *count = gpus; return 0; }
int cuDeviceGet(int *device, int index) { if (index >= gpus) return 101; *device = index + 70; return 0; }
int cuDeviceGetName(char *name, int size, int device) { (void)device; strncpy(name, "Stand-in GPU", (size_t)size); return 0; }
int cuDeviceGetAttribute(int *value, int which, int device) {
    if (device < 70) return 101;
    *value = which == 75 ? major : which == 76 ? minor : -1;
    return 0;
}
int cuDevicePrimaryCtxRetain(void **context, int device) { if (device < 70) return 101; live++; *context = (void *)7; return 0; }
int cuDevicePrimaryCtxRelease_v2(int device) { if (device < 70) return 101; live--; return 0; }
int cuCtxSetCurrent(void *context) { CHECK("cuCtxSetCurrent") return context == (void *)7 ? 0 : 201; }
int cuMemAlloc_v2(uint64_t *pointer, size_t size) {
    if (used + size > limit) return 2;
    void *memory = aligned_alloc(256, (size + 255) / 256 * 256);
    memset(memory, 0xff, (size + 255) / 256 * 256); /* NaN, and ids far out of range */
    used += size; live++; *pointer = (uint64_t)(uintptr_t)memory;
    return 0;
}
int cuMemFree_v2(uint64_t pointer) { free((void *)(uintptr_t)pointer); live--; return 0; }
int cuMemHostAlloc(void **pointer, size_t size, unsigned flags) {
    (void)flags;
    *pointer = aligned_alloc(256, (size + 255) / 256 * 256);
    memset(*pointer, 0xff, (size + 255) / 256 * 256);
    live++;
    return 0;
}
int cuMemFreeHost(void *pointer) { free(pointer); live--; return 0; }
int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t size, void *stream) {
    CHECK("cuMemcpyHtoDAsync_v2") return put((void *)(uintptr_t)to, from, size, 0, stream);
}
int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t size, void *stream) {
    return put(to, (const void *)(uintptr_t)from, size, 0, stream);
}
int cuStreamCreate(void **stream, unsigned flags) { *stream = malloc(1); live++; return flags == 1 ? 0 : 1; }
int cuStreamSynchronize(void *stream) {
    CHECK("cuStreamSynchronize")
    if (!stream) return 400;
    for (int i = 0; i < queued; i++) {
        if (queue[i].work) queue[i].work();
        else memcpy(queue[i].to, queue[i].from, queue[i].size);
    }
    queued = 0; syncs++;
    return 0;
}
int cuStreamDestroy_v2(void *stream) { free(stream); live--; return 0; }
int cuGetErrorName(int code, const char **name) {
    *name = code == 2 ? "CUDA_ERROR_OUT_OF_MEMORY" : code == 700 ? "CUDA_ERROR_ILLEGAL_ADDRESS" : code == 100 ? "CUDA_ERROR_NO_DEVICE"
          : code == 46 ? "CUDA_ERROR_DEVICES_UNAVAILABLE" : "CUDA_ERROR_OTHER";
    return 0;
}
