/* Converting between Hugging Face's folders and GGUF, and between layouts of GGUF: what all directions share. */
#ifndef DM_QUANTIZATION_CONVERT_H
#define DM_QUANTIZATION_CONVERT_H

#include "model/expert_layout.h"
#include "model/hf_tensors.h"
#include "model/model.h"

typedef struct dm_conversion {
    const char *from, *to;
    dm_convert_options options;
    dm_expert_layout layout; /* of options.layout; DM_LAYOUT_NONE: not asked for */
    dm_convert_fn on_piece;  /* may be NULL */
    void *user;
    uint64_t done, total; /* bytes written and to be written */
    float *piece;         /* [DM_GGUF_PIECE] of scratch */
    float *whole;         /* [largest turned matrix], NULL where there is none */
} dm_conversion;

/* One tensor being written from parts that lie one after another in it: experts of a stack, or a single one. */
typedef struct dm_converted {
    dm_conversion *conversion;
    dm_weights *parts; /* [n_parts], all of one size */
    int32_t n_parts;
    uint64_t part_elements;
    size_t columns; /* of the tensor being written */
    dm_type type;   /* that it is written in */
} dm_converted;

/* A dm_gguf_maker: `user` is a dm_converted. */
dm_status dm_convert_piece(void *user, uint64_t first, size_t n, void *out);

/* out = a tensor that stays as it is: `matrices` of them from number `first`. out->parts ends with dm_free(). DM_ERR_MEMORY. */
dm_status dm_converted_keep(dm_conversion *conversion, const dm_tensor_spec *spec, const dm_tensor *tensor, size_t first,
                            size_t matrices, dm_converted *out);

/* A part as its file has it: its bytes, and how many. */
const uint8_t *dm_converted_part(const dm_converted *it, int32_t part, size_t *bytes);

/* Scratch for matrices of up to `turned` elements that change rows and columns. */
dm_status dm_conversion_prepare(dm_conversion *conversion, uint64_t turned);

/* A GGUF file may be replaced, as every command does; anything else is someone's. */
dm_status dm_conversion_check_target(const char *path);

dm_status dm_convert_to_gguf(dm_conversion *conversion, dm_convert_result *result);
dm_status dm_convert_to_folder(dm_conversion *conversion, dm_convert_result *result);
dm_status dm_convert_layout(dm_conversion *conversion, dm_convert_result *result);

/* Whether a type asks for mixed-width panels: "mixed:4". */
bool dm_convert_is_mixed(const char *type);
/* Adds the metadata of a file of mixed-width panels that is made of another one. */
void dm_mixed_values(dm_gguf_writer *writer, const dm_gguf *from, bool streaming);
dm_status dm_convert_mixed(dm_conversion *conversion, dm_convert_result *result);

#endif
