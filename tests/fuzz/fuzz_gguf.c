/*
 * Whole model files. Input: how many more parts the model is split into (modulo 3), each two bytes of length and the part;
 * what is left is the last part, or the file. Everything that opens is read to its last byte, and a model runs: a few
 * tokens at once, one by one and beside another sequence, so that the kernels see the shapes and weights that files may hold.
 */
#include "fuzz.h"
#include "model/arch.h"
#include "model/model.h"
#include "quantization/encode.h"

enum { MOST_PARTS = 3, CONTEXT = 16, PROMPT = 12, VOCAB = 16 };

/* ---- Files ---- */

static char folder[64]; /* where parts lie; their names must end in -00001-of-00002.gguf */

static void part_path(int part, int parts, char *path, size_t size) {
    snprintf(path, size, "%s/m-%05d-of-%05d.gguf", folder, part + 1, parts);
}

static void remove_folder(void) {
    char path[128];
    for (int parts = 2; parts <= MOST_PARTS; parts++) {
        for (int part = 0; part < parts; part++) {
            part_path(part, parts, path, sizeof path);
            unlink(path);
        }
    }
    rmdir(folder);
}

static void write_part(int part, int parts, const uint8_t *bytes, size_t size) {
    char path[128];
    part_path(part, parts, path, sizeof path);
    FILE *stream = fopen(path, "wb");
    FUZZ_CHECK(stream != NULL && fwrite(bytes, 1, size, stream) == size && fclose(stream) == 0);
}

/* Writes the parts; *path is the last one's, as any of them stands for all. */
static void write_parts(const uint8_t *data, size_t size, int parts, char *path, size_t room) {
    if (folder[0] == '\0') {
        snprintf(folder, sizeof folder, "/dev/shm/dilmodelifuzz.XXXXXX");
        FUZZ_CHECK(mkdtemp(folder) != NULL && atexit(remove_folder) == 0);
    }
    for (int part = 0; part + 1 < parts; part++) {
        size_t length = size >= 2 ? (size_t)(data[0] | data[1] << 8) : 0;
        data += size >= 2 ? 2 : size;
        size -= size >= 2 ? 2 : size;
        length = length < size ? length : size;
        write_part(part, parts, data, length);
        data += length;
        size -= length;
    }
    write_part(parts - 1, parts, data, size);
    part_path(parts - 1, parts, path, room);
}

/* ---- Use ---- */

/* A failure has one line that starts with the path, of whichever part it is. */
static dm_status checked(dm_status status, const char *path) {
    const char *message = dm_error_message();
    if (status != DM_OK) {
        FUZZ_CHECK(status != DM_ERR_INTERNAL && strncmp(message, path, strcspn(path, "-")) == 0);
        for (const char *at = message; *at != '\0'; at++) {
            FUZZ_CHECK((unsigned char)*at >= ' ' && *at != 0x7f);
        }
    }
    return status;
}

static void read_file(const char *path) {
    dm_gguf *file;
    if (checked(dm_gguf_open(path, &file), path) != DM_OK) {
        return;
    }
    char text[200];
    for (size_t i = 0; i < dm_gguf_n_values(file); i++) {
        dm_gguf_describe(file, i, text, sizeof text);
    }
    static volatile uint8_t sum; /* volatile, so that everything is read */
    for (size_t i = 0; i < dm_gguf_n_tensors(file); i++) {
        const dm_gguf_tensor *tensor = dm_gguf_tensor_at(file, i);
        FUZZ_CHECK(dm_gguf_find_tensor(file, tensor->name) == tensor);
        for (uint64_t b = 0; b < tensor->bytes; b++) {
            sum = (uint8_t)(sum + ((const uint8_t *)tensor->data)[b]);
        }
    }
    dm_gguf_close(file);
}

