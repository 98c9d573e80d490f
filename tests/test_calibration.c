/* Statistics for compression: moments against a plain computation in double, slopes against what noise and finite differences
 * show, what an interruption leaves, importance matrices, and files from strangers. */
#include "reference.h"

#include <math.h>

#include "base/random.h"
#include "quantization/calibration.h"
#include "quantization/calibration_file.h"
#include "quantization/calibration_lend.h"
#include "quantization/calibration_windows.h"
#include "reference_forward.h"
#include "test_files.h"
#include "training/network.h"

enum { VOCAB = 67, CONTEXT = 12, TOKENS = DM_EMULATED ? 30 : 60 };

/* ---- Moments ---- */

/* What the plain computation adds up, for all slots. */
typedef struct plain {
    const dm_config *config;
    double **sums; /* [slots] [columns, columns] */
    double *squares, *fourths;
    uint64_t *visits;
} plain;

static void plain_see(void *user, int32_t layer, dm_role role, int32_t expert, const double *x, int32_t n, double gate) {
    plain *p = user;
    const size_t slot = dm_calibration_slot_of(p->config, layer, role, expert);
    assert_true(slot < dm_calibration_slots(p->config));
    assert_int_equal(n, dm_calibration_slot_at(p->config, slot).columns);
    for (int32_t i = 0; i < n; i++) {
        for (int32_t j = 0; j < n; j++) {
            p->sums[slot][i * n + j] += gate * gate * x[i] * x[j];
        }
    }
    p->visits[slot]++;
    p->squares[slot] += gate * gate;
    p->fourths[slot] += gate * gate * gate * gate;
}

static void plain_make(plain *p, reference_model *m, const int32_t *ids) {
    const size_t slots = dm_calibration_slots(&m->config);
    double *logits = calloc((size_t)CONTEXT * VOCAB, sizeof *logits);
    *p = (plain){&m->config, calloc(slots, sizeof(double *)), calloc(slots, 8), calloc(slots, 8), calloc(slots, 8)};
    for (size_t i = 0; i < slots; i++) {
        const size_t n = dm_calibration_slot_at(&m->config, i).columns;
        p->sums[i] = calloc(n * n, sizeof(double));
    }
    m->see = plain_see;
    m->user = p;
    for (int32_t t = 0; t < TOKENS; t += CONTEXT) {
        const int32_t n = TOKENS - t < CONTEXT ? TOKENS - t : CONTEXT;
        reference_forward(m, ids + t, n, n, logits);
    }
    m->see = NULL;
    free(logits);
}

static void plain_free(plain *p) {
    for (size_t i = 0; i < dm_calibration_slots(p->config); i++) {
        free(p->sums[i]);
    }
    free(p->sums);
    free(p->squares);
    free(p->fourths);
    free(p->visits);
}

static void check_slot(const plain *p, size_t slot, const dm_moments *found) {
    const size_t n = dm_calibration_slot_at(p->config, slot).columns;
    double largest = 0.0;
    assert_int_equal(found->columns, n);
    for (size_t i = 0; i < n; i++) {
        largest = fmax(largest, p->sums[slot][i * n + i] / TOKENS);
        assert_true(found->diagonal[i] == found->h[i * n + i]);
    }
    for (size_t i = 0; i < n * n; i++) {
        assert_true(fabs((double)found->h[i] - p->sums[slot][i] / TOKENS) <= 2e-5 * largest);
        assert_true(found->h[i] == found->h[i % n * n + i / n]);
    }
    const double tokens = p->fourths[slot] > 0.0 ? p->squares[slot] * p->squares[slot] / p->fourths[slot] : 0.0;
    assert_true(fabs(found->weight - p->squares[slot] / TOKENS) <= 1e-5);
    assert_true(fabs(found->tokens - tokens) <= 1e-4 * tokens);
}

static dm_status calibrate(const dm_model *model, const int32_t *ids, const char *out, const dm_calibrate_options *options,
                           dm_calibrate_result *result) {
    dm_calibrate_options how = options != NULL ? *options : (dm_calibrate_options){.slopes = DM_SLOPES_NONE};
    how.context = CONTEXT;
    return dm_calibrate(model, NULL, ids, TOKENS, out, &how, result);
}

static dm_calibration *open_statistics(const dm_model *model, const char *path) {
    dm_calibration *statistics;
    if (dm_calibration_open(path, model, &statistics) != DM_OK) {
        fail_msg("%s", dm_error_message());
    }
    return statistics;
}

