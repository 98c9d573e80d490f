/*
 * Bandwidth: each thread sums up its memory as several sequences side by side, with the widest vectors in use, round after
 * round; a round counts from its first thread's start to its last one's end.
 * Latency: a chain of pointers through every line of the memory, each the address of the next (McVoy and Staelin 1996, lmbench).
 */
#include "optimization/memory_speed.h"

#include <inttypes.h>
#include <math.h>
#include <omp.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mman.h>

#include "base/memory.h"
#include "base/threads.h"
#include "kernels/processor.h"

/* A run takes this part of the time or more: a millisecond or two, in which a busy system may leave it alone. */
enum { SHORTEST = 200 };

static _Thread_local volatile uint64_t sink; /* what is read must be of use */

/* ---- Reading ---- */

enum { STREAMS = 4, LARGEST_PIECE = 8 << 20 };

/* Sums up `bytes` bytes. Side by side, the sequences keep more requests under way than one does. */
#define DEFINE_READ(name, target_options, vector)                                                                                \
    target_options static uint64_t name(const void *memory, size_t bytes) {                                                      \
        const vector *words = memory;                                                                                            \
        vector sums[STREAMS] = {{0}};                                                                                            \
        size_t part = bytes / sizeof *words / STREAMS;                                                                           \
        for (size_t i = 0; i + 4 <= part; i += 4) {                                                                              \
            _Pragma("GCC unroll 4") for (int s = 0; s < STREAMS; s++) {                                                          \
                const vector *line = words + (size_t)s * part + i;                                                               \
                sums[s] += (line[0] + line[1]) + (line[2] + line[3]);                                                            \
            }                                                                                                                    \
        }                                                                                                                        \
        sums[0] = (sums[0] + sums[1]) + (sums[2] + sums[3]);                                                                     \
        return sums[0][0] + sums[0][1];                                                                                          \
    }

typedef uint64_t (*read_function)(const void *memory, size_t bytes);
typedef uint64_t words_16 __attribute__((vector_size(16)));
typedef uint64_t words_32 __attribute__((vector_size(32)));
typedef uint64_t words_64 __attribute__((vector_size(64)));

DEFINE_READ(read_16, , words_16)
#if defined(__x86_64__)
DEFINE_READ(read_32, __attribute__((target("avx2"))), words_32)
DEFINE_READ(read_64, __attribute__((target("avx512f"))), words_64)

static read_function widest(void) {
    const dm_processor *processor = dm_processor_features();
    return processor->avx512 ? read_64 : processor->avx2 ? read_32 : read_16;
}
#else
static read_function widest(void) {
    return read_16;
}
#endif

/* ---- Waiting ---- */

/* Makes a chain through the first `lines` lines, a power of two. Line i is followed by line (a i + c) mod `lines`, which Hull and
 * Dobell (1962) show to visit each line once; the chain is written in the memory's order, which takes no longer than reading it.
 * The constants are Knuth's for MMIX. */
static void make_chain(uint8_t *memory, size_t lines, size_t line) {
    for (uint64_t i = 0; i < lines; i++) {
        uint64_t next = (i * 6364136223846793005u + 1442695040888963407u) & (lines - 1);
        *(void **)(void *)(memory + i * line) = memory + next * line;
    }
}

static void *follow(void *at, size_t steps) {
    for (size_t i = 0; i < steps; i += 8) {
        _Pragma("GCC unroll 8") for (int j = 0; j < 8; j++) {
            at = *(void **)at;
        }
    }
    return at;
}

/* Nanoseconds of a step: the least of many short runs. */
static double wait_for_each(void *chain, double seconds) {
    size_t steps = 1024;
    double least = INFINITY;
    void *at = chain;
    for (double now = dm_seconds(), end = now + seconds; now < end && !dm_interrupted();) {
        double start = now;
        at = follow(at, steps);
        now = dm_seconds();
        if (now - start < seconds / SHORTEST) {
            steps *= 2;
        } else {
            least = fmin(least, (now - start) / (double)steps);
        }
    }
    sink = (uint64_t)(uintptr_t)at;
    return isfinite(least) ? 1e9 * least : NAN;
}

/* ---- Memory ---- */

enum { ALIGNMENT = 2 << 20 }; /* of huge pages where pages are of 4 KiB: a small working set then lies in one of them */

typedef struct region {
    uint8_t *mapped, *memory;
    size_t mapped_bytes;
} region;

static bool get_region(size_t bytes, region *out) {
    out->mapped_bytes = bytes + 2 * (size_t)ALIGNMENT - 1;
    out->mapped = mmap(NULL, out->mapped_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (out->mapped == MAP_FAILED) {
        *out = (region){0};
        return false;
    }
    out->memory = out->mapped + (ALIGNMENT - (uintptr_t)out->mapped % ALIGNMENT) % ALIGNMENT;
    madvise(out->memory, (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT, MADV_HUGEPAGE); /* the system may decline */
    return true;
}

static void drop_region(region *it) {
    if (it->mapped != NULL) {
        munmap(it->mapped, it->mapped_bytes);
    }
}

/* Whether huge pages make up most of the mapping that holds the address: what /proc/self/smaps says. */
static bool in_huge_pages(const void *address, size_t bytes) {
    FILE *smaps = fopen("/proc/self/smaps", "re");
    char line[4352]; /* a path of 4096 bytes, and what is before it */
    bool here = false;
    uint64_t kib = 0;
    while (smaps != NULL && fgets(line, sizeof line, smaps) != NULL) {
        uintptr_t begin, end;
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " ", &begin, &end) == 2) {
            here = begin <= (uintptr_t)address && (uintptr_t)address < end;
        } else if (here && sscanf(line, "AnonHugePages: %" SCNu64, &kib) == 1) {
            break;
        }
    }
    if (smaps != NULL) {
        fclose(smaps);
    }
    return kib * 1024 >= bytes / 2 && kib > 0;
}

