/*
 * Products on tile registers, one thread: multiplications per second of each format of panels and of 16-bit weights, for
 * widths and numbers of tokens as prompts bring them, beside the peak that dm-bench-peak measures.
 */
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "base/random.h"
#include "base/threads.h"
#include "kernels/tiles.h"

enum { ROWS = 768, MOST_TOKENS = 512, MOST_COLUMNS = 3072, ROUNDS = 7 };

/* Best multiplications per second of m tokens by all rows. */
static double measure(const dm_weight *weight, const void *x, size_t m, float *sums, void *scratch) {
    double best = 1e9;
    for (int round = 0; round < ROUNDS; round++) {
        double start = dm_seconds();
        size_t groups = dm_tiles_groups(weight, m, 1);
        for (size_t row = 0; row < ROWS; row += groups * DM_TILES_TOGETHER) {
            dm_tiles_product(sums, x, m, weight, row, groups, scratch);
        }
        double seconds = dm_seconds() - start;
        best = seconds < best ? seconds : best;
    }
    return (double)m * ROWS * (double)weight->columns / best;
}

static void report(const char *name, dm_weight weight, const float *x, void *packed, float *sums, void *scratch) {
    static const size_t widths[] = {256, 768, 2048, 3072}, tokens[] = {16, 32, 64, 128, 512};
    for (size_t w = 0; w < sizeof widths / sizeof *widths; w++) {
        printf("%-8s %7zu", name, widths[w]);
        weight.columns = widths[w];
        for (size_t t = 0; t < sizeof tokens / sizeof *tokens; t++) {
            dm_tiles_pack(packed, dm_tiles_units(widths[w]), x, widths[w], NULL, tokens[t], widths[w]);
            printf(" %9.0f", measure(&weight, packed, tokens[t], sums, scratch) * 1e-9);
        }
        printf("\n");
    }
}

int main(void) {
    if (!dm_tiles()) {
        printf("this machine has no tile registers for bfloat16\n");
        return 0;
    }
    size_t floats = (size_t)MOST_TOKENS * MOST_COLUMNS, room = (size_t)ROWS * MOST_COLUMNS * 2;
    float *x = dm_alloc(floats, sizeof *x),
          *sums = dm_alloc((size_t)MOST_TOKENS * DM_TILES_TOGETHER * DM_TILES_MOST_GROUPS, sizeof *sums);
    void *packed = dm_alloc(dm_tiles_bytes(MOST_TOKENS, MOST_COLUMNS), 1), *scratch = dm_alloc(dm_tiles_scratch(), 1);
    uint8_t *weights = dm_alloc(room, 1);
    if (x == NULL || sums == NULL || packed == NULL || scratch == NULL || weights == NULL) {
        return 1;
    }
    dm_random random;
    dm_random_seed(&random, 1);
    for (size_t i = 0; i < floats; i++) {
        x[i] = (float)dm_random_normal(&random);
    }
    memset(weights, 0x11, room);
    printf("one thread, billions of multiplications a second, tokens:\n%-8s %7s %9d %9d %9d %9d %9d\n", "type", "columns", 16, 32,
           64, 128, 512);
    for (int f = 0; f < DM_PANEL_COUNT; f++) {
        dm_weight weight = {.type = dm_panel_format_at(f)->type, .rows = ROWS, .panels = weights};
        report(dm_type_name(weight.type), weight, x, packed, sums, scratch);
    }
    report("F16", (dm_weight){.data = weights, .type = DM_TYPE_F16, .rows = ROWS}, x, packed, sums, scratch);
    report("BF16", (dm_weight){.data = weights, .type = DM_TYPE_BF16, .rows = ROWS}, x, packed, sums, scratch);
    dm_free(x);
    dm_free(sums);
    dm_free(packed);
    dm_free(scratch);
    dm_free(weights);
    return 0;
}
