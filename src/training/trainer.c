/* The training run: set up or resumed, stepped, watched, saved. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/random.h"
#include "base/threads.h"
#include "core/loss.h"
#include "model/create.h"
#include "moe/router.h"
#include "training/checkpoint.h"
#include "training/network.h"
#include "training/optimizer.h"
#include "training/run_folder.h"
#include "training/sample.h"
#include "training/settle.h"
#include "training/tokens.h"
#include "training/validation.h"

typedef struct trainer {
    const dm_train_config *config;
    dm_run_folder folder;
    dm_tokenizer *tokenizer;
    dm_tokens train, valid;
    dm_config shape;
    dm_parameters parameters;
    dm_network *network;
    dm_train_routing_rules routing;
    size_t micro_batch; /* sequences per pass */
    int64_t steps;      /* of the whole run */
    int32_t *ids;       /* [micro_batch * context] */
    int32_t *targets;   /* [micro_batch * context] */
    int32_t *window;    /* [context + 1] */
    uint64_t *loads;    /* [n_layers * n_experts] of this step */
    dm_checkpoint at;   /* where the run stands */
    double batch_loss;  /* of the last step, nats per token */
    dm_router_losses router_losses;
    double grad_norm;
    double maxvio;
    double valid_maxvio;
    double busy_s;       /* spent in steps by this process */
    int64_t busy_tokens; /* trained on by this process */
    dm_train_fn on_step;
    void *user;
} trainer;

/* ---- Setting up ---- */

static dm_status file_exists(const trainer *t, const char *name, char **path, bool *exists) {
    DM_TRY(dm_run_folder_file(&t->folder, name, path));
    *exists = access(*path, F_OK) == 0;
    return DM_OK;
}

/* The vocabulary of --tokenizer, of --model, or one learned from the text once. */
static dm_status open_tokenizer(trainer *t) {
    const dm_train_config *c = t->config;
    if (c->tokenizer != NULL || c->model != NULL) {
        return dm_tokenizer_open(c->tokenizer != NULL ? c->tokenizer : c->model, &t->tokenizer);
    }
    char *path;
    bool exists;
    DM_TRY(file_exists(t, "tokenizer.gguf", &path, &exists));
    dm_status status = DM_OK;
    if (!exists) {
        dm_log("learning a vocabulary of %lld tokens", (long long)c->vocab);
        const dm_tokenizer_train_options options = {(const char *const *)c->data.items, c->data.count, (int32_t)c->vocab, path};
        dm_tokenizer_train_result result;
        status = dm_tokenizer_train(&options, &result);
    }
    if (status == DM_OK) {
        status = dm_tokenizer_open(path, &t->tokenizer);
    }
    free(path);
    return status;
}

/* A checkpoint's state, else the weights of --model, else fresh ones. */
static dm_status fill_parameters(trainer *t) {
    const dm_train_config *c = t->config;
    char *path;
    bool exists;
    DM_TRY(file_exists(t, "checkpoint.gguf", &path, &exists));
    dm_status status = exists ? dm_checkpoint_load(path, &t->parameters, &t->at) : DM_OK;
    free(path);
    DM_TRY(status);
    if (exists) {
        return DM_OK;
    }
    if (c->model != NULL) {
        dm_gguf *file;
        DM_TRY(dm_gguf_open(c->model, &file));
        status = dm_parameters_load(&t->parameters, file);
        dm_gguf_close(file);
        return status;
    }
    float **weights = malloc(t->parameters.count * sizeof *weights);
    if (weights == NULL) {
        return dm_fail(DM_ERR_MEMORY, "out of memory setting up training");
    }
    for (size_t i = 0; i < t->parameters.count; i++) {
        weights[i] = t->parameters.weights + t->parameters.offsets[i];
    }
    dm_init_weights(&t->shape, t->parameters.specs, t->parameters.count, c->seed, weights);
    free(weights);
    return DM_OK;
}

