/* Experts laid out for streaming and stacked again: where they lie, the same bytes, the same logits to the last bit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <dirent.h>

#include "dilmodeli.h"
#include "kernels/tiles.h"
#include "model/expert_layout.h"
#include "model/gguf_internal.h"
#include "quantized_model.h"
#include "reference_forward.h"
#include "test_files.h"

enum { VOCAB = 50, CONTEXT = 64, TOKENS = 60, AT_ONCE = 48 /* enough for tiles */, MOST_VOCAB = 300 };

#define FIRST "first.gguf"
#define SECOND "second.gguf"
#define THIRD "third.gguf"
#define FOLDER "folder"
#define PART_1 "split-00001-of-00002.gguf"
#define PART_2 "split-00002-of-00002.gguf"

static const char *const names[] = {"gate", "up", "down"};

/* ---- Helpers ---- */

static dm_convert_result convert(const char *from, const char *to, const char *layout) {
    const dm_convert_options options = {.layout = layout};
    dm_convert_result made;
    if (dm_convert(test_path(from), test_path(to), &options, NULL, NULL, &made) != DM_OK) {
        fail_msg("%s", dm_error_message());
    }
    return made;
}

/* A failure leaves nothing under the final name. */
static void refuse(const char *from, const char *to, const dm_convert_options *options, dm_status expected, const char *word) {
    dm_status status = dm_convert(test_path(from), test_path(to), options, NULL, NULL, NULL);
    if (status != expected || strstr(dm_error_message(), word) == NULL) {
        fail_msg("expected '%s' (%d) in (%d): %s", word, (int)expected, (int)status, dm_error_message());
    }
    assert_int_not_equal(access(test_path(to), F_OK), 0);
}

static dm_model *open_model(const char *name) {
    dm_model *model = NULL;
    if (dm_model_open(test_path(name), &model) != DM_OK) {
        fail_msg("%s", dm_error_message());
    }
    return model;
}

static dm_expert_layout layout_of(const char *name) {
    dm_model *model = open_model(name);
    dm_expert_layout layout = dm_model_expert_layout(model);
    dm_model_close(model);
    return layout;
}

static void same_file(const char *a, const char *b) {
    uint8_t *left, *right;
    size_t n = test_read(test_path(a), &left), m = test_read(test_path(b), &right);
    assert_int_equal(n, m);
    assert_memory_equal(left, right, n);
    free(left);
    free(right);
}

/* Logits [TOKENS, vocabulary]: a prompt at once, the rest token by token. */
static void run(const char *name, float *logits) {
    dm_model *model = open_model(name);
    const size_t vocab = (size_t)model->config.vocab;
    dm_session *session = NULL;
    int32_t ids[TOKENS];
    reference_ids(ids, TOKENS, model->config.vocab, 3);
    assert_true(vocab <= MOST_VOCAB);
    assert_int_equal(dm_session_create(model, TOKENS, &session), DM_OK);
    assert_int_equal(dm_session_feed(session, ids, AT_ONCE, true, logits), DM_OK);
    for (size_t i = AT_ONCE; i < TOKENS; i++) {
        assert_int_equal(dm_session_feed(session, ids + i, 1, true, logits + i * vocab), DM_OK);
    }
    dm_session_free(session);
    dm_model_close(model);
}

static void same_logits(const char *a, const char *b) {
    static float left[TOKENS * MOST_VOCAB], right[TOKENS * MOST_VOCAB];
    memset(left, 0, sizeof left);
    memset(right, 0, sizeof right);
    run(a, left);
    run(b, right);
    assert_true(left[0] != 0.0f);
    assert_memory_equal(left, right, sizeof left);
}

/* ---- Places ---- */

static uint64_t offset_of(const dm_gguf *file, const dm_gguf_tensor *tensor) {
    return (uint64_t)((const uint8_t *)tensor->data - file->map.data);
}

/* As some programs demand: each tensor begins where the one before it ends, at the next multiple of the alignment. */
static void check_gapless(const dm_gguf *file) {
    uint32_t alignment = 0;
    assert_int_equal(dm_gguf_get_u32(file, DM_GGUF_ALIGNMENT_KEY, &alignment), DM_OK);
    uint64_t next = offset_of(file, dm_gguf_tensor_at(file, 0));
    for (size_t i = 0; i < dm_gguf_n_tensors(file); i++) {
        const dm_gguf_tensor *tensor = dm_gguf_tensor_at(file, i);
        assert_int_equal(offset_of(file, tensor), next);
        next += (tensor->bytes + alignment - 1) / alignment * alignment;
    }
    assert_int_equal(next, dm_gguf_size(file));
}