/* All roles of all layers, experts too. */
static void check_moments(dm_calibration *statistics, const plain *p) {
    size_t matrices = 0;
    for (int32_t layer = -1; layer < p->config->n_layers; layer++) {
        for (int role = 0; role < DM_ROLES; role++) {
            for (int32_t expert = -1; expert < p->config->n_experts; expert++) {
                const size_t slot = dm_calibration_slot_of(p->config, layer, (dm_role)role, expert);
                dm_moments found;
                assert_true(dm_calibration_has(statistics, layer, (dm_role)role, expert) == (slot != SIZE_MAX));
                if (slot == SIZE_MAX) {
                    assert_int_equal(dm_calibration_get(statistics, layer, (dm_role)role, expert, &found), DM_ERR_ARGUMENT);
                    continue;
                }
                assert_int_equal(dm_calibration_get_raw(statistics, layer, (dm_role)role, expert, &found), DM_OK);
                assert_int_equal(found.rows, dm_calibration_rows(p->config, (dm_role)role));
                assert_null(found.d);
                check_slot(p, slot, &found);
                matrices++;
            }
        }
    }
    assert_true(matrices >= dm_calibration_slots(p->config));
}

static dm_config shape_of(dm_arch arch, bool experts) {
    dm_config c = experts ? reference_expert_shape(arch, VOCAB, CONTEXT) : reference_shape(arch, VOCAB, CONTEXT);
    if (arch == DM_ARCH_GPT2) {
        c.n_kv_heads = c.n_heads;
        c.head_dim = c.dim / c.n_heads;
        c.rope_base = 0.0f;
        c.tied_output = true;
    }
    return c;
}

static void check_architecture(dm_arch arch, bool experts) {
    const dm_config config = shape_of(arch, experts);
    const char *path = test_path("model.gguf"), *out = test_path("statistics");
    reference_model m;
    int32_t ids[TOKENS];
    plain p;
    reference_make(&m, &config, 5 + (uint64_t)arch);
    reference_ids(ids, TOKENS, VOCAB, 3);
    dm_model *model = reference_open(&m, path);
    plain_make(&p, &m, ids);
    if (calibrate(model, ids, out, NULL, NULL) != DM_OK) {
        fail_msg("%s", dm_error_message());
    }
    dm_calibration *statistics = open_statistics(model, out);
    assert_int_equal(dm_calibration_tokens(statistics), TOKENS);
    check_moments(statistics, &p);
    dm_calibration_close(statistics);
    dm_model_close(model);
    plain_free(&p);
    reference_free(&m);
}

static void test_moments(void **state) {
    (void)state;
    check_architecture(DM_ARCH_GPT2, false);
    check_architecture(DM_ARCH_LLAMA, false);
    check_architecture(DM_ARCH_QWEN2, false);
    check_architecture(DM_ARCH_QWEN3, false);
    check_architecture(DM_ARCH_LLAMA, true);
    check_architecture(DM_ARCH_OLMOE, true);
    check_architecture(DM_ARCH_QWEN2MOE, true);
    check_architecture(DM_ARCH_QWEN3MOE, true);
}

/* ---- What experts are lent ---- */

static void test_lending(void **state) {
    (void)state;
    const float mean[] = {2, 0.5F, 1, 0, 0.25F, 3}, far[] = {9, 0.5F, 8, 0, 0.25F, 7}; /* triangles of 3 columns */
    assert_true(dm_calibration_lent(far, mean, 3, 0.0) == 1.0);
    assert_true(dm_calibration_lent(mean, mean, 3, 1e9) == 1.0); /* there is no difference to keep */
    double lent = 1.1;
    for (int power = 0; power < 6; power += 2) {
        const double now = dm_calibration_lent(far, mean, 3, pow(10.0, power));
        assert_true(now >= 0.0 && now <= 1.0 && (now < lent || now == 1.0));
        lent = now;
    }
    assert_true(lent < 1e-3);
    /* (trace^2 + norm^2) / tokens over the squared distance, by hand: trace 6, norm^2 14.625, distance^2 114 */
    assert_true(fabs(dm_calibration_lent(far, mean, 3, 10.0) - (36.0 + 14.625) / 10.0 / 114.0) < 1e-12);
    assert_true(fabs(dm_calibration_effective(3.0, 2.0) - 4.5) < 1e-12);
    assert_true(fabs(dm_calibration_mass(1.5, 4.0, 8) - 1.75) < 1e-12);
}

