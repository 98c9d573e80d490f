/* GGUF files: what is written is read back, and so is what others wrote. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "test_files.h"

#define FILE_NAME "test.gguf"

/* ---- Round trip ---- */

static const float weights[64] = {1.0f, -2.5f, 0.333333f, 65504.0f, 1e-8f, -0.0f};

static dm_status give_counting(void *user, uint64_t first, size_t n, float *out) {
    (void)user;
    for (size_t i = 0; i < n; i++) {
        out[i] = (float)((first + i) % 251);
    }
    return DM_OK;
}

static void write_everything(const char *path) {
    dm_gguf_writer *writer = dm_gguf_writer_create();
    assert_non_null(writer);
    dm_gguf_add_u32(writer, "a.u32", 4000000000u);
    dm_gguf_add_u64(writer, "a.u64", UINT64_MAX);
    dm_gguf_add_f32(writer, "a.f32", 0.1f);
    dm_gguf_add_f64(writer, "a.f64", 0.1);
    dm_gguf_add_bool(writer, "a.true", true);
    dm_gguf_add_bool(writer, "a.false", false);
    dm_gguf_add_string(writer, "a.text", "gr\xc3\xbc\xc3\x9f dich");
    dm_gguf_add_string(writer, "a.empty", "");
    const int16_t numbers[] = {-1, 0, 32767};
    dm_gguf_add_array(writer, "a.numbers", DM_GGUF_I16, numbers, 3);
    dm_gguf_add_array(writer, "a.nothing", DM_GGUF_F64, NULL, 0);
    const dm_gguf_string strings[] = {{"one", 3}, {"", 0}, {"t\0o", 3}};
    dm_gguf_add_strings(writer, "a.strings", strings, 3);
    dm_gguf_add_tensor(writer, "raw", DM_TYPE_F32, (const uint64_t[]){3}, 1, weights);
    dm_gguf_add_tensor_f32(writer, "full", DM_TYPE_F32, (const uint64_t[]){8, 4, 2}, 3, weights);
    dm_gguf_add_tensor_f32(writer, "half", DM_TYPE_F16, (const uint64_t[]){5}, 1, weights);
    dm_gguf_add_tensor_f32(writer, "brain", DM_TYPE_BF16, (const uint64_t[]){2, 2}, 2, weights);
    dm_gguf_add_tensor(writer, "blocks", DM_TYPE_Q8_0, (const uint64_t[]){32, 1, 1, 2}, 4, weights);
    dm_gguf_add_tensor_from(writer, "made", DM_TYPE_F32, (const uint64_t[]){70001, 2}, 2, give_counting, NULL);
    assert_int_equal(dm_gguf_writer_finish(writer, path), DM_OK);
    dm_gguf_writer_free(writer);
}

static dm_gguf *open_ok(const char *path) {
    dm_gguf *file = NULL;
    dm_status status = dm_gguf_open(path, &file);
    if (status != DM_OK) {
        fail_msg("%s", dm_error_message());
    }
    return file;
}

static void check_numbers(const dm_gguf *file) {
    uint32_t u32;
    uint64_t u64;
    float f32;
    double f64;
    bool truth;
    assert_int_equal(dm_gguf_get_u32(file, "a.u32", &u32), DM_OK);
    assert_int_equal(u32, 4000000000u);
    assert_int_equal(dm_gguf_get_u64(file, "a.u64", &u64), DM_OK);
    assert_true(u64 == UINT64_MAX);
    assert_int_equal(dm_gguf_get_u64(file, "a.u32", &u64), DM_OK);
    assert_int_equal(u64, 4000000000u);
    assert_int_equal(dm_gguf_get_u32(file, "a.u64", &u32), DM_ERR_FORMAT); /* does not fit */
    assert_non_null(strstr(dm_error_message(), "a.u64"));
    assert_int_equal(dm_gguf_get_u32_or(file, "missing", 7, &u32), DM_OK);
    assert_int_equal(u32, 7);
    assert_int_equal(dm_gguf_get_u32_or(file, "a.text", 7, &u32), DM_ERR_FORMAT); /* there, but of another kind */
    assert_int_equal(dm_gguf_get_f32(file, "a.f32", &f32), DM_OK);
    assert_true(f32 == 0.1f);
    assert_int_equal(dm_gguf_get_f64(file, "a.f64", &f64), DM_OK);
    assert_true(f64 == 0.1);
    assert_int_equal(dm_gguf_get_f32_or(file, "missing", 2.5f, &f32), DM_OK);
    assert_true(f32 == 2.5f);
    assert_int_equal(dm_gguf_get_bool_or(file, "a.true", false, &truth), DM_OK);
    assert_true(truth);
    assert_int_equal(dm_gguf_get_bool_or(file, "a.false", true, &truth), DM_OK);
    assert_false(truth);
    assert_int_equal(dm_gguf_get_bool_or(file, "a.u32", true, &truth), DM_ERR_FORMAT);
}

