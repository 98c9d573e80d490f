#include "quantization/convert.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "kernels/weight.h"
#include "quantization/encode.h"

/* The same numbers in the same places, so that bytes can be copied. */
static bool as_it_is(const dm_weights *w, dm_type type) {
    return w->type == type && w->head_rows == 0 && !w->turned;
}

static void report(dm_conversion *conversion, uint64_t bytes) {
    conversion->done += bytes;
    if (conversion->on_piece != NULL) {
        conversion->on_piece(conversion->user, conversion->done, conversion->total);
    }
}

/* Reads elements [first, first + n) as float32, part by part. */
static void gather(const dm_converted *it, uint64_t first, size_t n, float *out) {
    for (size_t done = 0; done < n;) {
        uint64_t part = (first + done) / it->part_elements, at = (first + done) % it->part_elements;
        size_t m = n - done < it->part_elements - at ? n - done : (size_t)(it->part_elements - at);
        dm_weights_read(&it->parts[part], at, m, it->conversion->whole, out + done);
        done += m;
    }
}

static void copy(const dm_converted *it, uint64_t first, size_t n, uint8_t *out) {
    for (size_t done = 0; done < n;) {
        uint64_t part = (first + done) / it->part_elements, at = (first + done) % it->part_elements;
        size_t m = n - done < it->part_elements - at ? n - done : (size_t)(it->part_elements - at);
        const uint8_t *from = it->parts[part].data + dm_type_bytes(it->type, (size_t)at);
        memcpy(out + dm_type_bytes(it->type, done), from, dm_type_bytes(it->type, m));
        dm_pages_release(from, dm_type_bytes(it->type, m)); /* a stack of experts may be larger than memory */
        done += m;
    }
}

dm_status dm_converted_keep(dm_conversion *conversion, const dm_tensor_spec *spec, const dm_tensor *tensor, size_t first,
                            size_t matrices, dm_converted *out) {
    dm_weights *parts = dm_alloc(matrices, sizeof *parts);
    if (parts == NULL) {
        return DM_ERR_MEMORY;
    }
    for (size_t i = 0; i < matrices; i++) {
        const dm_weight own = dm_tensor_matrix(tensor, first + i);
        parts[i] = (dm_weights){.data = own.data, .type = own.type, .rows = own.rows, .columns = own.columns};
    }
    *out = (dm_converted){.conversion = conversion,
                          .parts = parts,
                          .n_parts = (int32_t)matrices,
                          .part_elements = spec->dims[0] * spec->dims[1],
                          .columns = (size_t)spec->dims[0],
                          .type = parts[0].type};
    return DM_OK;
}

const uint8_t *dm_converted_part(const dm_converted *it, int32_t part, size_t *bytes) {
    const dm_weights *w = &it->parts[part];
    const dm_weight whole = {.data = w->data, .type = w->type, .rows = 1, .columns = (size_t)it->part_elements};
    return dm_weight_stored(&whole, bytes);
}

/* The same of mixed-width panels, whose sizes differ and whose elements are bytes. */
static void copy_mixed(const dm_converted *it, uint64_t first, size_t n, uint8_t *out) {
    uint64_t start = 0;
    for (int32_t i = 0; i < it->n_parts; i++) {
        size_t bytes;
        const uint8_t *data = dm_converted_part(it, i, &bytes);
        const uint64_t from = first > start ? first - start : 0, to = first + n < start + bytes ? first + n - start : bytes;
        if (first < start + bytes && first + n > start) {
            memcpy(out + (start + from - first), data + from, (size_t)(to - from));
            dm_pages_release(data + from, (size_t)(to - from));
        }
        start += bytes;
    }
}

/* What was read is not needed again: a file larger than memory passes by. */
static void release(const dm_converted *it) {
    for (int32_t i = 0; i < it->n_parts; i++) {
        size_t bytes;
        const uint8_t *data = dm_converted_part(it, i, &bytes);
        dm_pages_release(data, bytes);
    }
}

