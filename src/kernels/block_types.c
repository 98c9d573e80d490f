#include "kernels/block_types.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "kernels/block_decoders.h"
#include "kernels/vector.h"

static void decode_f32(float *y, const void *x, size_t n) {
    memcpy(y, x, n * sizeof *y);
}

static void decode_f16(float *y, const void *x, size_t n) {
    dm_vector()->f16_to_f32(y, x, n);
}

static void decode_bf16(float *y, const void *x, size_t n) {
    dm_vector()->bf16_to_f32(y, x, n);
}

typedef struct type_row {
    const char *name;        /* NULL: the number was withdrawn, or never given */
    uint32_t weights, bytes; /* per block */
    dm_decode_fn decode;     /* NULL: such tensors can be listed, but not computed with */
} type_row;

static const type_row types[DM_TYPES] = {
    [DM_TYPE_F32] = {"F32", 1, 4, decode_f32},
    [DM_TYPE_F16] = {"F16", 1, 2, decode_f16},
    [DM_TYPE_Q4_0] = {"Q4_0", 32, 18, dm_decode_q4_0},
    [DM_TYPE_Q4_1] = {"Q4_1", 32, 20, dm_decode_q4_1},
    [DM_TYPE_Q5_0] = {"Q5_0", 32, 22, dm_decode_q5_0},
    [DM_TYPE_Q5_1] = {"Q5_1", 32, 24, dm_decode_q5_1},
    [DM_TYPE_Q8_0] = {"Q8_0", 32, 34, dm_decode_q8_0},
    [DM_TYPE_Q8_1] = {"Q8_1", 32, 36, NULL},
    [DM_TYPE_Q2_K] = {"Q2_K", 256, 84, dm_decode_q2_k},
    [DM_TYPE_Q3_K] = {"Q3_K", 256, 110, dm_decode_q3_k},
    [DM_TYPE_Q4_K] = {"Q4_K", 256, 144, dm_decode_q4_k},
    [DM_TYPE_Q5_K] = {"Q5_K", 256, 176, dm_decode_q5_k},
    [DM_TYPE_Q6_K] = {"Q6_K", 256, 210, dm_decode_q6_k},
    [DM_TYPE_Q8_K] = {"Q8_K", 256, 292, NULL},
    [DM_TYPE_IQ2_XXS] = {"IQ2_XXS", 256, 66, NULL},
    [DM_TYPE_IQ2_XS] = {"IQ2_XS", 256, 74, NULL},
    [DM_TYPE_IQ3_XXS] = {"IQ3_XXS", 256, 98, NULL},
    [DM_TYPE_IQ1_S] = {"IQ1_S", 256, 50, NULL},
    [DM_TYPE_IQ4_NL] = {"IQ4_NL", 32, 18, dm_decode_iq4_nl},
    [DM_TYPE_IQ3_S] = {"IQ3_S", 256, 110, NULL},
    [DM_TYPE_IQ2_S] = {"IQ2_S", 256, 82, NULL},
    [DM_TYPE_IQ4_XS] = {"IQ4_XS", 256, 136, dm_decode_iq4_xs},
    [DM_TYPE_I8] = {"I8", 1, 1, NULL},
    [DM_TYPE_I16] = {"I16", 1, 2, NULL},
    [DM_TYPE_I32] = {"I32", 1, 4, NULL},
    [DM_TYPE_I64] = {"I64", 1, 8, NULL},
    [DM_TYPE_F64] = {"F64", 1, 8, NULL},
    [DM_TYPE_IQ1_M] = {"IQ1_M", 256, 56, NULL},
    [DM_TYPE_BF16] = {"BF16", 1, 2, decode_bf16},
    [DM_TYPE_TQ1_0] = {"TQ1_0", 256, 54, NULL},
    [DM_TYPE_TQ2_0] = {"TQ2_0", 256, 66, NULL},
    [DM_TYPE_MXFP4] = {"MXFP4", 32, 17, NULL},
};

const char *dm_type_name(uint32_t type) {
    return type == DM_TYPE_MIXED ? "MIXED" : type < DM_TYPES ? types[type].name : NULL;
}

bool dm_type_block(uint32_t type, uint32_t *weights, uint32_t *bytes) {
    if (type >= DM_TYPES || types[type].name == NULL) {
        return false;
    }
    *weights = types[type].weights;
    *bytes = types[type].bytes;
    return true;
}

size_t dm_type_bytes(dm_type type, size_t n) {
    return n / types[type].weights * types[type].bytes;
}

dm_decode_fn dm_type_decoder(uint32_t type) {
    return type < DM_TYPES ? types[type].decode : NULL;
}

bool dm_type_from_name(const char *name, dm_type *out) {
    for (uint32_t type = 0; type < DM_TYPES; type++) {
        if (types[type].decode != NULL && strcasecmp(types[type].name, name) == 0) {
            *out = (dm_type)type;
            return true;
        }
    }
    return false;
}

static char names[192];
static pthread_once_t names_once = PTHREAD_ONCE_INIT;

static void list_names(void) {
    size_t used = 0;
    for (uint32_t type = 0; type < DM_TYPES; type++) {
        if (types[type].decode != NULL) {
            used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", used > 0 ? ", " : "", types[type].name);
        }
    }
}

const char *dm_type_names(void) {
    pthread_once(&names_once, list_names);
    return names;
}
