#include "model/expert_layout.h"

#include <stdlib.h>

static const dm_role roles[] = {DM_FFN_GATE_EXPS, DM_FFN_UP_EXPS, DM_FFN_DOWN_EXPS}; /* in the order of a file */

enum { MATRICES = sizeof roles / sizeof *roles };

const char *dm_expert_layout_name(dm_expert_layout layout) {
    switch (layout) {
    case DM_LAYOUT_STANDARD:
        return "standard";
    case DM_LAYOUT_APART:
        return "apart";
    case DM_LAYOUT_STREAMING:
        return "streaming";
    case DM_LAYOUT_NONE:
        break;
    }
    return NULL;
}

/* ---- As it is ---- */

/* Maps begin at pages, so that an address is as even as the place in the file, up to a page. */
static bool in_one_stretch(const dm_layer *layer, int32_t expert) {
    uintptr_t end = 0;
    for (int i = 0; i < MATRICES; i++) {
        const dm_tensor *tensor = &layer->tensors[roles[i]];
        const dm_weight own = dm_tensor_matrix(tensor, (size_t)expert);
        size_t bytes;
        uintptr_t start = (uintptr_t)dm_weight_stored(&own, &bytes);
        bool fits = i == 0 ? start % DM_EXPERT_BOUNDARY == 0 : start >= end && start - end < DM_EXPERT_BOUNDARY;
        if (!fits) {
            return false;
        }
        end = start + bytes;
    }
    return true;
}

dm_expert_layout dm_model_expert_layout(const dm_model *model) {
    const dm_config *c = &model->config;
    if (c->n_experts == 0) {
        return DM_LAYOUT_NONE;
    }
    if ((dm_config_parts(c) & DM_PART_APART) == 0) {
        return DM_LAYOUT_STANDARD;
    }
    for (int32_t l = 0; l < c->n_layers; l++) {
        for (int32_t e = 0; e < c->n_experts; e++) {
            if (!in_one_stretch(&model->layers[l], e)) {
                return DM_LAYOUT_APART;
            }
        }
    }
    return DM_LAYOUT_STREAMING;
}

/* ---- As it is to be ---- */

/* All that is no expert's stays in its order, which is that of its addresses. */
static int by_expert(const void *a, const void *b) {
    const dm_tensor_spec *x = *(const dm_tensor_spec *const *)a, *y = *(const dm_tensor_spec *const *)b;
    if ((x->expert < 0) != (y->expert < 0)) {
        return x->expert < 0 ? -1 : 1;
    }
    if (x->expert >= 0 && x->layer != y->layer) {
        return x->layer < y->layer ? -1 : 1;
    }
    if (x->expert != y->expert) {
        return x->expert < y->expert ? -1 : 1;
    }
    return (x > y) - (x < y);
}

dm_status dm_streaming_order(const dm_tensor_spec *specs, size_t count, const dm_tensor_spec ***order) {
    *order = malloc((count + 1) * sizeof(const dm_tensor_spec *));
    if (*order == NULL) {
        return dm_fail(DM_ERR_MEMORY, "out of memory ordering %zu tensors", count);
    }
    for (size_t i = 0; i < count; i++) {
        (*order)[i] = &specs[i];
    }
    qsort(*order, count, sizeof(const dm_tensor_spec *), by_expert);
    return DM_OK;
}

void dm_streaming_write(dm_gguf_writer *writer) {
    dm_gguf_set_alignment(writer, DM_EXPERT_BOUNDARY);
    dm_gguf_add_string(writer, DM_KEY_LAYOUT, dm_expert_layout_name(DM_LAYOUT_STREAMING));
}