/* The statistics of an expert without tokens are the mean of its layer's; of one with tokens they keep its weight. */
static void test_given(void **state) {
    (void)state;
    const dm_config config = shape_of(DM_ARCH_QWEN3MOE, true);
    reference_model m;
    int32_t ids[TOKENS];
    reference_make(&m, &config, 9);
    dm_model *model = reference_open(&m, test_path("model.gguf"));
    for (int32_t i = 0; i < TOKENS; i++) {
        ids[i] = i % 2; /* few tokens: some experts see nothing */
    }
    const char *out = test_path("statistics");
    const dm_calibrate_options how = {.slopes = DM_SLOPES_GRADIENT};
    assert_int_equal(calibrate(model, ids, out, &how, NULL), DM_OK);
    dm_calibration *statistics = open_statistics(model, out);
    double weights = 0.0;
    for (int32_t e = 0; e < config.n_experts; e++) {
        dm_moments raw, given;
        assert_int_equal(dm_calibration_get_raw(statistics, 0, DM_FFN_GATE_EXPS, e, &raw), DM_OK);
        const double weight = raw.weight, first = (double)raw.diagonal[0];
        assert_int_equal(dm_calibration_get(statistics, 0, DM_FFN_GATE_EXPS, e, &given), DM_OK);
        assert_true(given.weight > weight);
        assert_true(given.weight < weight + 0.5 / TOKENS);
        assert_true(given.diagonal[0] > 0.0F);
        assert_true(raw.tokens > 0.0 || first == 0.0);
        assert_non_null(given.d);
        for (size_t r = 0; r < given.rows; r++) {
            assert_true(given.d[r] > 0.0F);
        }
        weights += weight;
    }
    assert_true(weights > 1.0 / 3.0 && weights < 1.0); /* of three gates that sum to 1 */
    dm_calibration_close(statistics);
    dm_model_close(model);
    reference_free(&m);
}

/* ---- Slopes ---- */

/* One matrix of a model, one expert's. */
static float *matrix_of(const reference_model *m, int32_t layer, dm_role role, int32_t expert, size_t elements) {
    for (size_t i = 0; i < m->count; i++) {
        if (m->specs[i].role == role && m->specs[i].layer == layer) {
            return m->weights[i] + (expert > 0 ? (size_t)expert * elements : 0);
        }
    }
    return NULL;
}

/* sum over r of d_r e_r^T h e_r */
static double predict(const dm_moments *about, const float *e) {
    double sum = 0.0;
    for (size_t r = 0; r < about->rows; r++) {
        const float *row = e + r * about->columns;
        for (size_t i = 0; i < about->columns; i++) {
            for (size_t j = 0; j < about->columns; j++) {
                sum += (double)about->d[r] * (double)row[i] * (double)about->h[i * about->columns + j] * (double)row[j];
            }
        }
    }
    return sum;
}

static double divergence_from(const dm_model *base, const reference_model *changed, const int32_t *ids, int32_t n) {
    dm_model *model = reference_open(changed, test_path("changed.gguf"));
    const dm_evaluate_options how = {.context = CONTEXT, .cache = DM_CACHE_F32};
    dm_evaluate_result result;
    assert_int_equal(dm_evaluate(model, base, NULL, ids, (size_t)n + 1, &how, NULL, NULL, &result), DM_OK);
    dm_model_close(model);
    return result.kl_mean;
}

/* The divergence that noise in a matrix makes, over the one predicted. */
static double ratio_of(const dm_model *base, reference_model *m, dm_calibration *statistics, int32_t layer, dm_role role,
                       int32_t expert, const int32_t *ids, int32_t n) {
    enum { DRAWS = 4 };
    dm_moments about;
    double measured = 0.0, predicted = 0.0;
    dm_random random;
    dm_random_seed(&random, (uint64_t)role + 1);
    assert_int_equal(dm_calibration_get_raw(statistics, layer, role, expert, &about), DM_OK);
    assert_non_null(about.d);
    const size_t elements = about.rows * about.columns;
    float *w = matrix_of(m, layer, role, expert, elements), *kept = malloc(elements * sizeof *kept);
    float *e = malloc(elements * sizeof *e);
    assert_non_null(w);
    memcpy(kept, w, elements * sizeof *w);
    for (int draw = 0; draw < DRAWS; draw++) {
        for (size_t i = 0; i < elements; i++) {
            w[i] = kept[i] + 0.05F * (float)dm_random_normal(&random) / sqrtf((float)about.columns);
            e[i] = w[i] - kept[i];
        }
        predicted += predict(&about, e);
        measured += divergence_from(base, m, ids, n);
    }
    memcpy(w, kept, elements * sizeof *w);
    free(kept);
    free(e);
    return measured / predicted;
}

