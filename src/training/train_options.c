#include "training/train_options.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const dm_option_choice architectures[] = {{"qwen3moe", DM_ARCH_QWEN3MOE}, {"gpt2", DM_ARCH_GPT2}, {NULL, 0}};
static const dm_option_choice precisions[] = {{"f32", DM_PRECISION_F32}, {"bf16", DM_PRECISION_BF16}, {NULL, 0}};
static const dm_option_choice balances[] = {
    {"none", DM_BALANCE_NONE}, {"switch", DM_BALANCE_SWITCH}, {"loss-free", DM_BALANCE_LOSS_FREE}, {NULL, 0}};
static const dm_option_choice routers[] = {{"model", DM_ROUTER_MODEL}, {"nash", DM_ROUTER_NASH}, {NULL, 0}};
static const dm_option_choice export_types[] = {{"f32", DM_TYPE_F32}, {"f16", DM_TYPE_F16}, {"bf16", DM_TYPE_BF16}, {NULL, 0}};

#define AT(field) offsetof(struct dm_train_config, field)
#define TEXT(name, field, fallback, help)                                                                                        \
    { name, DM_OPTION_TEXT, AT(field), fallback, 0, 0, NULL, help }
#define PATH(name, field, help)                                                                                                  \
    { name, DM_OPTION_PATH, AT(field), "", 0, 0, NULL, help }
#define PATHS(name, field, help)                                                                                                 \
    { name, DM_OPTION_PATHS, AT(field), "", 0, 0, NULL, help }
#define COUNT(name, field, fallback, min, max, help)                                                                             \
    { name, DM_OPTION_COUNT, AT(field), fallback, min, max, NULL, help }
#define SEED(name, field, fallback, help)                                                                                        \
    { name, DM_OPTION_SEED, AT(field), fallback, 0, 0, NULL, help }
#define NUMBER(name, field, fallback, min, max, help)                                                                            \
    { name, DM_OPTION_NUMBER, AT(field), fallback, min, max, NULL, help }
#define BOOL(name, field, fallback, help)                                                                                        \
    { name, DM_OPTION_BOOL, AT(field), fallback, 0, 0, NULL, help }
#define NAME(name, field, fallback, choices, help)                                                                               \
    { name, DM_OPTION_NAME, AT(field), fallback, 0, 0, choices, help }
#define CHOICE(name, field, fallback, choices, help)                                                                             \
    { name, DM_OPTION_CHOICE, AT(field), fallback, 0, 0, choices, help }

