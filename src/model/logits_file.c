/* Logits of given ids as a NumPy array on disk. */
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "model/session.h"

enum { CHUNK_TOKENS = 64 };

/* NumPy's format 1.0: magic, version, length of the header, a Python dictionary padded so that the data is aligned. */
static void write_header(FILE *stream, size_t rows, size_t columns) {
    char header[128];
    memset(header, ' ', sizeof header);
    memcpy(header, "\x93NUMPY\x01\x00\x76\x00", 10); /* 0x76 = 128 - 10 bytes follow */
    int length = snprintf(header + 10, sizeof header - 10, "{'descr': '<f4', 'fortran_order': False, 'shape': (%zu, %zu), }",
                          rows, columns);
    header[10 + length] = ' ';
    header[sizeof header - 1] = '\n';
    fwrite(header, 1, sizeof header, stream);
}

static dm_status write_logits(dm_session *session, const int32_t *ids, size_t n, float *logits, FILE *stream) {
    size_t vocab = (size_t)session->model->config.vocab;
    write_header(stream, n, vocab);
    for (size_t first = 0; first < n; first += CHUNK_TOKENS) {
        size_t m = n - first < CHUNK_TOKENS ? n - first : CHUNK_TOKENS;
        if (dm_interrupted()) {
            return dm_fail(DM_ERR_INTERRUPTED, "interrupted before all logits were written; nothing was kept");
        }
        DM_TRY(dm_session_feed(session, ids + first, (int32_t)m, true, logits));
        fwrite(logits, sizeof *logits, m * vocab, stream); /* an error is reported when the file is committed */
    }
    return DM_OK;
}

static dm_status save(dm_session *session, const int32_t *ids, size_t n, const char *path) {
    float *logits = dm_alloc(CHUNK_TOKENS * (size_t)session->model->config.vocab, sizeof *logits);
    if (logits == NULL) {
        return DM_ERR_MEMORY;
    }
    dm_replace file;
    dm_status status = dm_replace_open(path, &file);
    if (status == DM_OK) {
        status = write_logits(session, ids, n, logits, file.stream);
        if (status == DM_OK) {
            status = dm_replace_commit(&file);
        } else {
            dm_replace_abandon(&file);
        }
    }
    dm_free(logits);
    return status;
}

dm_status dm_evaluate_logits(const dm_model *model, const int32_t *ids, size_t n, dm_cache_type cache, const char *path) {
    if (n == 0 || n > INT32_MAX) {
        return dm_fail(DM_ERR_ARGUMENT, "%zu ids cannot be evaluated as one sequence", n);
    }
    dm_session *session;
    const dm_session_options options = {.context = (int32_t)n, .cache = cache};
    DM_TRY(dm_session_create_with(model, &options, &session));
    dm_status status = save(session, ids, n, path);
    dm_session_free(session);
    return status;
}
