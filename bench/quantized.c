/*
 * Products of panels with int8 activations, one thread: for each format and
 * instruction set, bytes of weights read per second by one token and by a few
 * (from a matrix that the second-level cache holds, and from one that is far
 * larger than the caches), and multiplications per second by many tokens; tokens per second through one 768 x 768 matrix that is
 * far, by one token. Then packing, from blocks that are far to panels that are far. Last, matrices of mixed-width panels: of one
 * width, and of several.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/random.h"
#include "base/threads.h"
#include "kernels/quantized.h"
#include "quantization/mixed_encode.h"

enum { COLUMNS = 768, NEAR_PANELS = 64, FEW = 8, AHEAD = 2, MANY = 64, ROUNDS = 5, ROW = COLUMNS / DM_PANEL_UNIT + 1 };

typedef struct matrix {
    uint8_t *panels; /* one after another; or matrices of mixed widths */
    size_t n_panels, panel_bytes;
    int format; /* MIXED: of mixed widths, panel_bytes is then the mean, of matrices of NEAR_PANELS panels */
} matrix;

enum { MIXED = -1 };

static dm_q8_block activations[MANY * ROW]; /* one block between rows keeps them in different cache sets */
static float y[MANY * DM_PANEL_ROWS];

static void multiply(const dm_quantized_table *table, const matrix *w, size_t m) {
    const uint8_t *panel = w->panels;
    for (size_t p = 0; p < w->n_panels && w->format != MIXED; p++, panel += w->panel_bytes) {
        table->product[w->format](y, DM_PANEL_ROWS, activations, ROW, m, panel, panel + AHEAD * w->panel_bytes, COLUMNS);
    }
    const dm_mixed_header *at = (const dm_mixed_header *)(const void *)w->panels;
    for (size_t p = 0; p < w->n_panels && w->format == MIXED; p++) {
        panel = dm_mixed_panel(at, p % NEAR_PANELS);
        table->mixed(y, DM_PANEL_ROWS, activations, ROW, m, at, p % NEAR_PANELS, panel + AHEAD * w->panel_bytes);
        at = p % NEAR_PANELS + 1 == NEAR_PANELS ? (const dm_mixed_header *)(const void *)((const uint8_t *)at + at->bytes) : at;
    }
}

/* Best seconds of a pass over all panels. */
static double pass(const dm_quantized_table *table, const matrix *w, size_t m, int repeats) {
    double best = 1e9;
    for (int round = 0; round < ROUNDS; round++) {
        double start = dm_seconds();
        for (int i = 0; i < repeats; i++) {
            multiply(table, w, m);
        }
        double seconds = (dm_seconds() - start) / repeats;
        best = seconds < best ? seconds : best;
    }
    return best;
}

/* GB/s of blocks[size / 2] that become panels[size], at best. */
static double packing(const dm_panel_format *format, uint8_t *panels, size_t size, const uint8_t *blocks) {
    const size_t row = dm_type_bytes(format->type, COLUMNS), here = size / 2 / (DM_PANEL_ROWS * row);
    const size_t there = size / dm_panel_bytes(format, COLUMNS), n = here < there ? here : there;
    double best = 1e9;
    for (int round = 0; round < ROUNDS; round++) {
        double start = dm_seconds();
        dm_panels_pack(panels, format, blocks, n * DM_PANEL_ROWS, COLUMNS, 0, n);
        double seconds = dm_seconds() - start;
        best = seconds < best ? seconds : best;
    }
    return (double)(n * DM_PANEL_ROWS * row) / best * 1e-9;
}

/* One row of the table for each instruction set. */
static void measure(const char *name, const matrix *near, const matrix *far, const float *x, double packed) {
    const dm_quantized_table *tables[4];
    const size_t n_tables = dm_quantized_tables(tables) - 1; /* the portable one is for tests */
    for (size_t t = 0; t < n_tables; t++) {
        tables[t]->quantize(activations, x, (size_t)MANY * ROW * DM_PANEL_UNIT);
        double one = pass(tables[t], near, 1, 50), distant = pass(tables[t], far, 1, 1);
        double few = pass(tables[t], near, FEW, 20), distant_few = pass(tables[t], far, FEW, 1);
        double many = pass(tables[t], near, MANY, 4), near_bytes = (double)(NEAR_PANELS * near->panel_bytes) * 1e-9;
        double far_bytes = (double)(far->n_panels * far->panel_bytes) * 1e-9, far_panels = (double)far->n_panels;
        printf("%-10s %-7s %10.1f %10.1f %10.1f %10.1f %10.1f %10.0f %10.2f\n", name, tables[t]->isa, near_bytes / one,
               far_bytes / distant, near_bytes / few, far_bytes / distant_few,
               (double)NEAR_PANELS * DM_PANEL_ROWS * COLUMNS * MANY / many * 1e-9,
               far_panels / distant / (COLUMNS / (double)DM_PANEL_ROWS) * 1e-3, packed);
    }
}