static void check_slopes(dm_arch arch, bool experts, dm_slopes slopes) {
    enum { MANY = 40 * CONTEXT };
    static const dm_role roles[] = {DM_ATTN_QKV,      DM_ATTN_Q,       DM_ATTN_K,        DM_ATTN_V,        DM_ATTN_OUTPUT,
                                    DM_FFN_GATE,      DM_FFN_UP,       DM_FFN_DOWN,      DM_FFN_GATE_EXPS, DM_FFN_UP_EXPS,
                                    DM_FFN_DOWN_EXPS, DM_FFN_UP_SHEXP, DM_FFN_DOWN_SHEXP};
    const dm_config config = shape_of(arch, experts);
    const char *path = test_path("model.gguf"), *out = test_path("statistics");
    const dm_calibrate_options how = {.slopes = slopes, .context = CONTEXT, .tokens = MANY, .slope_tokens = MANY};
    int32_t ids[MANY + 1];
    reference_model m;
    dm_calibrate_result result;
    reference_make(&m, &config, 4);
    reference_ids(ids, MANY + 1, VOCAB, 8);
    dm_model *model = reference_open(&m, path);
    assert_int_equal(dm_calibrate(model, NULL, ids, MANY, out, &how, &result), DM_OK);
    dm_calibration *statistics = open_statistics(model, out);
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++) {
        const int32_t expert = dm_role_is_expert(roles[i]) ? 2 : -1;
        if (dm_calibration_has(statistics, 0, roles[i], expert)) {
            const double ratio = ratio_of(model, &m, statistics, 0, roles[i], expert, ids, MANY);
            print_message("%s, role %d: the divergence is %.2f of the one predicted\n", dm_arch_name(arch), (int)roles[i], ratio);
            assert_true(ratio > 0.5 && ratio < 2.0);
        }
    }
    dm_calibration_close(statistics);
    dm_model_close(model);
    reference_free(&m);
}

static void test_slopes_predict(void **state) {
    (void)state;
    if (DM_SLOW) {
        skip();
    }
    check_slopes(DM_ARCH_GPT2, false, DM_SLOPES_GRADIENT);
    check_slopes(DM_ARCH_QWEN3MOE, true, DM_SLOPES_GRADIENT);
    check_slopes(DM_ARCH_LLAMA, false, DM_SLOPES_MEASURED);
    check_slopes(DM_ARCH_QWEN2MOE, true, DM_SLOPES_MEASURED);
}

/* A model in memory whose weights can be changed. */
static dm_model *in_memory(const dm_parameters *p) {
    const float **weights = malloc(p->count * sizeof(float *));
    dm_model *model;
    for (size_t i = 0; i < p->count; i++) {
        weights[i] = p->weights + p->offsets[i];
    }
    assert_int_equal(dm_model_from_memory(&p->config, weights, p->expert_bias, &model), DM_OK);
    free(weights);
    return model;
}

/* The same of a trained mixture, where noise moves tokens to other experts: what that costs jumps, and varies from draw to draw.
 */
static void test_slopes_trained(void **state) {
    (void)state;
    enum { LENGTH = 128, MANY = 4 * LENGTH };
    static const dm_role roles[] = {DM_ATTN_Q, DM_ATTN_V, DM_ATTN_OUTPUT, DM_FFN_GATE_EXPS, DM_FFN_UP_EXPS, DM_FFN_DOWN_EXPS};
    const char *path = MODELS "ref-moe.gguf", *out = test_path("statistics");
    if (DM_SLOW) {
        skip();
    }
    need(path);
    dm_model *file;
    dm_tokenizer *tokenizer;
    dm_parameters original, changed;
    uint8_t *text;
    int32_t *ids;
    size_t n;
    assert_int_equal(dm_model_open(path, &file), DM_OK);
    assert_int_equal(dm_tokenizer_open(path, &tokenizer), DM_OK);
    assert_int_equal(dm_parameters_create(&file->config, DM_FOR_GRADIENTS, &original), DM_OK);
    assert_int_equal(dm_parameters_create(&file->config, DM_FOR_GRADIENTS, &changed), DM_OK);
    dm_parameters_copy(&original, file);
    dm_parameters_copy(&changed, file);
    dm_model *base = in_memory(&original);
    test_read(DM_SHARED_DIR "/data/corpus-valid.txt", &text);
    assert_int_equal(dm_tokenizer_encode(tokenizer, (const char *)text, 20000, 0, &ids, &n), DM_OK);
    assert_true(n > MANY);
    const dm_calibrate_options how = {.slopes = DM_SLOPES_SCALED, .context = LENGTH, .tokens = MANY, .slope_tokens = MANY};
    assert_int_equal(dm_calibrate(base, NULL, ids, MANY, out, &how, NULL), DM_OK);
    dm_calibration *statistics = open_statistics(base, out);
    dm_random random;
    dm_random_seed(&random, 12);
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++) {
        const bool of_experts = dm_role_is_expert(roles[i]);
        const size_t copies = of_experts ? (size_t)file->config.n_experts : 1;
        float *w = dm_parameter_weight(&changed, roles[i], 1);
        const float *kept = dm_parameter_weight(&original, roles[i], 1);
        double predicted = 0.0;
        for (size_t e = 0; e < copies; e++) { /* all experts at once: one alone hardly moves anything */
            dm_moments about;
            assert_int_equal(dm_calibration_get(statistics, 1, roles[i], of_experts ? (int32_t)e : -1, &about), DM_OK);
            const size_t elements = about.rows * about.columns, at = e * elements;
            float *error = malloc(elements * sizeof *error), size = 0.0F;
            for (size_t k = 0; k < elements; k++) {
                size += kept[at + k] * kept[at + k] / (float)elements;
            }
            for (size_t k = 0; k < elements; k++) {
                w[at + k] = kept[at + k] + 0.05F * sqrtf(size) * (float)dm_random_normal(&random);
                error[k] = w[at + k] - kept[at + k];
            }
            predicted += predict(&about, error);
            free(error);
        }
        dm_model *model = in_memory(&changed);
        const dm_evaluate_options as = {.context = LENGTH};
        dm_evaluate_result result;
        assert_int_equal(dm_evaluate(model, base, NULL, ids, MANY + 1, &as, NULL, NULL, &result), DM_OK);
        print_message("trained, role %d: the divergence is %.2f of the one predicted\n", (int)roles[i],
                      result.kl_mean / predicted);
        assert_true(result.kl_mean > 0.2 * predicted && result.kl_mean < 5.0 * predicted);
        dm_model_close(model);
        dm_parameters_copy(&changed, file);
    }
    dm_calibration_close(statistics);
    dm_model_close(base);
    dm_model_close(file);
    dm_tokenizer_close(tokenizer);
    dm_parameters_free(&original);
    dm_parameters_free(&changed);
    free(text);
    free(ids);
}