static dm_status read_shape(trainer *t) {
    if (t->config->model == NULL) {
        dm_train_config_shape(t->config, dm_tokenizer_vocab(t->tokenizer), &t->shape);
        return dm_config_check(&t->shape);
    }
    dm_gguf *file;
    DM_TRY(dm_gguf_open(t->config->model, &file));
    dm_status status = dm_config_read(file, &t->shape);
    dm_gguf_close(file);
    DM_TRY(status);
    if (dm_tokenizer_vocab(t->tokenizer) > t->shape.vocab) {
        return dm_fail(DM_ERR_ARGUMENT, "the tokenizer has %d tokens, the model %s only %d", dm_tokenizer_vocab(t->tokenizer),
                       t->config->model, t->shape.vocab);
    }
    return DM_OK;
}

/* What must not change between a run and its resumption. */
static dm_status check_resumption(trainer *t, uint64_t corpus) {
    const dm_train_config *c = t->config;
    if (t->at.step == 0) {
        t->at = (dm_checkpoint){.seed = c->seed, .corpus = corpus, .val_loss = NAN, .val_bpb = NAN};
        return DM_OK;
    }
    if (t->at.seed != c->seed) {
        return dm_fail(DM_ERR_ARGUMENT, "%s was started with --seed %llu; resume with it, or use another --out", c->out,
                       (unsigned long long)t->at.seed);
    }
    if (t->at.corpus != corpus) {
        return dm_fail(DM_ERR_ARGUMENT, "%s was started on other text or another vocabulary; use another --out", c->out);
    }
    dm_log("resuming %s after step %llu", c->out, (unsigned long long)t->at.step);
    return DM_OK;
}

static dm_status make_buffers(trainer *t) {
    const dm_train_config *c = t->config;
    size_t length = (size_t)c->context;
    size_t fits = 4096 / length > 0 ? 4096 / length : 1;
    t->micro_batch = c->micro_batch > 0 ? (size_t)c->micro_batch : fits;
    t->micro_batch = t->micro_batch < (size_t)c->batch ? t->micro_batch : (size_t)c->batch;
    int64_t per_step = c->batch * c->context;
    t->steps = c->steps > 0 ? c->steps : (c->tokens + per_step - 1) / per_step;
    t->ids = dm_alloc(t->micro_batch * length, sizeof *t->ids);
    t->targets = dm_alloc(t->micro_batch * length, sizeof *t->targets);
    t->window = dm_alloc(length + 1, sizeof *t->window);
    t->loads = dm_alloc((size_t)t->shape.n_layers * (size_t)(t->shape.n_experts + 1), sizeof *t->loads);
    if (t->ids == NULL || t->targets == NULL || t->window == NULL || t->loads == NULL) {
        return DM_ERR_MEMORY;
    }
    if (t->train.count <= length) {
        return dm_fail(DM_ERR_ARGUMENT, "the text is only %llu tokens long; training on sequences of %zu needs more text",
                       (unsigned long long)t->train.count, length);
    }
    return dm_network_create(&t->parameters, t->micro_batch, length, c->precision, &t->routing, &t->network);
}

static dm_status set_up(trainer *t) {
    const dm_train_config *c = t->config;
    DM_TRY(dm_train_config_check(c));
    DM_TRY(dm_run_folder_open(c, &t->folder));
    DM_TRY(open_tokenizer(t));
    DM_TRY(dm_tokens_prepare(c->out, (const char *const *)c->data.items, c->data.count, (const char *const *)c->valid.items,
                             c->valid.count, t->tokenizer, &t->train, &t->valid));
    DM_TRY(read_shape(t));
    DM_TRY(dm_train_config_routing(c, &t->shape, &t->routing));
    DM_TRY(dm_parameters_create(&t->shape, DM_FOR_TRAINING, &t->parameters));
    DM_TRY(fill_parameters(t));
    uint64_t corpus = dm_random_mix(dm_tokenizer_fingerprint(t->tokenizer) ^ dm_random_mix(t->train.count));
    DM_TRY(check_resumption(t, dm_random_mix(corpus ^ t->train.bytes)));
    DM_TRY(make_buffers(t));
    if (c->precision == DM_PRECISION_BF16 && !dm_matmul_bf16_native()) {
        dm_log("this machine has no bfloat16 arithmetic: products round their operands to bfloat16 and run in float32");
    }
    dm_log("%.1f M parameters, %.1f M active per token; %llu training tokens, %llu held out; %lld steps of %lld tokens",
           (double)dm_config_params(&t->shape) * 1e-6, (double)dm_config_active_params(&t->shape) * 1e-6,
           (unsigned long long)t->train.count, (unsigned long long)t->valid.count, (long long)t->steps,
           (long long)(c->batch * c->context));
    return dm_run_folder_metrics(&t->folder, (int64_t)t->at.step);
}

