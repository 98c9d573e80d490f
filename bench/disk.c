/*
 * How fast a file is read past the page cache (src/base/disk_reader.h): GB/s of reads at random places, for several sizes and
 * numbers in flight, through io_uring and by threads. The two take turns, so that what else goes on meets both; each figure is
 * the median of its turns. Reads go to one place after the other of more memory than a processor's caches hold, in huge pages, as
 * experts do. Usage: dm-bench-disk FILE [SECONDS], of each turn
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/disk_reader.h"
#include "base/pages.h"
#include "base/random.h"
#include "base/threads.h"

enum { TURNS = 5, KINDS = 2, MOST_DEPTH = 16, MOST_BYTES = 4 << 20, PLACES = 64 };

static const size_t sizes[] = {64 << 10, 256 << 10, 1 << 20, 4 << 20};
static const unsigned depths[] = {1, 2, 4, 8, MOST_DEPTH};

typedef struct bench {
    const char *path;
    double seconds; /* of a turn */
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

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static dm_status measure(bench *b, dm_disk_reader *const *readers, size_t bytes, unsigned depth) {
    double rates[KINDS][TURNS];
    for (int i = 0; i < KINDS * TURNS; i++) {
        DM_TRY(read_for_a_turn(b, readers[i % KINDS], bytes, depth, &rates[i % KINDS][i / KINDS]));
    }
    printf("%6zu %6u", bytes >> 10, depth);
    for (int i = 0; i < KINDS; i++) {
        qsort(rates[i], TURNS, sizeof **rates, by_size);
        printf(" %9.2f %5.2f..%.2f", rates[i][TURNS / 2], rates[i][0], rates[i][TURNS - 1]);
    }
    printf("\n");
    fflush(stdout);
    return DM_OK;
}

static dm_status measure_all(bench *b, dm_disk_reader *const *readers) {
    const dm_disk_file *file = dm_disk_reader_file(readers[0], 0);
    if (file->size < MOST_BYTES) {
        return dm_fail(DM_ERR_ARGUMENT, "%s: too small to measure with: expected %d bytes or more", b->path, MOST_BYTES);
    }
    printf("%s, %.2f GB, %s\n%6s %6s", b->path, 1e-9 * (double)file->size,
           file->direct ? "O_DIRECT" : "without O_DIRECT: some may come from the page cache", "KiB", "depth");
    for (int i = 0; i < KINDS; i++) {
        printf(" %9s %12s", dm_disk_reader_kind(readers[i]), "least..most");
    }
    printf("   GB/s\n");
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (size_t j = 0; j < sizeof depths / sizeof *depths; j++) {
            DM_TRY(measure(b, readers, sizes[i], depths[j]));
        }
    }
    return DM_OK;
}

int main(int argc, char **argv) {
    bench b = {.path = argc > 1 ? argv[1] : "", .seconds = argc > 2 ? atof(argv[2]) : 0.2};
    if (argc < 2 || argc > 3 || !(b.seconds > 0.0)) {
        fprintf(stderr, "usage: dm-bench-disk FILE [SECONDS]\n");
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
    }
    for (int i = 0; i < KINDS; i++) {
        dm_disk_reader_free(readers[i]);
    }
    dm_pages_unmap(&b.memory);
    if (status != DM_OK) {
        fprintf(stderr, "dm-bench-disk: %s\n", dm_error_message());
        return 1;
    }
    return 0;
}
