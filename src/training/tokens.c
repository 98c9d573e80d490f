#include "training/tokens.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/hash.h"
#include "training/corpus_encoder.h"
#include "training/holdout.h"

/* Part of the fingerprint of a source: raise it when the same text would give other ids or another split. */
enum { METHOD = 1 };

/* One run of the encoding: where text comes from and where ids go. */
typedef struct preparation {
    char train_path[PATH_MAX], valid_path[PATH_MAX];
    dm_corpus data, valid; /* valid: no files where it is split off */
    uint64_t source;
    const dm_tokenizer *tokenizer;
} preparation;

static dm_status set_paths(preparation *task, const char *folder) {
    int train = snprintf(task->train_path, sizeof task->train_path, "%s/train.tokens", folder);
    int valid = snprintf(task->valid_path, sizeof task->valid_path, "%s/valid.tokens", folder);
    if (train < 0 || valid < 0 || (size_t)train >= sizeof task->train_path || (size_t)valid >= sizeof task->valid_path) {
        return dm_fail(DM_ERR_ARGUMENT, "%s: the name of the folder is too long", folder);
    }
    return DM_OK;
}

static dm_status list_sources(preparation *task, const char *folder, const char *const *data, size_t n_data,
                              const char *const *valid, size_t n_valid) {
    if (n_valid > 0) {
        DM_TRY(dm_corpus_list(valid, n_valid, NULL, folder, &task->valid));
    }
    DM_TRY(dm_corpus_list(data, n_data, n_valid > 0 ? &task->valid : NULL, folder, &task->data));
    uint64_t facts[] = {METHOD, task->data.fingerprint, n_valid > 0, task->valid.fingerprint};
    task->source = dm_hash_bytes(facts, sizeof facts, 0);
    return DM_OK;
}

/* ---- Using what is there ---- */

static dm_status open_both(const preparation *task, dm_tokens *train, dm_tokens *validation) {
    DM_TRY(dm_tokens_open(task->train_path, task->tokenizer, train));
    dm_status status = dm_tokens_open(task->valid_path, task->tokenizer, validation);
    if (status != DM_OK) {
        dm_tokens_close(train);
    }
    return status;
}

static bool reuse(const preparation *task, dm_tokens *train, dm_tokens *validation) {
    if (access(task->train_path, F_OK) != 0 || access(task->valid_path, F_OK) != 0) {
        return false;
    }
    if (open_both(task, train, validation) != DM_OK) {
        dm_log("%s; encoding the text again", dm_error_message());
        return false;
    }
    if (train->source == task->source && validation->source == task->source) {
        return true;
    }
    dm_log("the text changed since %s was made; encoding it again", task->train_path);
    dm_tokens_close(train);
    dm_tokens_close(validation);
    return false;
}

/* ---- Encoding ---- */

/* The documents of `corpus`, split by `holdout`; without one all go to `train`. */
static dm_status encode_corpus(dm_corpus_encoder *encoder, const dm_corpus *corpus, const dm_holdout *holdout,
                               dm_token_writer *train, dm_token_writer *valid) {
    dm_document_reader reader;
    dm_document document;
    dm_status status;
    dm_documents_open(corpus, &reader);
    while ((status = dm_documents_next(&reader, &document)) == DM_OK && document.text != NULL) {
        size_t head = holdout != NULL ? dm_holdout_split(holdout, &document) : document.length;
        status = dm_corpus_encoder_add(encoder, document.text, head, train);
        if (status == DM_OK) {
            status = dm_corpus_encoder_add(encoder, document.text + head, document.length - head, valid);
        }
        if (status != DM_OK) {
            break;
        }
    }
    dm_documents_close(&reader);
    return status;
}

static dm_status encode_sources(const preparation *task, dm_token_writer *train, dm_token_writer *valid) {
    dm_holdout holdout;
    bool split = task->valid.n_files == 0;
    if (split) {
        DM_TRY(dm_holdout_plan(&task->data, &holdout));
    }
    dm_corpus_encoder *encoder;
    DM_TRY(dm_corpus_encoder_create(task->tokenizer, task->data.bytes + task->valid.bytes, &encoder));
    dm_status status = encode_corpus(encoder, &task->data, split ? &holdout : NULL, train, valid);
    if (status == DM_OK && !split) {
        status = encode_corpus(encoder, &task->valid, NULL, valid, valid);
    }
    if (status == DM_OK) {
        status = dm_corpus_encoder_flush(encoder);
    }
    dm_corpus_encoder_free(encoder);
    if (status == DM_OK && (train->count == 0 || valid->count == 0)) {
        const dm_corpus *empty = train->count != 0 && !split ? &task->valid : &task->data;
        status = dm_fail(DM_ERR_ARGUMENT, "%s: too little text to train on and to hold some out for validation", empty->files[0]);
    }
    return status;
}

static dm_status encode_into(const preparation *task, dm_token_writer *train, dm_token_writer *valid) {
    dm_log("encoding %.1f MB of text from %zu files", (double)(task->data.bytes + task->valid.bytes) * 1e-6,
           task->data.n_files + task->valid.n_files);
    dm_status status = encode_sources(task, train, valid);
    if (status != DM_OK) {
        dm_token_writer_abandon(train);
        dm_token_writer_abandon(valid);
        return status;
    }
    dm_log("encoded %llu tokens to train on, %llu to validate with", (unsigned long long)train->count,
           (unsigned long long)valid->count);
    status = dm_token_writer_finish(train);
    if (status != DM_OK) {
        dm_token_writer_abandon(valid);
        return status;
    }
    return dm_token_writer_finish(valid);
}

static dm_status encode(const preparation *task) {
    dm_token_writer train, valid;
    DM_TRY(dm_token_writer_open(task->train_path, task->tokenizer, task->source, &train));
    dm_status status = dm_token_writer_open(task->valid_path, task->tokenizer, task->source, &valid);
    if (status != DM_OK) {
        dm_token_writer_abandon(&train);
        return status;
    }
    return encode_into(task, &train, &valid);
}

dm_status dm_tokens_prepare(const char *folder, const char *const *data, size_t n_data, const char *const *valid, size_t n_valid,
                            const dm_tokenizer *tokenizer, dm_tokens *train, dm_tokens *validation) {
    *train = *validation = (dm_tokens){0};
    preparation task = {.tokenizer = tokenizer};
    DM_TRY(set_paths(&task, folder));
    DM_TRY(dm_make_directory(folder));
    dm_status status = list_sources(&task, folder, data, n_data, valid, n_valid);
    if (status == DM_OK && !reuse(&task, train, validation)) {
        status = encode(&task);
        if (status == DM_OK) {
            status = open_both(&task, train, validation);
        }
    }
    dm_corpus_free(&task.data);
    dm_corpus_free(&task.valid);
    return status;
}