static void tear_down(trainer *t) {
    dm_network_free(t->network);
    dm_parameters_free(&t->parameters);
    dm_free(t->ids);
    dm_free(t->targets);
    dm_free(t->window);
    dm_free(t->loads);
    dm_tokens_close(&t->train);
    dm_tokens_close(&t->valid);
    dm_tokenizer_close(t->tokenizer);
    dm_run_folder_close(&t->folder);
}

/* ---- One step ---- */

static void next_windows(trainer *t, size_t sequences) {
    size_t length = (size_t)t->config->context;
    for (size_t s = 0; s < sequences; s++) {
        uint64_t start = dm_tokens_window(&t->train, t->config->seed, t->at.window++, length);
        dm_tokens_copy(&t->train, start, length + 1, t->window);
        memcpy(t->ids + s * length, t->window, length * sizeof *t->ids);
        memcpy(t->targets + s * length, t->window + 1, length * sizeof *t->targets);
    }
}

static void add_losses(dm_router_losses *sum, double share, const dm_router_losses *part) {
    sum->switch_loss += share * part->switch_loss;
    sum->balance_loss += share * part->balance_loss;
    sum->cache_reward += share * part->cache_reward;
    sum->swarm_reward += share * part->swarm_reward;
    sum->nash_loss += share * part->nash_loss;
}

static dm_status batch_gradients(trainer *t) {
    const dm_train_config *c = t->config;
    const size_t n_loads = (size_t)t->shape.n_layers * (size_t)t->shape.n_experts;
    const size_t batch = (size_t)c->batch;
    double loss = 0.0;
    t->router_losses = (dm_router_losses){0};
    if (dm_network_routing(t->network) != NULL) {
        dm_train_routing_clear_figures(dm_network_routing(t->network));
    }
    memset(t->loads, 0, n_loads * sizeof *t->loads);
    dm_gradients_clear(&t->parameters);
    for (size_t done = 0; done < batch;) {
        size_t sequences = batch - done < t->micro_batch ? batch - done : t->micro_batch;
        double share = (double)sequences / (double)batch;
        double part;
        next_windows(t, sequences);
        DM_TRY(dm_network_gradients(t->network, t->ids, t->targets, sequences, 1.0f / (float)(batch * (size_t)c->context), share,
                                    &part));
        loss += part;
        add_losses(&t->router_losses, share, dm_network_router_losses(t->network));
        for (size_t i = 0; i < n_loads; i++) {
            t->loads[i] += dm_network_loads(t->network)[i];
        }
        done += sequences;
    }
    t->batch_loss = loss / (double)(c->batch * c->context);
    return DM_OK;
}

static void balance(trainer *t) {
    const int32_t n = t->shape.n_experts;
    const size_t tokens = (size_t)(t->config->batch * t->config->context);
    t->maxvio = 0.0;
    for (int32_t l = 0; l < t->shape.n_layers && n > 0; l++) {
        const uint64_t *loads = t->loads + (size_t)l * (size_t)n;
        float *bias = t->parameters.expert_bias + (size_t)l * (size_t)n;
        t->maxvio += dm_router_maxvio(loads, n) / t->shape.n_layers;
        if (t->config->balance == DM_BALANCE_LOSS_FREE) {
            dm_loss_free_update(bias, loads, n, (float)t->config->bias_rate);
        }
        if (t->routing.plays) {
            dm_train_routing_persist(bias, loads, tokens, &t->routing.game, t->config->price_rate);
        }
    }
}