dm_status dm_convert_piece(void *user, uint64_t first, size_t n, void *out) {
    const dm_converted *it = user;
    if (dm_interrupted()) {
        return dm_fail(DM_ERR_INTERRUPTED, "interrupted, nothing was written");
    }
    if (it->type == DM_TYPE_MIXED) {
        copy_mixed(it, first, n, out);
        report(it->conversion, n);
        return DM_OK;
    }
    bool same = true;
    for (int32_t i = 0; i < it->n_parts; i++) {
        same = same && as_it_is(&it->parts[i], it->type);
    }
    if (same) {
        copy(it, first, n, out);
    } else {
        gather(it, first, n, it->conversion->piece);
        DM_TRY(dm_encode_part(it->type, out, it->conversion->piece, NULL, it->columns, first, n));
    }
    if (first + n == it->part_elements * (uint64_t)it->n_parts) {
        release(it);
    }
    report(it->conversion, dm_type_bytes(it->type, n));
    return DM_OK;
}

dm_status dm_conversion_prepare(dm_conversion *conversion, uint64_t turned) {
    conversion->piece = malloc(DM_GGUF_PIECE * sizeof(float));
    size_t bytes = 0;
    if (turned > 0 && dm_mul_size((size_t)turned, sizeof(float), &bytes)) {
        conversion->whole = malloc(bytes);
    }
    if (conversion->piece == NULL || (turned > 0 && conversion->whole == NULL)) {
        return dm_fail(DM_ERR_MEMORY, "%s: out of memory for its largest matrix", conversion->from);
    }
    return DM_OK;
}

dm_status dm_conversion_check_target(const char *path) {
    char magic[4] = "GGUF";
    if (dm_is_folder(path)) {
        return dm_fail(DM_ERR_ARGUMENT, "%s: is a folder, expected the name of a GGUF file to write", path);
    }
    FILE *stream = fopen(path, "rbe");
    if (stream != NULL) {
        size_t n = fread(magic, 1, sizeof magic, stream);
        fclose(stream);
        if (n != sizeof magic || memcmp(magic, "GGUF", sizeof magic) != 0) {
            return dm_fail(DM_ERR_ARGUMENT, "%s: exists and is no GGUF file; choose another name or remove it", path);
        }
    }
    return DM_OK;
}

static dm_status parse_layout(const char *name, dm_expert_layout *out) {
    *out = DM_LAYOUT_NONE;
    if (name == NULL) {
        return DM_OK;
    }
    for (int layout = DM_LAYOUT_STANDARD; layout <= DM_LAYOUT_STREAMING; layout++) {
        if (layout != DM_LAYOUT_APART && strcmp(name, dm_expert_layout_name((dm_expert_layout)layout)) == 0) {
            *out = (dm_expert_layout)layout;
            return DM_OK;
        }
    }
    return dm_fail(DM_ERR_ARGUMENT, "the layout '%.40s' is not known, expected streaming or standard", name);
}

dm_status dm_convert(const char *from, const char *to, const dm_convert_options *options, dm_convert_fn on_piece, void *user,
                     dm_convert_result *result) {
    dm_conversion conversion = {.from = from, .to = to, .on_piece = on_piece, .user = user};
    dm_convert_result made = {0};
    if (options != NULL) {
        conversion.options = *options;
    }
    DM_TRY(parse_layout(conversion.options.layout, &conversion.layout));
    const bool of_folder = dm_is_folder(from), relaid = !of_folder && conversion.layout != DM_LAYOUT_NONE;
    const bool mixed = !relaid && dm_convert_is_mixed(conversion.options.type);
    made.to_gguf = of_folder || relaid || mixed;
    dm_status status = mixed       ? dm_convert_mixed(&conversion, &made)
                       : of_folder ? dm_convert_to_gguf(&conversion, &made)
                       : relaid    ? dm_convert_layout(&conversion, &made)
                                   : dm_convert_to_folder(&conversion, &made);
    free(conversion.piece);
    free(conversion.whole);
    if (status == DM_OK && result != NULL) {
        *result = made;
    }
    return status;
}
