/*
 * Positions against a plain forward pass in double: rotary scalings, far beyond the contexts of old, and sliding windows,
 * however a prompt is cut, with every kind of cache, and with several sequences side by side.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "reference_forward.h"
#include "test_files.h"

#define FILE_NAME "model.gguf"

enum { VOCAB = 50 };

/* What the types of the cache may differ by. */
static const double tolerances[] = {[DM_CACHE_F16] = 1e-2, [DM_CACHE_Q8] = 2.5e-1, [DM_CACHE_F32] = 3e-5};

static dm_config shape_of(dm_arch arch, int32_t context) {
    return (dm_config){.arch = arch,
                       .n_layers = 1,
                       .dim = 24,
                       .n_heads = 4,
                       .n_kv_heads = 2,
                       .head_dim = 16,
                       .ffn_dim = 20,
                       .vocab = VOCAB,
                       .context = context,
                       .norm_eps = 1e-5f,
                       .rope_base = 10000.0f};
}

/* A model, ids and the logits [rows, VOCAB] that their last positions should have. */
typedef struct sample {
    dm_config config;
    dm_model *model;
    int32_t *ids;
    int32_t n, rows;
    double *expected;
} sample;

static sample make_sample(const dm_config *config, int32_t n, int32_t rows, uint32_t seed) {
    sample s = {*config, NULL, malloc((size_t)n * sizeof(int32_t)), n, rows, malloc((size_t)rows * VOCAB * sizeof(double))};
    assert_true(s.ids != NULL && s.expected != NULL);
    reference_model reference;
    reference_make(&reference, config, 8);
    reference_ids(s.ids, n, VOCAB, seed);
    reference_forward(&reference, s.ids, n, rows, s.expected);
    s.model = reference_open(&reference, test_path(FILE_NAME));
    reference_free(&reference);
    return s;
}

static void free_sample(sample *s) {
    dm_model_close(s->model);
    free(s->ids);
    free(s->expected);
}

static dm_session *open_session(const dm_model *model, int32_t context, dm_cache_type cache) {
    dm_session *session = NULL;
    const dm_session_options options = {.context = context, .cache = cache};
    assert_int_equal(dm_session_create_with(model, &options, &session), DM_OK);
    return session;
}

static void judge(const char *what, const float *logits, const double *expected, int32_t rows, dm_cache_type cache) {
    double difference = reference_difference(logits, expected, (size_t)rows * VOCAB);
    if (!(difference < tolerances[cache])) {
        fail_msg("%s, cache %d: differs by %.2e", what, (int)cache, difference);
    }
}

/* The prompt in pieces of `step`, then the last rows at once and, in a second round, one by one. */
static void check(const char *what, const sample *s, int32_t step, dm_cache_type cache) {
    float *logits = malloc((size_t)s->rows * VOCAB * sizeof *logits);
    assert_non_null(logits);
    dm_session *session = open_session(s->model, s->n, cache);
    int32_t prompt = s->n - s->rows;
    for (int32_t first = 0; first < prompt; first += step) {
        assert_int_equal(dm_session_feed(session, s->ids + first, prompt - first < step ? prompt - first : step, false, NULL),
                         DM_OK);
    }
    for (int32_t piece = s->rows; piece > 0; piece = piece > 1 ? 1 : 0) {
        dm_session_truncate(session, prompt);
        for (int32_t t = 0; t < s->rows; t += piece) {
            float *to = logits + (size_t)t * VOCAB;
            assert_int_equal(dm_session_feed(session, s->ids + prompt + t, piece, true, to), DM_OK);
        }
        judge(what, logits, s->expected, s->rows, cache);
    }
    dm_session_free(session);
    free(logits);
}

/* ---- Scaling ---- */

enum { SHORT = 40, LOOK = 6 };

typedef struct scaling {
    const char *name;
    dm_arch arch;
    dm_rope_scaling how;
    int32_t rope_dims;
    uint32_t extra;
    float base;
} scaling;