/* clang-format off */
static const dm_train_option table[] = {
    PATHS("data", data, "files or folders of text to train on"),
    PATHS("valid", valid, "files or folders held out for validation; without, 1/60 of the documents in data"),
    PATH("out", out, "folder of the run: checkpoint, metrics.jsonl, model.gguf"),
    PATH("tokenizer", tokenizer, "GGUF file whose vocabulary is used; without, one is learned from data"),
    COUNT("vocab", vocab, "8192", 257, 1 << 20, "size of the vocabulary to learn"),

    PATH("model", model, "GGUF model to start from; without, fresh weights of the shape below"),
    NAME("arch", arch, "qwen3moe", architectures, "architecture: qwen3moe (mixture of experts) or gpt2 (dense)"),
    COUNT("layers", layers, "6", 1, 1024, "layers"),
    COUNT("dim", dim, "256", 1, 1 << 16, "width of the residual stream"),
    COUNT("heads", heads, "4", 1, 1024, "query heads"),
    COUNT("kv-heads", kv_heads, "2", 0, 1024, "key and value heads, 0: as heads (qwen3moe)"),
    COUNT("head-dim", head_dim, "0", 0, 4096, "width of a head, 0: dim / heads"),
    COUNT("ffn-dim", ffn_dim, "0", 0, 1 << 18, "feed-forward width, 0: 4 dim (gpt2)"),
    COUNT("experts", experts, "32", 1, 1 << 14, "experts per layer (qwen3moe)"),
    COUNT("top-k", top_k, "4", 1, 1024, "experts that one token uses (qwen3moe)"),
    COUNT("expert-dim", expert_dim, "128", 1, 1 << 16, "width of an expert (qwen3moe)"),
    NUMBER("rope-base", rope_base, "10000", 1, 1e9, "base of the rotary embedding (qwen3moe)"),
    BOOL("tied-output", tied_output, "true", "the output projection is the token embedding"),

    COUNT("context", context, "256", 1, 1 << 20, "tokens per sequence"),
    COUNT("batch", batch, "16", 1, 1 << 20, "sequences per step"),
    COUNT("micro-batch", micro_batch, "0", 0, 1 << 20, "sequences per pass, gradients added up; 0: as many as 4,096 tokens hold"),
    COUNT("steps", steps, "0", 0, 1e12, "steps in all; 0: from tokens"),
    COUNT("tokens", tokens, "1M", 1, 1e15, "tokens to train on in all, where steps is 0"),
    NUMBER("lr", lr, "0.002", 0, 10, "highest learning rate"),
    NUMBER("min-lr", min_lr, "0.1", 0, 1, "learning rate at the end, as a share of lr"),
    COUNT("warmup", warmup, "50", 0, 1e12, "steps over which the learning rate rises"),
    NUMBER("weight-decay", weight_decay, "0.1", 0, 100, "AdamW's decay, of matrices only"),
    NUMBER("beta1", beta1, "0.9", 0, 0.999999, "AdamW's memory of the gradient"),
    NUMBER("beta2", beta2, "0.95", 0, 0.999999, "AdamW's memory of its square"),
    NUMBER("eps", eps, "1e-8", 1e-30, 1, "AdamW's guard against division by zero"),
    NUMBER("clip", clip, "1", 0, 1e9, "largest norm of the gradient, 0: any"),
    CHOICE("precision", precision, "f32", precisions, "operands of the products: f32 or bf16 (weights stay f32)"),
    CHOICE("balance", balance, "switch", balances,
           "how experts are kept evenly used: none, switch, or loss-free (a bias that only this program reads)"),
    NUMBER("aux", aux, "0.01", 0, 1e3, "weight of the loss of balance = switch"),
    NUMBER("bias-rate", bias_rate, "0.001", 0, 1e3, "step of the bias of balance = loss-free"),
    SEED("seed", seed, "1", "of the weights, the order of the data and the samples"),

    CHOICE("router", router, "model", routers,
           "who chooses experts in training: the model, or nash, a game of each layer's tokens (docs/training.md)"),
    COUNT("flock", flock, "0", 0, 1 << 14, "experts that a token looks at, its best; 0: the greater of 7 and twice top-k"),
    NUMBER("beta", beta, "2", 0, 1e6, "price of an expert's crowding, at an even load"),
    NUMBER("gamma", gamma, "0", 0, 1e6, "price of fetching an expert that its users share, over the spread of affinities"),
    COUNT("keep-top", keep_top, "0", 0, 64, "experts that a token always keeps, its best; up to min-experts"),
    COUNT("min-experts", min_experts, "0", 0, 64, "fewest experts of a token; 0: top-k, or with theta 1"),
    NUMBER("theta", theta, "0", 0, 1, "leave out experts below this share of the best one's probability, 0: none"),
    COUNT("sweeps", sweeps, "3", 0, 1000, "most sweeps of a game"),
    COUNT("settle", settle, "48", 0, 1e6, "passes over text after the last step in which persistent prices alone move, until loads are even"),
    NUMBER("price-rate", price_rate, "0.1", 0, 100, "how fast crowding becomes a price that persists; 0: never"),
    NUMBER("balance-loss", balance_loss, "0", 0, 1e3, "weight of the loss of uneven soft loads; the theory's is 0.1, 0: off"),
    NUMBER("cache-reward", cache_reward, "0", 0, 1e3, "weight of the reward of resident experts; the theory's is 0.05, 0: off"),
    NUMBER("swarm-reward", swarm_reward, "0", 0, 1e3,
           "weight of the reward of doing as the 7 most similar earlier tokens; the theory's is 0.03, 0: off"),
    NUMBER("nash-loss", nash_loss, "0", 0, 1e3, "weight of the tokens' regret in the routing game; the theory's is 0.02, 0: off"),
    COUNT("cache-slots", cache_slots, "0", 0, 1 << 14, "experts of a layer that are resident for cache-reward, 0: half"),

    COUNT("valid-every", valid_every, "100", 0, 1e12, "steps between validations, 0: only at the end"),
    COUNT("valid-tokens", valid_tokens, "64k", 0, 1e15, "tokens read by a validation, 0: all; the last one reads all"),
    COUNT("sample-every", sample_every, "100", 0, 1e12, "steps between samples of text, 0: none"),
    COUNT("sample-tokens", sample_tokens, "48", 1, 1 << 20, "length of a sample"),
    TEXT("sample-prompt", sample_prompt, "", "how a sample begins"),
    COUNT("save-every", save_every, "100", 0, 1e12, "steps between checkpoints, 0: only at the end and when interrupted"),
    CHOICE("export-type", export_type, "f32", export_types, "weights in model.gguf: f32, f16 or bf16"),
};
/* clang-format on */

