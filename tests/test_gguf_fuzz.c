/*
 * Damaged GGUF files by the thousand: cut, flipped, overwritten and spliced, from seeds made here. Each must be opened
 * or refused with one line, and cost no more memory than its own size explains. Under a sanitizer this also shows that
 * nothing outside the file is read. The same files every time: a failure names the number of its file.
 */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/random.h"
#include "counted_memory.h"
#include "model/model.h"
#include "test_files.h"

enum { N_FILES = 10000, N_SHARED = 300, MAX_SEEDS = 8 };

/* ---- Seeds ---- */

typedef struct seed {
    uint8_t *bytes;
    size_t size;
    size_t header; /* bytes before the tensor data, where damage matters most */
} seed;

static seed seeds[MAX_SEEDS];
static size_t n_seeds;
static const char *path;

static void add_seed(const char *from) {
    seed *s = &seeds[n_seeds++];
    s->size = test_read(from, &s->bytes);
    dm_gguf *file = NULL;
    assert_int_equal(dm_gguf_open(from, &file), DM_OK);
    uint64_t data = 0;
    for (size_t i = 0; i < dm_gguf_n_tensors(file); i++) {
        data += dm_gguf_tensor_at(file, i)->bytes;
    }
    s->header = s->size - (size_t)data; /* a little more, as there is padding between tensors */
    dm_gguf_close(file);
}

static void add_model(const dm_model_info *shape, bool tied) {
    assert_int_equal(dm_model_create(path, shape, NULL, tied, "f16", 1, NULL), DM_OK);
    add_seed(path);
}

/* The last model again, as training writes one: with biases of the router. */
static void add_model_with_biases(const dm_model_info *shape) {
    dm_gguf *file = NULL;
    assert_int_equal(dm_gguf_open(path, &file), DM_OK);
    dm_gguf_writer *writer = dm_gguf_writer_create();
    const float biases[64] = {0.25f, -0.5f};
    dm_gguf_add_array(writer, DM_KEY_EXPERT_BIAS, DM_GGUF_F32, biases, (uint64_t)shape->layers * (uint64_t)shape->experts);
    dm_gguf_copy_values(writer, file, "");
    for (size_t i = 0; i < dm_gguf_n_tensors(file); i++) {
        const dm_gguf_tensor *tensor = dm_gguf_tensor_at(file, i);
        dm_gguf_add_tensor(writer, tensor->name, tensor->type, tensor->dims, tensor->n_dims, tensor->data);
    }
    assert_int_equal(dm_gguf_writer_finish(writer, path), DM_OK);
    dm_gguf_writer_free(writer);
    dm_gguf_close(file);
    add_seed(path);
}

static void add_tokenizer(void) {
    dm_tokenizer *tokenizer = NULL;
    assert_int_equal(dm_tokenizer_bytes_only(&tokenizer), DM_OK);
    dm_gguf_writer *writer = dm_gguf_writer_create();
    dm_tokenizer_write(tokenizer, writer);
    assert_int_equal(dm_gguf_writer_finish(writer, path), DM_OK);
    dm_gguf_writer_free(writer);
    dm_tokenizer_close(tokenizer);
    add_seed(path);
}

/* Every kind of value and several types, in few bytes. */
static void add_kinds(void) {
    test_bytes b;
    put_header(&b, 2, 4);
    put_key(&b, "general.alignment", DM_GGUF_U32);
    put_u32(&b, 64);
    put_key(&b, "nested", DM_GGUF_ARRAY);
    put_u32(&b, DM_GGUF_ARRAY);
    put_u64(&b, 2);
    for (int i = 0; i < 2; i++) {
        put_u32(&b, DM_GGUF_STRING);
        put_u64(&b, 1);
        put_string(&b, "deep");
    }
    put_key(&b, "truths", DM_GGUF_ARRAY);
    put_u32(&b, DM_GGUF_BOOL);
    put_u64(&b, 2);
    put(&b, "\0\1", 2);
    put_key(&b, "wide", DM_GGUF_F64);
    put_u64(&b, 0x3ff0000000000000);
    put_tensor(&b, "blocks", DM_TYPE_Q4_K, 256, 2, 0);
    put_tensor(&b, "small", DM_TYPE_I8, 3, 0, 320);
    put_data(&b, 64, 323);
    test_write(path, b.data, b.size);
    add_seed(path);
}

static int make_seeds(void **state) {
    (void)state;
    static char kept[256];
    snprintf(kept, sizeof kept, "%s", test_path("fuzz.gguf"));
    path = kept;
    dm_set_threads(1);
    const dm_model_info experts = {.architecture = "qwen3moe",
                                   .layers = 2,
                                   .dim = 8,
                                   .heads = 2,
                                   .kv_heads = 1,
                                   .head_dim = 4,
                                   .experts = 4,
                                   .top_k = 2,
                                   .expert_dim = 8,
                                   .context = 16};
    add_model(&experts, true);
    add_model_with_biases(&experts);
    add_model(&(dm_model_info){.architecture = "gpt2", .layers = 1, .dim = 8, .heads = 2, .context = 16}, false);
    add_tokenizer();
    add_kinds();
    return 0;
}

