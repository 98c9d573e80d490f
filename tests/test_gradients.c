/* The gradients of the whole model: against another implementation where its figures are at hand, against finite
 * differences everywhere, and between the ways of computing the same thing. */
#include "reference.h"

#include <math.h>

#include "base/random.h"
#include "training/network.h"

enum { SEQUENCES = 2, LENGTH = 70 }; /* more than a block of queries, and not a multiple of anything */

static dm_config moe_shape(bool tied) {
    return (dm_config){
        .arch = DM_ARCH_QWEN3MOE,
        .n_layers = 2,
        .dim = 40,
        .n_heads = 4,
        .n_kv_heads = 2,
        .head_dim = 12,
        .n_experts = 6,
        .top_k = 3,
        .expert_dim = 20,
        .vocab = 97,
        .context = LENGTH,
        .norm_eps = 1e-6f,
        .rope_base = 10000.0f,
        .tied_output = tied,
    };
}

static dm_config gpt2_shape(void) {
    return (dm_config){
        .arch = DM_ARCH_GPT2,
        .n_layers = 2,
        .dim = 40,
        .n_heads = 4,
        .n_kv_heads = 4,
        .head_dim = 10,
        .ffn_dim = 72,
        .vocab = 97,
        .context = LENGTH,
        .norm_eps = 1e-5f,
        .tied_output = true,
    };
}

/* A model with weights that are not small, so that every path carries something, and a batch for it. */
typedef struct fixture {
    dm_parameters parameters;
    dm_network *network;
    int32_t ids[SEQUENCES * LENGTH], targets[SEQUENCES * LENGTH];
} fixture;

static void set_up(fixture *f, const dm_config *shape, size_t sequences, dm_precision precision,
                   const dm_train_routing_rules *rules) {
    dm_random random;
    dm_random_seed(&random, 11);
    assert_int_equal(dm_config_check(shape), DM_OK);
    assert_int_equal(dm_parameters_create(shape, DM_FOR_GRADIENTS, &f->parameters), DM_OK);
    const dm_parameters *p = &f->parameters;
    for (size_t i = 0; i < p->count; i++) {
        double centre = p->specs[i].n_dims == 1 && strstr(p->specs[i].name, ".weight") != NULL ? 1.0 : 0.0;
        for (size_t j = 0; j < p->specs[i].elements; j++) {
            p->weights[p->offsets[i] + j] = (float)(centre + 0.15 * dm_random_normal(&random));
        }
    }
    for (int i = 0; i < SEQUENCES * LENGTH; i++) {
        f->ids[i] = (int32_t)(dm_random_next(&random) % (uint64_t)shape->vocab);
        f->targets[i] = i % 13 == 5 ? -1 : (int32_t)(dm_random_next(&random) % (uint64_t)shape->vocab);
    }
    assert_int_equal(dm_network_create(&f->parameters, sequences, LENGTH, precision, rules, &f->network), DM_OK);
}

static void tear_down(fixture *f) {
    dm_network_free(f->network);
    dm_parameters_free(&f->parameters);
}

static double objective(fixture *f, double scale, const dm_router_losses *w) {
    double loss;
    assert_int_equal(dm_network_loss(f->network, f->ids, f->targets, SEQUENCES, &loss), DM_OK);
    const dm_router_losses *v = dm_network_router_losses(f->network);
    return scale * loss + w->switch_loss * v->switch_loss + w->balance_loss * v->balance_loss -
           w->cache_reward * v->cache_reward - w->swarm_reward * v->swarm_reward + w->nash_loss * v->nash_loss;
}

/* Each tensor's gradient along itself against the slope of the loss that way. */
static void check_slopes(const dm_config *shape, const dm_train_routing_rules *rules) {
    static fixture f;
    const double scale = 1.0 / (SEQUENCES * LENGTH);
    double loss;
    set_up(&f, shape, SEQUENCES, DM_PRECISION_F32, rules);
    const dm_parameters *p = &f.parameters;
    assert_int_equal(dm_network_gradients(f.network, f.ids, f.targets, SEQUENCES, (float)scale, 1.0, &loss), DM_OK);
    dm_network_fix_routing(f.network, true);
    for (size_t t = 0; t < p->count; t++) {
        const float *g = p->gradients + p->offsets[t];
        float *w = p->weights + p->offsets[t];
        size_t n = p->specs[t].elements;
        double norm = 0.0;
        for (size_t i = 0; i < n; i++) {
            norm += (double)g[i] * (double)g[i];
        }
        norm = sqrt(norm);
        assert_true(norm > 1e-6);
        float *kept = malloc(n * sizeof(float));
        memcpy(kept, w, n * sizeof(float));
        double h = 0.02;
        double losses[4];
        for (int s = 0; s < 4; s++) {
            double at = s < 2 ? s - 2.0 : s - 1.0;
            for (size_t i = 0; i < n; i++) {
                w[i] = (float)((double)kept[i] + at * h * (double)g[i] / norm);
            }
            losses[s] = objective(&f, scale, &rules->weights);
        }
        memcpy(w, kept, n * sizeof(float));
        free(kept);
        double slope = (8.0 * (losses[2] - losses[1]) - (losses[3] - losses[0])) / (12.0 * h);
        if (!(fabs(slope - norm) <= 2e-3 * norm + 2e-6)) {
            fail_msg("%s: gradient %.9g, finite differences %.9g", p->specs[t].name, norm, slope);
        }
    }
    tear_down(&f);
}

