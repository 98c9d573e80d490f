/* Routing in training: tokens with fewer experts against plain loops, and the game and its prices over whole steps. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/random.h"
#include "training/experts.h"
#include "training/network.h"
#include "training/settle.h"

/* ---- One layer whose tokens use 1 to K experts ---- */

enum { N = 300, DIM = 24, WIDTH = 20, EXPERTS = 5, K = 3 };

typedef struct layer {
    float router[EXPERTS * DIM], gate[EXPERTS * WIDTH * DIM], up[EXPERTS * WIDTH * DIM], down[EXPERTS * DIM * WIDTH];
    float d_router[EXPERTS * DIM], d_gate[EXPERTS * WIDTH * DIM], d_up[EXPERTS * WIDTH * DIM], d_down[EXPERTS * DIM * WIDTH];
    float x[N * DIM], y[N * DIM], dy[N * DIM], dx[N * DIM];
    float p[N * EXPERTS], gates[N * K], gate_out[N * K * WIDTH], up_out[N * K * WIDTH];
    int32_t experts[N * K], place[N * K], token[N * K], offsets[EXPERTS + 1];
    uint64_t loads[EXPERTS];
    float pairs[N * K * DIM], dlogits[N * EXPERTS], dgates[N * K], weights[N * K], slopes[EXPERTS];
    int32_t tasks[2 * (N * K / DM_EXPERT_PIECE + EXPERTS)];
} layer;

static void fill(float *values, size_t n, dm_random *random, double size) {
    for (size_t i = 0; i < n; i++) {
        values[i] = (float)(size * dm_random_normal(random));
    }
}

/* Expert 4 is nobody's, expert 0 everybody's. */
static void make_layer(layer *l) {
    dm_random random;
    dm_random_seed(&random, 5);
    memset(l, 0, sizeof *l);
    fill(l->router, EXPERTS * DIM, &random, 0.2);
    fill(l->gate, EXPERTS * WIDTH * DIM, &random, 0.2);
    fill(l->up, EXPERTS * WIDTH * DIM, &random, 0.2);
    fill(l->down, EXPERTS * DIM * WIDTH, &random, 0.2);
    fill(l->x, N * DIM, &random, 1.0);
    fill(l->dy, N * DIM, &random, 1.0);
    for (int32_t t = 0; t < N; t++) {
        int32_t *experts = l->experts + (ptrdiff_t)t * K;
        experts[0] = 0;
        experts[1] = t % 3 == 0 ? -1 : 1 + t % 2;
        experts[2] = t % 3 == 1 ? 3 : -1;
    }
}

/* y += gate * down(silu(gate x) * up x) in double precision. */
static void plain_expert(const layer *l, size_t e, const float *x, double gate, double *y) {
    for (size_t w = 0; w < WIDTH; w++) {
        double g = 0.0, u = 0.0;
        for (size_t d = 0; d < DIM; d++) {
            g += (double)l->gate[(e * WIDTH + w) * DIM + d] * (double)x[d];
            u += (double)l->up[(e * WIDTH + w) * DIM + d] * (double)x[d];
        }
        double h = g / (1.0 + exp(-g)) * u;
        for (size_t d = 0; d < DIM; d++) {
            y[d] += gate * (double)l->down[(e * DIM + d) * WIDTH + w] * h;
        }
    }
}

static void plain_token(const layer *l, size_t t, double y[DIM]) {
    double weight[K], total = 0.0;
    memset(y, 0, DIM * sizeof *y);
    for (size_t j = 0; j < K && l->experts[t * K + j] >= 0; j++) {
        double logit = 0.0;
        for (size_t d = 0; d < DIM; d++) {
            logit += (double)l->router[(size_t)l->experts[t * K + j] * DIM + d] * (double)l->x[t * DIM + d];
        }
        weight[j] = exp(logit);
        total += weight[j];
    }
    for (size_t j = 0; j < K && l->experts[t * K + j] >= 0; j++) {
        plain_expert(l, (size_t)l->experts[t * K + j], l->x + t * DIM, weight[j] / total, y);
    }
}

/* <dy, y> by plain loops: what the gradients are of. */
static double plain_objective(const layer *l) {
    double sum = 0.0;
    for (size_t t = 0; t < N; t++) {
        double y[DIM];
        plain_token(l, t, y);
        for (size_t d = 0; d < DIM; d++) {
            sum += y[d] * (double)l->dy[t * DIM + d];
        }
    }
    return sum;
}