static void read_tokenizer(const char *path) {
    dm_tokenizer *tokenizer;
    if (checked(dm_tokenizer_open(path, &tokenizer), path) == DM_OK) {
        dm_tokenizer_chat_family(tokenizer);
        dm_tokenizer_close(tokenizer);
    }
}

/* Ids all over the vocabulary. */
static void feed_some(dm_session *session, int32_t vocab, float *logits) {
    int32_t ids[PROMPT + 1];
    for (int32_t i = 0; i <= PROMPT; i++) {
        ids[i] = (int32_t)((int64_t)i * (vocab - 1) / PROMPT);
    }
    FUZZ_CHECK(dm_session_feed(session, ids, PROMPT, false, logits) == DM_OK);
    FUZZ_CHECK(dm_session_feed(session, ids + PROMPT, 1, false, logits) == DM_OK);
}

/* `cache` is a dm_cache_type. */
static void run_model(const dm_model *model, const char *path, int cache) {
    dm_model_info info;
    dm_model_get_info(model, &info);
    const dm_session_options options = {.context = info.context < CONTEXT ? info.context : CONTEXT,
                                        .cache = (dm_cache_type)cache};
    dm_session *sessions[2] = {NULL, NULL};
    float *logits = calloc(2 * (size_t)info.vocab, sizeof *logits);
    FUZZ_CHECK(logits != NULL);
    dm_status status = checked(dm_session_create_with(model, &options, &sessions[0]), path);
    FUZZ_CHECK(status != DM_OK || dm_session_create_with(model, &options, &sessions[1]) == DM_OK);
    if (status == DM_OK && options.context == CONTEXT) {
        const int32_t ids[2] = {0, info.vocab - 1}, counts[2] = {1, 1};
        feed_some(sessions[0], info.vocab, logits);
        FUZZ_CHECK(dm_session_feed_many(sessions, counts, 2, ids, logits) == DM_OK);
        dm_routing_stats routing;
        dm_session_routing(sessions[0], &routing);
    }
    dm_session_free(sessions[0]);
    dm_session_free(sessions[1]);
    free(logits);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1) {
        return 0;
    }
    int parts = data[0] % MOST_PARTS + 1;
    char path[128];
    int descriptor = -1;
    if (parts == 1) {
        descriptor = fuzz_file(data + 1, size - 1, path);
    } else {
        write_parts(data + 1, size - 1, parts, path, sizeof path);
    }
    read_file(path);
    read_tokenizer(path);
    dm_model *model;
    if (checked(dm_model_open(path, &model), path) == DM_OK) {
        run_model(model, path, data[0] / MOST_PARTS % (DM_CACHE_F32 + 1));
        dm_model_close(model);
    }
    if (descriptor >= 0) {
        close(descriptor);
    }
    return 0;
}

/* ---- Seeds ---- */

/* The type if rows of it are whole blocks, else one of smaller blocks; vectors stay float32. */
static dm_type type_for(const dm_tensor_spec *spec, dm_type wanted) {
    uint32_t weights, bytes;
    dm_type_block((uint32_t)wanted, &weights, &bytes);
    return dm_config_stored_type(spec, spec->dims[0] % weights == 0 ? wanted : DM_TYPE_Q8_0);
}

static void *random_tensor(const dm_tensor_spec *spec, dm_type type) {
    static uint32_t state = 1;
    size_t n = (size_t)spec->elements;
    float *values = malloc(n * sizeof *values);
    void *bytes = malloc(dm_type_bytes(type, n));
    FUZZ_CHECK(values != NULL && bytes != NULL);
    for (size_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        values[i] = spec->n_dims == 1 ? 1.0f : (float)(int32_t)state * 0x1p-33f;
    }
    FUZZ_CHECK(dm_encode(type, bytes, values, NULL, n) == DM_OK);
    free(values);
    return bytes;
}

