#include "quantization/calibration_sums.h"

#include <string.h>

#include "base/memory.h"
#include "kernels/matmul.h"
#include "kernels/vector.h"

enum { BLOCK = 256 }; /* columns of a piece of the triangle */

size_t dm_calibration_sums_bytes(const dm_calibration_slot *slot) {
    return slot->columns * slot->columns * sizeof(float);
}

size_t dm_calibration_group_end(const dm_config *config, size_t first, uint64_t memory) {
    const size_t count = dm_calibration_slots(config);
    uint64_t used = 0;
    size_t end = first;
    while (end < count) {
        const dm_calibration_slot slot = dm_calibration_slot_at(config, end);
        used += dm_calibration_sums_bytes(&slot);
        if (used > memory && end > first) {
            break;
        }
        end++;
    }
    return end;
}

dm_status dm_calibration_sums_create(const dm_config *config, size_t first, size_t end, dm_calibration_sums *out) {
    const size_t n = end - first;
    size_t bytes = 0;
    *out = (dm_calibration_sums){.config = config, .first = first, .end = end};
    for (size_t i = first; i < end; i++) {
        const dm_calibration_slot slot = dm_calibration_slot_at(config, i);
        if (!dm_add_size(bytes, dm_calibration_sums_bytes(&slot), &bytes)) {
            return dm_fail(DM_ERR_MEMORY, "the sums of slots %zu to %zu are more than this machine can address", first, end);
        }
    }
    out->products = dm_alloc(n, sizeof(float *));
    out->visits = dm_alloc(n, sizeof *out->visits);
    out->squares = dm_alloc(n, sizeof *out->squares);
    out->fourths = dm_alloc(n, sizeof *out->fourths);
    out->memory = dm_alloc(bytes, 1);
    if (out->products == NULL || out->visits == NULL || out->squares == NULL || out->fourths == NULL || out->memory == NULL) {
        return DM_ERR_MEMORY;
    }
    float *at = out->memory;
    for (size_t i = 0; i < n; i++) {
        const dm_calibration_slot slot = dm_calibration_slot_at(config, first + i);
        out->products[i] = at;
        at += slot.columns * slot.columns;
    }
    return DM_OK;
}

void dm_calibration_sums_free(dm_calibration_sums *sums) {
    dm_free(sums->products);
    dm_free(sums->visits);
    dm_free(sums->squares);
    dm_free(sums->fourths);
    dm_free(sums->memory);
    dm_free(sums->scaled);
    *sums = (dm_calibration_sums){0};
}

static dm_status make_room(dm_calibration_sums *sums, size_t floats) {
    if (floats <= sums->capacity) {
        return DM_OK;
    }
    dm_free(sums->scaled);
    sums->scaled = dm_alloc(floats, sizeof(float));
    sums->capacity = sums->scaled != NULL ? floats : 0;
    return sums->scaled != NULL ? DM_OK : DM_ERR_MEMORY;
}

/* scaled = the rows times their gates, `stride` floats apart */
static void scale_rows(const dm_calibration_sums *sums, const dm_observation *seen, size_t stride) {
    for (size_t i = 0; i < seen->n; i++) {
        const float *row = seen->x + (seen->rows != NULL ? (size_t)seen->rows[i] : i) * seen->columns;
        float *to = sums->scaled + i * stride;
        if (seen->gates != NULL) {
            dm_vector()->scale(to, seen->gates[i], row, seen->columns);
        } else {
            memcpy(to, row, seen->columns * sizeof *row);
        }
    }
}

/* The lower triangle of product += rows^T rows, by blocks of columns; those on the diagonal are whole. */
static dm_status add_products(float *product, const float *rows, size_t stride, size_t n, size_t columns) {
    for (size_t r = 0; r < columns; r += BLOCK) {
        const size_t height = columns - r < BLOCK ? columns - r : BLOCK, width = r + height;
        DM_TRY(dm_matmul_weight_gradient(DM_PRECISION_F32, product + r * columns, columns, rows + r, stride, rows, stride, n,
                                         height, width, true));
    }
    return DM_OK;
}

static void count(dm_calibration_sums *sums, size_t at, const dm_observation *seen) {
    sums->visits[at] += seen->n;
    for (size_t i = 0; i < seen->n; i++) {
        const double square = seen->gates != NULL ? (double)seen->gates[i] * (double)seen->gates[i] : 1.0;
        sums->squares[at] += square;
        sums->fourths[at] += square * square;
    }
}

dm_status dm_calibration_sums_see(void *user, const dm_observation *seen) {
    dm_calibration_sums *sums = user;
    const size_t slot = dm_calibration_slot_of(sums->config, seen->layer, seen->role, seen->expert);
    if (slot < sums->first || slot >= sums->end) {
        return DM_OK;
    }
    const size_t stride = dm_matmul_stride(seen->columns), at = slot - sums->first;
    DM_TRY(make_room(sums, seen->n * stride));
    scale_rows(sums, seen, stride);
    count(sums, at, seen);
    return add_products(sums->products[at], sums->scaled, stride, seen->n, seen->columns);
}
