/* A stand-in for the few functions of CUDA's driver that replay a graph (csrc/include/ipr/graph_replays.h), on a machine
 * without a GPU. A "graph" is a struct on the host; its work is to store the request's number where the host polls, at
 * once or later, in the order of the launches. Build: gcc -shared -pthread. */
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
    const int32_t *watched; /* of the buffers: must not change between launch and the number */
    int32_t seen, torn;
};

/* One stream: graphs end in the order in which they were launched. */
enum { MOST = 64 };
static struct graph *stream_of[MOST];
static int begun, ended; /* how many launches */
static void *stream_now;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t more = PTHREAD_COND_INITIALIZER;
static int works;
static __thread void *context;
static __thread int pushes, pops;

static void finish(struct graph *graph) {
    if (graph->delay_us < 0) return;
    if (graph->watched && *graph->watched != graph->seen) graph->torn++;
    __atomic_store_n(graph->done, *graph->sequence, __ATOMIC_RELEASE);
}

static void *worker(void *nothing) {
    (void)nothing;
    for (;;) {
        pthread_mutex_lock(&mutex);
        while (begun == ended) pthread_cond_wait(&more, &mutex);
        struct graph *graph = stream_of[ended % MOST];
        pthread_mutex_unlock(&mutex);
        if (graph->delay_us > 0) usleep((useconds_t)graph->delay_us);
        finish(graph);
        pthread_mutex_lock(&mutex);
        ended++;
        pthread_mutex_unlock(&mutex);
    }
    return 0;
}

int cuGraphLaunch(void *exec, void *stream) {
    struct graph *graph = exec;
    if (!context) return 201; /* CUDA_ERROR_INVALID_CONTEXT */
    graph->launches++;
    stream_now = stream;
    if (graph->launch_code) return graph->launch_code;
    if (graph->watched) graph->seen = *graph->watched;
    pthread_mutex_lock(&mutex);
    if (graph->delay_us <= 0 && begun == ended) {
        finish(graph);
    } else if (begun - ended == MOST) {
        pthread_mutex_unlock(&mutex);
        return 2;
    } else {
        stream_of[begun++ % MOST] = graph;
        if (!works) {
            pthread_t thread;
            works = !pthread_create(&thread, 0, worker, 0) && !pthread_detach(thread);
        }
        pthread_cond_signal(&more);
    }
    pthread_mutex_unlock(&mutex);
    return 0;
}

int cuStreamQuery(void *stream) {
    if (stream != stream_now) return 400; /* CUDA_ERROR_INVALID_HANDLE */
    pthread_mutex_lock(&mutex);
    struct graph *graph = begun == ended ? 0 : stream_of[ended % MOST];
    pthread_mutex_unlock(&mutex);
    if (!graph) return 0;
    graph->queries++;
    return graph->query_code ? graph->query_code : NOT_READY;
}

int cuCtxGetCurrent(void **current) { *current = context; return 0; }
int cuCtxPushCurrent_v2(void *given) { context = given; pushes++; return 0; }
int cuCtxPopCurrent_v2(void **given) { *given = context; context = 0; pops++; return 0; }

void stand_in_drain(void) {
    for (int left = 1; left;) {
        usleep(100);
        pthread_mutex_lock(&mutex);
        left = begun - ended;
        pthread_mutex_unlock(&mutex);
    }
}
void stand_in_make_current(void *given) { context = given; pushes = pops = 0; }
int stand_in_pushes(void) { return pushes; }
int stand_in_pops(void) { return pops; }