static int remove_seeds(void **state) {
    (void)state;
    for (size_t i = 0; i < n_seeds; i++) {
        free(seeds[i].bytes);
    }
    test_remove((const char *const[]){"fuzz.gguf", NULL});
    return 0;
}

/* ---- Damage ---- */

static size_t below(dm_random *random, size_t n) {
    return n > 0 ? (size_t)(dm_random_next(random) % n) : 0;
}

/* Mostly within the header. */
static size_t somewhere(dm_random *random, const seed *s, size_t size) {
    size_t reach = below(random, 8) != 0 && s->header < size ? s->header : size;
    return below(random, reach);
}

static void flip_bits(dm_random *random, const seed *s, uint8_t *bytes, size_t size) {
    for (size_t n = 1 + below(random, 8); n > 0; n--) {
        bytes[somewhere(random, s, size)] ^= (uint8_t)(1u << below(random, 8));
    }
}

/* Numbers at which sizes, counts and offsets go wrong. */
static void overwrite(dm_random *random, const seed *s, uint8_t *bytes, size_t size) {
    static const uint64_t numbers[] = {
        0,
        1,
        2,
        7,
        9,
        12,
        31,
        255,
        0x7fffffff,
        0x80000000,
        0xffffffff,
        1ull << 32,
        1ull << 61,
        1ull << 62,
        1ull << 63,
        (1ull << 32) + 1,
        UINT64_MAX,
        100000,
        1ull << 20,
        1ull << 24,
        0x3fffffff,
        0x20000001,
        UINT64_MAX / 4 + 1,
        UINT64_MAX - 31,
    };
    for (size_t n = 1 + below(random, 3); n > 0; n--) {
        size_t width = (size_t)1 << below(random, 4);
        size_t at = somewhere(random, s, size);
        uint64_t number = numbers[below(random, sizeof numbers / sizeof *numbers)];
        memcpy(bytes + at, &number, width < size - at ? width : size - at);
    }
}

/* The start of one file and the end of another, or the same with some bytes left out or repeated. */
static size_t splice(dm_random *random, const seed *s, uint8_t *bytes, size_t room) {
    const seed *other = &seeds[below(random, n_seeds)];
    size_t head = somewhere(random, s, s->size);
    size_t from = below(random, 2) != 0 ? somewhere(random, other, other->size) : head < other->size ? head : 0;
    size_t tail = other->size - from;
    tail = tail < room - head ? tail : room - head;
    memcpy(bytes + head, other->bytes + from, tail);
    return head + tail;
}

static size_t damage(dm_random *random, const seed *s, uint8_t *bytes, size_t room) {
    size_t size = s->size;
    memcpy(bytes, s->bytes, size);
    switch (below(random, 4)) {
    case 0:
        return somewhere(random, s, size);
    case 1:
        flip_bits(random, s, bytes, size);
        return size;
    case 2:
        overwrite(random, s, bytes, size);
        return size;
    default:
        size = splice(random, s, bytes, room);
        if (below(random, 2) != 0 && size > 0) {
            flip_bits(random, s, bytes, size);
        }
        return size;
    }
}

/* ---- Judgement ---- */

static size_t accepted[3], refused;
static uint64_t largest;
static double worst_share;

/* What was asked for in all, outgrown buffers included: a little for the first tables, and a multiple of the file. */
static void check_memory(size_t number, const char *what, size_t size) {
    const uint64_t fixed = 4096, per_byte = 16;
    if (counted.bytes > fixed + per_byte * size) {
        fail_msg("file %zu of %zu bytes: %s asked for %" PRIu64 " bytes", number, size, what, counted.bytes);
    }
    if (counted.bytes > fixed) {
        double share = (double)(counted.bytes - fixed) / (double)size;
        worst_share = share > worst_share ? share : worst_share;
    }
    largest = counted.largest > largest ? counted.largest : largest;
}

static void check_outcome(size_t number, const char *what, dm_status status, const void *handle) {
    if (status == DM_OK) {
        assert_non_null(handle);
        return;
    }
    const char *message = dm_error_message();
    if (handle != NULL || message[0] == '\0' || strchr(message, '\n') != NULL || strncmp(message, path, strlen(path)) != 0 ||
        strlen(message) < strlen(path) + 10 || status == DM_ERR_INTERNAL) {
        fail_msg("file %zu: %s gave status %d and the message '%s'", number, what, (int)status, message);
    }
    refused++;
}

static uint64_t sum_of_tensors(const dm_gguf *file) {
    uint64_t sum = 0;
    for (size_t i = 0; i < dm_gguf_n_tensors(file); i++) {
        const dm_gguf_tensor *tensor = dm_gguf_tensor_at(file, i);
        for (uint64_t b = 0; b < tensor->bytes; b++) {
            sum += ((const uint8_t *)tensor->data)[b];
        }
    }
    return sum;
}