/* The gradients seen, summed over tokens. */
typedef struct seen_sums {
    double sums[DM_ROLES][128]; /* of layer 0 */
    size_t shown[DM_ROLES];
} seen_sums;

static void sum_gradients(void *user, const dm_gradient_seen *seen) {
    seen_sums *s = user;
    for (size_t i = 0; i < seen->n && seen->layer == 0; i++) {
        for (size_t c = 0; c < seen->columns; c++) {
            s->sums[seen->role][c] += (double)dm_row(seen->dy, i)[c];
        }
    }
    s->shown[seen->role] += seen->layer == 0;
}

static double loss_with(dm_network *network, const dm_gradient_watch *watch, const int32_t *ids) {
    static const int32_t targets[CONTEXT];
    double loss;
    dm_network_watch(network, watch);
    assert_int_equal(dm_network_gradients(network, ids, targets, 1, 1.0F, 0.0, &loss), DM_OK);
    dm_network_watch(network, NULL);
    return loss;
}

/* A bias is added to a matrix's result: the loss's slope along it is the sum over tokens of the gradient that is shown. */
static void test_gradients_shown(void **state) {
    (void)state;
    static const dm_role roles[][2] = {
        {DM_ATTN_QKV, DM_ATTN_QKV_B}, {DM_ATTN_OUTPUT, DM_ATTN_OUTPUT_B}, {DM_FFN_UP, DM_FFN_UP_B}, {DM_FFN_DOWN, DM_FFN_DOWN_B}};
    const dm_config config = shape_of(DM_ARCH_GPT2, false);
    const float step = 1e-2F;
    int32_t ids[CONTEXT];
    reference_model m;
    dm_parameters parameters;
    dm_network *network;
    seen_sums found = {0}, ignored = {0};
    const dm_gradient_watch watch = {sum_gradients, &found, 77}, other = {sum_gradients, &ignored, 77};
    reference_make(&m, &config, 6);
    reference_ids(ids, CONTEXT, VOCAB, 2);
    dm_model *model = reference_open(&m, test_path("model.gguf"));
    assert_int_equal(dm_parameters_create(&config, DM_FOR_GRADIENTS, &parameters), DM_OK);
    dm_parameters_copy(&parameters, model);
    assert_int_equal(dm_network_create(&parameters, 1, CONTEXT, DM_PRECISION_F32, NULL, &network), DM_OK);
    loss_with(network, &watch, ids);
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++) {
        float *bias = dm_parameter_weight(&parameters, roles[i][1], 0);
        assert_int_equal(found.shown[roles[i][0]], 1);
        for (size_t r = 0; r < 3; r++) {
            const size_t at = r * 11;
            const float kept = bias[at];
            bias[at] = kept + step;
            const double above = loss_with(network, &other, ids);
            bias[at] = kept - step;
            const double below = loss_with(network, &other, ids);
            bias[at] = kept;
            const double slope = (above - below) / (2.0 * (double)step), expected = found.sums[roles[i][0]][at];
            assert_true(fabs(slope - expected) <= 0.02 * fabs(expected) + 5e-3);
        }
    }
    dm_network_free(network);
    dm_parameters_free(&parameters);
    dm_model_close(model);
    reference_free(&m);
}