static dm_status take_step(trainer *t) {
    const dm_train_config *c = t->config;
    int64_t step = (int64_t)t->at.step + 1;
    DM_TRY(batch_gradients(t));
    t->grad_norm = dm_gradient_norm(&t->parameters);
    if (!isfinite(t->batch_loss) || !isfinite(t->grad_norm)) {
        return dm_fail(DM_ERR_ARGUMENT,
                       "step %lld: the loss is no longer finite; lower --lr or --clip (the last checkpoint in %s stands)",
                       (long long)step, c->out);
    }
    dm_optimizer_step(&t->parameters, c, step, dm_learning_rate(c, step, t->steps), t->grad_norm);
    balance(t);
    t->at.step = (uint64_t)step;
    t->at.tokens += (uint64_t)(c->batch * c->context);
    t->busy_tokens += c->batch * c->context;
    return DM_OK;
}

/* ---- Watching ---- */

/* True after every `interval` steps; 0 is never. */
static bool due(const trainer *t, int64_t interval) {
    return interval > 0 && (int64_t)t->at.step % interval == 0;
}

static json_t *loads_json(const trainer *t, const uint64_t *loads) {
    json_t *layers = json_array();
    for (int32_t l = 0; l < t->shape.n_layers; l++) {
        json_t *row = json_array();
        for (int32_t e = 0; e < t->shape.n_experts; e++) {
            json_array_append_new(row, json_integer((json_int_t)loads[(size_t)l * (size_t)t->shape.n_experts + (size_t)e]));
        }
        json_array_append_new(layers, row);
    }
    return layers;
}

static void add_game_figures(const trainer *t, json_t *line) {
    const dm_train_routing_figures *f = dm_train_routing_figures_of(dm_network_routing(t->network));
    const dm_train_config *c = t->config;
    const size_t layers = (size_t)t->shape.n_layers;
    double pairs = 0.0;
    for (size_t i = 0; i < layers * (size_t)t->shape.n_experts; i++) {
        pairs += (double)t->loads[i];
    }
    json_object_set_new(line, "sweeps", json_real(f->sweeps / (double)f->games));
    json_object_set_new(line, "max_regret", json_real(f->max_regret));
    json_object_set_new(line, "potential_gain", json_real(f->potential_gain / (double)f->games));
    json_object_set_new(line, "experts_per_token", json_real(pairs / ((double)layers * (double)(c->batch * c->context))));
    json_object_set_new(line, "router_s", json_real(f->seconds));
}

static void add_routing(const trainer *t, json_t *line) {
    const dm_router_losses *weights = &t->routing.weights, *values = &t->router_losses;
    const struct {
        const char *name;
        double weight, value;
    } terms[] = {{"balance_loss", weights->balance_loss, values->balance_loss},
                 {"cache_reward", weights->cache_reward, values->cache_reward},
                 {"swarm_reward", weights->swarm_reward, values->swarm_reward},
                 {"nash_loss", weights->nash_loss, values->nash_loss}};
    json_object_set_new(line, "maxvio", json_real(t->maxvio));
    json_object_set_new(line, "switch_loss", json_real(values->switch_loss));
    for (size_t i = 0; i < sizeof terms / sizeof *terms; i++) {
        if (terms[i].weight > 0.0) {
            json_object_set_new(line, terms[i].name, json_real(terms[i].value));
        }
    }
    if (t->routing.plays) {
        add_game_figures(t, line);
    }
}