static void check_gradient(const layer *l, float *weights, const float *gradient, size_t n, const char *name) {
    double norm = 0.0;
    float *kept = malloc(n * sizeof *kept);
    memcpy(kept, weights, n * sizeof *kept);
    for (size_t i = 0; i < n; i++) {
        norm += (double)gradient[i] * (double)gradient[i];
    }
    norm = sqrt(norm);
    double objective[2];
    for (int s = 0; s < 2; s++) {
        for (size_t i = 0; i < n; i++) {
            weights[i] = (float)((double)kept[i] + (s == 0 ? -0.002 : 0.002) * (double)gradient[i] / norm);
        }
        objective[s] = plain_objective(l);
    }
    memcpy(weights, kept, n * sizeof *kept);
    free(kept);
    double slope = (objective[1] - objective[0]) / 0.004;
    if (!(fabs(slope - norm) <= 2e-3 * norm)) {
        fail_msg("%s: gradient %g, plain loops %g", name, norm, slope);
    }
}

static void fewer_experts_against_plain_loops(void **state) {
    (void)state;
    layer *l = malloc(sizeof *l);
    float *per_thread = malloc((size_t)dm_threads() * dm_experts_scratch_floats(DIM, WIDTH) * sizeof *per_thread);
    assert_true(l != NULL && per_thread != NULL);
    make_layer(l);
    const dm_experts experts = {.dim = DIM,
                                .expert_dim = WIDTH,
                                .router = {.n_experts = EXPERTS, .top_k = K, .given = true},
                                .precision = DM_PRECISION_F32,
                                .router_weight = l->router,
                                .gate = l->gate,
                                .up = l->up,
                                .down = l->down};
    const dm_experts_gradient gradient = {l->d_router, l->d_gate, l->d_up, l->d_down};
    dm_experts_state s = {.p = {l->p, EXPERTS},
                          .experts = l->experts,
                          .gates = l->gates,
                          .place = l->place,
                          .token = l->token,
                          .offsets = l->offsets,
                          .loads = l->loads,
                          .gate_out = {l->gate_out, WIDTH},
                          .up_out = {l->up_out, WIDTH}};
    dm_experts_scratch scratch = {.pairs = {l->pairs, DIM},
                                  .dlogits = {l->dlogits, EXPERTS},
                                  .dgates = l->dgates,
                                  .weights = l->weights,
                                  .slopes = l->slopes,
                                  .tasks = l->tasks,
                                  .per_thread = per_thread};
    const dm_rows x = {l->x, DIM}, y = {l->y, DIM}, dx = {l->dx, DIM}, dy = {l->dy, DIM};
    const dm_router_slopes none = {0};
    assert_int_equal(dm_experts_score(&experts, &s, x, N), DM_OK);
    dm_experts_route(&experts, &s, N);
    assert_int_equal(l->offsets[EXPERTS], N + 2 * N / 3 + N / 3);
    assert_int_equal(l->loads[0], N);
    assert_int_equal(l->loads[4], 0);
    assert_int_equal(dm_experts_forward(&experts, &s, &scratch, y, x, N), DM_OK);
    for (size_t t = 0; t < N; t++) {
        double expected[DIM];
        plain_token(l, t, expected);
        for (size_t d = 0; d < DIM; d++) {
            assert_true(fabs((double)l->y[t * DIM + d] - expected[d]) < 1e-4);
        }
    }
    assert_int_equal(dm_experts_backward(&experts, &gradient, &s, &scratch, dx, dy, x, N, &none), DM_OK);
    check_gradient(l, l->router, l->d_router, EXPERTS * DIM, "router");
    check_gradient(l, l->gate, l->d_gate, EXPERTS * WIDTH * DIM, "gate");
    check_gradient(l, l->up, l->d_up, EXPERTS * WIDTH * DIM, "up");
    check_gradient(l, l->down, l->d_down, EXPERTS * DIM * WIDTH, "down");
    check_gradient(l, l->x, l->dx, N * DIM, "x");
    free(per_thread);
    free(l);
}

/* ---- Prices ---- */