const dm_train_option *dm_train_option_at(size_t index) {
    return index < sizeof table / sizeof *table ? &table[index] : NULL;
}

/* Levenshtein's distance of two short names; long ones are infinitely far. */
static size_t distance(const char *a, const char *b) {
    enum { LONGEST = 31 };
    size_t row[LONGEST + 1], n = strlen(b);
    if (n > LONGEST) {
        return SIZE_MAX;
    }
    for (size_t j = 0; j <= n; j++) {
        row[j] = j;
    }
    for (size_t i = 1; a[i - 1] != '\0'; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= n; j++) {
            size_t above = row[j];
            size_t best = diagonal + (a[i - 1] != b[j - 1]);
            best = above + 1 < best ? above + 1 : best;
            row[j] = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
            diagonal = above;
        }
    }
    return row[n];
}

dm_status dm_train_option_find(const char *name, const dm_train_option **out) {
    const dm_train_option *nearest = NULL;
    size_t nearest_distance = strlen(name) / 3 + 2;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        size_t far = distance(table[i].name, name);
        if (far == 0) {
            *out = &table[i];
            return DM_OK;
        }
        if (far < nearest_distance) {
            nearest_distance = far;
            nearest = &table[i];
        }
    }
    *out = NULL;
    if (nearest != NULL) {
        return dm_fail(DM_ERR_ARGUMENT, "there is no option '%s'; did you mean '%s'?", name, nearest->name);
    }
    return dm_fail(DM_ERR_ARGUMENT, "there is no option '%s'", name);
}

/* ---- Values ---- */

static void *field(const dm_train_option *option, struct dm_train_config *config) {
    return (char *)config + option->offset;
}

static const void *const_field(const dm_train_option *option, const struct dm_train_config *config) {
    return (const char *)config + option->offset;
}

static dm_status out_of_memory(const dm_train_option *option) {
    return dm_fail(DM_ERR_MEMORY, "%s: out of memory", option->name);
}

/* Whole, finite and a number as C writes it, whatever the locale set by dm_train_config's callers. */
static bool parse_number(const char *text, const char **end, double *out) {
    bool starts = (*text >= '0' && *text <= '9') || *text == '-' || *text == '+' || *text == '.';
    if (!starts || strpbrk(text, "xX") != NULL) { /* hexadecimal is no way to write a learning rate */
        return false;
    }
    char *stop;
    *out = strtod(text, &stop);
    *end = stop;
    return stop != text && isfinite(*out);
}

static dm_status check_range(const dm_train_option *option, double value, const char *text) {
    if (value >= option->min && value <= option->max) {
        return DM_OK;
    }
    return dm_fail(DM_ERR_ARGUMENT, "%s: %s is out of range, expected %.10g to %.10g", option->name, text, option->min,
                   option->max);
}

