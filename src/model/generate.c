/* Generation: a prompt in, tokens out one by one, text as whole characters. */
#include <string.h>

#include "base/threads.h"
#include "base/utf8.h"
#include "model/sampling.h"
#include "model/session.h"

/* ---- Text in whole characters ---- */

/* Bytes of a character that is still coming; UTF-8 has at most four. */
typedef struct streamer {
    dm_text_fn on_text;
    void *user;
    char pending[4];
    size_t n_pending;
    bool stopped; /* the callback said so */
} streamer;

static void emit(streamer *stream, const char *bytes, size_t length) {
    if (length > 0 && !stream->stopped && stream->on_text != NULL) {
        stream->stopped = !stream->on_text(stream->user, bytes, length);
    }
}

/* Completes what is pending with the first bytes; returns how many it took. */
static size_t complete_pending(streamer *stream, const char *bytes, size_t length) {
    size_t taken = 0;
    size_t whole = dm_utf8_length(stream->pending[0]);
    while (stream->n_pending < whole && taken < length && ((unsigned char)bytes[taken] & 0xc0) == 0x80) {
        stream->pending[stream->n_pending++] = bytes[taken++];
    }
    if (stream->n_pending == whole || taken < length) {
        emit(stream, stream->pending, stream->n_pending);
        stream->n_pending = 0;
    }
    return taken;
}

static void push(streamer *stream, const char *bytes, size_t length) {
    if (stream->n_pending > 0) {
        size_t taken = complete_pending(stream, bytes, length);
        bytes += taken;
        length -= taken;
    }
    size_t kept = dm_utf8_unfinished(bytes, length);
    emit(stream, bytes, length - kept);
    memcpy(stream->pending + stream->n_pending, bytes + length - kept, kept);
    stream->n_pending += kept;
}

static void flush(streamer *stream) {
    emit(stream, stream->pending, stream->n_pending);
    stream->n_pending = 0;
}

/* ---- Tokens ---- */

/* The model's vocabulary, read on first use; a model made from memory and a file of weights only have none. */
static dm_status find_tokenizer(dm_session *session) {
    const dm_gguf *file = session->model->file;
    if (session->tokenizer == NULL && file != NULL && dm_gguf_has(file, "tokenizer.ggml.tokens")) {
        DM_TRY(dm_tokenizer_read(file, &session->own_tokenizer));
        session->tokenizer = session->own_tokenizer;
    }
    return DM_OK;
}

static dm_status check(const dm_session *session, const int32_t *prompt, size_t n_prompt, int32_t n) {
    if (n_prompt == 0 || prompt == NULL) {
        return dm_fail(DM_ERR_ARGUMENT, "the prompt is empty; at least one token is needed");
    }
    if (n < 0) {
        return dm_fail(DM_ERR_ARGUMENT, "%d tokens cannot be generated", n);
    }
    if (n_prompt > (size_t)(session->context - session->length)) {
        return dm_fail(DM_ERR_ARGUMENT, "the prompt's %zu tokens do not fit: the context holds %d and %d are in use", n_prompt,
                       session->context, session->length);
    }
    return DM_OK;
}

/* Draws and feeds until something ends it. */
static dm_status decode(dm_session *session, dm_sampler *sampler, int32_t n, streamer *stream, int32_t *ids,
                        dm_generate_result *result) {
    double start = dm_seconds();
    while (result->tokens < n) {
        int32_t id;
        DM_TRY(dm_sampler_next(sampler, session->logits, session->ids, session->length, &id));
        if (session->tokenizer != NULL && dm_tokenizer_is_end(session->tokenizer, id)) {
            break;
        }
        if (ids != NULL) {
            ids[result->tokens] = id;
        }
        result->tokens++;
        size_t length = 0;
        const char *bytes = session->tokenizer != NULL ? dm_tokenizer_bytes(session->tokenizer, id, &length) : NULL;
        if (bytes != NULL) {
            push(stream, bytes, length);
        }
        result->interrupted = stream->stopped || dm_interrupted();
        if (result->interrupted || result->tokens == n || session->length == session->context) {
            break;
        }
        DM_TRY(dm_session_feed(session, &id, 1, false, session->logits));
    }
    flush(stream);
    result->decode_s = dm_seconds() - start;
    return DM_OK;
}

static dm_status generate(dm_session *session, dm_sampler *sampler, const int32_t *prompt, size_t n_prompt, int32_t n,
                          streamer *stream, int32_t *ids, dm_generate_result *result) {
    DM_TRY(find_tokenizer(session));
    double start = dm_seconds();
    dm_status status = dm_session_feed(session, prompt, (int32_t)n_prompt, false, session->logits);
    if (status == DM_ERR_INTERRUPTED) {
        result->interrupted = true;
        return DM_OK;
    }
    DM_TRY(status);
    result->prompt_tokens = (int32_t)n_prompt;
    result->prompt_s = dm_seconds() - start;
    return decode(session, sampler, n, stream, ids, result);
}

dm_status dm_generate(dm_session *session, const int32_t *prompt, size_t n_prompt, int32_t n, const dm_sampling *sampling,
                      dm_text_fn on_text, void *user, int32_t *ids, dm_generate_result *result) {
    dm_generate_result ignored;
    dm_generate_result *told = result != NULL ? result : &ignored;
    *told = (dm_generate_result){0};
    DM_TRY(check(session, prompt, n_prompt, n));
    dm_sampler sampler;
    dm_status status = dm_sampler_init(&sampler, sampling, session->model->config.vocab);
    if (status == DM_OK) {
        streamer stream = {.on_text = on_text, .user = user};
        status = generate(session, &sampler, prompt, n_prompt, n, &stream, ids, told);
    }
    dm_sampler_free(&sampler);
    return status;
}
