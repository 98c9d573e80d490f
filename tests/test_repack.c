/* Panels made when they are first used: the same for any number of threads and sessions, and for every layout of experts. */
#include <math.h>
#include <pthread.h>

#include "dilmodeli.h"
#include "kernels/quantized.h"
#include "model/repack.h"
#include "quantized_model.h"
#include "test_files.h"

#define FILE_NAME "model.gguf"

enum { TOKENS = 40, SESSIONS = 4, VOCAB = 70 };

static dm_model *open_model(void) {
    dm_model *model = NULL;
    if (dm_model_open(test_path(FILE_NAME), &model) != DM_OK) {
        fail_msg("%s", dm_error_message());
    }
    return model;
}

/* Each sequence has tokens of its own, so that sessions ask for experts in their own order. */
static void make_ids(int32_t *ids, size_t sequence) {
    for (int32_t i = 0; i < TOKENS; i++) {
        ids[i] = (int32_t)(((size_t)i * 31 + sequence * 17 + (size_t)(i * i)) % VOCAB);
    }
}

/* Logits [TOKENS, VOCAB] of a sequence: a piece of it at once, the rest token by token. */
static dm_status feed(const dm_model *model, size_t sequence, float *logits) {
    int32_t ids[TOKENS];
    dm_session *session;
    make_ids(ids, sequence);
    DM_TRY(dm_session_create(model, TOKENS, &session));
    int32_t at = (int32_t)(3 * sequence + 1);
    dm_status status = dm_session_feed(session, ids, at, true, logits);
    for (; at < TOKENS && status == DM_OK; at++) {
        status = dm_session_feed(session, ids + at, 1, true, logits + (size_t)at * VOCAB);
    }
    dm_session_free(session);
    return status;
}

typedef struct task {
    const dm_model *model;
    size_t sequence;
    int threads;
    dm_status status;
    float logits[TOKENS * VOCAB];
} task;

static void *feed_body(void *user) {
    task *it = user;
    dm_set_threads(it->threads);
    it->status = feed(it->model, it->sequence, it->logits);
    return NULL;
}

/* Every session alone on a fresh model of one thread, then all of them at once on another. */
static void check_sessions(void) {
    static task tasks[SESSIONS];
    static float alone[SESSIONS][TOKENS * VOCAB];
    for (size_t s = 0; s < SESSIONS; s++) {
        dm_set_threads(1);
        dm_model *model = open_model();
        assert_int_equal(feed(model, s, alone[s]), DM_OK);
        dm_model_close(model);
    }
    for (int threads = 1; threads <= 4; threads += 3) {
        pthread_t running[SESSIONS];
        dm_model *model = open_model();
        for (size_t s = 0; s < SESSIONS; s++) {
            tasks[s] = (task){.model = model, .sequence = s, .threads = threads};
            assert_int_equal(pthread_create(&running[s], NULL, feed_body, &tasks[s]), 0);
        }
        for (size_t s = 0; s < SESSIONS; s++) {
            pthread_join(running[s], NULL);
            assert_int_equal(tasks[s].status, DM_OK);
            assert_true(isfinite(alone[s][0]));
            assert_memory_equal(tasks[s].logits, alone[s], sizeof alone[s]);
        }
        dm_model_close(model);
    }
}

static void sessions_share_what_is_packed(void **state) {
    (void)state;
    const dm_config shapes[] = {quantized_shape(false, false), quantized_shape(true, false), quantized_shape(true, true)};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        quantized_model_write(test_path(FILE_NAME), &shapes[i], quantized_mixture, 5);
        check_sessions();
    }
    quantized_model_write(test_path(FILE_NAME), &shapes[2], quantized_unevenly, 6);
    check_sessions();
}

/* Panels of one expert's matrix are those that packing it alone gives, or still empty. */
static bool is_packed(const dm_model *model, int32_t layer, dm_role role, size_t expert) {
    const dm_tensor *tensor = &model->layers[layer].tensors[role];
    const dm_panel_format *format = dm_panel_format_of(tensor->type);
    size_t columns = (size_t)tensor->dims[0], rows = (size_t)tensor->dims[1], panels = dm_panel_count(rows);
    size_t bytes = panels * dm_panel_bytes(format, columns);
    const uint8_t *data = tensor->experts != NULL
                              ? tensor->experts[expert].data
                              : (const uint8_t *)tensor->data + expert * rows * dm_type_bytes(tensor->type, columns);
    const uint8_t *found = (const uint8_t *)dm_repacked_panels(model, layer, role) + expert * bytes;
    uint8_t *want = dm_alloc(bytes, 1), *empty = dm_alloc(bytes, 1);
    dm_panels_pack(want, format, data, rows, columns, 0, panels);
    bool packed = memcmp(found, want, bytes) == 0;
    assert_true(packed || memcmp(found, empty, bytes) == 0);
    dm_free(want);
    dm_free(empty);
    return packed;
}

static size_t packed_experts(const dm_model *model) {
    static const dm_role roles[] = {DM_FFN_GATE_EXPS, DM_FFN_UP_EXPS, DM_FFN_DOWN_EXPS};
    size_t n = 0;
    for (int32_t l = 0; l < model->config.n_layers; l++) {
        for (size_t e = 0; e < (size_t)model->config.n_experts; e++) {
            bool first = is_packed(model, l, roles[0], e);
            assert_true(is_packed(model, l, roles[1], e) == first && is_packed(model, l, roles[2], e) == first);
            n += first;
        }
    }
    return n;
}

static void experts_are_packed_when_chosen(void **state) {
    (void)state;
    if (strcmp(dm_quantized()->isa, "scalar") == 0) {
        skip();
    }
    for (int apart = 0; apart < 2; apart++) {
        const dm_config shape = quantized_shape(true, apart == 1);
        quantized_model_write(test_path(FILE_NAME), &shape, quantized_mixture, 7);
        dm_model *model = open_model();
        dm_session *session;
        int32_t ids[TOKENS];
        float logits[VOCAB];
        make_ids(ids, 0);
        assert_int_equal(dm_session_create(model, TOKENS, &session), DM_OK);
        assert_int_equal(packed_experts(model), 0);
        assert_int_equal(dm_session_feed(session, ids, 1, false, logits), DM_OK);
        assert_int_equal(packed_experts(model), shape.n_layers * shape.top_k);
        assert_int_equal(dm_session_feed(session, ids + 1, TOKENS - 1, false, logits), DM_OK);
        assert_true(packed_experts(model) > (size_t)(shape.n_layers * shape.top_k));
        dm_session_free(session);
        dm_model_close(model);
    }
}

static int clean_up(void **state) {
    (void)state;
    test_remove((const char *const[]){FILE_NAME, NULL});
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sessions_share_what_is_packed),
        cmocka_unit_test(experts_are_packed_when_chosen),
    };
    return cmocka_run_group_tests(tests, NULL, clean_up);
}
