/* Files of quantized models whose matrices become panels, with random weights and experts in any of their layouts. */
#ifndef DM_TEST_QUANTIZED_MODEL_H
#define DM_TEST_QUANTIZED_MODEL_H

#include <stdlib.h>

#include "model/config.h"
#include "random_blocks.h"

/* The type of a matrix. */
typedef dm_type (*quantized_type)(const dm_tensor_spec *spec);

static inline dm_type quantized_mixture(const dm_tensor_spec *spec) {
    return spec->role == DM_FFN_DOWN_EXPS || spec->role == DM_OUTPUT ? DM_TYPE_Q6_K : DM_TYPE_Q4_K;
}

/* Experts that lie apart are not all of one type. */
static inline dm_type quantized_unevenly(const dm_tensor_spec *spec) {
    return spec->layer == 1 && spec->role == DM_FFN_UP_EXPS && spec->expert == 3 ? DM_TYPE_Q5_K : quantized_mixture(spec);
}

static inline dm_config quantized_shape(bool experts, bool apart) {
    dm_config c = {.arch = DM_ARCH_LLAMA,
                   .n_layers = 2,
                   .dim = 256,
                   .n_heads = 4,
                   .n_kv_heads = 2,
                   .head_dim = 64,
                   .ffn_dim = experts ? 0 : 512,
                   .vocab = 70, /* the last panel is not full */
                   .context = 64,
                   .norm_eps = 1e-5f,
                   .rope_base = 10000.0f};
    if (experts) {
        c.n_experts = 8;
        c.top_k = 2;
        c.expert_dim = 256;
        c.extra = apart ? DM_PART_APART : 0;
    }
    return c;
}

static inline void *random_tensor(dm_random *random, const dm_tensor_spec *spec, dm_type type) {
    size_t n = (size_t)(spec->dims[0] * spec->dims[1] * spec->dims[2]);
    if (type != DM_TYPE_F32) {
        return random_blocks(random, type, n / (size_t)spec->dims[0], (size_t)spec->dims[0]);
    }
    float *weights = dm_alloc(n, sizeof *weights);
    for (size_t i = 0; i < n; i++) {
        weights[i] = spec->n_dims == 1 ? 1.0f : (float)dm_random_normal(random) * 0.1f;
    }
    return weights;
}

static inline void quantized_model_write(const char *path, const dm_config *config, quantized_type type_of, uint64_t seed) {
    dm_tensor_spec *specs = NULL;
    size_t count;
    dm_random random;
    dm_random_seed(&random, seed);
    assert_int_equal(dm_config_tensors(config, &specs, &count), DM_OK);
    void **data = calloc(count, sizeof *data);
    dm_gguf_writer *writer = dm_gguf_writer_create();
    assert_true(data != NULL && writer != NULL);
    dm_config_write(config, writer);
    for (size_t i = 0; i < count; i++) {
        bool plain = specs[i].n_dims == 1 || specs[i].role == DM_FFN_ROUTER;
        dm_type type = plain ? DM_TYPE_F32 : type_of(&specs[i]);
        data[i] = random_tensor(&random, &specs[i], type);
        dm_gguf_add_tensor(writer, specs[i].name, type, specs[i].dims, specs[i].n_dims, data[i]);
    }
    assert_int_equal(dm_gguf_writer_finish(writer, path), DM_OK);
    dm_gguf_writer_free(writer);
    for (size_t i = 0; i < count; i++) {
        dm_free(data[i]);
    }
    free(data);
    free(specs);
}

#endif
