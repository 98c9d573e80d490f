/* One backward pass judged: against the gradients of another implementation, or against finite differences. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/random.h"
#include "kernels/vector.h"
#include "training/network.h"
#include "training/router_losses.h"

/* Length of a finite-difference step over that of the tensor: small against curvature, large against rounding. */
static const double STEP = 2e-3;

typedef struct check {
    dm_parameters parameters;
    dm_network *network;
    const int32_t *ids; /* [n] */
    int32_t *targets;   /* [n] the next id, -1 for the last, which is routed but predicts nothing */
    size_t n;
    dm_router_losses weights;
} check;

/* What the router's losses and rewards add. */
static double of_router(const check *c) {
    const dm_router_losses *w = &c->weights, *values = dm_network_router_losses(c->network);
    return w->switch_loss * values->switch_loss + w->balance_loss * values->balance_loss -
           w->cache_reward * values->cache_reward - w->swarm_reward * values->swarm_reward;
}

/* cross-entropy (mean) and what the router's losses add, at the parameters as they are. */
static dm_status total_loss(const check *c, double *loss) {
    DM_TRY(dm_network_loss(c->network, c->ids, c->targets, 1, loss));
    *loss = *loss / (double)(c->n - 1) + of_router(c);
    return DM_OK;
}

/* ---- Against a file ---- */

static dm_status compare_with_file(const check *c, const dm_gguf *file, dm_gradcheck_result *result) {
    const dm_parameters *p = &c->parameters;
    for (size_t i = 0; i < p->count; i++) {
        const dm_tensor_spec *spec = &p->specs[i];
        const dm_gguf_tensor *reference = dm_gguf_find_tensor(file, spec->name);
        if (reference == NULL || reference->type != DM_TYPE_F32 || reference->elements != spec->elements) {
            return dm_fail(DM_ERR_FORMAT, "%s: expected a tensor %s of %llu F32 values", dm_gguf_path(file), spec->name,
                           (unsigned long long)spec->elements);
        }
        const float *theirs = reference->data;
        const float *ours = p->gradients + p->offsets[i];
        double difference = 0.0;
        double norm = 0.0;
        for (uint64_t j = 0; j < spec->elements; j++) {
            double d = (double)ours[j] - (double)theirs[j];
            difference += d * d;
            norm += (double)theirs[j] * (double)theirs[j];
        }
        result->tensors[i].relative_error = norm > 0.0 ? sqrt(difference / norm) : sqrt(difference);
    }
    return DM_OK;
}

/* ---- Against finite differences ---- */

/*
 * The slope of the loss along a direction d, by central differences with Richardson's extrapolation from steps h and 2h,
 * against <gradient, d>. d is the gradient's own direction mixed with a random one of the same length, so that the slope is
 * not lost in rounding and a gradient that is wrong anywhere shows.
 */
static dm_status directional_error(const check *c, size_t tensor, dm_random *random, double *error) {
    const dm_parameters *p = &c->parameters;
    const size_t n = p->specs[tensor].elements;
    float *w = p->weights + p->offsets[tensor];
    const float *g = p->gradients + p->offsets[tensor];
    float *kept = dm_alloc(n, sizeof(float));
    float *direction = dm_alloc(n, sizeof(float));
    dm_status status = kept != NULL && direction != NULL ? DM_OK : DM_ERR_MEMORY;
    if (status == DM_OK) {
        memcpy(kept, w, n * sizeof(float));
        double weight_norm = sqrt(dm_vector()->sum_squares(w, n));
        double gradient_norm = sqrt(dm_vector()->sum_squares(g, n));
        double noise = gradient_norm / sqrt((double)n);
        double norm = 0.0;
        for (size_t i = 0; i < n; i++) {
            direction[i] = (float)((double)g[i] + noise * dm_random_normal(random));
            norm += (double)direction[i] * (double)direction[i];
        }
        norm = sqrt(norm);
        double expected = 0.0;
        for (size_t i = 0; i < n; i++) {
            direction[i] = norm > 0.0 ? (float)((double)direction[i] / norm) : 0.0f;
            expected += (double)g[i] * (double)direction[i];
        }
        double h = STEP * (weight_norm > 0.0 ? weight_norm : sqrt((double)n) * 0.02);
        double losses[4];
        static const double steps[4] = {-2.0, -1.0, 1.0, 2.0};
        for (int s = 0; s < 4 && status == DM_OK; s++) {
            for (size_t i = 0; i < n; i++) {
                w[i] = (float)((double)kept[i] + steps[s] * h * (double)direction[i]);
            }
            status = total_loss(c, &losses[s]);
        }
        memcpy(w, kept, n * sizeof(float));
        double slope = (8.0 * (losses[2] - losses[1]) - (losses[3] - losses[0])) / (12.0 * h);
        *error = expected != 0.0 ? fabs(slope - expected) / fabs(expected) : fabs(slope);
    }
    dm_free(kept);
    dm_free(direction);
    return status;
}

static dm_status compare_with_differences(const check *c, dm_gradcheck_result *result) {
    dm_random random;
    dm_random_seed(&random, 1);
    dm_network_fix_routing(c->network, true); /* the choice of experts jumps; its gradient is that of the pieces between */
    for (size_t i = 0; i < c->parameters.count; i++) {
        DM_TRY(directional_error(c, i, &random, &result->tensors[i].relative_error));
    }
    return DM_OK;
}

