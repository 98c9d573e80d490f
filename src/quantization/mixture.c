#include "quantization/mixture.h"

#include <pthread.h>
#include <strings.h>

/* general.file_type, as numbered by llama.cpp. */
typedef enum file_type {
    FILE_F32 = 0,
    FILE_F16 = 1,
    FILE_Q4_0 = 2,
    FILE_Q4_1 = 3,
    FILE_Q8_0 = 7,
    FILE_Q5_0 = 8,
    FILE_Q5_1 = 9,
    FILE_Q2_K = 10,
    FILE_Q3_K_S = 11,
    FILE_Q3_K_M = 12,
    FILE_Q3_K_L = 13,
    FILE_Q4_K_S = 14,
    FILE_Q4_K_M = 15,
    FILE_Q5_K_S = 16,
    FILE_Q5_K_M = 17,
    FILE_Q6_K = 18,
    FILE_Q2_K_S = 21,
    FILE_IQ4_NL = 25,
    FILE_IQ4_XS = 30,
    FILE_BF16 = 32,
} file_type;

struct dm_mixture {
    const char *name;
    file_type file;
    dm_type base; /* of most matrices */
};

static const dm_mixture mixtures[] = {
    {"f32", FILE_F32, DM_TYPE_F32},        {"f16", FILE_F16, DM_TYPE_F16},          {"bf16", FILE_BF16, DM_TYPE_BF16},
    {"q8_0", FILE_Q8_0, DM_TYPE_Q8_0},     {"q6_k", FILE_Q6_K, DM_TYPE_Q6_K},       {"q5_k_m", FILE_Q5_K_M, DM_TYPE_Q5_K},
    {"q5_k_s", FILE_Q5_K_S, DM_TYPE_Q5_K}, {"q5_1", FILE_Q5_1, DM_TYPE_Q5_1},       {"q5_0", FILE_Q5_0, DM_TYPE_Q5_0},
    {"q4_k_m", FILE_Q4_K_M, DM_TYPE_Q4_K}, {"q4_k_s", FILE_Q4_K_S, DM_TYPE_Q4_K},   {"q4_1", FILE_Q4_1, DM_TYPE_Q4_1},
    {"q4_0", FILE_Q4_0, DM_TYPE_Q4_0},     {"iq4_nl", FILE_IQ4_NL, DM_TYPE_IQ4_NL}, {"iq4_xs", FILE_IQ4_XS, DM_TYPE_IQ4_XS},
    {"q3_k_l", FILE_Q3_K_L, DM_TYPE_Q3_K}, {"q3_k_m", FILE_Q3_K_M, DM_TYPE_Q3_K},   {"q3_k_s", FILE_Q3_K_S, DM_TYPE_Q3_K},
    {"q2_k", FILE_Q2_K, DM_TYPE_Q2_K},     {"q2_k_s", FILE_Q2_K_S, DM_TYPE_Q2_K},
};

/* The plain names mean the medium mixtures. */
static const struct { const char *name, *means; } aliases[] = {{"q5_k", "q5_k_m"}, {"q4_k", "q4_k_m"}, {"q3_k", "q3_k_m"}};

enum { N_MIXTURES = sizeof mixtures / sizeof *mixtures, N_ALIASES = sizeof aliases / sizeof *aliases };

static char names[192];
static pthread_once_t names_once = PTHREAD_ONCE_INIT;

static void list_names(void) {
    size_t used = 0;
    for (size_t i = 0; i < N_MIXTURES; i++) {
        used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", used > 0 ? ", " : "", mixtures[i].name);
    }
}

const char *dm_mixture_names(void) {
    pthread_once(&names_once, list_names);
    return names;
}

dm_status dm_mixture_from_name(const char *name, const dm_mixture **out) {
    const char *wanted = name;
    for (size_t i = 0; i < N_ALIASES; i++) {
        wanted = strcasecmp(aliases[i].name, name) == 0 ? aliases[i].means : wanted;
    }
    for (size_t i = 0; i < N_MIXTURES; i++) {
        if (strcasecmp(mixtures[i].name, wanted) == 0) {
            *out = &mixtures[i];
            return DM_OK;
        }
    }
    return dm_fail(DM_ERR_ARGUMENT, "the type '%.40s' is unknown, expected one of %s", name, dm_mixture_names());
}

/* ---- Which matrices get more bits ---- */

/* The first and last eighth of the layers, and every third between. */
static bool more_bits(int32_t layer, int32_t layers) {
    return layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2;
}

/* Values of attention, alone or with queries and keys: small where heads share them, and sensitive. */
static dm_type value_type(const dm_mixture *m, const dm_config *c, int32_t layer) {
    bool grouped = c->n_heads / c->n_kv_heads >= 4;
    switch (m->file) {
    case FILE_Q2_K:
        return grouped ? DM_TYPE_Q4_K : DM_TYPE_Q3_K;
    case FILE_Q2_K_S:
        return grouped ? DM_TYPE_Q4_K : m->base;
    case FILE_Q3_K_M:
        return layer < 2 ? DM_TYPE_Q5_K : DM_TYPE_Q4_K;
    case FILE_Q3_K_L:
        return DM_TYPE_Q5_K;
    case FILE_Q4_K_S:
        return layer < 4 ? DM_TYPE_Q5_K : m->base;
    case FILE_Q4_K_M:
    case FILE_Q5_K_M:
        return more_bits(layer, c->n_layers) ? DM_TYPE_Q6_K : m->base;
    case FILE_IQ4_NL:
    case FILE_IQ4_XS:
        return grouped ? DM_TYPE_Q5_K : m->base;
    default:
        return m->base;
    }
}

