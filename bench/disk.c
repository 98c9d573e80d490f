/*
 * How fast a file is read past the page cache (src/base/disk_reader.h): GB/s of reads at random places, for several sizes and
 * numbers in flight, through io_uring and by threads. The two take turns, so that what else goes on meets both; each figure is
 * the median of its turns. Reads go to one place after the other of more memory than a processor's caches hold, in huge pages, as
 * experts do. Then the same, of the largest size through io_uring, while threads read memory, as computing a token does: how fast
 * the disk is and how fast memory is, each alone and both at once. Usage: dm-bench-disk FILE [SECONDS] [--json], of each turn;
 * with --json an object with the best figure and that beside computing, tables on standard error
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/disk_reader.h"
#include "base/pages.h"
#include "base/random.h"
#include "base/spread.h"
#include "base/threads.h"

enum { TURNS = 5, KINDS = 2, MOST_DEPTH = 16, MOST_BYTES = 4 << 20, PLACES = 64 };

static const size_t sizes[] = {64 << 10, 256 << 10, 1 << 20, 4 << 20};
static const unsigned depths[] = {1, 2, 4, 8, MOST_DEPTH};

typedef struct bench {
    const char *path;
    double seconds; /* of a turn */
    FILE *table;
    double best; /* GB/s of any size and depth */
    double busy; /* of the largest size, two in flight, while all processors read memory */
    dm_random random;
    dm_pages memory; /* [PLACES][MOST_BYTES] */
    size_t next;     /* place */
} bench;

static dm_status submit(bench *b, dm_disk_reader *reader, size_t bytes, uint64_t slot) {
    uint64_t places = dm_disk_reader_file(reader, 0)->size / bytes;
    return dm_disk_reader_submit(reader, (dm_disk_read){.offset = dm_random_next(&b->random) % places * bytes,
                                                        .bytes = bytes,
                                                        .to = (uint8_t *)b->memory.data + b->next++ % PLACES * MOST_BYTES,
                                                        .tag = slot});
}

/* GB/s while `depth` reads are in flight, one turn long. */
static dm_status read_for_a_turn(bench *b, dm_disk_reader *reader, size_t bytes, unsigned depth, double *rate) {
    double start = dm_seconds(), now = start;
    uint64_t before = dm_disk_reader_counts(reader).bytes;
    for (unsigned slot = 0; slot < depth; slot++) {
        DM_TRY(submit(b, reader, bytes, slot));
    }
    for (dm_disk_done done; dm_disk_reader_wait(reader, true, &done);) {
        DM_TRY(done.status);
        now = dm_seconds();
        if (now < start + b->seconds) {
            DM_TRY(submit(b, reader, bytes, done.tag));
        }
    }
    *rate = 1e-9 * (double)(dm_disk_reader_counts(reader).bytes - before) / (now - start);
    return DM_OK;
}

static dm_status measure(bench *b, dm_disk_reader *const *readers, size_t bytes, unsigned depth) {
    double rates[KINDS][TURNS];
    for (int i = 0; i < KINDS * TURNS; i++) {
        DM_TRY(read_for_a_turn(b, readers[i % KINDS], bytes, depth, &rates[i % KINDS][i / KINDS]));
    }
    fprintf(b->table, "%6zu %6u", bytes >> 10, depth);
    for (int i = 0; i < KINDS; i++) {
        const dm_spread spread = dm_spread_of(rates[i], TURNS);
        b->best = spread.median > b->best ? spread.median : b->best;
        fprintf(b->table, " %9.2f %5.2f..%.2f", spread.median, spread.least, spread.most);
    }
    fprintf(b->table, "\n");
    fflush(b->table);
    return DM_OK;
}

static dm_status measure_all(bench *b, dm_disk_reader *const *readers) {
    const dm_disk_file *file = dm_disk_reader_file(readers[0], 0);
    if (file->size < MOST_BYTES) {
        return dm_fail(DM_ERR_ARGUMENT, "%s: too small to measure with: expected %d bytes or more", b->path, MOST_BYTES);
    }
    fprintf(b->table, "%s, %.2f GB, %s\n%6s %6s", b->path, 1e-9 * (double)file->size,
            file->direct ? "O_DIRECT" : "without O_DIRECT: some may come from the page cache", "KiB", "depth");
    for (int i = 0; i < KINDS; i++) {
        fprintf(b->table, " %9s %12s", dm_disk_reader_kind(readers[i]), "least..most");
    }
    fprintf(b->table, "   GB/s\n");
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (size_t j = 0; j < sizeof depths / sizeof *depths; j++) {
            DM_TRY(measure(b, readers, sizes[i], depths[j]));
        }
    }
    return DM_OK;
}

/* ---- While memory is read ---- */

enum { MOST_THREADS = 64, THREAD_BYTES = 64 << 20, CHUNK = 1 << 20 };

/* A thread that reads its own memory over and over until it is told to stop. */
typedef struct memory_reader {
    pthread_t thread;
    dm_pages memory;
    atomic_bool *stop;
    _Atomic uint64_t chunks;
    _Atomic uint64_t sum; /* what is read must be of use */
} memory_reader;

static void *read_memory(void *user) {
    memory_reader *it = user;
    const struct sched_param none = {0};
    sched_setscheduler(0, SCHED_IDLE, &none); /* what the disk brings is not to wait for a processor as well */
    const uint64_t *words = (const void *)it->memory.data;
    for (size_t at = 0; !atomic_load(it->stop); at = (at + CHUNK) % THREAD_BYTES) {
        uint64_t sums[8] = {0};
        for (size_t i = 0; i < CHUNK / sizeof *words; i += 8) {
            for (size_t j = 0; j < 8; j++) {
                sums[j] += words[at / sizeof *words + i + j];
            }
        }
        atomic_fetch_add(&it->sum, sums[0] + sums[1] + sums[2] + sums[3] + sums[4] + sums[5] + sums[6] + sums[7]);
        atomic_fetch_add(&it->chunks, 1);
    }
    return NULL;
}

