/*
 * Products of panels with int8 activations, one thread: for each format and
 * instruction set, bytes of weights read per second by one token and by a few
 * (from a matrix that the second-level cache holds, and from one that is far
 * larger than the caches), and multiplications per second by many tokens. Then what packing costs.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/random.h"
#include "base/threads.h"
#include "kernels/quantized.h"

enum { COLUMNS = 768, NEAR_PANELS = 64, FEW = 8, AHEAD = 2, MANY = 64, ROUNDS = 5, ROW = COLUMNS / DM_PANEL_UNIT + 1 };

typedef struct matrix {
    uint8_t *panels;
    size_t n_panels, panel_bytes;
    int format;
} matrix;

static dm_q8_block activations[MANY * ROW]; /* one block between rows keeps them in different cache sets */
static float y[MANY * DM_PANEL_ROWS];

/* Best seconds of a pass over all panels. */
static double pass(const dm_quantized_table *table, const matrix *w, size_t m, int repeats) {
    double best = 1e9;
    for (int round = 0; round < ROUNDS; round++) {
        double start = dm_seconds();
        for (int i = 0; i < repeats; i++) {
            for (size_t p = 0; p < w->n_panels; p++) {
                const uint8_t *panel = w->panels + p * w->panel_bytes, *ahead = panel + AHEAD * w->panel_bytes;
                table->product[w->format](y, DM_PANEL_ROWS, activations, ROW, m, panel, ahead, COLUMNS);
            }
        }
        double seconds = (dm_seconds() - start) / repeats;
        best = seconds < best ? seconds : best;
    }
    return best;
}

static double packing(const dm_panel_format *format, uint8_t *out, const uint8_t *blocks, size_t panels) {
    double start = dm_seconds();
    dm_panels_pack(out, format, blocks, panels * DM_PANEL_ROWS, COLUMNS, 0, panels);
    return dm_seconds() - start;
}

int main(int argc, char **argv) {
    size_t megabytes = argc > 1 ? (size_t)atol(argv[1]) : 512;
    const dm_quantized_table *tables[4];
    size_t n_tables = dm_quantized_tables(tables) - 1; /* the portable one is for tests */
    uint8_t *memory = dm_alloc(megabytes << 20, 1), *blocks = dm_alloc(NEAR_PANELS * DM_PANEL_ROWS, COLUMNS * 2);
    float *x = dm_alloc((size_t)MANY * ROW * DM_PANEL_UNIT, sizeof *x);
    dm_random random;
    dm_random_seed(&random, 1);
    if (memory == NULL || blocks == NULL || x == NULL) {
        return 1;
    }
    memset(memory, 0x11, megabytes << 20);
    memset(blocks, 0x11, NEAR_PANELS * DM_PANEL_ROWS * COLUMNS * 2);
    for (size_t i = 0; i < (size_t)MANY * ROW * DM_PANEL_UNIT; i++) {
        x[i] = (float)dm_random_normal(&random);
    }
    printf("%-8s %-7s %14s %14s %14s %14s %14s %14s\n", "type", "isa", "near, GB/s", "far, GB/s", "near, GB/s", "far, GB/s",
           "64 tokens,", "packing,");
    printf("%-8s %-7s %14s %14s %14s %14s %14s %14s\n", "", "", "1 token", "1 token", "8 tokens", "8 tokens", "GMAC/s", "GB/s");
    for (int f = 0; f < DM_PANEL_COUNT; f++) {
        const dm_panel_format *format = dm_panel_format_at(f);
        size_t bytes = dm_panel_bytes(format, COLUMNS);
        matrix near = {memory, NEAR_PANELS, bytes, f}, far = {memory, (megabytes << 20) / bytes, bytes, f};
        double seconds = packing(format, memory, blocks, NEAR_PANELS);
        double packed = (double)(NEAR_PANELS * DM_PANEL_ROWS * dm_type_bytes(format->type, COLUMNS)) / seconds * 1e-9;
        for (size_t t = 0; t < n_tables; t++) {
            tables[t]->quantize(activations, x, (size_t)MANY * ROW * DM_PANEL_UNIT);
            double one = pass(tables[t], &near, 1, 50), distant = pass(tables[t], &far, 1, 1);
            double few = pass(tables[t], &near, FEW, 20), distant_few = pass(tables[t], &far, FEW, 1);
            double many = pass(tables[t], &near, MANY, 4), near_bytes = (double)(NEAR_PANELS * bytes) * 1e-9;
            double far_bytes = (double)(far.n_panels * bytes) * 1e-9;
            printf("%-8s %-7s %14.1f %14.1f %14.1f %14.1f %14.1f %14.2f\n", dm_type_name(format->type), tables[t]->isa,
                   near_bytes / one, far_bytes / distant, near_bytes / few, far_bytes / distant_few,
                   (double)NEAR_PANELS * DM_PANEL_ROWS * COLUMNS * MANY / many * 1e-9, packed);
        }
    }
    dm_free(memory);
    dm_free(blocks);
    dm_free(x);
    return 0;
}