static dm_type down_type(const dm_mixture *m, const dm_config *c, int32_t layer) {
    switch (m->file) {
    case FILE_Q2_K:
        return DM_TYPE_Q3_K;
    case FILE_Q2_K_S:
        return layer < c->n_layers / 8 ? DM_TYPE_Q4_K : m->base;
    case FILE_Q3_K_M:
        return layer < c->n_layers / 16 ? DM_TYPE_Q5_K : DM_TYPE_Q4_K;
    case FILE_Q3_K_L:
        return DM_TYPE_Q5_K;
    case FILE_Q4_K_M:
    case FILE_Q5_K_M:
        return more_bits(layer, c->n_layers) ? DM_TYPE_Q6_K : m->base;
    case FILE_Q4_K_S:
    case FILE_IQ4_NL:
    case FILE_IQ4_XS:
        return layer < c->n_layers / 8 ? DM_TYPE_Q5_K : m->base;
    default:
        return m->base;
    }
}

/* Models of 8 experts have comparatively little attention. */
static bool eight_experts(const dm_config *c) {
    return c->n_experts == 8;
}

static dm_type attention_output_type(const dm_mixture *m, const dm_config *c) {
    switch (m->file) {
    case FILE_Q2_K:
        return eight_experts(c) ? DM_TYPE_Q5_K : DM_TYPE_Q3_K;
    case FILE_Q3_K_M:
        return eight_experts(c) ? DM_TYPE_Q5_K : DM_TYPE_Q4_K;
    case FILE_Q3_K_L:
        return eight_experts(c) ? m->base : DM_TYPE_Q5_K;
    case FILE_Q3_K_S:
    case FILE_Q4_K_S:
    case FILE_Q4_K_M:
    case FILE_IQ4_NL:
    case FILE_IQ4_XS:
        return eight_experts(c) ? DM_TYPE_Q5_K : m->base;
    default:
        return m->base;
    }
}

static bool whole_blocks(dm_type type, uint64_t row) {
    uint32_t block = 1, bytes = 0;
    dm_type_block((uint32_t)type, &block, &bytes);
    return row % block == 0;
}

/* The last product, and an embedding that is also it: every logit feels their error. */
static dm_type output_type(const dm_mixture *m, uint64_t row) {
    return m->base == DM_TYPE_Q8_0 || !whole_blocks(m->base, row) ? DM_TYPE_Q8_0 : DM_TYPE_Q6_K;
}

static dm_type wanted_type(const dm_mixture *m, const dm_config *c, const dm_tensor_spec *spec) {
    switch (spec->role) {
    case DM_OUTPUT:
        return output_type(m, spec->dims[0]);
    case DM_TOKEN_EMBD:
        return c->tied_output ? output_type(m, spec->dims[0]) : m->base;
    case DM_ATTN_V:
    case DM_ATTN_QKV: {
        dm_type type = value_type(m, c, spec->layer);
        bool seventy = c->n_layers == 80 && c->n_kv_heads < c->n_heads; /* Llama 2's and 3's 70 billion */
        type = seventy && (type == DM_TYPE_Q3_K || type == DM_TYPE_Q4_K) ? DM_TYPE_Q5_K : type;
        return eight_experts(c) ? DM_TYPE_Q8_0 : type;
    }
    case DM_ATTN_K:
        return eight_experts(c) ? DM_TYPE_Q8_0 : m->base;
    case DM_ATTN_OUTPUT:
        return attention_output_type(m, c);
    case DM_FFN_DOWN:
    case DM_FFN_DOWN_EXPS:
    case DM_FFN_DOWN_SHEXP:
        return down_type(m, c, spec->layer);
    default:
        return m->base;
    }
}

static dm_type smaller_blocks(dm_type type) {
    switch (type) {
    case DM_TYPE_Q2_K:
    case DM_TYPE_Q3_K:
        return DM_TYPE_Q4_0;
    case DM_TYPE_Q4_K:
        return DM_TYPE_Q5_0;
    case DM_TYPE_Q5_K:
        return DM_TYPE_Q5_1;
    case DM_TYPE_Q6_K:
        return DM_TYPE_Q8_0;
    case DM_TYPE_IQ4_XS:
        return DM_TYPE_IQ4_NL;
    default:
        return DM_TYPE_F16;
    }
}

static bool is_floats(const dm_mixture *m) {
    return m->base == DM_TYPE_F32 || m->base == DM_TYPE_F16 || m->base == DM_TYPE_BF16;
}

dm_type dm_mixture_type(const dm_mixture *mixture, const dm_config *config, const dm_tensor_spec *spec) {
    dm_type type = dm_config_stored_type(spec, mixture->base);
    if (type != mixture->base || is_floats(mixture)) {
        return type;
    }
    type = wanted_type(mixture, config, spec);
    while (!whole_blocks(type, spec->dims[0])) {
        type = smaller_blocks(type);
    }
    return type;
}

void dm_mixture_write(const dm_mixture *mixture, dm_gguf_writer *writer) {
    dm_gguf_add_u32(writer, "general.file_type", (uint32_t)mixture->file);
    if (!is_floats(mixture)) {
        dm_gguf_add_u32(writer, "general.quantization_version", 2);
    }
}