/* ---- The pass ---- */

static dm_status backward_pass(check *c, dm_gradcheck_result *result) {
    double sum;
    DM_TRY(dm_network_gradients(c->network, c->ids, c->targets, 1, 1.0f / (float)(c->n - 1), 1.0, &sum));
    result->cross_entropy = sum / (double)(c->n - 1);
    result->aux_loss = dm_network_router_losses(c->network)->switch_loss;
    result->loss = result->cross_entropy + of_router(c);
    result->n_tensors = c->parameters.count;
    result->tensors = calloc(c->parameters.count, sizeof *result->tensors);
    if (result->tensors == NULL) {
        return dm_fail(DM_ERR_MEMORY, "out of memory");
    }
    for (size_t i = 0; i < c->parameters.count; i++) {
        memcpy(result->tensors[i].name, c->parameters.specs[i].name, sizeof result->tensors[i].name);
    }
    return DM_OK;
}

static dm_status load_and_check(const char *model, const char *reference, dm_precision precision, check *c,
                                dm_gradcheck_result *result) {
    dm_gguf *file = NULL;
    dm_config config;
    DM_TRY(dm_gguf_open(model, &file));
    dm_status status = dm_config_read(file, &config);
    if (status == DM_OK) {
        status = dm_parameters_create(&config, DM_FOR_GRADIENTS, &c->parameters);
    }
    if (status == DM_OK) {
        status = dm_parameters_load(&c->parameters, file);
    }
    dm_gguf_close(file);
    DM_TRY(status);
    if (config.n_experts == 0 && dm_router_terms_asked(&(dm_train_routing_rules){.weights = c->weights})) {
        return dm_fail(DM_ERR_ARGUMENT, "%s: the router's losses want a model with experts", model);
    }
    const int32_t k = config.top_k, experts = config.n_experts;
    const dm_train_routing_rules rules = {
        .game = {.n_experts = experts, .top_k = k, .min_experts = k, .flock = dm_nash_usual_flock(k, experts), .sweeps = 1},
        .weights = c->weights,
        .cache_slots = (experts + 1) / 2,
    };
    DM_TRY(dm_network_create(&c->parameters, 1, c->n, precision, &rules, &c->network));
    DM_TRY(backward_pass(c, result));
    if (reference == NULL) {
        return compare_with_differences(c, result);
    }
    DM_TRY(dm_gguf_open(reference, &file));
    status = compare_with_file(c, file, result);
    dm_gguf_close(file);
    return status;
}

static dm_status check_options(const dm_gradcheck_options *o, size_t n, dm_precision *precision) {
    const double weights[] = {o->aux, o->balance_loss, o->cache_reward, o->swarm_reward};
    *precision = o->precision != NULL && strcmp(o->precision, "bf16") == 0 ? DM_PRECISION_BF16 : DM_PRECISION_F32;
    if (o->precision != NULL && *precision == DM_PRECISION_F32 && strcmp(o->precision, "f32") != 0) {
        return dm_fail(DM_ERR_ARGUMENT, "precision '%s' is not known; expected f32 or bf16", o->precision);
    }
    for (size_t i = 0; i < sizeof weights / sizeof *weights; i++) {
        if (!(weights[i] >= 0.0 && weights[i] <= 1e6)) {
            return dm_fail(DM_ERR_ARGUMENT, "a loss's weight of %g: expected 0 to 1e6", weights[i]);
        }
    }
    return n >= 2 ? DM_OK : dm_fail(DM_ERR_ARGUMENT, "%zu tokens leave nothing to predict; give at least 2", n);
}

dm_status dm_gradcheck(const char *model, const int32_t *ids, size_t n, const dm_gradcheck_options *options,
                       dm_gradcheck_result *result) {
    const dm_gradcheck_options o = options != NULL ? *options : (dm_gradcheck_options){0};
    dm_precision precision;
    *result = (dm_gradcheck_result){0};
    DM_TRY(check_options(&o, n, &precision));
    check c = {.ids = ids,
               .targets = malloc(n * sizeof(int32_t)),
               .n = n,
               .weights = {.switch_loss = o.aux,
                           .balance_loss = o.balance_loss,
                           .cache_reward = o.cache_reward,
                           .swarm_reward = o.swarm_reward}};
    if (c.targets == NULL) {
        return dm_fail(DM_ERR_MEMORY, "out of memory");
    }
    memcpy(c.targets, ids + 1, (n - 1) * sizeof(int32_t));
    c.targets[n - 1] = -1;
    dm_status status = load_and_check(model, o.reference, precision, &c, result);
    dm_network_free(c.network);
    dm_parameters_free(&c.parameters);
    free(c.targets);
    for (size_t i = 0; i < result->n_tensors && status == DM_OK; i++) {
        double error = result->tensors[i].relative_error;
        if (!(error <= result->max_relative_error)) { /* a NaN must not hide */
            result->max_relative_error = error;
        }
    }
    if (status != DM_OK) {
        free(result->tensors);
        *result = (dm_gradcheck_result){0};
    }
    return status;
}