static void slopes_of_qwen3moe(void **state) {
    (void)state;
    const dm_config apart = moe_shape(false);
    const dm_config tied = moe_shape(true);
    const dm_train_routing_rules none = {0}, balanced = {.weights.switch_loss = 0.5};
    check_slopes(&apart, &none);
    check_slopes(&tied, &balanced);
}

/* A game with all costs, its losses and rewards heavy enough to be seen. The Nash loss, whose slope holds where tokens stand
 * fixed, has no differences to be compared with: see below. */
static dm_train_routing_rules all_rules(void) {
    return (dm_train_routing_rules){
        .plays = true,
        .game = {.n_experts = 6, .top_k = 3, .min_experts = 3, .flock = 5, .keep_top = 1, .sweeps = 3, .beta = 0.4, .gamma = 0.1},
        .weights = {.switch_loss = 0.5, .balance_loss = 0.7, .cache_reward = 0.9, .swarm_reward = 2.0},
        .cache_slots = 4,
    };
}

static void slopes_of_all_terms(void **state) {
    (void)state;
    const dm_config shape = moe_shape(true);
    dm_train_routing_rules rules = all_rules();
    check_slopes(&shape, &rules);
    rules.plays = false;
    if (!DM_EMULATED) {
        check_slopes(&shape, &rules);
    }
}

static void slopes_with_fewer_experts(void **state) {
    (void)state;
    if (DM_EMULATED) {
        print_message("skipped: the emulator has enough to do with all of a token's experts\n");
        skip();
    }
    const dm_config shape = moe_shape(true);
    dm_train_routing_rules rules = all_rules();
    rules.game.min_experts = 1;
    rules.game.theta = 0.3;
    check_slopes(&shape, &rules);
}

/* All gradients of a batch with the Nash loss's weight; malloc. */
static float *gradients_with(double weight) {
    static fixture f;
    const dm_config shape = moe_shape(true);
    dm_train_routing_rules rules = all_rules();
    rules.weights.nash_loss = weight;
    double loss;
    set_up(&f, &shape, SEQUENCES, DM_PRECISION_F32, &rules);
    assert_int_equal(dm_network_gradients(f.network, f.ids, f.targets, SEQUENCES, 0.01f, 1.0, &loss), DM_OK);
    float *copy = malloc(f.parameters.total * sizeof *copy);
    assert_non_null(copy);
    memcpy(copy, f.parameters.gradients, f.parameters.total * sizeof *copy);
    copy[0] = (float)f.parameters.total; /* the first is of no interest here, their number is */
    tear_down(&f);
    return copy;
}

/* It adds to the others in proportion to its weight. Its slopes themselves: tests/test_swarm_loss.c. */
static void slope_of_the_nash_loss(void **state) {
    (void)state;
    float *none = gradients_with(0.0), *once = gradients_with(1.0), *thrice = gradients_with(3.0);
    double difference = 0.0, size = 0.0;
    for (size_t i = 1; i < (size_t)none[0]; i++) {
        double one = (double)once[i] - (double)none[i], three = (double)thrice[i] - (double)none[i];
        difference += (three - 3.0 * one) * (three - 3.0 * one);
        size += three * three;
    }
    assert_true(size > 1e-8 && difference < 1e-8 * size);
    free(none);
    free(once);
    free(thrice);
}

static void slopes_of_gpt2(void **state) {
    (void)state;
    const dm_config shape = gpt2_shape();
    const dm_train_routing_rules none = {0};
    check_slopes(&shape, &none);
}

static double relative_difference(const dm_parameters *p, const float *other) {
    double difference = 0.0;
    double norm = 0.0;
    for (size_t i = 0; i < p->total; i++) {
        double d = (double)p->gradients[i] - (double)other[i];
        difference += d * d;
        norm += (double)other[i] * (double)other[i];
    }
    return sqrt(difference / norm);
}

