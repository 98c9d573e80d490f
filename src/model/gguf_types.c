/* The element types of tensors and the kinds of metadata, as numbered by the GGUF specification. */
#include "model/gguf.h"

typedef struct type_entry {
    const char *name;
    uint32_t weights, bytes; /* per block */
} type_entry;

/* Numbers missing here were withdrawn or are not handled; a block of zero weights marks them. */
static const type_entry types[] = {
    [DM_TYPE_F32] = {"F32", 1, 4},           [DM_TYPE_F16] = {"F16", 1, 2},       [DM_TYPE_Q4_0] = {"Q4_0", 32, 18},
    [DM_TYPE_Q4_1] = {"Q4_1", 32, 20},       [DM_TYPE_Q5_0] = {"Q5_0", 32, 22},   [DM_TYPE_Q5_1] = {"Q5_1", 32, 24},
    [DM_TYPE_Q8_0] = {"Q8_0", 32, 34},       [DM_TYPE_Q8_1] = {"Q8_1", 32, 36},   [DM_TYPE_Q2_K] = {"Q2_K", 256, 84},
    [DM_TYPE_Q3_K] = {"Q3_K", 256, 110},     [DM_TYPE_Q4_K] = {"Q4_K", 256, 144}, [DM_TYPE_Q5_K] = {"Q5_K", 256, 176},
    [DM_TYPE_Q6_K] = {"Q6_K", 256, 210},     [DM_TYPE_Q8_K] = {"Q8_K", 256, 292}, [DM_TYPE_IQ4_NL] = {"IQ4_NL", 32, 18},
    [DM_TYPE_IQ4_XS] = {"IQ4_XS", 256, 136}, [DM_TYPE_I8] = {"I8", 1, 1},         [DM_TYPE_I16] = {"I16", 1, 2},
    [DM_TYPE_I32] = {"I32", 1, 4},           [DM_TYPE_I64] = {"I64", 1, 8},       [DM_TYPE_F64] = {"F64", 1, 8},
    [DM_TYPE_BF16] = {"BF16", 1, 2},
};

static const struct {
    const char *name;
    size_t size;
} kinds[] = {
    [DM_GGUF_U8] = {"u8", 1},         [DM_GGUF_I8] = {"i8", 1},       [DM_GGUF_U16] = {"u16", 2}, [DM_GGUF_I16] = {"i16", 2},
    [DM_GGUF_U32] = {"u32", 4},       [DM_GGUF_I32] = {"i32", 4},     [DM_GGUF_F32] = {"f32", 4}, [DM_GGUF_BOOL] = {"bool", 1},
    [DM_GGUF_STRING] = {"string", 0}, [DM_GGUF_ARRAY] = {"array", 0}, [DM_GGUF_U64] = {"u64", 8}, [DM_GGUF_I64] = {"i64", 8},
    [DM_GGUF_F64] = {"f64", 8},
};

const char *dm_type_name(uint32_t type) {
    return type < sizeof types / sizeof *types ? types[type].name : NULL;
}

bool dm_type_block(uint32_t type, uint32_t *weights, uint32_t *bytes) {
    if (dm_type_name(type) == NULL) {
        return false;
    }
    *weights = types[type].weights;
    *bytes = types[type].bytes;
    return true;
}

const char *dm_gguf_kind_name(uint32_t kind) {
    return kind < sizeof kinds / sizeof *kinds ? kinds[kind].name : NULL;
}

size_t dm_gguf_kind_size(uint32_t kind) {
    return dm_gguf_kind_name(kind) != NULL ? kinds[kind].size : 0;
}
