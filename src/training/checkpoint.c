#include "training/checkpoint.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "model/model.h"

static const char KEY_VERSION[] = "dilmodeli.checkpoint.version";
static const char KEY_STEP[] = "dilmodeli.checkpoint.step";
static const char KEY_WINDOW[] = "dilmodeli.checkpoint.window";
static const char KEY_TOKENS[] = "dilmodeli.checkpoint.tokens";
static const char KEY_SEED[] = "dilmodeli.checkpoint.seed";
static const char KEY_CORPUS[] = "dilmodeli.checkpoint.corpus";
static const char KEY_OWED[] = "dilmodeli.checkpoint.owed";
static const char KEY_VAL_LOSS[] = "dilmodeli.checkpoint.val_loss";
static const char KEY_VAL_BPB[] = "dilmodeli.checkpoint.val_bpb";

enum { VERSION = 1 };

static void add_bias(dm_gguf_writer *writer, const dm_parameters *p) {
    if (p->expert_bias != NULL) {
        dm_gguf_add_array(writer, DM_KEY_EXPERT_BIAS, DM_GGUF_F32, p->expert_bias,
                          (uint64_t)p->config.n_layers * (uint64_t)p->config.n_experts);
    }
}

/* The three arrays of a tensor stand in the file as NAME, momentum.NAME and variance.NAME. */
enum { N_ARRAYS = 3 };
static const char *const prefixes[N_ARRAYS] = {"", "momentum.", "variance."};

static float *array_of(const dm_parameters *p, int which) {
    return which == 0 ? p->weights : which == 1 ? p->momentum : p->variance;
}

dm_status dm_checkpoint_save(const char *path, const dm_parameters *p, const dm_checkpoint *c) {
    dm_gguf_writer *writer = dm_gguf_writer_create();
    if (writer == NULL) {
        return DM_ERR_MEMORY;
    }
    dm_config_write(&p->config, writer);
    dm_gguf_add_u32(writer, KEY_VERSION, VERSION);
    dm_gguf_add_u64(writer, KEY_STEP, c->step);
    dm_gguf_add_u64(writer, KEY_WINDOW, c->window);
    dm_gguf_add_u64(writer, KEY_TOKENS, c->tokens);
    dm_gguf_add_u64(writer, KEY_SEED, c->seed);
    dm_gguf_add_u64(writer, KEY_CORPUS, c->corpus);
    dm_gguf_add_u32(writer, KEY_OWED, c->owed);
    dm_gguf_add_f64(writer, KEY_VAL_LOSS, c->val_loss);
    dm_gguf_add_f64(writer, KEY_VAL_BPB, c->val_bpb);
    add_bias(writer, p);
    for (int a = 0; a < N_ARRAYS; a++) {
        for (size_t i = 0; i < p->count; i++) {
            const dm_tensor_spec *spec = &p->specs[i];
            char name[96];
            snprintf(name, sizeof name, "%s%s", prefixes[a], spec->name);
            dm_gguf_add_tensor(writer, name, DM_TYPE_F32, spec->dims, spec->n_dims, array_of(p, a) + p->offsets[i]);
        }
    }
    dm_status status = dm_gguf_writer_finish(writer, path);
    dm_gguf_writer_free(writer);
    return status;
}

static dm_status load_arrays(const dm_gguf *file, dm_parameters *p) {
    for (int a = 1; a < N_ARRAYS; a++) { /* the weights are read as any model's */
        for (size_t i = 0; i < p->count; i++) {
            const dm_tensor_spec *spec = &p->specs[i];
            char name[96];
            snprintf(name, sizeof name, "%s%s", prefixes[a], spec->name);
            const dm_gguf_tensor *tensor = dm_gguf_find_tensor(file, name);
            if (tensor == NULL || tensor->type != DM_TYPE_F32 || tensor->elements != spec->elements) {
                return dm_fail(DM_ERR_FORMAT, "%s: expected a tensor %s of %llu F32 values", dm_gguf_path(file), name,
                               (unsigned long long)spec->elements);
            }
            memcpy(array_of(p, a) + p->offsets[i], tensor->data, spec->elements * sizeof(float));
        }
    }
    return DM_OK;
}

static dm_status load(const dm_gguf *file, dm_parameters *p, dm_checkpoint *c) {
    uint32_t version;
    dm_config config;
    DM_TRY(dm_gguf_get_u32(file, KEY_VERSION, &version));
    if (version != VERSION) {
        return dm_fail(DM_ERR_UNSUPPORTED, "%s: checkpoint version %u, this program reads version %d", dm_gguf_path(file),
                       version, VERSION);
    }
    DM_TRY(dm_config_read(file, &config));
    if (!dm_config_equal(&config, &p->config)) {
        return dm_fail(DM_ERR_ARGUMENT,
                       "%s holds a model of another shape than asked for; give the same shape to resume, or another --out",
                       dm_gguf_path(file));
    }
    DM_TRY(dm_gguf_get_u64(file, KEY_STEP, &c->step));
    DM_TRY(dm_gguf_get_u64(file, KEY_WINDOW, &c->window));
    DM_TRY(dm_gguf_get_u64(file, KEY_TOKENS, &c->tokens));
    DM_TRY(dm_gguf_get_u64(file, KEY_SEED, &c->seed));
    DM_TRY(dm_gguf_get_u64(file, KEY_CORPUS, &c->corpus));
    DM_TRY(dm_gguf_get_u32(file, KEY_OWED, &c->owed));
    DM_TRY(dm_gguf_get_f64(file, KEY_VAL_LOSS, &c->val_loss));
    DM_TRY(dm_gguf_get_f64(file, KEY_VAL_BPB, &c->val_bpb));
    DM_TRY(dm_parameters_load(p, file));
    return load_arrays(file, p);
}

dm_status dm_checkpoint_load(const char *path, dm_parameters *p, dm_checkpoint *c) {
    dm_gguf *file;
    DM_TRY(dm_gguf_open(path, &file));
    dm_status status = load(file, p, c);
    dm_gguf_close(file);
    return status;
}

dm_status dm_model_export(const char *path, const dm_parameters *p, const dm_tokenizer *tokenizer, dm_type type,
                          const char *name) {
    dm_gguf_writer *writer = dm_gguf_writer_create();
    if (writer == NULL) {
        return DM_ERR_MEMORY;
    }
    dm_config_write(&p->config, writer);
    dm_gguf_add_string(writer, "general.name", name);
    dm_tokenizer_write(tokenizer, writer);
    add_bias(writer, p);
    for (size_t i = 0; i < p->count; i++) {
        const dm_tensor_spec *spec = &p->specs[i];
        dm_gguf_add_tensor_f32(writer, spec->name, dm_config_stored_type(spec, type), spec->dims, spec->n_dims,
                               p->weights + p->offsets[i]);
    }
    dm_status status = dm_gguf_writer_finish(writer, path);
    dm_gguf_writer_free(writer);
    return status;
}