/* A vocabulary of letters, and the bias that training keeps for each expert. */
static void add_arrays(dm_gguf_writer *writer, const dm_config *config) {
    static const char letters[VOCAB] = "abcdefghijklmnop";
    static const float numbers[VOCAB] = {0.5f, -1.0f};
    dm_gguf_string tokens[VOCAB];
    for (int i = 0; i < VOCAB; i++) {
        tokens[i] = (dm_gguf_string){letters + i, 1};
    }
    dm_gguf_add_string(writer, "tokenizer.ggml.model", "llama");
    dm_gguf_add_strings(writer, "tokenizer.ggml.tokens", tokens, VOCAB);
    dm_gguf_add_array(writer, "tokenizer.ggml.scores", DM_GGUF_F32, numbers, VOCAB);
    dm_gguf_add_u32(writer, "tokenizer.ggml.eos_token_id", 3);
    dm_gguf_add_string(writer, "tokenizer.chat_template", "<|im_start|><|im_end|>");
    if (config->n_experts > 0) {
        dm_gguf_add_array(writer, DM_KEY_EXPERT_BIAS, DM_GGUF_F32, numbers, (uint64_t)(config->n_layers * config->n_experts));
    }
}

/* Tensors first, first + step, ... of a model as a file at `path`; the first part has the metadata. */
static void write_model(const dm_config *config, dm_type type, uint32_t first, uint32_t step, const char *path) {
    dm_tensor_spec *specs;
    size_t count;
    FUZZ_CHECK(dm_config_check(config) == DM_OK && dm_config_tensors(config, &specs, &count) == DM_OK);
    void **data = calloc(count, sizeof *data);
    dm_gguf_writer *writer = dm_gguf_writer_create();
    FUZZ_CHECK(data != NULL && writer != NULL);
    if (step > 1) {
        dm_gguf_add_u32(writer, "split.no", first);
        dm_gguf_add_u32(writer, "split.count", step);
        dm_gguf_add_u32(writer, "split.tensors.count", (uint32_t)count);
    }
    if (first == 0) {
        dm_config_write(config, writer);
        dm_gguf_add_string(writer, "general.name", "a seed");
        add_arrays(writer, config);
    }
    for (size_t i = first; i < count; i += step) {
        dm_type own = type_for(&specs[i], type);
        data[i] = random_tensor(&specs[i], own);
        dm_gguf_add_tensor(writer, specs[i].name, own, specs[i].dims, specs[i].n_dims, data[i]);
    }
    FUZZ_CHECK(dm_gguf_writer_finish(writer, path) == DM_OK);
    dm_gguf_writer_free(writer);
    for (size_t i = 0; i < count; i++) {
        free(data[i]);
    }
    free(data);
    free(specs);
}

/* Appends a file to a seed; with its length before it where another follows. */
static void append_file(const char *path, bool more, uint8_t *seed, size_t room, size_t *used) {
    FILE *stream = fopen(path, "rb");
    FUZZ_CHECK(stream != NULL && *used + 2 < room);
    uint8_t *length = seed + *used;
    *used += more ? 2 : 0;
    size_t size = fread(seed + *used, 1, room - *used, stream);
    FUZZ_CHECK(feof(stream) && (!more || size <= UINT16_MAX));
    fclose(stream);
    if (more) {
        length[0] = (uint8_t)size;
        length[1] = (uint8_t)(size >> 8);
    }
    *used += size;
}

static void add_seed(const char *name, const dm_config *config, dm_type type, int parts, int cache) {
    static uint8_t seed[1 << 17]; /* libFuzzer cuts what is longer, see scripts/fuzz */
    char path[] = "/dev/shm/dilmodeli-seed-XXXXXX";
    close(mkstemp(path));
    seed[0] = (uint8_t)(parts - 1 + MOST_PARTS * cache);
    size_t used = 1;
    for (int part = 0; part < parts; part++) {
        write_model(config, type, (uint32_t)part, (uint32_t)parts, path);
        append_file(path, part + 1 < parts, seed, sizeof seed, &used);
    }
    unlink(path);
    fuzz_seed(name, seed, used);
}