/* 15000000, 15M or 1.5k; always whole. Limits lie below 2^53, so a double holds every count exactly. */
static dm_status parse_count(const dm_train_option *option, int64_t *out, const char *text) {
    const char *end;
    double value, unit = 1;
    bool good = strpbrk(text, "eE") == NULL && parse_number(text, &end, &value);
    if (good && *end != '\0') {
        unit = *end == 'k' || *end == 'K' ? 1e3 : *end == 'M' ? 1e6 : *end == 'G' ? 1e9 : 0;
        good = unit != 0 && end[1] == '\0';
    }
    if (good && unit != 1) {
        value = nearbyint(value * unit * 1e3) / 1e3; /* 1.1k is 1100, though 1.1 is not exact */
    }
    if (!good || value != floor(value)) {
        return dm_fail(DM_ERR_ARGUMENT, "%s: '%s' is not a whole number (such as 4096, 64k, 15M or 1.5G)", option->name, text);
    }
    DM_TRY(check_range(option, value, text));
    *out = (int64_t)value;
    return DM_OK;
}

static dm_status parse_seed(const dm_train_option *option, uint64_t *out, const char *text) {
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || errno != 0) {
        return dm_fail(DM_ERR_ARGUMENT, "%s: '%s' is not a whole number from 0 to 2^64 - 1", option->name, text);
    }
    *out = value;
    return DM_OK;
}

static dm_status parse_real(const dm_train_option *option, double *out, const char *text) {
    const char *end;
    double value;
    if (!parse_number(text, &end, &value) || *end != '\0') {
        return dm_fail(DM_ERR_ARGUMENT, "%s: '%s' is not a finite number", option->name, text);
    }
    DM_TRY(check_range(option, value, text));
    *out = value;
    return DM_OK;
}

static dm_status parse_bool(const dm_train_option *option, bool *out, const char *text) {
    bool yes = strcmp(text, "true") == 0 || strcmp(text, "yes") == 0 || strcmp(text, "1") == 0;
    bool no = strcmp(text, "false") == 0 || strcmp(text, "no") == 0 || strcmp(text, "0") == 0;
    if (!yes && !no) {
        return dm_fail(DM_ERR_ARGUMENT, "%s: '%s' is neither true nor false", option->name, text);
    }
    *out = yes;
    return DM_OK;
}

static dm_status find_choice(const dm_train_option *option, const char *text, int *value) {
    char known[128] = "";
    for (const dm_option_choice *choice = option->choices; choice->name != NULL; choice++) {
        if (strcmp(choice->name, text) == 0) {
            *value = choice->value;
            return DM_OK;
        }
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", used != 0 ? ", " : "", choice->name);
    }
    return dm_fail(DM_ERR_ARGUMENT, "%s: '%s' is unknown, expected one of %s", option->name, text, known);
}

static dm_status parse_choice(const dm_train_option *option, void *out, const char *text) {
    int value;
    DM_TRY(find_choice(option, text, &value));
    memcpy(out, &value, sizeof value); /* each enum has its own type but one size, asserted below */
    return DM_OK;
}

_Static_assert(sizeof(dm_precision) == sizeof(int) && sizeof(dm_balance) == sizeof(int) &&
                   sizeof(dm_router_policy) == sizeof(int) && sizeof(dm_type) == sizeof(int),
               "choices are stored through int");

static dm_status store_text(const dm_train_option *option, char **out, const char *text, bool empty_is_null) {
    char *copy = NULL;
    if (*text != '\0' || !empty_is_null) {
        copy = strdup(text);
        if (copy == NULL) {
            return out_of_memory(option);
        }
    }
    free(*out);
    *out = copy;
    return DM_OK;
}

static dm_status append_text(const dm_train_option *option, dm_string_list *list, const char *text) {
    if (*text == '\0') {
        return dm_fail(DM_ERR_ARGUMENT, "%s: expected the name of a file or folder, found nothing", option->name);
    }
    char **items = realloc(list->items, (list->count + 1) * sizeof *items);
    if (items == NULL) {
        return out_of_memory(option);
    }
    list->items = items;
    items[list->count] = strdup(text);
    if (items[list->count] == NULL) {
        return out_of_memory(option);
    }
    list->count++;
    return DM_OK;
}