/* ---- Interruptions ---- */

static void interrupt_after(void *user, const dm_calibrate_progress *progress) {
    int *left = user;
    assert_true(progress->done <= progress->total);
    if (--*left == 0) {
        dm_interrupt();
    }
}

static void check_resuming(dm_arch arch, bool experts, dm_slopes slopes) {
    const dm_config config = shape_of(arch, experts);
    const char *path = test_path("model.gguf"), *out = test_path("statistics");
    reference_model m;
    int32_t ids[TOKENS];
    uint8_t *whole, *pieces;
    dm_calibrate_options how = {.slopes = slopes, .memory = 20000, .slope_tokens = 2 * CONTEXT};
    dm_calibrate_result result;
    reference_make(&m, &config, 31);
    reference_ids(ids, TOKENS, VOCAB, 5);
    dm_model *model = reference_open(&m, path);
    assert_int_equal(calibrate(model, ids, out, &how, &result), DM_OK);
    assert_true(result.passes > 2);
    const size_t size = test_read(out, &whole);
    unlink(out);
    int runs = 0, left = 0;
    dm_status status = DM_ERR_INTERRUPTED;
    how.on_step = interrupt_after;
    how.user = &left;
    for (; status == DM_ERR_INTERRUPTED && runs < 1000; runs++) {
        left = 3 + runs % 5;
        dm_interrupt_clear();
        status = calibrate(model, ids, out, &how, &result);
        assert_true((status == DM_OK) == (access(out, F_OK) == 0));
    }
    dm_interrupt_clear();
    assert_int_equal(status, DM_OK);
    assert_true(runs > 3 && result.resumed_tokens > 0);
    assert_int_equal(test_read(out, &pieces), size);
    assert_memory_equal(whole, pieces, size);
    assert_int_not_equal(access(test_path("statistics.part-0000"), F_OK), 0);
    free(whole);
    free(pieces);
    dm_model_close(model);
    reference_free(&m);
}

static void test_resuming(void **state) {
    (void)state;
    check_resuming(DM_ARCH_QWEN3MOE, true, DM_SLOPES_SCALED);
    if (!DM_SLOW) {
        check_resuming(DM_ARCH_GPT2, false, DM_SLOPES_MEASURED);
    }
}

/* ---- Importance matrices ---- */

static void check_imatrix(const dm_model *model, dm_calibration *statistics, const char *path) {
    dm_calibration *read = open_statistics(model, path);
    const dm_config *c = &model->config;
    for (int32_t e = 0; e < c->n_experts; e++) {
        dm_moments expected, found;
        assert_int_equal(dm_calibration_get_raw(statistics, 1, DM_FFN_DOWN_EXPS, e, &expected), DM_OK);
        assert_int_equal(dm_calibration_get_raw(read, 1, DM_FFN_DOWN_EXPS, e, &found), DM_OK);
        assert_null(found.h);
        for (size_t i = 0; i < found.columns && expected.weight > 0.0; i++) {
            const double one = (double)expected.diagonal[i] / expected.weight, other = (double)found.diagonal[i] / found.weight;
            assert_true(fabs(one - other) <= 1e-5 * one);
        }
    }
    for (dm_role role = DM_ATTN_Q; role <= DM_ATTN_V; role++) {
        dm_moments expected, found;
        assert_int_equal(dm_calibration_get(statistics, 0, role, -1, &expected), DM_OK);
        assert_int_equal(dm_calibration_get(read, 0, role, -1, &found), DM_OK);
        for (size_t i = 0; i < found.columns; i++) {
            assert_true(fabsf(found.diagonal[i] - expected.diagonal[i]) <= 1e-5F * expected.diagonal[i]);
        }
    }
    dm_calibration_close(read);
}

/* Both formats hold what was measured. */
static void test_imatrix_round_trip(void **state) {
    (void)state;
    const dm_config config = shape_of(DM_ARCH_QWEN3MOE, true);
    reference_model m;
    int32_t ids[TOKENS];
    reference_make(&m, &config, 14);
    reference_ids(ids, TOKENS, VOCAB, 6);
    dm_model *model = reference_open(&m, test_path("model.gguf"));
    const char *out = test_path("statistics"), *files[] = {test_path("i.gguf"), test_path("i.dat")};
    for (size_t i = 0; i < 2; i++) {
        const dm_calibrate_options how = {.slopes = DM_SLOPES_NONE, .imatrix = files[i]};
        assert_int_equal(calibrate(model, ids, out, &how, NULL), DM_OK);
        dm_calibration *statistics = open_statistics(model, out);
        check_imatrix(model, statistics, files[i]);
        dm_calibration_close(statistics);
        unlink(files[i]);
    }
    dm_model_close(model);
    reference_free(&m);
}

