/* Initial weights, drawn in blocks that each have a generator of their own. */
#include <math.h>

#include "base/random.h"
#include "model/create.h"

enum { BLOCK = 4096 };

static bool is_bias(dm_role role) {
    switch (role) {
    case DM_OUTPUT_NORM_B:
    case DM_ATTN_NORM_B:
    case DM_ATTN_QKV_B:
    case DM_ATTN_OUTPUT_B:
    case DM_FFN_NORM_B:
    case DM_ATTN_Q_B:
    case DM_ATTN_K_B:
    case DM_ATTN_V_B:
    case DM_FFN_GATE_B:
    case DM_FFN_UP_B:
    case DM_FFN_DOWN_B:
        return true;
    default:
        return false;
    }
}

static bool writes_residual(dm_role role) {
    return role == DM_ATTN_OUTPUT || role == DM_FFN_DOWN || role == DM_FFN_DOWN_EXPS || role == DM_FFN_DOWN_SHEXP;
}

static uint64_t tensor_seed(const dm_tensor_spec *spec, uint64_t seed) {
    uint64_t hash = dm_random_mix(seed);
    for (const char *c = spec->name; *c != '\0'; c++) {
        hash = dm_random_mix(hash ^ (uint8_t)*c);
    }
    return hash;
}

/* Two independent normal numbers from one draw (Box and Muller 1958); 32 bits each, so up to 6.7 deviations. */
static void draw_pair(dm_random *random, float deviation, float pair[2]) {
    uint64_t bits = dm_random_next(random);
    float radius = deviation * sqrtf(-2.0f * logf(((float)(bits >> 32) + 0.5f) * 0x1p-32f));
    float angle = 6.2831853f * ((float)(bits & 0xffffffff) * 0x1p-32f);
    pair[0] = radius * cosf(angle);
    pair[1] = radius * sinf(angle);
}

/* Numbers [from, to) of one block. */
static void draw(uint64_t seed, uint64_t block, size_t from, size_t to, float deviation, float *out) {
    dm_random random;
    dm_random_seed(&random, dm_random_mix(seed ^ block));
    for (size_t i = 0; i < to; i += 2) {
        float pair[2];
        draw_pair(&random, deviation, pair);
        for (size_t k = 0; k < 2; k++) {
            if (i + k >= from && i + k < to) {
                out[i + k - from] = pair[k];
            }
        }
    }
}

void dm_init_piece(const dm_config *config, const dm_tensor_spec *spec, uint64_t seed, uint64_t first, size_t n, float *out) {
    if (spec->n_dims == 1 && spec->role != DM_FFN_ROUTER_SHEXP) {
        for (size_t i = 0; i < n; i++) {
            out[i] = is_bias(spec->role) ? 0.0f : 1.0f;
        }
        return;
    }
    float deviation = 0.02f / (writes_residual(spec->role) ? sqrtf(2.0f * (float)config->n_layers) : 1.0f);
    uint64_t own = tensor_seed(spec, seed);
    uint64_t first_block = first / BLOCK;
    uint64_t end = first + n;
    int64_t blocks = n == 0 ? 0 : (int64_t)((end - 1) / BLOCK - first_block + 1);
#pragma omp parallel for schedule(static) if (blocks > 64) /* a millisecond's work is not worth waking a team for */
    for (int64_t b = 0; b < blocks; b++) {
        uint64_t start = (first_block + (uint64_t)b) * BLOCK;
        size_t from = start < first ? (size_t)(first - start) : 0;
        size_t to = end - start < BLOCK ? (size_t)(end - start) : BLOCK;
        draw(own, first_block + (uint64_t)b, from, to, deviation, out + (start + from - first));
    }
}

void dm_init_weights(const dm_config *config, const dm_tensor_spec *specs, size_t n, uint64_t seed, float *const *weights) {
    for (size_t i = 0; i < n; i++) {
        dm_init_piece(config, &specs[i], seed, 0, (size_t)specs[i].elements, weights[i]);
    }
}