/* A turn of the disk, of `threads` threads in memory, or of both. GB/s; 0 of what is not asked for. */
static dm_status turn_with(bench *b, dm_disk_reader *reader, unsigned depth, memory_reader *memory, size_t threads, double *disk,
                           double *bandwidth) {
    atomic_bool stop = false;
    dm_status status = DM_OK;
    size_t started = 0;
    *disk = *bandwidth = 0.0;
    for (; started < threads; started++) {
        memory[started].stop = &stop;
        atomic_store(&memory[started].chunks, 0);
        if (pthread_create(&memory[started].thread, NULL, read_memory, &memory[started]) != 0) {
            status = dm_fail(DM_ERR_MEMORY, "out of memory for threads");
            break;
        }
    }
    const double start = dm_seconds();
    if (status == DM_OK && depth > 0) {
        status = read_for_a_turn(b, reader, MOST_BYTES, depth, disk);
    } else if (status == DM_OK) {
        usleep((useconds_t)(1e6 * b->seconds));
    }
    const double seconds = dm_seconds() - start;
    atomic_store(&stop, true);
    for (size_t i = 0; i < started; i++) {
        pthread_join(memory[i].thread, NULL);
        *bandwidth += 1e-9 * (double)CHUNK * (double)atomic_load(&memory[i].chunks) / seconds;
    }
    return status;
}

static dm_status measure_with_memory(bench *b, dm_disk_reader *reader, unsigned depth, memory_reader *memory, size_t threads) {
    double disk[2][TURNS], bandwidth[2][TURNS], unused; /* alone, at once */
    for (int i = 0; i < TURNS; i++) {
        DM_TRY(turn_with(b, reader, depth, memory, 0, &disk[0][i], &unused));
        DM_TRY(turn_with(b, reader, 0, memory, threads, &unused, &bandwidth[0][i]));
        DM_TRY(turn_with(b, reader, depth, memory, threads, &disk[1][i], &bandwidth[1][i]));
    }
    b->busy = dm_spread_of(disk[1], TURNS).median;
    fprintf(b->table, "%6zu %6u %8zu", (size_t)MOST_BYTES >> 10, depth, threads);
    for (int i = 0; i < 2; i++) {
        fprintf(b->table, " %9.2f %9.2f", dm_spread_of(disk[i], TURNS).median, dm_spread_of(bandwidth[i], TURNS).median);
    }
    fprintf(b->table, "\n");
    fflush(b->table);
    return DM_OK;
}

static dm_status measure_all_with_memory(bench *b, dm_disk_reader *reader) {
    static memory_reader memory[MOST_THREADS];
    const long processors = sysconf(_SC_NPROCESSORS_ONLN);
    const size_t threads = processors < 1 ? 1 : processors > MOST_THREADS ? MOST_THREADS : (size_t)processors;
    dm_status status = DM_OK;
    for (size_t i = 0; i < threads && status == DM_OK; i++) {
        status = dm_pages_map(THREAD_BYTES, &memory[i].memory);
        if (status == DM_OK) {
            memset(memory[i].memory.data, 1, THREAD_BYTES);
        }
    }
    fprintf(b->table, "%6s %6s %8s %19s %19s   GB/s\n%6s %6s %8s %9s %9s %9s %9s\n", "KiB", "depth", "threads", "each alone",
            "at once", "", "", "", "disk", "memory", "disk", "memory");
    for (size_t n = 1; n <= threads && status == DM_OK; n = n < threads ? threads : threads + 1) {
        for (unsigned depth = 1; depth <= 2 && status == DM_OK; depth++) {
            status = measure_with_memory(b, reader, depth, memory, n);
        }
    }
    for (size_t i = 0; i < threads; i++) {
        dm_pages_unmap(&memory[i].memory);
    }
    return status;
}

int main(int argc, char **argv) {
    const bool json = argc > 1 && strcmp(argv[argc - 1], "--json") == 0;
    argc -= json;
    bench b = {.path = argc > 1 ? argv[1] : "", .seconds = argc > 2 ? atof(argv[2]) : 0.2, .table = json ? stderr : stdout};
    if (argc < 2 || argc > 3 || !(b.seconds > 0.0)) {
        fprintf(stderr, "usage: dm-bench-disk FILE [SECONDS] [--json]\n");
        return 2;
    }
    dm_random_seed(&b.random, 1);
    dm_disk_reader *readers[KINDS] = {0};
    dm_status status = dm_pages_map((size_t)PLACES * MOST_BYTES, &b.memory);
    for (int i = 0; i < KINDS && status == DM_OK; i++) {
        status = dm_disk_reader_create(&b.path, 1, MOST_DEPTH, i == 1, &readers[i]);
    }
    if (status == DM_OK) {
        memset(b.memory.data, 0, (size_t)PLACES * MOST_BYTES); /* so that the first turn finds the pages there */
        status = measure_all(&b, readers);
        status = status == DM_OK ? measure_all_with_memory(&b, readers[0]) : status;
    }
    for (int i = 0; i < KINDS; i++) {
        dm_disk_reader_free(readers[i]);
    }
    dm_pages_unmap(&b.memory);
    if (status != DM_OK) {
        fprintf(stderr, "dm-bench-disk: %s\n", dm_error_message());
        return 1;
    }
    if (json) {
        printf("{\"best_gb_s\": %.4f, \"while_computing_gb_s\": %.4f}\n", b.best, b.busy);
    }
    return 0;
}