/* One entry of the older format: a name, how many calls, and values that are as many times the mean squares. */
static void put_entry(test_bytes *b, const char *name, uint32_t calls, uint32_t n) {
    put_u32(b, (uint32_t)strlen(name));
    put(b, name, strlen(name));
    put_u32(b, calls);
    put_u32(b, n);
    for (uint32_t i = 0; i < n; i++) {
        const float value = (float)(i + 1) * (float)calls;
        put(b, &value, sizeof value);
    }
}

static void test_imatrix_by_hand(void **state) {
    (void)state;
    const dm_config config = shape_of(DM_ARCH_LLAMA, false);
    const char *path = test_path("i.dat");
    reference_model m;
    reference_make(&m, &config, 14);
    dm_model *model = reference_open(&m, test_path("model.gguf"));
    test_bytes b = {.size = 0};
    put_u32(&b, 3);
    put_entry(&b, "blk.0.attn_q.weight", 7, 36);
    put_entry(&b, "blk.1.of_another_model.weight", 7, 5);
    put_entry(&b, "blk.1.ffn_down.weight", 2, 44);
    const size_t entries = b.size;
    put_u32(&b, 7);
    put_u32(&b, 4);
    put(&b, "text", 4);
    test_write(path, b.data, b.size);
    dm_calibration *read = open_statistics(model, path);
    dm_moments found;
    assert_true(dm_calibration_has(read, 0, DM_ATTN_V, -1));
    assert_false(dm_calibration_has(read, 1, DM_ATTN_V, -1));
    assert_int_equal(dm_calibration_get(read, 1, DM_FFN_DOWN, -1, &found), DM_OK);
    assert_true(found.diagonal[43] == 44.0F && found.columns == 44 && found.h == NULL && found.d == NULL);
    dm_calibration_close(read);
    for (size_t size = 0; size < entries; size++) { /* cut short anywhere in its entries: one line says so */
        test_write(path, b.data, size);
        assert_int_not_equal(dm_calibration_open(path, model, &read), DM_OK);
        assert_null(read);
    }
    b.size = 0;
    put_u32(&b, 1);
    put_entry(&b, "blk.0.attn_q.weight", 7, 35);
    test_write(path, b.data, b.size);
    assert_int_equal(dm_calibration_open(path, model, &read), DM_ERR_FORMAT);
    assert_non_null(strstr(dm_error_message(), "attn_q"));
    unlink(path);
    dm_model_close(model);
    reference_free(&m);
}

/* ---- Files from strangers ---- */

/* Everything in it is read, or refused. */
static void read_all(const dm_model *model, const char *path) {
    dm_calibration *statistics;
    if (dm_calibration_open(path, model, &statistics) != DM_OK) {
        assert_null(statistics);
        assert_true(strlen(dm_error_message()) > 0);
        return;
    }
    for (int role = 0; role < DM_ROLES; role++) {
        dm_moments found;
        const int32_t expert = dm_role_is_expert((dm_role)role) ? 1 : -1;
        if (dm_calibration_get(statistics, role == DM_OUTPUT ? -1 : 0, (dm_role)role, expert, &found) == DM_OK) {
            for (size_t i = 0; i < found.columns; i++) {
                assert_true(found.diagonal[i] >= 0.0F);
            }
        }
    }
    dm_calibration_close(statistics);
}

