/* While attention computes, the disk would have nothing to do: experts that the next layers may want are read ahead. */
#include <math.h>

#include "model/forward.h"

/* The best `top` of each row of logits [n, experts], without repetition, every row's best first, to list [experts]; spoils the
 * logits. Returns how many. */
static size_t likeliest(float *logits, size_t n, size_t experts, size_t top, int32_t *list) {
    size_t listed = 0;
    for (size_t i = 0; i < n * top; i++) {
        float *row = logits + i % n * experts;
        size_t best = 0, before = 0;
        for (size_t e = 1; e < experts; e++) {
            best = row[e] > row[best] ? e : best;
        }
        row[best] = -INFINITY;
        while (before < listed && list[before] != (int32_t)best) {
            before++;
        }
        if (before == listed) {
            list[listed++] = (int32_t)best;
        }
    }
    return listed;
}

/* Of the next tokens, the better half of those that the layer's router would choose of the residual stream as it is now: nine in
 * ten of them are wanted, of the others fewer. Of a piece of a prompt all experts, in the order in which they will be used. Uses
 * a->router, a->grouped and a->active, which nothing needs between layers. */
static dm_status guess_layer(const dm_pass *pass, int32_t layer) {
    dm_session *session = pass->work;
    const dm_config *c = &session->model->config;
    const dm_weights *weights = &session->layers[layer];
    const dm_activations *a = &session->scratch;
    size_t n = (size_t)c->n_experts;
    if (pass->rows == DM_ROWS_APART) {
        dm_forward_norm(session, weights, DM_FFN_NORM, DM_FFN_NORM_B, a->x, pass->n, a->grouped);
        DM_TRY(dm_forward_linear(pass, weights, DM_FFN_ROUTER, DM_ROLES, a->grouped, pass->n, a->router));
        n = likeliest(a->router, pass->n, n, ((size_t)c->top_k + 1) / 2, a->active);
    } else {
        for (int32_t e = 0; e < c->n_experts; e++) {
            a->active[e] = e;
        }
    }
    dm_expert_store_guess(session->store, layer, a->active, n);
    return DM_OK;
}

static dm_status guess(const dm_pass *pass, int32_t l) {
    const dm_session *session = pass->work;
    const int32_t layers = session->model->config.n_layers, ahead = dm_expert_store_ahead(session->store);
    for (int32_t next = l + 1; next <= l + ahead && next < layers; next++) {
        if (session->layers[next].matrices[DM_FFN_ROUTER].data != NULL) {
            DM_TRY(guess_layer(pass, next));
        }
    }
    return DM_OK;
}

dm_status dm_forward_guess(const dm_pass *pass, int32_t l) {
    dm_expert_store *store = pass->work->store;
    if (store == NULL || dm_expert_store_ahead(store) == 0) {
        return DM_OK;
    }
    dm_expert_store_enter(store);
    dm_status status = guess(pass, l);
    dm_expert_store_leave(store);
    dm_times_lap(&pass->work->times, DM_OPERATION_ROUTER);
    return status;
}