/* The method of multipliers on a router that prefers some experts: crowding ends even, and the choice by affinity and
 * price alone is balanced, too. */
static void prices_take_over_from_crowding(void **state) {
    (void)state;
    enum { TOKENS = 400, MANY = 8 };
    static float logits[TOKENS * MANY];
    static int32_t experts[TOKENS * 2];
    static float gates[TOKENS * 2];
    const dm_train_routing_rules rules = {
        .plays = true, .game = {.n_experts = MANY, .top_k = 2, .min_experts = 2, .flock = 7, .sweeps = 4, .beta = 2.0}};
    const dm_router by_price = {.n_experts = MANY, .top_k = 2};
    float bias[MANY] = {0};
    double before = 0.0, after = 0.0, crowded = 0.0;
    dm_train_routing *routing;
    dm_random random;
    dm_random_seed(&random, 3);
    assert_int_equal(dm_train_routing_create(&rules, TOKENS, &routing), DM_OK);
    for (int step = 0; step <= 200; step++) {
        uint64_t loads[MANY] = {0}, own[MANY] = {0};
        for (size_t i = 0; i < TOKENS * MANY; i++) {
            logits[i] = (float)(dm_random_normal(&random) + 0.4 * (double)(i % MANY));
        }
        assert_true(dm_train_routing_choose(routing, (dm_rows){logits, MANY}, bias, TOKENS, true, experts, NULL));
        dm_router_count(experts, TOKENS, 2, loads);
        assert_false(dm_train_routing_choose(routing, (dm_rows){logits, MANY}, bias, TOKENS, false, experts, NULL));
        dm_router router = by_price;
        router.bias = bias;
        dm_router_route(&router, logits, TOKENS, experts, gates);
        dm_router_count(experts, TOKENS, 2, own);
        before = step == 0 ? dm_router_maxvio(own, MANY) : before;
        crowded = step == 0 ? dm_router_maxvio(loads, MANY) : crowded;
        after += step > 100 ? dm_router_maxvio(own, MANY) / 100 : 0.0;
        dm_train_routing_persist(bias, loads, TOKENS, &rules.game, 0.1);
    }
    assert_int_equal(dm_train_routing_figures_of(routing)->games, 201);
    assert_true(dm_train_routing_figures_of(routing)->sweeps <= 4 * 201);
    print_message("MaxVio %.2f by the model, %.2f by the game; %.2f by affinity and price\n", before, crowded, after);
    assert_true(before > 1.0 && crowded < 0.4 * before && after < 0.2);
    dm_train_routing_free(routing);
}

/* ---- Settling ---- */

enum { SEQUENCES = 8, LENGTH = 16, WORDS = 40 };

typedef struct text {
    dm_network *network;
    dm_random random;
    int32_t passes; /* read; at `stop` of them the reader gives up */
    int32_t stop;
} text;

static dm_status read_text(void *user) {
    text *t = user;
    int32_t ids[SEQUENCES * LENGTH];
    double loss;
    if (t->passes++ == t->stop) {
        return DM_ERR_INTERRUPTED;
    }
    for (size_t i = 0; i < (size_t)SEQUENCES * LENGTH; i++) {
        ids[i] = (int32_t)(dm_random_next(&t->random) % WORDS);
    }
    return dm_network_loss(t->network, ids, ids, SEQUENCES, &loss);
}

/* MaxVio of the network's own choice over much text, mean over layers. */
static double maxvio_of(text *t, const dm_config *c) {
    uint64_t loads[2 * 8] = {0};
    double maxvio = 0.0;
    for (int pass = 0; pass < 50; pass++) {
        assert_int_equal(read_text(t), DM_OK);
        for (size_t i = 0; i < 16; i++) {
            loads[i] += dm_network_loads(t->network)[i];
        }
    }
    for (int32_t l = 0; l < c->n_layers; l++) {
        maxvio += dm_router_maxvio(loads + (size_t)l * 8, c->n_experts) / c->n_layers;
    }
    return maxvio;
}