/* Sequence by sequence, gradients add up to those of the batch; and bfloat16 stays near float32. */
static void accumulation_and_precision(void **state) {
    (void)state;
    static fixture whole, parts, rough;
    const dm_config shape = moe_shape(true);
    const float scale = 1.0f / (SEQUENCES * LENGTH);
    double loss, part, sum = 0.0;
    set_up(&whole, &shape, SEQUENCES, DM_PRECISION_F32, NULL);
    set_up(&parts, &shape, 1, DM_PRECISION_F32, NULL);
    set_up(&rough, &shape, SEQUENCES, DM_PRECISION_BF16, NULL);
    assert_int_equal(dm_network_gradients(whole.network, whole.ids, whole.targets, SEQUENCES, scale, 0.0, &loss), DM_OK);
    for (size_t s = 0; s < SEQUENCES; s++) {
        assert_int_equal(
            dm_network_gradients(parts.network, parts.ids + s * LENGTH, parts.targets + s * LENGTH, 1, scale, 0.0, &part), DM_OK);
        sum += part;
    }
    assert_true(fabs(sum - loss) <= 1e-6 * loss);
    assert_true(relative_difference(&parts.parameters, whole.parameters.gradients) < 1e-5);
    assert_int_equal(dm_network_gradients(rough.network, rough.ids, rough.targets, SEQUENCES, scale, 0.0, &part), DM_OK);
    assert_true(fabs(part - loss) <= 0.02 * loss);
    double error = relative_difference(&rough.parameters, whole.parameters.gradients);
    assert_true(error > 1e-5 && error < 0.2);
    tear_down(&whole);
    tear_down(&parts);
    tear_down(&rough);
}

/* The loss of early positions does not depend on later tokens. */
static void later_tokens_change_nothing_earlier(void **state) {
    (void)state;
    static fixture f;
    const dm_config shapes[2] = {moe_shape(true), gpt2_shape()};
    dm_train_routing_rules adaptive = all_rules();
    adaptive.game.min_experts = 1;
    adaptive.game.theta = 0.3;
    for (int a = 0; a < 2; a++) {
        double before, after;
        set_up(&f, &shapes[a], SEQUENCES, DM_PRECISION_F32, a == 0 ? &adaptive : NULL);
        for (int i = 0; i < SEQUENCES * LENGTH; i++) {
            f.targets[i] = i % LENGTH < 30 ? f.targets[i] : -1;
        }
        assert_int_equal(dm_network_loss(f.network, f.ids, f.targets, SEQUENCES, &before), DM_OK);
        for (int i = 0; i < SEQUENCES * LENGTH; i++) {
            f.ids[i] = i % LENGTH < 30 ? f.ids[i] : (f.ids[i] + 1) % shapes[a].vocab;
        }
        assert_int_equal(dm_network_loss(f.network, f.ids, f.targets, SEQUENCES, &after), DM_OK);
        assert_true(fabs(before - after) <= 1e-9 * before);
        f.ids[0] = (f.ids[0] + 1) % shapes[a].vocab;
        assert_int_equal(dm_network_loss(f.network, f.ids, f.targets, SEQUENCES, &after), DM_OK);
        assert_true(fabs(before - after) > 1e-6 * before);
        tear_down(&f);
    }
}

static void same_threads_same_bits(void **state) {
    (void)state;
    static fixture a, b;
    const dm_config shape = moe_shape(true);
    double first, second;
    const dm_train_routing_rules rules = all_rules();
    set_up(&a, &shape, SEQUENCES, DM_PRECISION_F32, &rules);
    set_up(&b, &shape, SEQUENCES, DM_PRECISION_F32, &rules);
    assert_int_equal(dm_network_gradients(a.network, a.ids, a.targets, SEQUENCES, 1.0f, 0.5, &first), DM_OK);
    assert_int_equal(dm_network_gradients(b.network, b.ids, b.targets, SEQUENCES, 1.0f, 0.5, &second), DM_OK);
    assert_true(first == second);
    assert_memory_equal(a.parameters.gradients, b.parameters.gradients, a.parameters.total * sizeof(float));
    tear_down(&a);
    tear_down(&b);
}

