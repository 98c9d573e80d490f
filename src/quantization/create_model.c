/* `dilmodeli new`: a freshly initialised model, written as its numbers are drawn, so that memory does not limit its size. */
#include <stdlib.h>
#include <string.h>

#include "model/create.h"
#include "model/tokenizer.h"
#include "quantization/encode.h"
#include "quantization/mixture.h"

typedef struct source {
    const dm_config *config;
    const dm_tensor_spec *spec;
    uint64_t seed;
    dm_type type;
    float *drawn; /* [DM_GGUF_PIECE] of scratch, shared by all */
} source;

static dm_status make_piece(void *user, uint64_t first, size_t n, void *out) {
    const source *from = user;
    if (dm_interrupted()) {
        return dm_fail(DM_ERR_INTERRUPTED, "interrupted, nothing was written");
    }
    dm_init_piece(from->config, from->spec, from->seed, first, n, from->drawn);
    return dm_encode_part(from->type, out, from->drawn, NULL, (size_t)from->spec->dims[0], first, n);
}

static dm_status write_with(dm_gguf_writer *writer, const dm_config *config, const char *name, const dm_tokenizer *tokenizer,
                            const dm_mixture *mixture, const dm_tensor_spec *specs, source *sources, size_t count,
                            const char *path) {
    dm_config_write(config, writer);
    if (name[0] != '\0') {
        dm_gguf_add_string(writer, "general.name", name);
    }
    dm_mixture_write(mixture, writer);
    dm_tokenizer_write(tokenizer, writer);
    for (size_t i = 0; i < count; i++) {
        sources[i].spec = &specs[i];
        sources[i].type = dm_mixture_type(mixture, config, &specs[i]);
        dm_gguf_add_tensor_made(writer, specs[i].name, sources[i].type, specs[i].dims, specs[i].n_dims, make_piece, &sources[i]);
    }
    return dm_gguf_writer_finish(writer, path);
}

static dm_status write_model(const dm_config *config, const char *name, const dm_tokenizer *tokenizer, const dm_mixture *mixture,
                             uint64_t seed, const char *path) {
    dm_tensor_spec *specs = NULL;
    size_t count = 0;
    DM_TRY(dm_config_tensors(config, &specs, &count));
    source *sources = calloc(count, sizeof *sources);
    float *drawn = malloc(DM_GGUF_PIECE * sizeof *drawn);
    dm_gguf_writer *writer = dm_gguf_writer_create();
    dm_status status = DM_ERR_MEMORY;
    if (sources == NULL || drawn == NULL) {
        dm_fail(DM_ERR_MEMORY, "out of memory for %zu tensors", count);
    } else if (writer != NULL) {
        for (size_t i = 0; i < count; i++) {
            sources[i] = (source){.config = config, .seed = seed, .drawn = drawn};
        }
        status = write_with(writer, config, name, tokenizer, mixture, specs, sources, count, path);
    }
    dm_gguf_writer_free(writer);
    free(drawn);
    free(sources);
    free(specs);
    return status;
}

static dm_status create_with(const dm_tokenizer *tokenizer, const char *path, const dm_model_info *shape, bool tied_output,
                             const dm_mixture *mixture, uint64_t seed, dm_model_info *info) {
    dm_config config = {0};
    int32_t vocab = dm_tokenizer_vocab(tokenizer);
    DM_TRY(dm_config_from_info(shape, vocab, tied_output, &config));
    if (config.vocab != vocab) {
        return dm_fail(DM_ERR_ARGUMENT, "the vocabulary is to have %d tokens, but the tokenizer has %d", (int)config.vocab,
                       (int)vocab);
    }
    DM_TRY(write_model(&config, shape->name, tokenizer, mixture, seed, path));
    if (info != NULL) {
        dm_config_info(&config, info);
        memcpy(info->name, shape->name, sizeof info->name);
    }
    return DM_OK;
}

dm_status dm_model_create(const char *path, const dm_model_info *shape, const char *tokenizer_from, bool tied_output,
                          const char *type, uint64_t seed, dm_model_info *info) {
    const dm_mixture *mixture = NULL;
    dm_config config = {0}; /* the shape is checked before anything is made of its numbers */
    DM_TRY(dm_config_from_info(shape, 257, tied_output, &config));
    DM_TRY(dm_mixture_from_name(type, &mixture));
    dm_tokenizer *tokenizer = NULL;
    DM_TRY(tokenizer_from != NULL ? dm_tokenizer_open(tokenizer_from, &tokenizer)
                                  : dm_tokenizer_bytes_padded(shape->vocab, &tokenizer));
    dm_status status = create_with(tokenizer, path, shape, tied_output, mixture, seed, info);
    dm_tokenizer_close(tokenizer);
    return status;
}