/* `width` is that of the feed-forward layer, or of an expert. */
static dm_config shape_of(dm_arch arch, bool experts, int32_t dim, int32_t width) {
    dm_config c = {.arch = arch,
                   .n_layers = 1,
                   .dim = dim,
                   .n_heads = 2,
                   .n_kv_heads = 1,
                   .head_dim = 16,
                   .ffn_dim = experts ? 0 : width,
                   .vocab = VOCAB,
                   .context = CONTEXT,
                   .norm_eps = 1e-5f,
                   .rope_base = 1e4f,
                   .tied_output = true};
    if (experts) {
        c.n_experts = dim + width > 64 ? 2 : 4; /* the file has to stay small */
        c.top_k = c.n_experts / 2;
        c.expert_dim = width;
        c.shared_dim = arch == DM_ARCH_QWEN2MOE ? width : 0;
    }
    if (dm_arch_row_of(arch)->rope == DM_ROPE_NONE) {
        c.n_kv_heads = c.n_heads;
        c.head_dim = dim / 2;
        c.rope_base = 0.0f;
    }
    return c;
}

/* Every architecture, dense and with experts, in float32. */
static void add_architectures(void) {
    for (int arch = 0; arch < DM_ARCHS; arch++) {
        const dm_arch_row *row = dm_arch_row_of((dm_arch)arch);
        for (int experts = row->dense ? 0 : 1; experts <= row->experts; experts++) {
            dm_config c = shape_of((dm_arch)arch, experts != 0, 32, 32);
            char name[64];
            snprintf(name, sizeof name, "%s-%d", row->name, experts);
            add_seed(name, &c, DM_TYPE_F32, 1, DM_CACHE_F16);
        }
    }
}

/* Every type that can be computed with, in a mixture whose experts may be repacked; blocks of 256 in one of its matrices at
 * a time, as the file gets too large otherwise. */
static void add_types(void) {
    for (uint32_t type = 0; type < DM_TYPES; type++) {
        uint32_t weights, bytes;
        if (dm_type_decoder(type) == NULL || !dm_type_block(type, &weights, &bytes)) {
            continue;
        }
        for (int down = 0; down <= (weights > 32); down++) {
            int32_t dim = weights > 32 && down == 0 ? 256 : 32, width = down != 0 ? 256 : 32;
            dm_config c = shape_of(DM_ARCH_QWEN3MOE, true, dim, width);
            char name[64];
            snprintf(name, sizeof name, "%s-%d", dm_type_name(type), down);
            add_seed(name, &c, (dm_type)type, 1, DM_CACHE_Q8);
        }
    }
}

static void fuzz_seeds(void) {
    add_architectures();
    add_types();
    dm_config c = shape_of(DM_ARCH_LLAMA, false, 32, 32);
    add_seed("two-parts", &c, DM_TYPE_Q8_0, 2, DM_CACHE_F32);
    add_seed("three-parts", &c, DM_TYPE_F16, 3, DM_CACHE_F16);
    c.window = 3;
    c.extra = DM_PART_ROPE_FACTORS | DM_PART_QKV_BIAS | DM_PART_OUTPUT_BIAS | DM_PART_FFN_BIAS;
    add_seed("window", &c, DM_TYPE_BF16, 1, DM_CACHE_Q8);
    c.rope_scaling =
        (dm_rope_scaling){.kind = DM_SCALING_YARN, .factor = 4.0f, .original_context = 4, .beta_fast = 32.0f, .beta_slow = 1.0f};
    add_seed("yarn", &c, DM_TYPE_F32, 1, DM_CACHE_F32);
    c = shape_of(DM_ARCH_LLAMA, true, 32, 32);
    c.extra = DM_PART_APART;
    add_seed("apart", &c, DM_TYPE_Q4_0, 1, DM_CACHE_F16);
}
