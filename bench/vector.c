/*
 * Speed of every row operation in every table this machine runs: nanoseconds a
 * call, bytes of its rows over that time, and how many times faster than the
 * scalar table. One thread. Usage: dm-bench-vector [FLOATS-A-ROW [PART-OF-A-NAME]];
 * rows of 1024, the default, stay in the first-level cache, millions show the
 * memory.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/threads.h"
#include "vector_operations.h"

enum { REPEATS = 30 };
static const double slice = 3e-4; /* seconds for one measurement: short, so that some go undisturbed */

static double seconds_for(const operation *op, const dm_vector_table *table, call *c, size_t times) {
    double start = dm_seconds();
    for (size_t i = 0; i < times; i++) {
        op->run(table, c);
    }
    return dm_seconds() - start;
}

/* Seconds for one call: the best of a few slices. */
static double measure(const operation *op, const dm_vector_table *table, call *c) {
    size_t times = 1;
    while (seconds_for(op, table, c, times) < slice) {
        times *= 2;
    }
    double best = seconds_for(op, table, c, times);
    for (int i = 1; i < REPEATS; i++) {
        double seconds = seconds_for(op, table, c, times);
        best = seconds < best ? seconds : best;
    }
    return best / (double)times;
}

static void bench(const operation *op, const dm_vector_table **tables, size_t n_tables, void **rows, size_t n) {
    call c = {.n = n, .a = 0.5f, .b = 1.0f};
    double bytes = 0, seconds[4] = {0};
    for (size_t i = 0; op->kinds[i] != '\0'; i++) {
        c.row[i] = rows[i];
        bytes += (double)row_bytes(op->kinds[i], n);
    }
    for (size_t t = 0; t < n_tables; t++) {
        dm_random random;
        dm_random_seed(&random, 1);
        for (size_t i = 0; op->kinds[i] != '\0'; i++) {
            fill_row(rows[i], op->kinds[i], n, &random);
        }
        seconds[t] = measure(op, tables[t], &c);
    }
    printf("%-26s", op->name);
    for (size_t t = 0; t < n_tables; t++) {
        printf(" | %12.1f %7.1f %6.1f", seconds[t] * 1e9, bytes / seconds[t] * 1e-9, seconds[n_tables - 1] / seconds[t]);
    }
    printf("\n");
}

int main(int argc, char **argv) {
    const char *part = argc > 2 ? argv[2] : "";
    long long wanted = argc > 1 ? atoll(argv[1]) : 1024;
    if (wanted < 1 || wanted > 1 << 28) {
        fprintf(stderr, "dm-bench-vector: floats a row must lie between 1 and %d\n", 1 << 28);
        return 2;
    }
    size_t n = (size_t)wanted;
    const size_t stride = 2 * n + 80; /* off the powers of two, which would put all rows into the same cache sets */
    float *memory = malloc(MAX_ROWS * stride * sizeof *memory);
    if (memory == NULL) {
        fprintf(stderr, "dm-bench-vector: no memory for rows of %zu floats\n", n);
        return 1;
    }
    void *rows[MAX_ROWS];
    for (size_t i = 0; i < MAX_ROWS; i++) {
        rows[i] = memory + i * stride;
    }
    const dm_vector_table *tables[4];
    size_t n_tables = dm_vector_tables(tables);
    printf("%-26s", "");
    for (size_t t = 0; t < n_tables; t++) {
        printf(" | %-27s", tables[t]->isa);
    }
    printf("\n%zu floats%*s", n, 26 - snprintf(NULL, 0, "%zu floats", n), "");
    for (size_t t = 0; t < n_tables; t++) {
        printf(" | %12s %7s %6s", "ns", "GB/s", "times");
    }
    printf("\n");
    for (size_t o = 0; o < n_operations; o++) {
        /* in place is the same code, and some rows drift into denormals when that is repeated */
        if (strstr(operations[o].name, "_in_place") == NULL && strstr(operations[o].name, part) != NULL) {
            bench(&operations[o], tables, n_tables, rows, n);
        }
    }
    free(memory);
    return 0;
}