static dm_status record_step(trainer *t, double seconds) {
    const dm_train_config *c = t->config;
    json_t *line =
        json_pack("{s:I, s:I, s:f, s:f, s:f}", "step", (json_int_t)t->at.step, "tokens", (json_int_t)t->at.tokens, "loss",
                  t->batch_loss, "lr", dm_learning_rate(c, (int64_t)t->at.step, t->steps), "grad_norm", t->grad_norm);
    if (t->shape.n_experts > 0) {
        add_routing(t, line);
    }
    json_object_set_new(line, "tokens_per_s", json_real((double)(c->batch * c->context) / seconds));
    return dm_run_folder_record(&t->folder, line);
}

/* *line is what goes into the metrics. */
static dm_status validate(trainer *t, bool all, json_t **line) {
    const dm_train_config *c = t->config;
    uint64_t *loads = dm_alloc((size_t)t->shape.n_layers * (size_t)(t->shape.n_experts + 1), sizeof *loads);
    if (loads == NULL) {
        return DM_ERR_MEMORY;
    }
    dm_validation result = {.loads = loads};
    dm_status status = dm_validate(t->network, &t->shape, t->micro_batch, (size_t)c->context, &t->valid, t->tokenizer,
                                   all ? 0 : (uint64_t)c->valid_tokens, &result);
    if (status == DM_OK) {
        t->at.val_loss = result.loss;
        t->at.val_bpb = result.bpb;
        t->valid_maxvio = result.maxvio;
        *line = json_pack("{s:I, s:I, s:f, s:f}", "step", (json_int_t)t->at.step, "val_tokens", (json_int_t)result.tokens,
                          "val_loss", result.loss, "val_bpb", result.bpb);
        if (t->shape.n_experts > 0) {
            json_object_set_new(*line, "val_maxvio", json_real(result.maxvio));
            json_object_set_new(*line, "val_loads", loads_json(t, loads));
        }
    }
    dm_free(loads);
    return status;
}

static dm_status sample(trainer *t, char **text) {
    const dm_train_config *c = t->config;
    const char *prompt = c->sample_prompt != NULL ? c->sample_prompt : "";
    DM_TRY(dm_sample_text(&t->parameters, t->tokenizer, prompt, (int32_t)c->sample_tokens, dm_random_mix(c->seed ^ t->at.step),
                          text));
    return dm_interrupted() ? dm_fail(DM_ERR_INTERRUPTED, "interrupted while sampling") : DM_OK; /* the text may be cut short */
}

static void report(trainer *t, const char *text) {
    if (t->on_step == NULL) {
        return;
    }
    double speed = t->busy_s > 0.0 ? (double)t->busy_tokens / t->busy_s : 0.0;
    double left = (double)((t->steps - (int64_t)t->at.step) * t->config->batch * t->config->context);
    const dm_train_progress progress = {
        .step = (int64_t)t->at.step,
        .steps = t->steps,
        .tokens = (int64_t)t->at.tokens,
        .loss = t->batch_loss,
        .val_loss = t->at.val_loss,
        .val_bpb = t->at.val_bpb,
        .maxvio = t->maxvio,
        .lr = dm_learning_rate(t->config, (int64_t)t->at.step, t->steps),
        .grad_norm = t->grad_norm,
        .tokens_per_s = speed,
        .seconds_left = speed > 0.0 ? left / speed : 0.0,
        .sample = text,
    };
    t->on_step(t->user, &progress);
}

/* ---- The run ---- */

static dm_status save(const trainer *t) {
    char *path;
    DM_TRY(dm_run_folder_file(&t->folder, "checkpoint.gguf", &path));
    dm_status status = dm_checkpoint_save(path, &t->parameters, &t->at);
    free(path);
    return status;
}

static dm_status export_model(const trainer *t) {
    char *path;
    DM_TRY(dm_run_folder_file(&t->folder, "model.gguf", &path));
    const char *slash = strrchr(t->config->out, '/');
    const char *name = slash != NULL && slash[1] != '\0' ? slash + 1 : t->config->out;
    dm_status status = dm_model_export(path, &t->parameters, t->tokenizer, t->config->export_type, name);
    free(path);
    return status;
}

