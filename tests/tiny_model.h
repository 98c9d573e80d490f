/* Small random models over a vocabulary of bytes, for tests that need no file beside the checkout. */
#ifndef DM_TESTS_TINY_MODEL_H
#define DM_TESTS_TINY_MODEL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dilmodeli.h"

typedef struct tiny_model {
    char path[64];
    dm_model *model;
    dm_model_info info;
} tiny_model;

/* `architecture` with weights of `type` drawn from `seed`; ends with tiny_model_remove(). */
static inline void tiny_model_make(tiny_model *tiny, const char *architecture, const char *type, uint64_t seed) {
    dm_model_info shape = {
        .layers = 2, .dim = 32, .heads = 4, .kv_heads = 2, .head_dim = 16, .context = 400, .experts = 8, .top_k = 2};
    shape.expert_dim = 24;
    if (strcmp(architecture, "llama") == 0) {
        shape = (dm_model_info){.layers = 2, .dim = 32, .heads = 4, .kv_heads = 2, .head_dim = 16, .context = 400, .ffn_dim = 96};
    } else if (strcmp(architecture, "gpt2") == 0) {
        shape = (dm_model_info){.layers = 2, .dim = 32, .heads = 4, .context = 400, .ffn_dim = 96};
    }
    snprintf(shape.architecture, sizeof shape.architecture, "%s", architecture);
    snprintf(tiny->path, sizeof tiny->path, "/tmp/dilmodeli-tiny-XXXXXX");
    int descriptor = mkstemp(tiny->path);
    assert_true(descriptor >= 0);
    close(descriptor);
    dm_status status = dm_model_create(tiny->path, &shape, NULL, false, type, seed, &tiny->info);
    if (status != DM_OK) {
        fail_msg("%s", dm_error_message());
    }
    assert_int_equal(dm_model_open(tiny->path, &tiny->model), DM_OK);
}

static inline void tiny_model_remove(tiny_model *tiny) {
    dm_model_close(tiny->model);
    unlink(tiny->path);
}

/* n ids below the vocabulary's size, always the same ones. */
static inline void tiny_model_ids(const tiny_model *tiny, int32_t *ids, int32_t n) {
    uint32_t state = 12345;
    for (int32_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        ids[i] = (int32_t)((state >> 8) % (uint32_t)tiny->info.vocab);
    }
}

#endif
