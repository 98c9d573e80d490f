#include "kernels/weight.h"

#include <string.h>

#include "kernels/vector.h"

size_t dm_weight_lists(const dm_weight *weight) {
    return weight->copies != NULL && !weight->mirrored ? dm_parallel_groups() : 1;
}

/* Shares are of whole panels; a piece belongs where its first row does. */
void dm_weight_share(const dm_weight *weight, size_t step, size_t lists, size_t list, size_t *begin, size_t *end) {
    const size_t panels = dm_panel_count(weight->rows), pieces = (weight->rows + step - 1) / step;
    *begin = 0;
    *end = pieces;
    if (lists > 1) {
        size_t from, to;
        dm_parallel_share(panels, list, &from, &to);
        *begin = (from * DM_PANEL_ROWS + step - 1) / step;
        *end = to == panels ? pieces : (to * DM_PANEL_ROWS + step - 1) / step;
    }
}

dm_weight dm_weight_near(const dm_weight *weight, size_t group) {
    dm_weight near = *weight;
    if (weight->copies != NULL) {
        near.data = weight->copies[group].data;
        near.panels = weight->copies[group].panels;
    }
    return near;
}

static const void *row_at(const dm_weight *weight, size_t row) {
    return (const char *)weight->data + row * dm_type_bytes(weight->type, weight->columns);
}

dm_weight dm_weight_rows(const dm_weight *weight, size_t first, size_t rows) {
    dm_weight part = {.data = row_at(weight, first), .type = weight->type, .rows = rows, .columns = weight->columns};
    if (weight->panels != NULL && first % DM_PANEL_ROWS == 0) {
        const dm_panel_format *format = dm_panel_format_of(weight->type);
        part.panels = (const char *)weight->panels + first / DM_PANEL_ROWS * dm_panel_bytes(format, weight->columns);
    }
    return part;
}

const void *dm_weight_stored(const dm_weight *weight, size_t *bytes) {
    if (weight->type == DM_TYPE_MIXED) {
        const dm_mixed_header *matrix = weight->data;
        *bytes = (size_t)matrix->bytes;
        return dm_mixed_origin(matrix);
    }
    *bytes = weight->rows * dm_type_bytes(weight->type, weight->columns);
    return weight->data;
}

size_t dm_weight_panel_bytes(const dm_weight *weight) {
    return dm_panel_count(weight->rows) * dm_panel_bytes(dm_panel_format_of(weight->type), weight->columns);
}

/* The same for types of blocks: DM_MAX_BLOCK weights are decoded at a time, once for all m. */
static void dot_blocks(const dm_weight *weight, size_t row, const float *x, size_t ldx, size_t m, float *sums) {
    const dm_vector_table *vector = dm_vector();
    dm_decode_fn decode = dm_type_decoder(weight->type);
    const char *blocks = row_at(weight, row);
    float decoded[DM_MAX_BLOCK];
    memset(sums, 0, m * sizeof *sums);
    for (size_t i = 0; i < weight->columns; i += DM_MAX_BLOCK) {
        size_t n = weight->columns - i < DM_MAX_BLOCK ? weight->columns - i : DM_MAX_BLOCK;
        decode(decoded, blocks + dm_type_bytes(weight->type, i), n);
        for (size_t t = 0; t < m; t++) {
            sums[t] += vector->dot(decoded, x + t * ldx + i, n);
        }
    }
}

void dm_weight_dots(const dm_weight *weight, size_t row, const float *x, size_t ldx, size_t m, float *sums) {
    const dm_vector_table *vector = dm_vector();
    if (weight->type == DM_TYPE_MIXED) {
        dm_mixed_dots(weight->data, row, x, ldx, m, sums);
        return;
    }
    const void *w = row_at(weight, row);
    if (weight->type != DM_TYPE_F32 && weight->type != DM_TYPE_F16 && weight->type != DM_TYPE_BF16) {
        dot_blocks(weight, row, x, ldx, m, sums);
        return;
    }
    for (size_t t = 0; t < m; t++) {
        const float *other = x + t * ldx;
        sums[t] = weight->type == DM_TYPE_F32   ? vector->dot(w, other, weight->columns)
                  : weight->type == DM_TYPE_F16 ? vector->dot_f16(w, other, weight->columns)
                                                : vector->dot_bf16(w, other, weight->columns);
    }
}

float dm_weight_dot(const dm_weight *weight, size_t row, const float *x) {
    float sum;
    dm_weight_dots(weight, row, x, 0, 1, &sum);
    return sum;
}

void dm_weight_widen(float *y, const dm_weight *weight) {
    if (weight->type == DM_TYPE_MIXED) {
        dm_mixed_widen(y, weight->data);
        return;
    }
    dm_type_decoder(weight->type)(y, weight->data, weight->rows * weight->columns);
}

void dm_weight_row(float *y, const dm_weight *weight, size_t row) {
    if (weight->type == DM_TYPE_MIXED) {
        dm_mixed_part(y, weight->data, row, 0, weight->columns);
        return;
    }
    dm_weight one = dm_weight_rows(weight, row, 1);
    dm_weight_widen(y, &one);
}

size_t dm_q8_stride(size_t columns) {
    return columns / DM_PANEL_UNIT | 1; /* odd */
}

const void *dm_weight_panel(const dm_weight *weight, size_t panel) {
    if (weight->type == DM_TYPE_MIXED) {
        return dm_mixed_panel(weight->panels, panel);
    }
    return (const char *)weight->panels + panel * dm_panel_bytes(dm_panel_format_of(weight->type), weight->columns);
}

/* One panel at `data`, of a format or of mixed widths where that is NULL; what is asked for meanwhile begins at `ahead`. */
static void multiply_panel(const dm_weight *weight, const dm_panel_format *format, size_t panel, const void *data,
                           const void *ahead, const dm_q8_block *x, size_t ldx, size_t m, float *y, size_t ldy) {
    const dm_quantized_table *table = dm_quantized();
    if (format == NULL) {
        table->mixed(y, ldy, x, ldx, m, weight->panels, panel, ahead);
    } else {
        table->product[format - dm_panel_format_at(0)](y, ldy, x, ldx, m, data, ahead, weight->columns);
    }
}

void dm_weight_panels_product(const dm_weight *weight, size_t first, size_t n, const dm_q8_block *x, size_t ldx, size_t m,
                              float *y, size_t ldy, const void *next) {
    enum { NEAR = 12 << 10 }; /* bytes between what is read and what is asked for */
    const dm_panel_format *format = dm_panel_format_of(weight->type);
    const size_t bytes = format != NULL ? dm_panel_bytes(format, weight->columns) : 0;
    const char *begin = dm_weight_panel(weight, first);
    const char *ahead = next != NULL ? next : begin + (bytes > 0 ? (NEAR + bytes - 1) / bytes * bytes : NEAR);
    for (size_t panel = first; panel < first + n; panel++, y += DM_PANEL_ROWS) {
        size_t left = weight->rows - panel * DM_PANEL_ROWS;
        const char *data = format != NULL ? begin + (panel - first) * bytes : (const char *)dm_weight_panel(weight, panel);
        if (left >= DM_PANEL_ROWS) {
            multiply_panel(weight, format, panel, data, ahead + (data - begin), x, ldx, m, y, ldy);
            continue;
        }
        for (size_t t = 0; t < m; t++) {
            float whole[DM_PANEL_ROWS];
            multiply_panel(weight, format, panel, data, data, x + t * ldx, ldx, 1, whole, DM_PANEL_ROWS);
            memcpy(y + t * ldy, whole, left * sizeof *y);
        }
    }
}