static const scaling scalings[] = {
    {"none", DM_ARCH_LLAMA, {0}, 0, 0, 10000.0f},
    {"a base of a million", DM_ARCH_QWEN3, {0}, 0, 0, 1e6f},
    {"partial", DM_ARCH_LLAMA, {0}, 10, 0, 10000.0f},
    {"factors, as Llama 3", DM_ARCH_LLAMA, {0}, 0, DM_PART_ROPE_FACTORS, 500000.0f},
    {"partial, with factors", DM_ARCH_LLAMA, {0}, 10, DM_PART_ROPE_FACTORS, 10000.0f},
    {"linear", DM_ARCH_LLAMA, {.kind = DM_SCALING_LINEAR, .factor = 4.0f}, 0, 0, 10000.0f},
    {"linear, halves", DM_ARCH_QWEN2, {.kind = DM_SCALING_LINEAR, .factor = 2.5f, .attention = 1.3f}, 0, 0, 10000.0f},
    {"yarn",
     DM_ARCH_QWEN2,
     {.kind = DM_SCALING_YARN, .factor = 8.0f, .original_context = 512, .beta_fast = 32.0f, .beta_slow = 1.0f},
     0,
     0,
     10000.0f},
    {"yarn, few turns",
     DM_ARCH_QWEN2,
     {.kind = DM_SCALING_YARN, .factor = 8.0f, .original_context = 24, .beta_fast = 4.0f, .beta_slow = 1.0f},
     0,
     0,
     10000.0f},
    {"yarn with an attention factor",
     DM_ARCH_LLAMA,
     {.kind = DM_SCALING_YARN,
      .factor = 4.0f,
      .attention = 0.8f,
      .original_context = 1024,
      .beta_fast = 32.0f,
      .beta_slow = 1.0f},
     0,
     0,
     10000.0f},
};

static dm_config scaled(const scaling *s, int32_t context) {
    dm_config c = shape_of(s->arch, context);
    c.rope_scaling = s->how;
    c.rope_dims = s->rope_dims;
    c.extra = s->extra;
    c.rope_base = s->base;
    return c;
}

static void scalings_of_short_texts(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof scalings / sizeof *scalings; i++) {
        dm_config c = scaled(&scalings[i], SHORT);
        c.n_layers = 2;
        sample s = make_sample(&c, SHORT, SHORT, 1);
        check(scalings[i].name, &s, SHORT, DM_CACHE_F32);
        free_sample(&s);
    }
}

/* Past 4096, where angles are large. */
static void scalings_of_long_texts(void **state) {
    (void)state;
    int32_t n = DM_SLOW ? 600 : 4500;
    for (size_t i = 0; i < sizeof scalings / sizeof *scalings; i++) {
        dm_config c = scaled(&scalings[i], n);
        c.n_heads = 2;
        c.n_kv_heads = 1;
        sample s = make_sample(&c, n, LOOK, 2);
        check(scalings[i].name, &s, n, DM_CACHE_F32);
        free_sample(&s);
    }
}

/* ---- Long sequences ---- */

/* Longer than the tiles, and than any context of old; four heads share what is read of a key. */
static void long_sequences(void **state) {
    (void)state;
    int32_t n = DM_SLOW ? 600 : 4300;
    dm_config c = shape_of(DM_ARCH_LLAMA, n);
    c.n_heads = 8;
    for (int32_t width = 20; width <= 32; width += 12) { /* less than a block of 8-bit numbers, and one */
        c.head_dim = width;
        sample s = make_sample(&c, n, LOOK, 3);
        check("long", &s, DM_SLOW ? 300 : 700, DM_CACHE_F16);
        check("long", &s, DM_SLOW ? 300 : 700, DM_CACHE_Q8);
        free_sample(&s);
    }
}

/* Blocks of the cache are the same on any number of threads. */
static void threads_do_not_matter(void **state) {
    (void)state;
    enum { LENGTH = 1300 };
    static float logits[2][VOCAB];
    const dm_config c = shape_of(DM_ARCH_LLAMA, LENGTH);
    sample s = make_sample(&c, LENGTH, 1, 4);
    dm_set_threads(3);
    dm_session *session = open_session(s.model, LENGTH, DM_CACHE_F16);
    assert_int_equal(dm_session_feed(session, s.ids, LENGTH - 1, false, NULL), DM_OK);
    for (int i = 0; i < 2; i++) {
        dm_set_threads(i == 0 ? 3 : 1);
        dm_session_truncate(session, LENGTH - 1);
        assert_int_equal(dm_session_feed(session, s.ids + LENGTH - 1, 1, false, logits[i]), DM_OK);
    }
    dm_set_threads(0);
    assert_memory_equal(logits[0], logits[1], sizeof logits[0]);
    judge("threads", logits[0], s.expected, 1, DM_CACHE_F16);
    dm_session_free(session);
    free_sample(&s);
}

/* ---- Windows ---- */

/* Smaller than the context, with prompts cut before, at and behind their end; in the second layer a token sees what fell out
 * of the window through those that still saw it. Every position is looked at, in a batch and one by one. */
static void windows_and_pieces(void **state) {
    (void)state;
    enum { N = 520 };
    static const int32_t windows[] = {1, 31, 100, 256, 257, 519}, steps[] = {37, 100, 255, 256, N};
    int32_t n = DM_SLOW ? 300 : N;
    for (size_t w = 0; w < sizeof windows / sizeof *windows; w++) {
        dm_config c = shape_of(DM_ARCH_LLAMA, n);
        c.n_layers = 2;
        c.window = windows[w];
        const int32_t rows[] = {n, 40}; /* one by one from the start, past the window; then prompts */
        for (size_t k = 0; k < 2; k++) {
            sample s = make_sample(&c, n, rows[k], 5);
            for (size_t i = 0; i < (k == 0 ? 1 : sizeof steps / sizeof *steps); i++) {
                char what[64];
                snprintf(what, sizeof what, "a window of %d, pieces of %d", windows[w], steps[i]);
                check(what, &s, steps[i], DM_CACHE_F32);
                check(what, &s, steps[i], (w + i) % 2 == 0 ? DM_CACHE_F16 : DM_CACHE_Q8);
            }
            free_sample(&s);
        }
    }
}