static void check_strings(const dm_gguf *file) {
    dm_gguf_string text;
    assert_int_equal(dm_gguf_get_string(file, "a.text", &text), DM_OK);
    assert_int_equal(text.length, 11);
    assert_memory_equal(text.bytes, "gr\xc3\xbc\xc3\x9f dich", 11);
    assert_int_equal(dm_gguf_get_string(file, "a.empty", &text), DM_OK);
    assert_int_equal(text.length, 0);
    assert_int_equal(dm_gguf_get_string(file, "missing", &text), DM_ERR_FORMAT);
    assert_int_equal(strncmp(dm_error_message(), dm_gguf_path(file), strlen(dm_gguf_path(file))), 0);
    dm_gguf_string *strings;
    uint64_t count;
    assert_int_equal(dm_gguf_get_strings(file, "a.strings", &strings, &count), DM_OK);
    assert_int_equal(count, 3);
    assert_int_equal(strings[1].length, 0);
    assert_memory_equal(strings[2].bytes, "t\0o", 3);
    free(strings);
    assert_int_equal(dm_gguf_get_strings(file, "a.numbers", &strings, &count), DM_ERR_FORMAT);
    const void *data;
    assert_int_equal(dm_gguf_get_array(file, "a.numbers", DM_GGUF_I16, &data, &count), DM_OK);
    int16_t numbers[3];
    assert_int_equal(count, 3);
    memcpy(numbers, data, sizeof numbers);
    assert_int_equal(numbers[0], -1);
    assert_int_equal(numbers[2], 32767);
    assert_int_equal(dm_gguf_get_array(file, "a.numbers", DM_GGUF_U16, &data, &count), DM_ERR_FORMAT);
    assert_int_equal(dm_gguf_get_array(file, "a.nothing", DM_GGUF_F64, &data, &count), DM_OK);
    assert_int_equal(count, 0);
}

static void check_tensors(const dm_gguf *file) {
    assert_int_equal(dm_gguf_n_tensors(file), 6);
    for (size_t i = 0; i < dm_gguf_n_tensors(file); i++) {
        const dm_gguf_tensor *tensor = dm_gguf_tensor_at(file, i);
        assert_ptr_equal(dm_gguf_find_tensor(file, tensor->name), tensor);
        assert_int_equal((uintptr_t)tensor->data % 32, 0);
    }
    assert_null(dm_gguf_find_tensor(file, "ful"));
    assert_memory_equal(dm_gguf_find_tensor(file, "raw")->data, weights, 3 * sizeof(float));
    const dm_gguf_tensor *full = dm_gguf_find_tensor(file, "full");
    assert_int_equal(full->elements, 64);
    assert_int_equal(full->dims[2], 2);
    assert_int_equal(full->dims[3], 1);
    assert_memory_equal(full->data, weights, sizeof weights);
    const dm_gguf_tensor *half = dm_gguf_find_tensor(file, "half");
    assert_memory_equal(half->data, ((const uint16_t[]){0x3c00, 0xc100, 0x3555, 0x7bff, 0x0000}), 10);
    const dm_gguf_tensor *brain = dm_gguf_find_tensor(file, "brain");
    assert_memory_equal(brain->data, ((const uint16_t[]){0x3f80, 0xc020, 0x3eab, 0x4780}), 8);
    const dm_gguf_tensor *blocks = dm_gguf_find_tensor(file, "blocks");
    assert_int_equal(blocks->bytes, 68);
    const dm_gguf_tensor *made = dm_gguf_find_tensor(file, "made");
    const float *numbers = made->data;
    for (size_t i = 0; i < made->elements; i++) {
        assert_true(numbers[i] == (float)(i % 251));
    }
}

static void test_round_trip(void **state) {
    (void)state;
    const char *path = test_path(FILE_NAME);
    write_everything(path);
    dm_gguf *file = open_ok(path);
    assert_int_equal(dm_gguf_version(file), 3);
    assert_int_equal(dm_gguf_n_values(file), 11);
    check_numbers(file);
    check_strings(file);
    check_tensors(file);
    dm_gguf_close(file);
}