/* An expert's matrices one after another from a multiple of 4096 on, the same bytes as in the stacks. *next is the number of
 * its first tensor. */
static void check_expert(const dm_gguf *file, const dm_gguf *stacked, int layer, int expert, size_t *next) {
    uint64_t end = 0;
    for (int i = 0; i < 3; i++) {
        char name[64];
        snprintf(name, sizeof name, "blk.%d.ffn_%s.%d.weight", layer, names[i], expert);
        const dm_gguf_tensor *tensor = dm_gguf_tensor_at(file, (*next)++);
        assert_string_equal(tensor->name, name);
        uint64_t start = offset_of(file, tensor);
        assert_int_equal(i == 0 ? start % 4096 : 0, 0);
        assert_true(i == 0 || (start >= end && start < end + 4096));
        end = start + tensor->bytes;
        snprintf(name, sizeof name, "blk.%d.ffn_%s_exps.weight", layer, names[i]);
        const dm_gguf_tensor *stack = dm_gguf_find_tensor(stacked, name);
        assert_non_null(stack);
        assert_int_equal(tensor->type, stack->type);
        assert_int_equal(tensor->bytes * stack->dims[2], stack->bytes);
        assert_memory_equal(tensor->data, (const uint8_t *)stack->data + (uint64_t)expert * tensor->bytes, tensor->bytes);
    }
}

/* What is no expert's comes first, as it was. */
static size_t check_others(const dm_gguf *file, const dm_gguf *stacked) {
    size_t n = 0;
    for (size_t i = 0; i < dm_gguf_n_tensors(stacked); i++) {
        const dm_gguf_tensor *was = dm_gguf_tensor_at(stacked, i);
        if (strstr(was->name, "_exps.") != NULL) {
            continue;
        }
        const dm_gguf_tensor *is = dm_gguf_tensor_at(file, n++);
        assert_string_equal(is->name, was->name);
        assert_int_equal(is->type, was->type);
        assert_memory_equal(is->dims, was->dims, sizeof is->dims);
        assert_memory_equal(is->data, was->data, was->bytes);
    }
    return n;
}

static void check_values(const dm_gguf *file, const dm_gguf *stacked, size_t added) {
    assert_int_equal(file->n_values, stacked->n_values + added);
    for (size_t i = 0; i < stacked->n_values; i++) {
        const gguf_value *was = &stacked->values[i], *is = &file->values[i];
        assert_string_equal(is->key, was->key);
        assert_int_equal(is->kind, was->kind);
        assert_int_equal(is->raw_size, was->raw_size);
        assert_memory_equal(is->raw, was->raw, was->raw_size);
    }
    dm_gguf_string layout;
    assert_int_equal(dm_gguf_get_string(file, "dilmodeli.layout", &layout), DM_OK);
    assert_true(layout.length == 9 && memcmp(layout.bytes, "streaming", 9) == 0);
}

static void check_streaming(const char *name, const char *stacked_name, const dm_config *c) {
    dm_gguf *file, *stacked;
    assert_int_equal(dm_gguf_open(test_path(name), &file), DM_OK);
    assert_int_equal(dm_gguf_open(test_path(stacked_name), &stacked), DM_OK);
    check_values(file, stacked, 2);
    check_gapless(file);
    size_t next = check_others(file, stacked);
    for (int32_t l = 0; l < c->n_layers; l++) {
        for (int32_t e = 0; e < c->n_experts; e++) {
            check_expert(file, stacked, l, e, &next);
        }
    }
    assert_int_equal(next, dm_gguf_n_tensors(file));
    dm_gguf_close(file);
    dm_gguf_close(stacked);
}

/* ---- There and back ---- */

static void every_architecture(void **state) {
    (void)state;
    static const dm_arch mixtures[] = {DM_ARCH_LLAMA, DM_ARCH_OLMOE, DM_ARCH_QWEN2MOE, DM_ARCH_QWEN3MOE};
    for (size_t i = 0; i < sizeof mixtures / sizeof *mixtures; i++) {
        const dm_config c = reference_expert_shape(mixtures[i], VOCAB, CONTEXT);
        reference_model m;
        reference_make(&m, &c, 7);
        reference_write(&m, test_path(FIRST));
        dm_convert_result there = convert(FIRST, SECOND, "streaming");
        assert_true(there.to_gguf && there.files == 1);
        assert_int_equal(there.tensors, m.count + (size_t)(c.n_layers * (c.n_experts - 1)) * 3);
        check_streaming(SECOND, FIRST, &c);
        assert_int_equal(layout_of(FIRST), DM_LAYOUT_STANDARD);
        assert_int_equal(layout_of(SECOND), DM_LAYOUT_STREAMING);
        same_logits(FIRST, SECOND);
        dm_convert_result back = convert(SECOND, THIRD, "standard");
        assert_int_equal(back.tensors, m.count);
        assert_int_equal(back.bytes, there.bytes);
        same_file(FIRST, THIRD);
        reference_free(&m);
    }
}