/* What a program may do with a file that was opened. */
static void use_file(const dm_gguf *file) {
    char text[200];
    for (size_t i = 0; i < dm_gguf_n_values(file); i++) {
        dm_gguf_kind kind;
        assert_true(dm_gguf_has(file, dm_gguf_key_at(file, i, &kind)));
        dm_gguf_describe(file, i, text, sizeof text);
        assert_null(strchr(text, '\n'));
    }
    assert_true(sum_of_tensors(file) < UINT64_MAX); /* reads every byte */
}

static void use_tokenizer(const dm_tokenizer *tokenizer) {
    static const char text[] = "Some text, 123 \xc3\xa9 \xff<|endoftext|>";
    int32_t *ids = NULL;
    size_t count = 0, length;
    if (dm_tokenizer_encode(tokenizer, text, sizeof text - 1, true, &ids, &count) == DM_OK) {
        for (size_t i = 0; i < count; i++) {
            assert_non_null(dm_tokenizer_bytes(tokenizer, ids[i], &length));
        }
    }
    free(ids);
}

static void use_model(const dm_model *model) {
    dm_model_info info;
    dm_model_get_info(model, &info);
    dm_session *session = NULL;
    if (info.vocab > 4096 || dm_session_create(model, 4, &session) != DM_OK) {
        return;
    }
    float logits[4096];
    const int32_t ids[] = {0, info.vocab - 1};
    dm_session_feed(session, ids, 2, false, logits);
    dm_session_free(session);
}

static void judge(size_t number, size_t size) {
    dm_gguf *file = NULL;
    counted = (counted_memory){0};
    dm_status status = dm_gguf_open(path, &file);
    check_memory(number, "dm_gguf_open", size);
    check_outcome(number, "dm_gguf_open", status, file);
    if (status == DM_OK) {
        accepted[0]++;
        use_file(file);
        dm_gguf_close(file);
    }
    dm_model *model = NULL;
    counted = (counted_memory){0};
    status = dm_model_open(path, &model);
    check_memory(number, "dm_model_open", size);
    check_outcome(number, "dm_model_open", status, model);
    if (status == DM_OK) {
        accepted[1]++;
        use_model(model);
        dm_model_close(model);
    }
    dm_tokenizer *tokenizer = NULL;
    counted = (counted_memory){0};
    status = dm_tokenizer_open(path, &tokenizer);
    check_memory(number, "dm_tokenizer_open", size);
    check_outcome(number, "dm_tokenizer_open", status, tokenizer);
    if (status == DM_OK) {
        accepted[2]++;
        use_tokenizer(tokenizer);
        dm_tokenizer_close(tokenizer);
    }
}

static void damage_and_judge(size_t first_seed, size_t end_seed, size_t n_files) {
    size_t room = 64;
    for (size_t i = 0; i < n_seeds; i++) {
        room += seeds[i].size;
    }
    uint8_t *bytes = malloc(room);
    assert_non_null(bytes);
    memset(accepted, 0, sizeof accepted);
    refused = largest = 0;
    worst_share = 0;
    for (size_t i = 0; i < n_files; i++) {
        dm_random random;
        dm_random_seed(&random, i);
        size_t size = damage(&random, &seeds[first_seed + i % (end_seed - first_seed)], bytes, room);
        test_write(path, bytes, size);
        judge(i, size);
    }
    free(bytes);
    print_message("%zu files; as files %zu, as models %zu, as vocabularies %zu opened; largest allocation %" PRIu64
                  " bytes, at most %.1f bytes for a byte of file\n",
                  n_files, accepted[0], accepted[1], accepted[2], largest, worst_share);
    assert_int_equal(accepted[0] + accepted[1] + accepted[2] + refused, 3 * n_files);
}

static void test_seeds_are_fine(void **state) {
    (void)state;
    for (size_t i = 0; i < n_seeds; i++) {
        test_write(path, seeds[i].bytes, seeds[i].size);
        judge(i, seeds[i].size);
    }
    assert_int_equal(accepted[0], 5);
    assert_int_equal(accepted[1], 3);
    assert_int_equal(accepted[2], 4);
}

static void test_damaged(void **state) {
    (void)state;
    damage_and_judge(0, n_seeds, N_FILES);
    assert_true(accepted[0] > N_FILES / 100); /* the damage is not so heavy that nothing behind the header is reached */
    assert_true(refused > N_FILES);
}

static void test_damaged_files_of_others(void **state) {
    (void)state;
    if (access(DM_SHARED_DIR "/models", R_OK) != 0) {
        print_message("no %s: damage to the files of other programs is not tested\n", DM_SHARED_DIR);
        skip();
    }
    size_t first = n_seeds;
    add_seed(DM_SHARED_DIR "/models/gpt2-tiny.gguf");
    add_seed(DM_SHARED_DIR "/models/quant-Q2_K.gguf");
    damage_and_judge(first, n_seeds, N_SHARED);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_seeds_are_fine),
        cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_damaged_files_of_others),
    };
    return cmocka_run_group_tests(tests, make_seeds, remove_seeds);
}
