/* Sessions saved and loaded: they go on with the same bits, and files that are not such sessions are refused. */
#include "tiny_model.h"

#include "model/kv_cache.h"
#include "test_files.h"

#define FILE_NAME "session.dms"

enum { CONTEXT = 64, N = 21, LONG = 2 * DM_KV_BLOCK + 3 };

static dm_session *open_session(const dm_model *model, int32_t context, dm_cache_type cache) {
    dm_session *session = NULL;
    const dm_session_options options = {.context = context, .cache = cache};
    assert_int_equal(dm_session_create_with(model, &options, &session), DM_OK);
    return session;
}

/* Of the first n ids. */
static dm_session *saved_session(const tiny_model *tiny, int32_t context, const int32_t *ids, int32_t n, dm_cache_type cache) {
    dm_session *session = open_session(tiny->model, context, cache);
    assert_int_equal(dm_session_feed(session, ids, n, false, NULL), DM_OK);
    assert_int_equal(dm_session_save(session, test_path(FILE_NAME)), DM_OK);
    return session;
}

static dm_session *short_session(const tiny_model *tiny, dm_cache_type cache) {
    int32_t ids[N];
    tiny_model_ids(tiny, ids, N);
    return saved_session(tiny, CONTEXT, ids, N, cache);
}

static void check_goes_on(const char *architecture, int32_t n, dm_cache_type cache) {
    tiny_model tiny;
    tiny_model_make(&tiny, architecture, "f32", 4);
    size_t vocab = (size_t)tiny.info.vocab;
    float *expected = malloc(vocab * sizeof *expected), *logits = malloc(vocab * sizeof *logits);
    assert_true(expected != NULL && logits != NULL);
    int32_t ids[LONG + 1];
    tiny_model_ids(&tiny, ids, n + 1);
    dm_session *before = saved_session(&tiny, n + CONTEXT, ids, n, cache);
    dm_session *after = open_session(tiny.model, n + CONTEXT + 9, cache); /* the context may be another */
    assert_int_equal(dm_session_load(after, test_path(FILE_NAME)), DM_OK);
    assert_int_equal(dm_session_length(after), n);
    assert_int_equal(dm_session_keep(after, ids, n + 1), n); /* its tokens came with it */
    assert_int_equal(dm_session_feed(before, ids + n, 1, false, expected), DM_OK);
    assert_int_equal(dm_session_feed(after, ids + n, 1, false, logits), DM_OK);
    assert_memory_equal(expected, logits, vocab * sizeof *logits);
    dm_session_free(before);
    dm_session_free(after);
    free(expected);
    free(logits);
    tiny_model_remove(&tiny);
}

static void loaded_sessions_go_on(void **state) {
    (void)state;
    check_goes_on("qwen3moe", N, DM_CACHE_F16);
    check_goes_on("llama", N, DM_CACHE_Q8);
    check_goes_on("llama", LONG, DM_CACHE_F16);
    check_goes_on("gpt2", N, DM_CACHE_F32);
}

static void refuse(dm_session *session, dm_status expected, const char *word) {
    assert_int_equal(dm_session_load(session, test_path(FILE_NAME)), expected);
    if (strstr(dm_error_message(), word) == NULL) {
        fail_msg("expected '%s' in: %s", word, dm_error_message());
    }
    assert_int_equal(dm_session_length(session), 3); /* untouched */
}

static void others_are_refused(void **state) {
    (void)state;
    tiny_model tiny, other;
    tiny_model_make(&tiny, "llama", "f32", 4);
    tiny_model_make(&other, "llama", "f32", 5);
    dm_session_free(short_session(&tiny, DM_CACHE_F16));
    const int32_t ids[3] = {1, 2, 3};
    dm_session *sessions[3] = {open_session(other.model, CONTEXT, DM_CACHE_F16), open_session(tiny.model, CONTEXT, DM_CACHE_Q8),
                               open_session(tiny.model, N - 1, DM_CACHE_F16)};
    static const char *const words[3] = {"another model", "in F16, expected Q8_0", "holds 21 tokens"};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(dm_session_feed(sessions[i], ids, 3, false, NULL), DM_OK);
        refuse(sessions[i], DM_ERR_ARGUMENT, words[i]);
        dm_session_free(sessions[i]);
    }
    tiny_model_remove(&tiny);
    tiny_model_remove(&other);
}

/* Every cut, and every byte changed. */
static void damage_is_found(void **state) {
    (void)state;
    tiny_model tiny;
    tiny_model_make(&tiny, "llama", "f32", 4);
    dm_session_free(short_session(&tiny, DM_CACHE_Q8));
    dm_session *session = open_session(tiny.model, CONTEXT, DM_CACHE_Q8);
    const int32_t ids[3] = {1, 2, 3};
    assert_int_equal(dm_session_feed(session, ids, 3, false, NULL), DM_OK);
    uint8_t *bytes;
    size_t size = test_read(test_path(FILE_NAME), &bytes);
    for (size_t cut = 0; cut < size; cut += cut < 80 ? 1 : 97) {
        test_write(test_path(FILE_NAME), bytes, cut);
        refuse(session, DM_ERR_FORMAT, FILE_NAME);
    }
    for (size_t i = 0; i < size; i += i < 150 ? 1 : 41) {
        bytes[i] ^= 0x40;
        test_write(test_path(FILE_NAME), bytes, size);
        assert_int_not_equal(dm_session_load(session, test_path(FILE_NAME)), DM_OK);
        assert_int_equal(dm_session_length(session), 3);
        bytes[i] ^= 0x40;
    }
    test_write(test_path(FILE_NAME), bytes, size);
    assert_int_equal(dm_session_load(session, test_path(FILE_NAME)), DM_OK);
    unlink(test_path(FILE_NAME));
    assert_int_equal(dm_session_load(session, test_path(FILE_NAME)), DM_ERR_IO);
    assert_int_equal(dm_session_save(session, "/nowhere/at/all"), DM_ERR_IO);
    free(bytes);
    dm_session_free(session);
    tiny_model_remove(&tiny);
}

static int clean_up(void **state) {
    (void)state;
    test_remove((const char *const[]){FILE_NAME, NULL});
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loaded_sessions_go_on),
        cmocka_unit_test(others_are_refused),
        cmocka_unit_test(damage_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, clean_up);
}
