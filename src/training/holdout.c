#include "training/holdout.h"

#include <string.h>

#include "base/hash.h"

enum { SHARE = 60, LARGEST_SHARE = 10 };

static bool is_hashed(const dm_holdout *holdout, uint64_t hash, size_t length) {
    return hash % SHARE == 0 && length <= holdout->largest;
}

static uint64_t apart(uint64_t a, uint64_t b) {
    return a > b ? a - b : b - a;
}

dm_status dm_holdout_plan(const dm_corpus *corpus, dm_holdout *out) {
    *out = (dm_holdout){.rule = DM_HOLDOUT_TAILS, .largest = corpus->bytes / LARGEST_SHARE};
    uint64_t n = 0, n_hashed = 0, nearest = UINT64_MAX, first = 0;
    bool several = false; /* different documents */
    dm_document_reader reader;
    dm_document document;
    dm_status status;
    dm_documents_open(corpus, &reader);
    while ((status = dm_documents_next(&reader, &document)) == DM_OK && document.text != NULL) {
        uint64_t hash = dm_hash_bytes(document.text, document.length, 0);
        uint64_t far = apart(document.length, corpus->bytes / SHARE);
        several = several || (n > 0 && hash != first);
        first = n == 0 ? hash : first;
        n_hashed += is_hashed(out, hash, document.length);
        if (document.length <= out->largest && (far < nearest || (far == nearest && hash < out->picked))) {
            nearest = far;
            out->picked = hash;
        }
        n++;
    }
    dm_documents_close(&reader);
    if (status == DM_OK && n == 0) {
        status = dm_fail(DM_ERR_ARGUMENT, "%s: no text to train on, all files are empty", corpus->files[0]);
    }
    if (several && n_hashed > 0 && n_hashed < n) {
        out->rule = DM_HOLDOUT_HASHED;
    } else if (several && nearest != UINT64_MAX) {
        out->rule = DM_HOLDOUT_PICKED;
    }
    return status;
}

/* Where the last 60th starts: at a line if one starts nearby, else at a character. */
static size_t cut_tail(const char *text, size_t length) {
    size_t cut = length - (length + SHARE - 1) / SHARE;
    size_t nearby = length / LARGEST_SHARE < cut ? length / LARGEST_SHARE : cut;
    const char *line = memrchr(text + cut - nearby, '\n', nearby);
    if (line == NULL) {
        line = memchr(text + cut, '\n', length - cut);
    }
    if (line != NULL && line + 1 < text + length) {
        return (size_t)(line + 1 - text);
    }
    return dm_character_start(text, cut);
}

size_t dm_holdout_split(const dm_holdout *holdout, const dm_document *document) {
    if (holdout->rule == DM_HOLDOUT_TAILS) {
        return cut_tail(document->text, document->length);
    }
    uint64_t hash = dm_hash_bytes(document->text, document->length, 0);
    bool held = holdout->rule == DM_HOLDOUT_HASHED ? is_hashed(holdout, hash, document->length) : hash == holdout->picked;
    return held ? 0 : document->length;
}
