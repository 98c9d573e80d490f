/* The tensors of Hugging Face's folders: what each is called, and how its numbers lie compared with GGUF. */
#ifndef DM_MODEL_HF_TENSORS_H
#define DM_MODEL_HF_TENSORS_H

#include "model/config.h"

typedef enum dm_hf_form {
    DM_HF_SAME,
    DM_HF_TURNED, /* columns where GGUF has rows, as GPT-2's products */
    DM_HF_HALVES, /* rows of a head: numbers that turn together are half a head apart, in GGUF neighbours */
} dm_hf_form;

/* What a spec of GGUF is in a folder. */
typedef struct dm_hf_tensor {
    char name[128]; /* without what some programs put first: see dm_hf_prefix() */
    bool bare;      /* nothing is put first */
    dm_hf_form form;
    uint32_t n_dims;
    uint64_t dims[DM_MAX_DIMS]; /* GGUF's order */
    uint64_t elements;
} dm_hf_tensor;

/* How many tensors of a folder a spec is made of: one for each expert where those are stacked, 0 for what config.json says. */
int32_t dm_hf_parts(const dm_config *config, const dm_tensor_spec *spec);
/* One of them; `part` is below that number. */
void dm_hf_describe(const dm_config *config, const dm_tensor_spec *spec, int32_t part, dm_hf_tensor *out);

/* What the names of a model with its head begin with, "model." or "transformer.". */
const char *dm_hf_prefix(dm_arch arch);
/* The name of the token embedding without prefix, by which a folder shows whether it has one. */
const char *dm_hf_embedding(dm_arch arch);
/* True for tensors that older files have beside the weights: masks and frequencies that follow from the shape. `name` is
 * without prefix. */
bool dm_hf_is_buffer(const char *name);

/* A matrix, or a part of one, to be read row by row in another form than it lies in. */
typedef struct dm_weights {
    const uint8_t *data;    /* at any address */
    dm_type type;           /* one that has a decoder, or DM_TYPE_MIXED */
    uint64_t rows, columns; /* as it lies; a row is whole blocks */
    uint64_t head_rows;     /* rows of a head whose numbers move, 0: none do */
    bool to_halves;         /* neighbours are taken apart; else halves are put side by side */
    bool turned;            /* columns are read as rows */
} dm_weights;

/* Elements [first, first + n) as float32, in the order of the form asked for. `whole` is scratch of rows * columns floats,
 * which turned ones need: it is filled with the first element and then read. Other ones start and end at whole blocks. */
void dm_weights_read(const dm_weights *weights, uint64_t first, size_t n, float *whole, float *out);

#endif