dm_status dm_train_option_parse(const dm_train_option *option, struct dm_train_config *config, const char *text) {
    void *out = field(option, config);
    int ignored;
    switch (option->kind) {
    case DM_OPTION_TEXT:
        return store_text(option, out, text, false);
    case DM_OPTION_PATH:
        return store_text(option, out, text, true);
    case DM_OPTION_PATHS:
        return append_text(option, out, text);
    case DM_OPTION_COUNT:
        return parse_count(option, out, text);
    case DM_OPTION_SEED:
        return parse_seed(option, out, text);
    case DM_OPTION_NUMBER:
        return parse_real(option, out, text);
    case DM_OPTION_BOOL:
        return parse_bool(option, out, text);
    case DM_OPTION_NAME:
        DM_TRY(find_choice(option, text, &ignored));
        return store_text(option, out, text, false);
    case DM_OPTION_CHOICE:
        return parse_choice(option, out, text);
    }
    return dm_fail(DM_ERR_INTERNAL, "%s: an option of no kind", option->name);
}

/* The fewest digits that read back to the same number. */
static void print_real(char *text, size_t size, double value) {
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, size, "%.*g", digits, value);
        if (strtod(text, NULL) == value) {
            return;
        }
    }
}

static const char *choice_name(const dm_train_option *option, const void *value) {
    int number;
    memcpy(&number, value, sizeof number);
    const dm_option_choice *choice = option->choices;
    while (choice->name != NULL && choice->value != number) {
        choice++;
    }
    return choice->name != NULL ? choice->name : "";
}

dm_status dm_train_option_print(const dm_train_option *option, const struct dm_train_config *config, size_t index, char **text) {
    const void *value = const_field(option, config);
    char number[64] = "";
    const char *words = number;
    *text = NULL;
    if (index > 0 && option->kind != DM_OPTION_PATHS) {
        return DM_OK;
    }
    switch (option->kind) {
    case DM_OPTION_TEXT:
    case DM_OPTION_PATH:
    case DM_OPTION_NAME:
        words = *(char *const *)value != NULL ? *(char *const *)value : "";
        break;
    case DM_OPTION_PATHS:
        if (index >= ((const dm_string_list *)value)->count) {
            return DM_OK;
        }
        words = ((const dm_string_list *)value)->items[index];
        break;
    case DM_OPTION_COUNT:
        snprintf(number, sizeof number, "%lld", (long long)*(const int64_t *)value);
        break;
    case DM_OPTION_SEED:
        snprintf(number, sizeof number, "%llu", (unsigned long long)*(const uint64_t *)value);
        break;
    case DM_OPTION_NUMBER:
        print_real(number, sizeof number, *(const double *)value);
        break;
    case DM_OPTION_BOOL:
        words = *(const bool *)value ? "true" : "false";
        break;
    case DM_OPTION_CHOICE:
        words = choice_name(option, value);
        break;
    }
    *text = strdup(words);
    return *text != NULL ? DM_OK : out_of_memory(option);
}

bool dm_train_option_unset(const dm_train_option *option, const struct dm_train_config *config) {
    struct dm_train_config fresh = {0};
    char *now = NULL, *then = NULL;
    bool same = option->kind == DM_OPTION_PATHS
                    ? ((const dm_string_list *)const_field(option, config))->count == 0
                    : dm_train_option_parse(option, &fresh, option->fallback) == DM_OK &&
                          dm_train_option_print(option, config, 0, &now) == DM_OK &&
                          dm_train_option_print(option, &fresh, 0, &then) == DM_OK && strcmp(now, then) == 0;
    if (option->kind == DM_OPTION_TEXT || option->kind == DM_OPTION_PATH || option->kind == DM_OPTION_NAME) {
        free(*(char **)field(option, &fresh));
    }
    free(now);
    free(then);
    return same;
}
