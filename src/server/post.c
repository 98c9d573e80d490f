/* What the engine is doing, as JSON (docs/serving.md). */
#include <jansson.h>
#include <math.h>

#include "base/threads.h"
#include "server/engine_parts.h"

static json_t *slot_json(const dm_slot *slot) {
    const dm_choice *choice = slot->choice;
    const char *state = choice == NULL ? "free" : slot->writing ? "writing" : "reading";
    return json_pack("{s:s, s:i, s:I, s:I, s:I}", "state", state, "held", (int)slot->session->length, "prompt",
                     (json_int_t)(choice != NULL ? choice->prompt->n : 0), "read", (json_int_t)(choice != NULL ? slot->read : 0),
                     "made", (json_int_t)(choice != NULL ? choice->made : 0));
}

/* Tokens that each expert was sent since the server started, a list for each layer. */
static json_t *loads_json(const dm_engine *engine) {
    const dm_config *c = &engine->model->config;
    json_t *layers = json_array();
    for (size_t l = 0; c->n_experts > 0 && l < (size_t)c->n_layers; l++) {
        json_t *experts = json_array();
        for (size_t e = 0; e < (size_t)c->n_experts; e++) {
            uint64_t load = 0;
            for (size_t s = 0; s < engine->n_slots; s++) {
                load += engine->sessions[s]->loads[l * (size_t)c->n_experts + e];
            }
            json_array_append_new(experts, json_integer((json_int_t)load));
        }
        json_array_append_new(layers, experts);
    }
    return layers;
}

static json_t *gauges_json(const dm_gauges *gauges) {
    const dm_routing_stats *routing = &gauges->routing;
    json_t *hits = isfinite(routing->hit_rate) ? json_real(routing->hit_rate) : json_null();
    return json_pack("{s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:o, s:f, s:I, s:I, s:I}", "tokens", (json_int_t)routing->tokens,
                     "experts_per_token", routing->experts_per_token, "experts_per_step", routing->experts_per_step,
                     "decode_experts_per_step", gauges->decode_experts, "decode_sequences_per_step", gauges->decode_rows,
                     "maxvio", routing->maxvio, "changed", routing->changed, "hit_rate", hits, "bytes_read_per_token",
                     routing->bytes_read_per_token, "expert_slots", (json_int_t)gauges->stream.slots, "experts",
                     (json_int_t)gauges->stream.experts, "bytes_read", (json_int_t)gauges->stream.read);
}

void dm_engine_post(dm_engine *engine, int32_t waiting, double now) {
    dm_gauges gauges;
    dm_metrics_get(engine->metrics, &gauges);
    json_t *slots = json_array();
    for (size_t i = 0; i < engine->n_slots; i++) {
        json_array_append_new(slots, slot_json(&engine->slots[i]));
    }
    json_t *all = json_pack("{s:f, s:o, s:i, s:I, s:I, s:o, s:o}", "time", now, "slots", slots, "waiting", (int)waiting, "steps",
                            (json_int_t)engine->steps, "decoded", (json_int_t)engine->step_rows, "routing", gauges_json(&gauges),
                            "loads", loads_json(engine));
    char *text = all != NULL ? json_dumps(all, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(all);
    dm_board_post(&engine->board, text, now);
}
