#include "training/sample.h"

#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "model/session.h"

typedef struct text_buffer {
    char *bytes;
    size_t length;
    bool failed;
} text_buffer;

static bool append(void *user, const char *bytes, size_t length) {
    text_buffer *buffer = user;
    char *grown = realloc(buffer->bytes, buffer->length + length + 1);
    if (grown == NULL) {
        buffer->failed = true;
        return false;
    }
    memcpy(grown + buffer->length, bytes, length);
    buffer->bytes = grown;
    buffer->length += length;
    grown[buffer->length] = '\0';
    return true;
}

static dm_status wrap(const dm_parameters *p, dm_model **model) {
    const float **weights = malloc(p->count * sizeof *weights);
    if (weights == NULL) {
        return dm_fail(DM_ERR_MEMORY, "out of memory sampling");
    }
    for (size_t i = 0; i < p->count; i++) {
        weights[i] = p->weights + p->offsets[i];
    }
    dm_status status = dm_model_from_memory(&p->config, weights, p->expert_bias, model);
    free(weights);
    return status;
}

static dm_status generate(dm_model *model, const dm_tokenizer *tokenizer, const char *prompt, int32_t n, uint64_t seed,
                          text_buffer *buffer) {
    int32_t *ids = NULL;
    size_t count = 0;
    dm_session *session = NULL;
    dm_generate_result result;
    dm_sampling sampling = dm_sampling_default();
    sampling.seed = seed;
    DM_TRY(dm_tokenizer_encode(tokenizer, prompt, strlen(prompt), DM_ENCODE_SPECIAL, &ids, &count));
    const int32_t eos = dm_tokenizer_eos(tokenizer);
    const int32_t start = eos >= 0 ? eos : 0; /* an empty prompt starts a document */
    dm_status status = dm_session_create(model, 0, &session);
    if (status == DM_OK) {
        dm_session_lend_tokenizer(session, tokenizer);
        append(buffer, prompt, strlen(prompt));
        status =
            dm_generate(session, count > 0 ? ids : &start, count > 0 ? count : 1, n, &sampling, append, buffer, NULL, &result);
    }
    dm_session_free(session);
    free(ids);
    return status == DM_OK && buffer->failed ? dm_fail(DM_ERR_MEMORY, "out of memory sampling") : status;
}

static dm_status mend(const text_buffer *buffer, char **text) {
    *text = malloc(3 * buffer->length + 1);
    if (*text == NULL) {
        return dm_fail(DM_ERR_MEMORY, "out of memory sampling");
    }
    for (size_t i = 0; i < buffer->length; i++) {
        buffer->bytes[i] = buffer->bytes[i] != '\0' ? buffer->bytes[i] : '?';
    }
    (*text)[dm_utf8_mend(buffer->bytes, buffer->length, *text)] = '\0';
    return DM_OK;
}

dm_status dm_sample_text(const dm_parameters *p, const dm_tokenizer *tokenizer, const char *prompt, int32_t n, uint64_t seed,
                         char **text) {
    dm_model *model = NULL;
    text_buffer buffer = {0};
    dm_status status = wrap(p, &model);
    if (status == DM_OK) {
        status = generate(model, tokenizer, prompt, n, seed, &buffer);
    }
    dm_model_close(model);
    *text = NULL;
    if (status == DM_OK) {
        status = mend(&buffer, text);
    }
    free(buffer.bytes);
    return status;
}
