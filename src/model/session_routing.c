/* What the routers of sessions did. */
#include <math.h>

#include "model/session.h"

double dm_session_expert_bytes(const dm_session *session) {
    static const dm_role roles[] = {DM_FFN_GATE_EXPS, DM_FFN_UP_EXPS, DM_FFN_DOWN_EXPS};
    const dm_config *c = &session->model->config;
    double bytes = 0.0;
    for (int32_t l = 0; l < c->n_layers; l++) {
        for (int i = 0; i < 3; i++) {
            const dm_weight *all = &session->layers[l].matrices[roles[i]];
            const size_t rows = (size_t)(roles[i] == DM_FFN_DOWN_EXPS ? c->dim : c->expert_dim);
            const dm_weight *apart = session->layers[l].apart[roles[i]];
            for (int32_t e = 0; e < c->n_experts; e++) {
                const dm_weight one = apart != NULL ? apart[e] : dm_weight_rows(all, (size_t)e * rows, rows);
                size_t own;
                dm_weight_stored(&one, &own);
                bytes += (double)own / c->n_experts;
            }
        }
    }
    return bytes / c->n_layers;
}

/* Tokens that the sessions sent to an expert of a layer. */
static uint64_t load_of(dm_session *const *sessions, size_t n, size_t layer, size_t expert) {
    uint64_t load = 0;
    for (size_t i = 0; i < n; i++) {
        load += sessions[i]->loads[layer * (size_t)sessions[i]->model->config.n_experts + expert];
    }
    return load;
}

/* MaxVio, mean over layers; returns how many experts tokens were sent to. */
static double count_loads(dm_session *const *sessions, size_t n, double *maxvio) {
    const dm_config *c = &sessions[0]->model->config;
    double used = 0.0;
    for (int32_t l = 0; l < c->n_layers; l++) {
        uint64_t total = 0, largest = 0;
        for (int32_t e = 0; e < c->n_experts; e++) {
            uint64_t load = load_of(sessions, n, (size_t)l, (size_t)e);
            total += load;
            largest = load > largest ? load : largest;
        }
        *maxvio += dm_maxvio(largest, total, c->n_experts) / c->n_layers;
        used += (double)total;
    }
    return used;
}

void dm_sessions_routing(dm_session *const *sessions, size_t n, dm_routing_stats *out) {
    *out = (dm_routing_stats){.hit_rate = NAN};
    double read = 0.0, passes = 0.0, tokens = 0.0, asked = 0.0, hit = 0.0;
    for (size_t i = 0; i < n; i++) {
        out->tokens += sessions[i]->routed;
        read += (double)sessions[i]->experts_read;
        passes += (double)sessions[i]->passes;
        tokens += (double)sessions[i]->pass_tokens;
        asked += (double)sessions[i]->asked;
        hit += (double)sessions[i]->hit;
    }
    const dm_config *c = &sessions[0]->model->config;
    if (c->n_experts == 0 || out->tokens == 0) {
        return;
    }
    double used = count_loads(sessions, n, &out->maxvio);
    out->experts_per_token = used / (double)out->tokens / c->n_layers;
    out->experts_per_step = passes > 0 ? read / passes / c->n_layers : 0.0;
    if (sessions[0]->routing != NULL) {
        dm_routing_report(sessions[0]->routing, out, &read);
    }
    out->bytes_read_per_token = tokens > 0 ? read * dm_session_expert_bytes(sessions[0]) / tokens : 0.0;
    if (sessions[0]->model->streaming != NULL) {
        out->hit_rate = asked > 0 ? hit / asked : 0.0;
        out->bytes_read_per_token = tokens > 0 ? (asked - hit) / tokens : 0.0;
    }
}

void dm_session_routing(const dm_session *session, dm_routing_stats *out) {
    dm_session *const one[] = {(dm_session *)session};
    dm_sessions_routing(one, 1, out);
}