static void test_describe(void **state) {
    (void)state;
    const char *path = test_path(FILE_NAME);
    write_everything(path);
    dm_gguf *file = open_ok(path);
    const char *expected[] = {
        "4000000000",
        "18446744073709551615",
        "0.1",
        "0.1",
        "true",
        "false",
        "\"gr\xc3\xbc\xc3\x9f dich\"",
        "\"\"",
        "[3 x i16: -1, 0, 32767]",
        "[0 x f64]",
        "[3 x string: \"one\", \"\", \"t?o\"]",
    };
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        char text[128];
        dm_gguf_describe(file, i, text, sizeof text);
        assert_string_equal(text, expected[i]);
        for (size_t size = 1; size < sizeof text; size++) { /* cut anywhere, but never within a character */
            dm_gguf_describe(file, i, text, size);
            assert_true(strlen(text) < size);
            assert_int_equal(strncmp(text, expected[i], strlen(text)), 0);
            assert_true(((uint8_t)expected[i][strlen(text)] & 0xc0) != 0x80);
        }
    }
    dm_gguf_close(file);
}

static void test_clean_text(void **state) {
    (void)state;
    const struct {
        const char *from, *to;
    } cases[] = {
        {"plain", "plain"},
        {"a\nb\x1b[0m", "a?b?[0m"},
        {"\xc3\xa9\xff", "\xc3\xa9?"},
        {"\xc0\xaf", "??"},
        {"\xed\xa0\x80", "???"},
        {"\xf4\x90\x80\x80", "????"},
        {"\xe2\x82", "??"},
        {"\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80"},
        {"\xc2\x85", "?"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[32];
        dm_gguf_clean_text((dm_gguf_string){cases[i].from, strlen(cases[i].from)}, text, sizeof text);
        assert_string_equal(text, cases[i].to);
    }
    char cut[4];
    dm_gguf_clean_text((dm_gguf_string){"ab\xc3\xa9", 4}, cut, sizeof cut);
    assert_string_equal(cut, "ab");
}

static void test_copy_values(void **state) {
    (void)state;
    write_everything(test_path(FILE_NAME));
    dm_gguf *from = open_ok(test_path(FILE_NAME));
    dm_gguf_writer *writer = dm_gguf_writer_create();
    dm_gguf_add_u32(writer, "own", 1);
    dm_gguf_copy_values(writer, from, "a.");
    assert_int_equal(dm_gguf_writer_finish(writer, test_path("copy.gguf")), DM_OK);
    dm_gguf_writer_free(writer);
    dm_gguf_close(from);
    dm_gguf *copy = open_ok(test_path("copy.gguf"));
    assert_int_equal(dm_gguf_n_values(copy), 12);
    check_numbers(copy);
    check_strings(copy);
    dm_gguf_close(copy);
}

/* What says something of a file is not copied to another. */
static void test_values_of_a_file_stay_there(void **state) {
    (void)state;
    dm_gguf_writer *writer = dm_gguf_writer_create();
    dm_gguf_set_alignment(writer, 64);
    dm_gguf_add_u32(writer, "split.count", 1);
    dm_gguf_add_string(writer, "dilmodeli.layout", "streaming");
    dm_gguf_add_u32(writer, "splitter", 7);
    assert_int_equal(dm_gguf_writer_finish(writer, test_path("good.gguf")), DM_OK);
    dm_gguf_writer_free(writer);
    dm_gguf *from = open_ok(test_path("good.gguf"));
    writer = dm_gguf_writer_create();
    dm_gguf_copy_values(writer, from, "");
    assert_int_equal(dm_gguf_writer_finish(writer, test_path("copy.gguf")), DM_OK);
    dm_gguf_writer_free(writer);
    dm_gguf_close(from);
    dm_gguf *copy = open_ok(test_path("copy.gguf"));
    assert_int_equal(dm_gguf_n_values(copy), 1);
    assert_true(dm_gguf_has(copy, "splitter"));
    dm_gguf_close(copy);
}

static void test_alignment(void **state) {
    (void)state;
    static const uint32_t alignments[] = {8, 32, 512, DM_GGUF_MOST_ALIGNMENT};
    for (size_t i = 0; i < sizeof alignments / sizeof *alignments; i++) {
        dm_gguf_writer *writer = dm_gguf_writer_create();
        dm_gguf_set_alignment(writer, alignments[i]);
        dm_gguf_add_tensor(writer, "a", DM_TYPE_F32, (const uint64_t[]){3}, 1, weights);
        dm_gguf_add_tensor(writer, "b", DM_TYPE_F32, (const uint64_t[]){2}, 1, weights);
        assert_int_equal(dm_gguf_writer_finish(writer, test_path("good.gguf")), DM_OK);
        dm_gguf_writer_free(writer);
        dm_gguf *file = open_ok(test_path("good.gguf"));
        const dm_gguf_tensor *a = dm_gguf_find_tensor(file, "a"), *b = dm_gguf_find_tensor(file, "b");
        uint64_t step = alignments[i] > 12 ? alignments[i] : 16; /* 12 bytes and what fills them up */
        assert_int_equal((const uint8_t *)b->data - (const uint8_t *)a->data, step);
        assert_int_equal((uintptr_t)a->data % alignments[i], 0);
        assert_memory_equal(a->data, weights, 12);
        assert_memory_equal(b->data, weights, 8);
        dm_gguf_close(file);
    }
}

static void test_writer_refuses(void **state) {
    (void)state;
    const char *path = test_path("never.gguf");
    for (int i = 0; i < 10; i++) {
        dm_gguf_writer *writer = dm_gguf_writer_create();
        dm_gguf_add_u32(writer, "key", 1);
        dm_gguf_add_tensor(writer, "t", DM_TYPE_F32, (const uint64_t[]){2}, 1, weights);
        const char *word = "";
        switch (i) {
        case 0:
            dm_gguf_add_u32(writer, word = "key", 2);
            break;
        case 1:
            dm_gguf_add_tensor(writer, word = "t", DM_TYPE_F32, (const uint64_t[]){2}, 1, weights);
            break;
        case 2:
            dm_gguf_add_tensor(writer, word = "zero", DM_TYPE_F32, (const uint64_t[]){0}, 1, weights);
            break;
        case 3:
            dm_gguf_add_tensor(writer, word = "torn", DM_TYPE_Q4_K, (const uint64_t[]){255}, 1, weights);
            break;
        case 4:
            dm_gguf_add_tensor(writer, word = "huge", DM_TYPE_F32, (const uint64_t[]){UINT64_MAX, 2}, 2, weights);
            break;
        case 5:
            dm_gguf_add_tensor_f32(writer, word = "type", DM_TYPE_Q8_0, (const uint64_t[]){32}, 1, weights);
            break;
        case 6:
        case 7:
        case 8:
            dm_gguf_set_alignment(writer, (const uint32_t[]){4, 48, 2 * DM_GGUF_MOST_ALIGNMENT}[i - 6]);
            word = "general.alignment";
            break;
        default:
            dm_gguf_add_array(writer, word = "strings", DM_GGUF_STRING, weights, 1);
        }
        assert_int_equal(dm_gguf_writer_finish(writer, path), DM_ERR_ARGUMENT);
        assert_non_null(strstr(dm_error_message(), word));
        assert_int_not_equal(access(path, F_OK), 0);
        dm_gguf_writer_free(writer);
    }
}

static dm_status give_up(void *user, uint64_t first, size_t n, float *out) {
    (void)user, (void)first, (void)n, (void)out;
    return dm_fail(DM_ERR_INTERRUPTED, "enough");
}

/* What stood at the path before a failure stands there after it. */
static void test_writer_keeps_the_old_file(void **state) {
    (void)state;
    const char *path = test_path(FILE_NAME);
    write_everything(path);
    dm_gguf_writer *writer = dm_gguf_writer_create();
    dm_gguf_add_tensor_from(writer, "t", DM_TYPE_F16, (const uint64_t[]){8}, 1, give_up, NULL);
    assert_int_equal(dm_gguf_writer_finish(writer, path), DM_ERR_INTERRUPTED);
    dm_gguf_writer_free(writer);
    dm_gguf *file = open_ok(path);
    assert_int_equal(dm_gguf_n_tensors(file), 6);
    dm_gguf_close(file);
}

/* ---- Large tensors ---- */

static dm_status make_counting_bytes(void *user, uint64_t first, size_t n, void *out) {
    uint64_t *next = user;
    assert_true(first == *next && n <= DM_GGUF_PIECE && first % 32 == 0 && n % 32 == 0);
    *next += n;
    memset(out, (int)(first / DM_GGUF_PIECE) + 1, n / 32 * 34);
    return DM_OK;
}

/* A tensor made in several pieces, and one behind it. */
static void test_made_in_pieces(void **state) {
    (void)state;
    const uint64_t elements = 2 * (uint64_t)DM_GGUF_PIECE + 96;
    uint64_t made = 0;
    dm_gguf_writer *writer = dm_gguf_writer_create();
    dm_gguf_add_tensor_made(writer, "made", DM_TYPE_Q8_0, (const uint64_t[]){32, elements / 32}, 2, make_counting_bytes, &made);
    dm_gguf_add_tensor(writer, "behind", DM_TYPE_F32, (const uint64_t[]){3}, 1, weights);
    assert_int_equal(dm_gguf_writer_finish(writer, test_path("good.gguf")), DM_OK);
    dm_gguf_writer_free(writer);
    assert_int_equal(made, elements);
    dm_gguf *file = open_ok(test_path("good.gguf"));
    const dm_gguf_tensor *tensor = dm_gguf_find_tensor(file, "made");
    assert_int_equal(tensor->bytes, elements / 32 * 34);
    const uint8_t *bytes = tensor->data;
    for (uint64_t i = 0; i < tensor->bytes; i++) {
        assert_int_equal(bytes[i], i / ((uint64_t)DM_GGUF_PIECE / 32 * 34) + 1);
    }
    assert_memory_equal(dm_gguf_find_tensor(file, "behind")->data, weights, 3 * sizeof *weights);
    dm_gguf_close(file);
}

/* Offsets past 4 GB, in a file that is mostly a hole. */
static void test_far_tensor(void **state) {
    (void)state;
    const uint64_t far = ((uint64_t)5 << 30) + 64;
    test_bytes b;
    put_header(&b, 2, 0);
    put_tensor(&b, "near", DM_TYPE_Q4_K, 256, (far - 64) / 144 + 1, 0);
    put_tensor(&b, "far", DM_TYPE_F32, 4, 0, far + 96);
    put_data(&b, 32, 0);
    const char *path = test_path("good.gguf");
    test_write(path, b.data, b.size);
    FILE *stream = fopen(path, "r+b");
    assert_non_null(stream);
    const float values[4] = {1.0f, 2.0f, 3.0f, 4.0f};
    assert_int_equal(fseeko(stream, (off_t)(b.size + far + 96), SEEK_SET), 0);
    assert_int_equal(fwrite(values, sizeof values, 1, stream), 1);
    assert_int_equal(fclose(stream), 0);
    dm_gguf *file = open_ok(path);
    assert_true(dm_gguf_find_tensor(file, "near")->bytes > UINT32_MAX);
    assert_memory_equal(dm_gguf_find_tensor(file, "far")->data, values, sizeof values);
    dm_gguf_close(file);
}

/* ---- Files made by others ---- */

static void test_shared_models(void **state) {
    (void)state;
    const char *names[] = {"qwen3moe-tiny", "gpt2-tiny", "mixtral-tiny", "quant-Q2_K", "quant-Q4_0", "quant-Q8_0", "ref-moe"};
    if (access(DM_SHARED_DIR "/models", R_OK) != 0) {
        print_message("no %s: reading the files of other programs is not tested\n", DM_SHARED_DIR);
        skip();
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[256];
        snprintf(path, sizeof path, "%s/models/%s.gguf", DM_SHARED_DIR, names[i]);
        dm_gguf *file = open_ok(path);
        assert_true(dm_gguf_n_tensors(file) >= 10);
        uint64_t bytes = 0;
        for (size_t t = 0; t < dm_gguf_n_tensors(file); t++) {
            bytes += dm_gguf_tensor_at(file, t)->bytes;
        }
        assert_true(bytes < dm_gguf_size(file) && bytes > dm_gguf_size(file) / 2);
        dm_gguf_close(file);
    }
}

static void test_missing_file(void **state) {
    (void)state;
    dm_gguf *file = NULL;
    assert_int_equal(dm_gguf_open(test_path("nowhere.gguf"), &file), DM_ERR_IO);
    assert_null(file);
    assert_non_null(strstr(dm_error_message(), "nowhere.gguf"));
}

static int clean_up(void **state) {
    (void)state;
    test_remove((const char *const[]){FILE_NAME, "copy.gguf", "good.gguf", NULL});
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_describe),
        cmocka_unit_test(test_clean_text),
        cmocka_unit_test(test_copy_values),
        cmocka_unit_test(test_values_of_a_file_stay_there),
        cmocka_unit_test(test_alignment),
        cmocka_unit_test(test_writer_refuses),
        cmocka_unit_test(test_writer_keeps_the_old_file),
        cmocka_unit_test(test_made_in_pieces),
        cmocka_unit_test(test_far_tensor),
        cmocka_unit_test(test_shared_models),
        cmocka_unit_test(test_missing_file),
    };
    return cmocka_run_group_tests(tests, NULL, clean_up);
}
