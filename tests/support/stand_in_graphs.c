/* A stand-in for the few functions of CUDA's driver that replay a graph (csrc/include/ipr/graph_replays.h), on a machine
 * without a GPU. A "graph" is a struct on the host; its work is to store the request's number where the host polls, at
 * once or later from another thread. Build: gcc -shared -pthread. */
#include <pthread.h>
#include <stdint.h>
#include <unistd.h>

enum { NOT_READY = 600 };

struct graph {
    const int32_t *sequence;
    int32_t *done;
    int32_t delay_us; /* 0: at once; -1: never */
    int32_t launch_code, query_code; /* what is returned; query_code 0: as the work stands */
    int32_t launches, queries;
};

static struct graph *running;
static void *stream_now;
static __thread void *context;
static __thread int pushes, pops;

static void *later(void *given) {
    struct graph *graph = given;
    usleep((useconds_t)graph->delay_us);
    __atomic_store_n(graph->done, *graph->sequence, __ATOMIC_RELEASE);
    return 0;
}

int cuGraphLaunch(void *exec, void *stream) {
    struct graph *graph = exec;
    if (!context) return 201; /* CUDA_ERROR_INVALID_CONTEXT */
    graph->launches++;
    running = graph;
    stream_now = stream;
    if (graph->launch_code) return graph->launch_code;
    if (graph->delay_us < 0) return 0;
    if (graph->delay_us == 0) {
        __atomic_store_n(graph->done, *graph->sequence, __ATOMIC_RELEASE);
        return 0;
    }
    pthread_t thread;
    if (pthread_create(&thread, 0, later, graph)) return 2;
    pthread_detach(thread);
    return 0;
}

int cuStreamQuery(void *stream) {
    running->queries++;
    if (stream != stream_now) return 400; /* CUDA_ERROR_INVALID_HANDLE */
    if (running->query_code) return running->query_code;
    if (running->delay_us < 0) return 0;
    return __atomic_load_n(running->done, __ATOMIC_ACQUIRE) == *running->sequence ? 0 : NOT_READY;
}

int cuCtxGetCurrent(void **current) { *current = context; return 0; }
int cuCtxPushCurrent_v2(void *given) { context = given; pushes++; return 0; }
int cuCtxPopCurrent_v2(void **given) { *given = context; context = 0; pops++; return 0; }

void stand_in_make_current(void *given) { context = given; pushes = pops = 0; }
int stand_in_pushes(void) { return pushes; }
int stand_in_pops(void) { return pops; }