static void prices_settle_where_loads_are_even(void **state) {
    (void)state;
    const dm_config c = {.arch = DM_ARCH_QWEN3MOE,
                         .n_layers = 2,
                         .dim = 32,
                         .n_heads = 2,
                         .n_kv_heads = 1,
                         .head_dim = 16,
                         .n_experts = 8,
                         .top_k = 2,
                         .expert_dim = 16,
                         .vocab = WORDS,
                         .context = LENGTH,
                         .norm_eps = 1e-6f,
                         .rope_base = 10000.0f,
                         .tied_output = true};
    dm_parameters p;
    text t = {.stop = -1};
    float before[16];
    dm_random_seed(&t.random, 4);
    assert_int_equal(dm_parameters_create(&c, DM_FOR_GRADIENTS, &p), DM_OK);
    for (size_t i = 0; i < p.total; i++) {
        p.weights[i] = (float)(0.4 * dm_random_normal(&t.random));
    }
    for (size_t i = 0; i < 16; i++) {
        p.expert_bias[i] = 0.3f * (float)(i % 8); /* some are preferred */
    }
    memcpy(before, p.expert_bias, sizeof before);
    assert_int_equal(dm_network_create(&p, SEQUENCES, LENGTH, DM_PRECISION_F32, NULL, &t.network), DM_OK);
    double uneven = maxvio_of(&t, &c);
    t.passes = 0;
    t.stop = 20; /* given up on, all is as it was */
    assert_int_equal(dm_settle_prices(t.network, &c, p.expert_bias, 60, read_text, &t), DM_ERR_INTERRUPTED);
    assert_memory_equal(before, p.expert_bias, sizeof before);
    t.stop = -1;
    t.passes = 0;
    assert_int_equal(dm_settle_prices(t.network, &c, p.expert_bias, 60, read_text, &t), DM_OK);
    assert_int_equal(t.passes, 60);
    double even = maxvio_of(&t, &c);
    print_message("MaxVio %.2f before, %.3f settled\n", uneven, even);
    assert_true(uneven > 0.4 && even < 0.25 * uneven); /* few words make lumps that no price divides */
    dm_network_free(t.network);
    dm_parameters_free(&p);
}

/* ---- Whole steps ---- */

/* Tokens that choose alone use fewer experts where theta asks for it, by prices that are frozen. */
static void fewer_experts_outside_training(void **state) {
    (void)state;
    enum { TOKENS = 50, MANY = 6 };
    float logits[TOKENS * MANY], bias[MANY] = {0.0f, 0.5f, 0.0f, -0.5f, 0.0f, 0.0f};
    int32_t experts[TOKENS * 3];
    const dm_train_routing_rules rules = {
        .plays = true,
        .game = {.n_experts = MANY, .top_k = 3, .min_experts = 1, .flock = 6, .sweeps = 2, .beta = 9.0, .theta = 0.4}};
    dm_train_routing *routing;
    dm_random random;
    dm_random_seed(&random, 8);
    fill(logits, TOKENS * MANY, &random, 1.0);
    assert_int_equal(dm_train_routing_create(&rules, TOKENS, &routing), DM_OK);
    assert_true(dm_train_routing_choose(routing, (dm_rows){logits, MANY}, bias, TOKENS, false, experts, NULL));
    size_t chosen = 0;
    for (size_t t = 0; t < TOKENS; t++) {
        double best = -INFINITY, previous = INFINITY;
        for (size_t e = 0; e < MANY; e++) {
            best = fmax(best, (double)(logits[t * MANY + e] + bias[e]));
        }
        size_t wanted = 0, got = 0;
        for (size_t e = 0; e < MANY; e++) {
            wanted += (double)(logits[t * MANY + e] + bias[e]) > best + log(0.4);
        }
        for (; got < 3 && experts[t * 3 + got] >= 0; got++) {
            double affinity = (double)(logits[t * MANY + (size_t)experts[t * 3 + got]] + bias[experts[t * 3 + got]]);
            assert_true(affinity <= previous);
            previous = affinity;
        }
        assert_int_equal(got, wanted < 3 ? wanted : 3);
        chosen += got;
    }
    assert_true(chosen > TOKENS && chosen < 3 * TOKENS);
    assert_int_equal(dm_train_routing_figures_of(routing)->games, 0);
    dm_train_routing_free(routing);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fewer_experts_against_plain_loops),
        cmocka_unit_test(prices_take_over_from_crowding),
        cmocka_unit_test(prices_settle_where_loads_are_even),
        cmocka_unit_test(fewer_experts_outside_training),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