/* Every way through the experts' products: by rows, packed, on tiles. */
static void every_type(void **state) {
    (void)state;
    static const char *const types[] = {"f16", "bf16", "q8_0", "q4_k_m", "q3_k_s", "iq4_nl"};
    const dm_model_info shape = {.architecture = "qwen3moe",
                                 .layers = 2,
                                 .dim = 256,
                                 .heads = 4,
                                 .kv_heads = 2,
                                 .experts = 8,
                                 .top_k = 2,
                                 .expert_dim = 256,
                                 .context = CONTEXT};
    print_message("tiles %s\n", dm_tiles() ? "are there" : "are not there");
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        assert_int_equal(dm_model_create(test_path(FIRST), &shape, NULL, false, types[i], i, NULL), DM_OK);
        convert(FIRST, SECOND, "streaming");
        same_logits(FIRST, SECOND);
        convert(SECOND, THIRD, "standard");
        same_file(FIRST, THIRD);
    }
}

/* A file of experts apart, in the order of their kinds; with a key that claims what is not so, or without. */
static void write_apart(const char *name, const dm_config *config, bool claims) {
    reference_model m;
    reference_make(&m, config, 5);
    dm_gguf_writer *writer = dm_gguf_writer_create();
    dm_config_write(&m.config, writer);
    if (claims) {
        dm_gguf_add_string(writer, "dilmodeli.layout", "streaming");
    }
    for (size_t i = 0; i < m.count; i++) {
        dm_gguf_add_tensor(writer, m.specs[i].name, DM_TYPE_F32, m.specs[i].dims, m.specs[i].n_dims, m.weights[i]);
    }
    assert_int_equal(dm_gguf_writer_finish(writer, test_path(name)), DM_OK);
    dm_gguf_writer_free(writer);
    reference_free(&m);
}

static void claims_are_not_believed(void **state) {
    (void)state;
    dm_config c = reference_expert_shape(DM_ARCH_OLMOE, VOCAB, CONTEXT);
    c.extra = DM_PART_APART;
    write_apart(FIRST, &c, false);
    write_apart(SECOND, &c, true);
    assert_int_equal(layout_of(FIRST), DM_LAYOUT_APART);
    assert_int_equal(layout_of(SECOND), DM_LAYOUT_APART);
    same_logits(FIRST, SECOND);
    convert(SECOND, THIRD, "streaming");
    assert_int_equal(layout_of(THIRD), DM_LAYOUT_STREAMING);
    same_logits(FIRST, THIRD);
    convert(FIRST, SECOND, "standard");
    check_streaming(THIRD, SECOND, &c);
    same_logits(SECOND, THIRD);
}

static void experts_of_several_types(void **state) {
    (void)state;
    const dm_config c = quantized_shape(true, true);
    quantized_model_write(test_path(FIRST), &c, quantized_unevenly, 6);
    convert(FIRST, SECOND, "streaming");
    assert_int_equal(layout_of(SECOND), DM_LAYOUT_STREAMING);
    same_logits(FIRST, SECOND);
    unlink(test_path(THIRD));
    refuse(SECOND, THIRD, &(dm_convert_options){.layout = "standard"}, DM_ERR_UNSUPPORTED,
           "expert 3 of 'blk.1.ffn_up_exps.weight' is of type Q5_K and expert 0 of type Q4_K");
    quantized_model_write(test_path(FIRST), &c, quantized_mixture, 6);
    convert(FIRST, SECOND, "standard");
    same_logits(FIRST, SECOND);
}

/* ---- What goes in ---- */

static void write_part(const reference_model *m, const char *name, uint32_t part) {
    dm_gguf_writer *writer = dm_gguf_writer_create();
    if (part == 0) {
        dm_config_write(&m->config, writer);
    }
    dm_gguf_add_u32(writer, "split.no", part);
    dm_gguf_add_u32(writer, "split.count", 2);
    dm_gguf_add_u32(writer, "split.tensors.count", (uint32_t)m->count);
    for (size_t i = part; i < m->count; i += 2) {
        dm_gguf_add_tensor(writer, m->specs[i].name, DM_TYPE_F32, m->specs[i].dims, m->specs[i].n_dims, m->weights[i]);
    }
    assert_int_equal(dm_gguf_writer_finish(writer, test_path(name)), DM_OK);
    dm_gguf_writer_free(writer);
}

