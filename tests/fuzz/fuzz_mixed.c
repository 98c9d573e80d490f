/*
 * Matrices of mixed-width panels. Input: such a matrix. One that passes its check is read and multiplied with, whole and by every
 * instruction set, which must agree.
 */
#include "base/memory.h"
#include "fuzz.h"
#include "kernels/quantized.h"
#include "quantization/mixed_encode.h"

enum { MOST_ROWS = 64, MOST_COLUMNS = 1024, TOKENS = 3 };

static void multiply(const dm_mixed_header *matrix) {
    static dm_q8_block x[TOKENS * MOST_COLUMNS / DM_PANEL_UNIT];
    const size_t units = matrix->columns / DM_PANEL_UNIT;
    const dm_quantized_table *tables[4];
    const size_t n = dm_quantized_tables(tables);
    float y[TOKENS * DM_PANEL_ROWS], want[TOKENS * DM_PANEL_ROWS], numbers[MOST_COLUMNS];
    for (size_t i = 0; i < matrix->columns; i++) {
        numbers[i] = (float)(i % 17) - 8.0f;
    }
    for (size_t t = 0; t < TOKENS; t++) {
        tables[n - 1]->quantize(x + t * units, numbers, matrix->columns);
    }
    for (size_t p = 0; p < dm_panel_count(matrix->rows); p++) {
        tables[n - 1]->mixed(want, DM_PANEL_ROWS, x, units, TOKENS, matrix, p, matrix);
        for (size_t t = 0; t + 1 < n; t++) {
            tables[t]->mixed(y, DM_PANEL_ROWS, x, units, TOKENS, matrix, p, matrix);
            for (size_t i = 0; i < TOKENS * DM_PANEL_ROWS; i++) {
                FUZZ_CHECK(y[i] == want[i] || (y[i] != y[i] && want[i] != want[i]));
            }
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint8_t *aligned = dm_alloc(size + 1, 1);
    FUZZ_CHECK(aligned != NULL);
    memcpy(aligned, data, size);
    const dm_mixed_header *matrix = (const dm_mixed_header *)(const void *)aligned;
    dm_mixed_totals totals = {0};
    dm_mixed_measure(aligned, size, &totals);
    if (totals.matrices > 0 && matrix->rows <= MOST_ROWS && matrix->columns <= MOST_COLUMNS) {
        static float w[MOST_ROWS * MOST_COLUMNS];
        dm_mixed_widen(w, matrix);
        multiply(matrix);
    }
    dm_free(aligned);
    return 0;
}

/* A matrix whose tiles take turns. */
static void seed(const char *name, size_t rows, size_t columns, const uint8_t *turns, size_t n) {
    uint8_t widths[MOST_ROWS / DM_PANEL_ROWS * MOST_COLUMNS / DM_PANEL_UNIT];
    for (size_t i = 0; i < sizeof widths; i++) {
        widths[i] = turns[i % n];
    }
    const dm_mixed_plan plan = {rows, columns, widths, dm_mixed_usual_levels};
    size_t bytes;
    FUZZ_CHECK(dm_mixed_bytes(&plan, &bytes) == DM_OK);
    uint8_t *matrix = dm_alloc(bytes, 1);
    dm_mixed_lay_out(matrix, &plan);
    fuzz_seed(name, matrix, bytes);
    dm_free(matrix);
}

static void fuzz_seeds(void) {
    seed("four", 16, 64, (const uint8_t[]){4}, 1);
    seed("pruned", 20, 96, (const uint8_t[]){0}, 1);
    seed("mixture", 40, 256, (const uint8_t[]){0, 2, 3, 4, 5, 6, 8, 4, 3}, 9);
}