static void test_hostile(void **state) {
    (void)state;
    const dm_config config = shape_of(DM_ARCH_QWEN3MOE, true);
    const char *path = test_path("model.gguf"), *out = test_path("statistics");
    reference_model m, stranger;
    int32_t ids[TOKENS];
    uint8_t *bytes;
    dm_random random;
    reference_make(&m, &config, 21);
    reference_ids(ids, TOKENS, VOCAB, 5);
    dm_model *model = reference_open(&m, path);
    const dm_calibrate_options how = {.slopes = DM_SLOPES_GRADIENT};
    assert_int_equal(calibrate(model, ids, out, &how, NULL), DM_OK);
    const size_t size = test_read(out, &bytes);
    dm_random_seed(&random, 3);
    for (int i = 0; i < (DM_EMULATED ? 20 : 400); i++) {
        const size_t header = 12000, at = (size_t)(dm_random_next(&random) % (i % 4 == 0 ? size : header));
        const uint8_t kept = bytes[at];
        bytes[at] ^= (uint8_t)(1 + dm_random_next(&random) % 255);
        test_write(out, bytes, i % 10 == 0 ? at : size);
        read_all(model, out);
        bytes[at] = kept;
    }
    const float bad = NAN; /* the last number of the last tensor but one of 4 bytes and padding */
    for (size_t at = size - 64; at < size; at += 4) {
        memcpy(bytes + at, &bad, sizeof bad);
    }
    test_write(out, bytes, size);
    dm_calibration *statistics = open_statistics(model, out);
    dm_moments found;
    assert_int_equal(dm_calibration_get(statistics, 1, DM_FFN_DOWN_EXPS, config.n_experts - 1, &found), DM_ERR_FORMAT);
    dm_calibration_close(statistics);
    assert_int_equal(calibrate(model, ids, out, &how, NULL), DM_OK);
    reference_make(&stranger, &config, 22);
    dm_model *other = reference_open(&stranger, test_path("changed.gguf"));
    assert_int_equal(dm_calibration_open(out, other, &statistics), DM_ERR_ARGUMENT);
    assert_non_null(strstr(dm_error_message(), "another model"));
    assert_int_not_equal(dm_calibration_open(path, model, &statistics), DM_OK); /* a model is no statistics */
    dm_model_close(other);
    dm_model_close(model);
    free(bytes);
    reference_free(&m);
    reference_free(&stranger);
}

/* ---- Text ---- */

static void test_windows(void **state) {
    (void)state;
    int32_t ids[1000], window[64];
    dm_calibration_windows w;
    for (int32_t i = 0; i < 1000; i++) {
        ids[i] = i;
    }
    assert_int_equal(dm_calibration_windows_create(ids, 1000, 7777, 50, 200, 1, &w), DM_OK);
    assert_int_equal(w.count, 4);
    for (size_t i = 0; i < w.count; i++) { /* each in its quarter */
        assert_int_equal(dm_calibration_window(&w, i, window), 50);
        assert_true(window[1] > (int32_t)i * 250 && window[49] < (int32_t)(i + 1) * 250);
        assert_int_equal(window[0], window[1] == 1 ? 0 : 7777);
    }
    assert_int_equal(dm_calibration_windows_tokens(&w), 200);
    dm_calibration_windows_free(&w);
    assert_int_equal(dm_calibration_windows_create(ids, 130, -1, 50, 200, 1, &w), DM_OK);
    assert_int_equal(w.count, 3);
    assert_int_equal(dm_calibration_windows_tokens(&w), 130);
    dm_calibration_windows_free(&w);
    assert_int_equal(dm_calibration_windows_create(ids, 0, -1, 50, 200, 1, &w), DM_ERR_ARGUMENT);
}

/* Text that the model draws is its own: the tokens that it finds likely come more often. */
static void test_generated(void **state) {
    (void)state;
    const dm_config config = shape_of(DM_ARCH_LLAMA, false);
    enum { N = DM_EMULATED ? 40 : 400 };
    reference_model m;
    int32_t *ids, *again;
    reference_make(&m, &config, 2);
    dm_model *model = reference_open(&m, test_path("model.gguf"));
    assert_int_equal(dm_calibrate_generate(model, NULL, N, 0, 5, NULL, NULL, &ids), DM_OK);
    assert_int_equal(dm_calibrate_generate(model, NULL, N, 0, 5, NULL, NULL, &again), DM_OK);
    assert_memory_equal(ids, again, N * sizeof *ids);
    const dm_evaluate_options how = {.context = CONTEXT};
    dm_evaluate_result own, random;
    assert_int_equal(dm_evaluate(model, NULL, NULL, ids, N, &how, NULL, NULL, &own), DM_OK);
    reference_ids(again, N, VOCAB, 1);
    assert_int_equal(dm_evaluate(model, NULL, NULL, again, N, &how, NULL, NULL, &random), DM_OK);
    assert_true(own.nll < random.nll);
    free(ids);
    free(again);
    dm_model_close(model);
    reference_free(&m);
}

int main(void) {
    static const char *const left[] = {"model.gguf", "changed.gguf", "statistics", NULL};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_moments),         cmocka_unit_test(test_lending),
        cmocka_unit_test(test_given),           cmocka_unit_test(test_slopes_predict),
        cmocka_unit_test(test_slopes_trained),  cmocka_unit_test(test_gradients_shown),
        cmocka_unit_test(test_resuming),        cmocka_unit_test(test_imatrix_round_trip),
        cmocka_unit_test(test_imatrix_by_hand), cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_windows),         cmocka_unit_test(test_generated),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    test_remove(left);
    return failed;
}