static dm_status read_training_text(void *user) {
    trainer *t = user;
    double loss;
    next_windows(t, t->micro_batch);
    return dm_network_loss(t->network, t->ids, t->targets, t->micro_batch, &loss);
}

/* Whoever goes on from this run's model goes on with even loads. The windows are those that training would read next. */
static dm_status settle_prices(trainer *t) {
    const uint64_t window = t->at.window;
    dm_status status = DM_OK;
    if (t->routing.plays && t->routing.game.beta > 0.0 && t->config->price_rate > 0.0) { /* else there are no prices */
        status = dm_settle_prices(t->network, &t->shape, t->parameters.expert_bias, t->config->settle, read_training_text, t);
    }
    t->at.window = window;
    return status;
}

/* What is due after a step, or after the last one. Recorded whole or, when interrupted, not at all: then it is owed. */
static dm_status watch(trainer *t) {
    const dm_train_config *c = t->config;
    const bool last = (int64_t)t->at.step >= t->steps;
    json_t *line = NULL;
    char *text = NULL;
    bool settled = t->at.owed == DM_OWED_SETTLED;
    dm_status status = last && !settled ? settle_prices(t) : DM_OK;
    settled = last && status == DM_OK;
    if (status == DM_OK && (last || due(t, c->valid_every))) {
        status = validate(t, last, &line);
    }
    if (status == DM_OK && due(t, c->sample_every)) {
        status = sample(t, &text);
    }
    if (status == DM_OK && line != NULL) {
        status = dm_run_folder_record(&t->folder, json_incref(line));
    }
    if (status == DM_OK && text != NULL) {
        status = dm_run_folder_record(&t->folder, json_pack("{s:I, s:s}", "step", (json_int_t)t->at.step, "sample", text));
    }
    if (status == DM_OK) {
        report(t, text);
    }
    json_decref(line);
    free(text);
    t->at.owed = status != DM_ERR_INTERRUPTED ? DM_OWED_NOTHING : settled ? DM_OWED_SETTLED : DM_OWED_ALL;
    return status;
}

static dm_status advance(trainer *t) {
    double before = dm_seconds();
    DM_TRY(take_step(t));
    double seconds = dm_seconds() - before;
    t->busy_s += seconds;
    DM_TRY(record_step(t, seconds));
    DM_TRY(watch(t));
    return due(t, t->config->save_every) && (int64_t)t->at.step < t->steps ? save(t) : DM_OK;
}

static dm_status run(trainer *t, dm_train_result *result) {
    DM_TRY(set_up(t));
    dm_status status = t->at.owed != DM_OWED_NOTHING ? watch(t) : DM_OK;
    while (status == DM_OK && (int64_t)t->at.step < t->steps) {
        status = dm_interrupted() ? DM_ERR_INTERRUPTED : advance(t);
    }
    result->interrupted = status == DM_ERR_INTERRUPTED;
    DM_TRY(result->interrupted ? DM_OK : status);
    DM_TRY(save(t));
    DM_TRY(export_model(t));
    result->steps = (int64_t)t->at.step;
    result->tokens = (int64_t)t->at.tokens;
    result->loss = t->batch_loss;
    result->val_loss = t->at.val_loss;
    result->val_bpb = t->at.val_bpb;
    result->tokens_per_s = t->busy_s > 0.0 ? (double)t->busy_tokens / t->busy_s : 0.0;
    result->maxvio = t->valid_maxvio;
    return DM_OK;
}

dm_status dm_train(const dm_train_config *config, dm_train_fn on_step, void *user, dm_train_result *result) {
    *result = (dm_train_result){0};
    trainer t = {
        .config = config, .on_step = on_step, .user = user, .batch_loss = NAN, .valid_maxvio = NAN, .folder = {.lock = -1}};
    dm_status status = run(&t, result);
    tear_down(&t);
    return status;
}
