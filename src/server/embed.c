/* Embeddings: the mean over a text's tokens of their last states, after the output's norm, at length 1. */
#include <math.h>
#include <stdlib.h>

#include "model/forward.h"
#include "server/engine_parts.h"

static dm_status put_vector(const dm_engine *engine, const dm_slot *slot) {
    size_t dim = (size_t)engine->model->config.dim;
    double square = 0.0;
    for (size_t i = 0; i < dim; i++) {
        square += slot->sum[i] * slot->sum[i];
    }
    dm_piece *piece = calloc(1, sizeof *piece);
    float *vector = malloc(dim * sizeof *vector);
    if (piece == NULL || vector == NULL) {
        free(piece);
        free(vector);
        return dm_fail(DM_ERR_MEMORY, "out of memory for an embedding");
    }
    for (size_t i = 0; i < dim; i++) {
        vector[i] = (float)(slot->sum[i] / (square > 0.0 ? sqrt(square) : 1.0));
    }
    piece->choice = slot->choice->index;
    piece->vector = vector;
    dm_request_put(slot->choice->request, piece);
    return DM_OK;
}

/* One pass, whose states are then still in the session's scratch. */
static dm_status add_states(const dm_slot *slot, const int32_t *ids, size_t n) {
    dm_session *session = slot->session;
    const dm_activations *a = &session->scratch;
    size_t dim = (size_t)session->model->config.dim;
    DM_TRY(dm_session_feed(session, ids, (int32_t)n, false, NULL));
    dm_forward_norm(session, &session->global, DM_OUTPUT_NORM, DM_OUTPUT_NORM_B, a->x, n, a->h);
    for (size_t i = 0; i < n * dim; i++) {
        slot->sum[i % dim] += (double)a->h[i];
    }
    return DM_OK;
}

dm_status dm_engine_embed(dm_engine *engine, dm_slot *slot, size_t n) {
    const dm_prompt *prompt = slot->choice->prompt;
    /* A router of one's own may read a piece in several passes. */
    size_t step = slot->session->routing != NULL || slot->session->chunk > 0 ? 1 : n;
    for (size_t at = 0; at < n; at += step) {
        DM_TRY(add_states(slot, prompt->ids + slot->read + at, step));
    }
    return slot->read + n == prompt->n ? put_vector(engine, slot) : DM_OK;
}
