#include "quantization/compress_outcome.h"

#include "base/memory.h"

dm_status dm_compress_outcome_open(dm_compress_outcome *it, const dm_compress_model *model, const char *to,
                                   dm_solutions *shared) {
    *it = (dm_compress_outcome){.shared = shared, .parts = dm_alloc(model->count, sizeof *it->parts)};
    if (it->parts == NULL) {
        return DM_ERR_MEMORY;
    }
    return shared == NULL ? dm_solutions_open(&it->own, to) : DM_OK;
}

void dm_compress_outcome_close(dm_compress_outcome *it) {
    dm_solutions_close(&it->own);
    dm_free(it->parts);
    it->parts = NULL;
}

dm_status dm_compress_outcome_add(dm_compress_outcome *it, size_t target, size_t matrix, const void *data, size_t bytes) {
    dm_solutions *solutions = it->shared != NULL ? it->shared : &it->own;
    dm_compress_part *part = &it->parts[target];
    part->offset = matrix == 0 ? solutions->written : part->offset;
    part->bytes = (matrix == 0 ? 0 : part->bytes) + bytes;
    return dm_solutions_add(solutions, data, bytes);
}

double dm_compress_outcome_bpw(const dm_compress_outcome *it, const dm_compress_model *model) {
    uint64_t bytes = dm_compress_copied_bytes(model);
    for (size_t i = 0; i < model->count; i++) {
        bytes += it->parts[i].bytes;
    }
    return 8.0 * (double)bytes / (double)dm_config_params(&model->model->config);
}

/* ---- The file ---- */

typedef struct source {
    const dm_solutions *solutions;
    const dm_compress_part *part;
} source;

/* A dm_gguf_maker; panels are bytes to it. */
static dm_status read_solution(void *user, uint64_t first, size_t n, void *out) {
    const source *s = user;
    const dm_type type = s->part->type == DM_TYPE_MIXED ? DM_TYPE_I8 : s->part->type;
    return dm_solutions_read(s->solutions, s->part->offset + dm_type_bytes(type, (size_t)first), out, dm_type_bytes(type, n));
}

static void add_tensors(const dm_compress_outcome *it, dm_compress_model *model, dm_gguf_writer *writer, source *sources) {
    for (size_t i = 0; i < model->count; i++) {
        const dm_tensor_spec *spec = model->order != NULL ? model->order[i] : &model->specs[i];
        const size_t at = (size_t)(spec - model->specs);
        dm_compress_target *t = &model->targets[at];
        sources[at] = (source){it->shared != NULL ? it->shared : &it->own, &it->parts[at]};
        if (t->kept) {
            dm_gguf_add_tensor_made(writer, spec->name, t->copied.type, spec->dims, spec->n_dims, dm_convert_piece, &t->copied);
        } else if (it->parts[at].type == DM_TYPE_MIXED) {
            dm_gguf_add_tensor_made(writer, spec->name, DM_TYPE_I8, &it->parts[at].bytes, 1, read_solution, &sources[at]);
        } else {
            dm_gguf_add_tensor_made(writer, spec->name, it->parts[at].type, spec->dims, spec->n_dims, read_solution,
                                    &sources[at]);
        }
    }
}

dm_status dm_compress_outcome_write(const dm_compress_outcome *it, dm_compress_model *model, dm_gguf_writer *writer,
                                    const char *to) {
    source *sources = dm_alloc(model->count, sizeof *sources);
    if (sources == NULL) {
        return DM_ERR_MEMORY;
    }
    add_tensors(it, model, writer, sources);
    dm_status status = dm_gguf_writer_finish(writer, to);
    dm_free(sources);
    return status;
}
