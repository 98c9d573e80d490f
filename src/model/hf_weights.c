/* Numbers brought from the form that they lie in to the one that the other kind of file has. */
#include <string.h>

#include "kernels/mixed_panels.h"
#include "model/hf_tensors.h"

enum { STEP = 16 * DM_MAX_BLOCK }; /* numbers brought to an even address at a time */

/* Safetensors may put numbers at any address; GGUF's tensors lie well. */
static bool lies_well(const dm_weights *w) {
    size_t unit = w->type == DM_TYPE_F32 ? sizeof(float) : sizeof(uint16_t);
    return (uintptr_t)w->data % unit == 0;
}

/* Of one row at a time. */
static void decode_mixed(const dm_mixed_header *matrix, uint64_t first, size_t n, float *out) {
    for (size_t done = 0; done < n;) {
        size_t row = (size_t)((first + done) / matrix->columns), column = (size_t)((first + done) % matrix->columns);
        size_t m = n - done < matrix->columns - column ? n - done : matrix->columns - column;
        dm_mixed_part(out + done, matrix, row, column, m);
        done += m;
    }
}

static void decode(const dm_weights *w, uint64_t first, size_t n, float *out) {
    if (w->type == DM_TYPE_MIXED) {
        decode_mixed((const dm_mixed_header *)(const void *)w->data, first, n, out);
        return;
    }
    dm_decode_fn decoder = dm_type_decoder((uint32_t)w->type);
    const uint8_t *from = w->data + dm_type_bytes(w->type, (size_t)first);
    if (lies_well(w)) {
        decoder(out, from, n);
        return;
    }
    float aligned[STEP]; /* a number takes 4 bytes at most */
    for (size_t done = 0; done < n; done += STEP) {
        size_t m = n - done < STEP ? n - done : STEP;
        memcpy(aligned, from + dm_type_bytes(w->type, done), dm_type_bytes(w->type, m));
        decoder(out + done, aligned, m);
    }
}

/* Where row `row` of the form asked for lies. */
static uint64_t row_at(const dm_weights *w, uint64_t row) {
    if (w->head_rows == 0) {
        return row;
    }
    uint64_t half = w->head_rows / 2, head = row / w->head_rows, at = row % w->head_rows;
    uint64_t moved = w->to_halves ? 2 * (at % half) + at / half : at / 2 + half * (at % 2);
    return head * w->head_rows + moved;
}

static void read_rows(const dm_weights *w, uint64_t first, size_t n, float *out) {
    for (size_t done = 0; done < n;) {
        uint64_t row = (first + done) / w->columns, column = (first + done) % w->columns;
        size_t m = n - done < w->columns - column ? n - done : (size_t)(w->columns - column);
        decode(w, row_at(w, row) * w->columns + column, m, out + done);
        done += m;
    }
}

/* Row r of what is asked for is column r of what lies there. */
static void read_turned(const dm_weights *w, uint64_t first, size_t n, const float *whole, float *out) {
    for (size_t done = 0; done < n; done++) {
        uint64_t at = first + done;
        out[done] = whole[at % w->rows * w->columns + at / w->rows];
    }
}

void dm_weights_read(const dm_weights *w, uint64_t first, size_t n, float *whole, float *out) {
    if (w->turned) {
        if (first == 0) {
            decode(w, 0, (size_t)(w->rows * w->columns), whole);
        }
        read_turned(w, first, n, whole, out);
    } else if (w->head_rows != 0) {
        read_rows(w, first, n, out);
    } else {
        decode(w, first, n, out);
    }
}
