#include "training/validation.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "moe/router.h"

/* One batch of windows read from `at` on: inputs, targets (-1 past the end), and what the targets stand for. */
typedef struct window_batch {
    int32_t *ids, *targets; /* [sequences * length] */
    int32_t *window;        /* [length + 1] */
    size_t sequences, length;
    size_t filled; /* sequences in use */
    uint64_t bytes, tokens;
} window_batch;

static void fill(window_batch *b, const dm_tokens *tokens, const dm_tokenizer *tokenizer, uint64_t at, uint64_t end) {
    b->filled = 0;
    b->bytes = 0;
    b->tokens = 0;
    while (b->filled < b->sequences && at + 1 < end) {
        size_t n = end - at - 1 < b->length ? (size_t)(end - at - 1) : b->length; /* targets in this window */
        int32_t *ids = b->ids + b->filled * b->length;
        int32_t *targets = b->targets + b->filled * b->length;
        dm_tokens_copy(tokens, at, n + 1, b->window);
        for (size_t i = 0; i < b->length; i++) {
            ids[i] = b->window[i < n ? i : n - 1]; /* a repeated token fills up; nothing looks back at it */
            targets[i] = i < n ? b->window[i + 1] : -1;
            size_t bytes = 0;
            if (i < n) {
                dm_tokenizer_bytes(tokenizer, targets[i], &bytes);
            }
            b->bytes += bytes;
        }
        b->tokens += n;
        b->filled++;
        at += n;
    }
}

static double mean_maxvio(const dm_config *c, const uint64_t *loads) {
    double sum = 0.0;
    for (int32_t l = 0; l < c->n_layers && c->n_experts > 0; l++) {
        sum += dm_router_maxvio(loads + (size_t)l * (size_t)c->n_experts, c->n_experts);
    }
    return sum / c->n_layers;
}

static dm_status read_all(dm_network *network, const dm_config *c, const dm_tokens *tokens, const dm_tokenizer *tokenizer,
                          uint64_t end, window_batch *batch, uint64_t *loads, dm_validation *out) {
    double nats = 0.0;
    uint64_t bytes = 0;
    uint64_t at = 0;
    while (at + 1 < end) {
        double loss;
        if (dm_interrupted()) {
            return dm_fail(DM_ERR_INTERRUPTED, "interrupted");
        }
        fill(batch, tokens, tokenizer, at, end);
        DM_TRY(dm_network_loss(network, batch->ids, batch->targets, batch->filled, &loss));
        nats += loss;
        bytes += batch->bytes;
        out->tokens += batch->tokens;
        at += batch->tokens;
        for (size_t i = 0; i < (size_t)c->n_layers * (size_t)c->n_experts; i++) {
            loads[i] += dm_network_loads(network)[i];
        }
    }
    out->loss = out->tokens > 0 ? nats / (double)out->tokens : NAN;
    out->bpb = bytes > 0 ? nats / 0.6931471805599453 / (double)bytes : NAN;
    out->maxvio = mean_maxvio(c, loads);
    return DM_OK;
}

dm_status dm_validate(dm_network *network, const dm_config *c, size_t sequences, size_t length, const dm_tokens *tokens,
                      const dm_tokenizer *tokenizer, uint64_t limit, dm_validation *out) {
    uint64_t *kept = out->loads;
    *out = (dm_validation){.loads = kept};
    size_t n_loads = (size_t)c->n_layers * (size_t)c->n_experts;
    window_batch batch = {
        .ids = malloc(sequences * length * sizeof(int32_t)),
        .targets = malloc(sequences * length * sizeof(int32_t)),
        .window = malloc((length + 1) * sizeof(int32_t)),
        .sequences = sequences,
        .length = length,
    };
    uint64_t *loads = calloc(n_loads + 1, sizeof *loads);
    dm_status status;
    if (batch.ids == NULL || batch.targets == NULL || batch.window == NULL || loads == NULL) {
        status = dm_fail(DM_ERR_MEMORY, "out of memory validating");
    } else {
        uint64_t end = limit != 0 && limit + 1 < tokens->count ? limit + 1 : tokens->count;
        status = read_all(network, c, tokens, tokenizer, end, &batch, loads, out);
        if (kept != NULL) {
            memcpy(kept, loads, n_loads * sizeof *loads);
        }
    }
    free(batch.ids);
    free(batch.targets);
    free(batch.window);
    free(loads);
    return status;
}