/* The parts of a split model become the file that the whole model does; so does a folder. */
static void parts_and_folders(void **state) {
    (void)state;
    const dm_config c = reference_expert_shape(DM_ARCH_QWEN3MOE, VOCAB, CONTEXT);
    reference_model m;
    reference_make(&m, &c, 9);
    reference_write(&m, test_path(FIRST));
    write_part(&m, PART_1, 0);
    write_part(&m, PART_2, 1);
    convert(FIRST, SECOND, "streaming");
    convert(PART_2, THIRD, "streaming");
    same_file(SECOND, THIRD);
    reference_free(&m);
    assert_int_equal(dm_convert(test_path(FIRST), test_path(FOLDER), NULL, NULL, NULL, NULL), DM_OK);
    convert(FOLDER, FIRST, NULL);
    convert(FIRST, SECOND, "streaming");
    convert(FOLDER, THIRD, "streaming");
    same_file(SECOND, THIRD);
    convert(SECOND, SECOND, "standard"); /* in its own place */
    same_file(FIRST, SECOND);
}

static void remember_last(void *user, uint64_t done, uint64_t total) {
    uint64_t *last = user;
    last[0] = done;
    last[1] = total;
}

static void what_is_refused(void **state) {
    (void)state;
    const dm_convert_options streaming = {.layout = "streaming"}, standard = {.layout = "standard"};
    const dm_config c = reference_expert_shape(DM_ARCH_QWEN3MOE, VOCAB, CONTEXT),
                    dense = reference_shape(DM_ARCH_LLAMA, VOCAB, 64);
    reference_model m;
    reference_make(&m, &dense, 1);
    reference_write(&m, test_path(FIRST));
    reference_free(&m);
    unlink(test_path(THIRD));
    refuse(FIRST, THIRD, &streaming, DM_ERR_ARGUMENT, "is a dense model");
    reference_make(&m, &c, 1);
    reference_write(&m, test_path(FIRST));
    reference_free(&m);
    refuse(FIRST, THIRD, &standard, DM_ERR_ARGUMENT, "have the standard layout already");
    refuse(FIRST, THIRD, &(dm_convert_options){.layout = "sideways"}, DM_ERR_ARGUMENT, "expected streaming or standard");
    refuse(FIRST, THIRD, &(dm_convert_options){.layout = "streaming", .type = "f16"}, DM_ERR_ARGUMENT, "keeps its types");
    refuse(FIRST, THIRD, &(dm_convert_options){.layout = "streaming", .dry_run = true, .name = "x"}, DM_ERR_ARGUMENT, "its name");
    uint64_t last[2] = {0, 1};
    dm_convert_result made;
    assert_int_equal(dm_convert(test_path(FIRST), test_path(SECOND), &streaming, remember_last, last, &made), DM_OK);
    assert_true(last[0] == last[1] && last[1] == made.bytes);
    refuse(SECOND, THIRD, &streaming, DM_ERR_ARGUMENT, "have the streaming layout already");
    const dm_convert_options look = {.layout = "standard", .dry_run = true};
    assert_int_equal(dm_convert(test_path(SECOND), test_path(THIRD), &look, NULL, NULL, NULL), DM_OK);
    assert_int_not_equal(access(test_path(THIRD), F_OK), 0);
    dm_gradcheck_result result;
    const int32_t ids[] = {1, 2, 3};
    assert_int_equal(dm_gradcheck(test_path(SECOND), ids, 3, NULL, &result), DM_ERR_UNSUPPORTED);
    assert_non_null(strstr(dm_error_message(), "--layout standard"));
}

static int clean_up(void **state) {
    (void)state;
    char path[600];
    DIR *entries = opendir(test_path(FOLDER));
    for (const struct dirent *entry; entries != NULL && (entry = readdir(entries)) != NULL;) {
        snprintf(path, sizeof path, "%s/%s", test_path(FOLDER), entry->d_name);
        unlink(path);
    }
    if (entries != NULL) {
        closedir(entries);
    }
    rmdir(test_path(FOLDER));
    test_remove((const char *const[]){FIRST, SECOND, THIRD, PART_1, PART_2, NULL});
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_architecture),      cmocka_unit_test(every_type),
        cmocka_unit_test(claims_are_not_believed), cmocka_unit_test(experts_of_several_types),
        cmocka_unit_test(parts_and_folders),       cmocka_unit_test(what_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, clean_up);
}