/* A game without costs over all experts is the model's own choice: the same bits. */
static void free_experts_are_the_models_choice(void **state) {
    (void)state;
    static fixture a, b;
    const dm_config shape = moe_shape(true);
    dm_train_routing_rules plays = all_rules();
    double first, second;
    plays.game.flock = 6;
    plays.game.beta = plays.game.gamma = 0.0;
    dm_train_routing_rules model = plays;
    model.plays = false;
    set_up(&a, &shape, SEQUENCES, DM_PRECISION_F32, &plays);
    set_up(&b, &shape, SEQUENCES, DM_PRECISION_F32, &model);
    assert_int_equal(dm_network_gradients(a.network, a.ids, a.targets, SEQUENCES, 1.0f, 0.5, &first), DM_OK);
    assert_int_equal(dm_network_gradients(b.network, b.ids, b.targets, SEQUENCES, 1.0f, 0.5, &second), DM_OK);
    assert_true(first == second);
    assert_memory_equal(a.parameters.gradients, b.parameters.gradients, a.parameters.total * sizeof(float));
    tear_down(&a);
    tear_down(&b);
}

static void bad_batches_are_refused(void **state) {
    (void)state;
    static fixture f;
    const dm_config shape = gpt2_shape();
    double loss;
    set_up(&f, &shape, 2, DM_PRECISION_F32, NULL);
    assert_int_equal(dm_network_loss(f.network, f.ids, f.targets, 3, &loss), DM_ERR_ARGUMENT);
    assert_int_equal(dm_network_loss(f.network, f.ids, f.targets, 0, &loss), DM_ERR_ARGUMENT);
    f.ids[3] = shape.vocab;
    assert_int_equal(dm_network_loss(f.network, f.ids, f.targets, 2, &loss), DM_ERR_ARGUMENT);
    f.ids[3] = 0;
    f.targets[9] = -2;
    assert_int_equal(dm_network_loss(f.network, f.ids, f.targets, 2, &loss), DM_ERR_ARGUMENT);
    dm_network *network;
    assert_int_equal(dm_network_create(&f.parameters, 1, LENGTH + 1, DM_PRECISION_F32, NULL, &network), DM_ERR_ARGUMENT);
    tear_down(&f);
}

/* ---- Through the public function ---- */

static void reference_gradients(void **state) {
    (void)state;
    need(MODELS "ids.txt");
    int32_t n;
    int32_t *ids = read_ids(MODELS "ids.txt", &n);
    const dm_gradcheck_options options = {.aux = 0.01, .reference = MODELS "qwen3moe-tiny.grad.gguf"};
    dm_gradcheck_result result;
    assert_int_equal(dm_gradcheck(MODELS "qwen3moe-tiny.gguf", ids, (size_t)n, &options, &result), DM_OK);
    assert_true(fabs(result.loss - 6.730229377746582) < 1e-5);
    assert_true(fabs(result.cross_entropy - 6.719101428985596) < 1e-5);
    assert_true(fabs(result.aux_loss - 1.1127948760986328) < 1e-5);
    assert_int_equal(result.n_tensors, 27);
    assert_true(result.max_relative_error < 1e-5);
    free(result.tensors);
    free(ids);
}

static void finite_differences_of_files(void **state) {
    (void)state;
    if (DM_EMULATED) {
        print_message("skipped: takes minutes in an emulator\n");
        skip();
    }
    need(MODELS "ids.txt");
    int32_t n;
    int32_t *ids = read_ids(MODELS "ids.txt", &n);
    static const char *const models[] = {MODELS "gpt2-tiny.gguf", MODELS "qwen3moe-tiny.gguf"};
    const dm_gradcheck_options all = {0.01, 0.1, 0.05, 0.03, NULL, "f32"};
    for (int i = 0; i < 2; i++) {
        dm_gradcheck_result result;
        assert_int_equal(dm_gradcheck(models[i], ids, (size_t)n, i == 1 ? &all : NULL, &result), DM_OK);
        assert_true(result.max_relative_error < 2e-3);
        free(result.tensors);
    }
    dm_gradcheck_result result;
    assert_int_equal(dm_gradcheck(models[0], ids, (size_t)n, &all, &result), DM_ERR_ARGUMENT); /* no experts */
    free(ids);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slopes_of_qwen3moe),         cmocka_unit_test(slopes_of_gpt2),
        cmocka_unit_test(slopes_of_all_terms),        cmocka_unit_test(slopes_with_fewer_experts),
        cmocka_unit_test(slope_of_the_nash_loss),     cmocka_unit_test(free_experts_are_the_models_choice),
        cmocka_unit_test(accumulation_and_precision), cmocka_unit_test(later_tokens_change_nothing_earlier),
        cmocka_unit_test(same_threads_same_bits),     cmocka_unit_test(bad_batches_are_refused),
        cmocka_unit_test(reference_gradients),        cmocka_unit_test(finite_differences_of_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
