/* The kinds of metadata, as numbered by the GGUF specification. */
#include "model/gguf.h"

static const struct {
    const char *name;
    size_t size;
} kinds[] = {
    [DM_GGUF_U8] = {"u8", 1},         [DM_GGUF_I8] = {"i8", 1},       [DM_GGUF_U16] = {"u16", 2}, [DM_GGUF_I16] = {"i16", 2},
    [DM_GGUF_U32] = {"u32", 4},       [DM_GGUF_I32] = {"i32", 4},     [DM_GGUF_F32] = {"f32", 4}, [DM_GGUF_BOOL] = {"bool", 1},
    [DM_GGUF_STRING] = {"string", 0}, [DM_GGUF_ARRAY] = {"array", 0}, [DM_GGUF_U64] = {"u64", 8}, [DM_GGUF_I64] = {"i64", 8},
    [DM_GGUF_F64] = {"f64", 8},
};

const char *dm_gguf_kind_name(uint32_t kind) {
    return kind < sizeof kinds / sizeof *kinds ? kinds[kind].name : NULL;
}

size_t dm_gguf_kind_size(uint32_t kind) {
    return dm_gguf_kind_name(kind) != NULL ? kinds[kind].size : 0;
}