/* ---- Threads ---- */

/* Binds the calling thread; false, and nothing changes, where that cannot be done. */
static bool bind_thread(const dm_readers *readers, int thread, cpu_set_t *before) {
    int processor = readers->processors != NULL ? readers->processors[thread] : -1;
    if (processor < 0 || processor >= CPU_SETSIZE || sched_getaffinity(0, sizeof *before, before) != 0) {
        return false;
    }
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET((unsigned)processor, &one);
    return sched_setaffinity(0, sizeof one, &one) == 0;
}

/* What the threads share. */
typedef struct team {
    const dm_readers *readers;
    read_function read;
    size_t line, lines;
    double *starts, *ends; /* [threads] of the round */
    size_t laps;           /* of a round, each through the next piece of a thread's memory, or all of it if that is less */
    double deadline;       /* 0: before the first round */
    int rounds;            /* counted */
    bool short_of_memory, over;
    dm_memory_speed *out;
} team;

/* Rounds are short even where the memory is large. */
static size_t piece_bytes(const team *it) {
    return it->readers->bytes < LARGEST_PIECE ? it->readers->bytes : LARGEST_PIECE;
}

/* After a round: a short one is repeated with twice the laps, which also warms the caches; another one counts. */
static void judge_round(team *it, int threads) {
    double start = it->starts[0], end = it->ends[0];
    for (int t = 1; t < threads; t++) {
        start = fmin(start, it->starts[t]);
        end = fmax(end, it->ends[t]);
    }
    double seconds = it->readers->seconds, bytes = (double)piece_bytes(it) * (double)it->laps * threads;
    if (it->deadline == 0) {
        it->deadline = end + seconds;
    } else if (end - start < seconds / SHORTEST) {
        it->laps *= 2;
    } else {
        it->rounds++;
        it->out->bandwidth_gb_s = fmax(it->out->bandwidth_gb_s, 1e-9 * bytes / (end - start));
    }
    it->over = dm_interrupted() || (it->rounds >= 2 && end > it->deadline);
}

static void read_rounds(team *it, const uint8_t *memory, int thread, int threads) {
    size_t piece = piece_bytes(it), pieces = it->readers->bytes / piece, next = 0;
    uint64_t sum = 0;
    while (!it->over) {
#pragma omp barrier
        it->starts[thread] = dm_seconds();
        for (size_t lap = 0; lap < it->laps; lap++) {
            sum += it->read(memory + next * piece, piece);
            next = next + 1 < pieces ? next + 1 : 0;
            __asm__ volatile("" ::: "memory"); /* or the compiler sees that each lap gives the same */
        }
        it->ends[thread] = dm_seconds();
#pragma omp barrier
#pragma omp single
        judge_round(it, threads);
    }
    sink = sum;
}

/* One thread's part of all. */
static void work(team *it) {
    int thread = omp_get_thread_num(), threads = omp_get_num_threads();
    cpu_set_t before;
    region own;
    bool bound = bind_thread(it->readers, thread, &before);
    size_t chain = it->lines * it->line;
    if (get_region(chain > it->readers->bytes ? chain : it->readers->bytes, &own)) {
        make_chain(own.memory, it->lines, it->line);
        for (size_t at = chain; at < it->readers->bytes; at += 4096) { /* what the chain left untouched */
            own.memory[at] = 1;
        }
    } else {
#pragma omp atomic write
        it->short_of_memory = true;
    }
#pragma omp barrier
    if (!it->short_of_memory) {
        if (thread == 0) {
            it->out->huge_pages = in_huge_pages(own.memory, it->readers->bytes);
            it->out->latency_ns = threads == 1 ? wait_for_each(own.memory, it->readers->seconds) : NAN;
        }
        read_rounds(it, own.memory, thread, threads);
    }
    drop_region(&own);
    if (bound) {
        sched_setaffinity(0, sizeof before, &before);
    }
}

/* The power of two nearest to n, by ratio. */
static size_t near_power(size_t n) {
    size_t power = 1;
    while (power < n / 2 + n / 5) { /* n / sqrt(2) */
        power *= 2;
    }
    return power;
}

dm_status dm_memory_speed_measure(const dm_readers *readers, dm_memory_speed *out) {
    size_t line = readers->line >= sizeof(void *) ? readers->line / sizeof(void *) * sizeof(void *) : 64;
    *out = (dm_memory_speed){.latency_ns = NAN};
    team it = {.readers = readers, .read = widest(), .line = line, .laps = 1, .out = out};
    it.lines = near_power(readers->bytes / line);
    it.starts = dm_alloc(2 * (size_t)readers->threads, sizeof(double));
    if (it.starts == NULL) {
        return DM_ERR_MEMORY;
    }
    it.ends = it.starts + readers->threads;
#pragma omp parallel num_threads(readers->threads)
    work(&it);
    dm_free(it.starts);
    if (dm_interrupted()) {
        return dm_fail(DM_ERR_INTERRUPTED, "interrupted");
    }
    if (it.short_of_memory) {
        return dm_fail(DM_ERR_MEMORY, "out of memory for a working set of %zu bytes on %d threads", readers->bytes,
                       readers->threads);
    }
    return DM_OK;
}