static void measure_format(const dm_panel_format *format, uint8_t *memory, size_t size, const uint8_t *blocks, const float *x) {
    const size_t bytes = dm_panel_bytes(format, COLUMNS);
    const int number = (int)(format - dm_panel_format_at(0));
    const matrix near = {memory, NEAR_PANELS, bytes, number}, far = {memory, size / bytes, bytes, number};
    const double packed = packing(format, memory, size, blocks);
    measure(dm_type_name(format->type), &near, &far, x, packed);
}

/* Matrices whose tiles take the widths of `choices` by turns. */
static void measure_mixed(const char *name, const char *choices, uint8_t *memory, size_t size, const float *x) {
    enum { UNITS = COLUMNS / DM_PANEL_UNIT };
    static uint8_t widths[NEAR_PANELS * UNITS];
    for (size_t i = 0; i < sizeof widths; i++) {
        widths[i] = (uint8_t)(choices[i * 7 % 24 % strlen(choices)] - '0');
    }
    const dm_mixed_plan plan = {NEAR_PANELS * (size_t)DM_PANEL_ROWS, COLUMNS, widths, dm_mixed_usual_levels};
    size_t bytes;
    if (dm_mixed_bytes(&plan, &bytes) != DM_OK) {
        return;
    }
    dm_mixed_lay_out(memory, &plan);
    memset(memory + dm_mixed_front_bytes(plan.rows, ((dm_mixed_header *)(void *)memory)->tiles), 0x11,
           bytes - dm_mixed_front_bytes(plan.rows, ((dm_mixed_header *)(void *)memory)->tiles));
    size_t copies = 1;
    for (; (copies + 1) * bytes <= size; copies++) {
        memcpy(memory + copies * bytes, memory, bytes);
    }
    const matrix near = {memory, NEAR_PANELS, bytes / NEAR_PANELS, MIXED};
    const matrix far = {memory, copies * NEAR_PANELS, bytes / NEAR_PANELS, MIXED};
    measure(name, &near, &far, x, 0.0);
}

int main(int argc, char **argv) {
    const size_t size = (argc > 1 ? (size_t)atol(argv[1]) : 512) << 20;
    const char *only = argc > 2 ? argv[2] : NULL;
    uint8_t *memory = dm_alloc(size, 1), *blocks = dm_alloc(size / 2, 1);
    float *x = dm_alloc((size_t)MANY * ROW * DM_PANEL_UNIT, sizeof *x);
    dm_random random;
    dm_random_seed(&random, 1);
    if (memory == NULL || blocks == NULL || x == NULL) {
        return 1;
    }
    memset(memory, 0x11, size);
    memset(blocks, 0x11, size / 2);
    for (size_t i = 0; i < (size_t)MANY * ROW * DM_PANEL_UNIT; i++) {
        x[i] = (float)dm_random_normal(&random);
    }
    printf("%-10s %-7s %10s %10s %10s %10s %10s %10s %10s\n", "type", "isa", "near GB/s", "far GB/s", "near GB/s", "far GB/s",
           "GMAC/s", "far, 1000", "packing");
    printf("%-10s %-7s %10s %10s %10s %10s %10s %10s %10s\n", "", "", "1 token", "1 token", "8 tokens", "8 tokens", "64 tokens",
           "tokens/s", "GB/s");
    for (int f = 0; f < DM_PANEL_COUNT; f++) {
        const dm_panel_format *format = dm_panel_format_at(f);
        if (only == NULL || strcmp(only, dm_type_name(format->type)) == 0) {
            measure_format(format, memory, size, blocks, x);
        }
    }
    static const char *const mixed[][2] = {{"mixed 2", "2"}, {"mixed 3", "3"}, {"mixed 4", "4"},     {"mixed 5", "5"},
                                           {"mixed 6", "6"}, {"mixed 8", "8"}, {"02346", "02223346"}};
    for (size_t i = 0; i < sizeof mixed / sizeof *mixed; i++) {
        measure_mixed(mixed[i][0], mixed[i][1], memory, size, x);
    }
    dm_free(memory);
    dm_free(blocks);
    dm_free(x);
    return 0;
}