/* The last tokens are those at which a window past 4096 begins to slide. */
static void far_windows(void **state) {
    (void)state;
    int32_t n = DM_SLOW ? 600 : 4700;
    static const struct {
        int32_t behind; /* positions that the last token no longer sees */
        dm_cache_type cache;
    } cases[] = {{-1, DM_CACHE_F32}, {0, DM_CACHE_F32}, {3, DM_CACHE_F32}, {3, DM_CACHE_F16}, {DM_SLOW ? 100 : 600, DM_CACHE_Q8}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        dm_config c = shape_of(DM_ARCH_LLAMA, n);
        c.n_heads = 2;
        c.window = n - cases[i].behind;
        sample s = make_sample(&c, n, LOOK, 6);
        check("a far window", &s, DM_SLOW ? 400 : 1000, cases[i].cache);
        free_sample(&s);
    }
}

/* Sequences of different lengths are fed together, each passing its window at another time. */
static void windows_side_by_side(void **state) {
    (void)state;
    enum { SEQUENCES = 3, STEPS = 60 };
    static const int32_t prompts[SEQUENCES] = {3, 50, 270};
    dm_config c = shape_of(DM_ARCH_LLAMA, 400);
    c.n_layers = 2;
    c.window = 64;
    for (int cache = DM_CACHE_F16; cache <= DM_CACHE_F32; cache++) {
        sample samples[SEQUENCES];
        dm_session *sessions[SEQUENCES];
        for (size_t i = 0; i < SEQUENCES; i++) {
            samples[i] = make_sample(&c, prompts[i] + STEPS, STEPS, 10 + (uint32_t)i);
            sessions[i] = open_session(samples[0].model, 400, (dm_cache_type)cache); /* all models are the same */
            assert_int_equal(dm_session_feed(sessions[i], samples[i].ids, prompts[i], false, NULL), DM_OK);
        }
        for (int32_t t = 0; t < STEPS; t++) {
            static float logits[SEQUENCES * VOCAB];
            const int32_t counts[SEQUENCES] = {1, 1, 1};
            int32_t ids[SEQUENCES];
            for (size_t i = 0; i < SEQUENCES; i++) {
                ids[i] = samples[i].ids[prompts[i] + t];
            }
            assert_int_equal(dm_session_feed_many(sessions, counts, SEQUENCES, ids, logits), DM_OK);
            for (size_t i = 0; i < SEQUENCES; i++) {
                judge("side by side", logits + i * VOCAB, samples[i].expected + (size_t)t * VOCAB, 1, (dm_cache_type)cache);
            }
        }
        for (size_t i = 0; i < SEQUENCES; i++) {
            dm_session_free(sessions[i]);
        }
        for (size_t i = 0; i < SEQUENCES; i++) {
            free_sample(&samples[i]);
        }
    }
}

/* ---- Broken factors ---- */

/* Factors are the file's, and a zero among them would make every number after it nonsense. */
static void broken_factors(void **state) {
    (void)state;
    static const float broken[] = {0.0f, -1.0f, NAN, INFINITY};
    for (size_t k = 0; k < sizeof broken / sizeof *broken; k++) {
        dm_config c = shape_of(DM_ARCH_LLAMA, 16);
        c.extra = DM_PART_ROPE_FACTORS;
        reference_model m;
        reference_make(&m, &c, 1);
        for (size_t i = 0; i < m.count; i++) {
            if (m.specs[i].role == DM_ROPE_FACTORS) {
                m.weights[i][1] = broken[k];
            }
        }
        dm_model *model = reference_open(&m, test_path(FILE_NAME));
        reference_free(&m);
        dm_session *session = NULL;
        assert_int_equal(dm_session_create(model, 0, &session), DM_ERR_FORMAT);
        assert_non_null(strstr(dm_error_message(), "rope_freqs.weight"));
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
        cmocka_unit_test(scalings_of_short_texts), cmocka_unit_test(scalings_of_long_texts), cmocka_unit_test(long_sequences),
        cmocka_unit_test(threads_do_not_matter),   cmocka_unit_test(windows_and_pieces),     cmocka_unit_test(far_windows),
        cmocka_unit_test(windows_side_by_side),    cmocka_unit_test(broken_factors),
    };
    return cmocka_run_group_tests(tests, NULL, clean_up);
}
