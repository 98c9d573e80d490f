#include "training/train_config.h"

#include <errno.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>

#include "training/train_options.h"

/* Numbers are read and written with a decimal point, whatever the caller's locale says. */
static locale_t enter_c_locale(locale_t *c) {
    *c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    return uselocale(*c);
}

static void leave_c_locale(locale_t before, locale_t c) {
    uselocale(before);
    if (c != (locale_t)0) {
        freelocale(c);
    }
}

dm_train_config *dm_train_config_create(void) {
    dm_train_config *config = calloc(1, sizeof *config);
    if (config == NULL) {
        dm_fail(DM_ERR_MEMORY, "out of memory making a training configuration");
        return NULL;
    }
    locale_t c, before = enter_c_locale(&c);
    const dm_train_option *option;
    for (size_t i = 0; config != NULL && (option = dm_train_option_at(i)) != NULL; i++) {
        if (option->kind != DM_OPTION_PATHS && dm_train_option_parse(option, config, option->fallback) != DM_OK) {
            dm_train_config_free(config);
            config = NULL;
        }
    }
    leave_c_locale(before, c);
    return config;
}

static void free_list(dm_string_list *list) {
    for (size_t i = 0; i < list->count; i++) {
        free(list->items[i]);
    }
    free(list->items);
}

void dm_train_config_free(dm_train_config *config) {
    if (config == NULL) {
        return;
    }
    free_list(&config->data);
    free_list(&config->valid);
    free(config->out);
    free(config->tokenizer);
    free(config->model);
    free(config->arch);
    free(config->sample_prompt);
    free(config);
}

dm_status dm_train_config_set(dm_train_config *config, const char *name, const char *value) {
    const dm_train_option *option;
    DM_TRY(dm_train_option_find(name, &option));
    locale_t c, before = enter_c_locale(&c);
    dm_status status = dm_train_option_parse(option, config, value);
    leave_c_locale(before, c);
    return status;
}

bool dm_train_config_describe(size_t index, const char **name, const char **help, const char **fallback) {
    const dm_train_option *option = dm_train_option_at(index);
    if (option == NULL) {
        return false;
    }
    *name = option->name;
    *help = option->help;
    *fallback = option->fallback;
    return true;
}

/* ---- Files ---- */

/* Between quotes a backslash stands before a quote, another backslash, or n, r, t for the characters that would end or
 * hide a line. Reading: `text` starts after the opening quote and is unescaped in place; NULL, or what follows. */
static char *unquote(char *text) {
    char *out = text;
    for (; *text != '"'; text++, out++) {
        if (*text == '\0') {
            return NULL;
        }
        if (*text == '\\') {
            static const char written[] = "\"\\nrt", meant[] = "\"\\\n\r\t";
            const char *found = *++text != '\0' ? strchr(written, *text) : NULL;
            if (found == NULL) {
                return NULL;
            }
            *out = meant[found - written];
        } else {
            *out = *text;
        }
    }
    *out = '\0';
    return text + 1;
}

static char *skip_spaces(char *text) {
    return text + strspn(text, " \t\r\n");
}

static void cut_spaces(char *text) {
    size_t length = strlen(text);
    while (length > 0 && strchr(" \t\r\n", text[length - 1]) != NULL) {
        length--;
    }
    text[length] = '\0';
}

/* Splits a line in place; *name is NULL for an empty one. */
static dm_status split_line(char *line, char **name, char **value) {
    *name = NULL;
    char *start = skip_spaces(line);
    if (*start == '\0' || *start == '#') {
        return DM_OK;
    }
    char *equals = strpbrk(start, "=#");
    if (equals == NULL || *equals == '#') {
        return dm_fail(DM_ERR_FORMAT, "expected `name = value`");
    }
    *equals = '\0';
    cut_spaces(start);
    *value = skip_spaces(equals + 1);
    if (**value == '"') {
        char *rest = unquote(++*value);
        if (rest == NULL) {
            return dm_fail(DM_ERR_FORMAT, "%s: no closing quote, or a backslash before something else than \" \\ n r t", start);
        }
        rest = skip_spaces(rest);
        if (*rest != '\0' && *rest != '#') {
            return dm_fail(DM_ERR_FORMAT, "%s: unexpected text after the closing quote", start);
        }
    } else {
        (*value)[strcspn(*value, "#")] = '\0';
        cut_spaces(*value);
    }
    *name = start;
    return DM_OK;
}

static dm_status load_line(dm_train_config *config, char *line, size_t length) {
    if (memchr(line, '\0', length) != NULL) {
        return dm_fail(DM_ERR_FORMAT, "a zero byte; this is not a text file");
    }
    char *name, *value;
    DM_TRY(split_line(line, &name, &value));
    return name != NULL ? dm_train_config_set(config, name, value) : DM_OK;
}

dm_status dm_train_config_load(dm_train_config *config, const char *path) {
    FILE *stream = fopen(path, "re");
    if (stream == NULL) {
        return dm_fail(DM_ERR_IO, "%s: cannot open: %s", path, strerror(errno));
    }
    char *line = NULL;
    size_t capacity = 0;
    dm_status status = DM_OK;
    ssize_t length;
    for (long number = 1; status == DM_OK && (length = getline(&line, &capacity, stream)) >= 0; number++) {
        bool mark = number == 1 && strncmp(line, "\xef\xbb\xbf", 3) == 0; /* UTF-8's byte order mark */
        status = load_line(config, line + (mark ? 3 : 0), (size_t)length - (mark ? 3 : 0));
        if (status != DM_OK) {
            status = dm_fail(status, "%s: line %ld: %s", path, number, dm_error_message());
        }
    }
    if (status == DM_OK && ferror(stream)) {
        status = dm_fail(DM_ERR_IO, "%s: cannot read: %s", path, strerror(errno));
    }
    free(line);
    fclose(stream);
    return status;
}

static void write_quoted(const char *text, FILE *stream) {
    fputc('"', stream);
    for (; *text != '\0'; text++) {
        switch (*text) {
        case '"':
        case '\\':
            fputc('\\', stream);
            fputc(*text, stream);
            break;
        case '\n':
            fputs("\\n", stream);
            break;
        case '\r':
            fputs("\\r", stream);
            break;
        case '\t':
            fputs("\\t", stream);
            break;
        default:
            fputc(*text, stream);
        }
    }
    fputc('"', stream);
}

static dm_status write_option(const dm_train_option *option, const dm_train_config *config, FILE *stream) {
    bool words = option->kind == DM_OPTION_TEXT || option->kind == DM_OPTION_PATH || option->kind == DM_OPTION_PATHS;
    for (size_t item = 0;; item++) {
        char *text;
        DM_TRY(dm_train_option_print(option, config, item, &text));
        if (text == NULL) {
            if (item == 0) {
                fprintf(stream, "# %s: none\n", option->name);
            }
            return DM_OK;
        }
        fprintf(stream, "%s = ", option->name);
        if (words) {
            write_quoted(text, stream);
        } else {
            fputs(text, stream);
        }
        fputc('\n', stream);
        free(text);
    }
}

dm_status dm_train_config_write(const dm_train_config *config, FILE *stream) {
    locale_t c, before = enter_c_locale(&c);
    dm_status status = DM_OK;
    const dm_train_option *option;
    for (size_t i = 0; status == DM_OK && (option = dm_train_option_at(i)) != NULL; i++) {
        status = write_option(option, config, stream);
    }
    leave_c_locale(before, c);
    return status;
}

/* ---- Consistency ---- */

/* Options that were set, though they would change nothing, are mistakes of whoever set them. */
static dm_status check_unset(const dm_train_config *config, const char *const *names, const char *because) {
    for (; *names != NULL; names++) {
        const dm_train_option *option;
        DM_TRY(dm_train_option_find(*names, &option));
        bool all_heads = strcmp(*names, "kv-heads") == 0 && (config->kv_heads == 0 || config->kv_heads == config->heads);
        if (!all_heads && !dm_train_option_unset(option, config)) {
            return dm_fail(DM_ERR_ARGUMENT, "%s: has no effect %s; leave it out", *names, because);
        }
    }
    return DM_OK;
}

static dm_status check_unused(const dm_train_config *config) {
    static const char *const shape[] = {"arch",    "layers", "dim",        "heads",     "kv-heads",    "head-dim", "ffn-dim",
                                        "experts", "top-k",  "expert-dim", "rope-base", "tied-output", NULL};
    static const char *const moe_only[] = {"kv-heads", "experts", "top-k", "expert-dim", "rope-base", NULL};
    static const char *const dense_only[] = {"ffn-dim", NULL};
    static const char *const routing[] = {"router", "balance-loss", "cache-reward", "swarm-reward", "nash-loss", NULL};
    static const char *const nash_only[] = {"gamma", "keep-top", "min-experts", "theta", "sweeps", "price-rate", "settle", NULL};
    static const char *const flock_only[] = {"flock", "beta", NULL};
    static const char *const cache_only[] = {"cache-slots", NULL};
    if (config->router != DM_ROUTER_NASH) {
        DM_TRY(check_unset(config, nash_only, "without router = nash"));
    }
    if (config->router != DM_ROUTER_NASH && config->nash_loss == 0.0) {
        DM_TRY(check_unset(config, flock_only, "without router = nash or nash-loss"));
    }
    if (config->cache_reward == 0.0) {
        DM_TRY(check_unset(config, cache_only, "without cache-reward"));
    }
    if (config->model != NULL) {
        return check_unset(config, shape, "where model says what to start from");
    }
    if (strcmp(config->arch, "gpt2") == 0) {
        DM_TRY(check_unset(config, routing, "with arch = gpt2"));
        return check_unset(config, moe_only, "with arch = gpt2");
    }
    return check_unset(config, dense_only, "with arch = qwen3moe");
}

static dm_status check_shape(const dm_train_config *config) {
    dm_config shape;
    dm_train_config_shape(config, (int32_t)config->vocab, &shape);
    if (config->head_dim == 0 && config->dim % config->heads != 0) {
        return dm_fail(DM_ERR_ARGUMENT, "heads: %lld do not divide dim = %lld evenly; change one or set head-dim",
                       (long long)config->heads, (long long)config->dim);
    }
    if (shape.arch == DM_ARCH_GPT2 && (int64_t)shape.head_dim * shape.n_heads != shape.dim) {
        return dm_fail(DM_ERR_ARGUMENT, "head-dim: gpt2 needs heads * head-dim = dim, found %d * %d and %d", shape.n_heads,
                       shape.head_dim, shape.dim);
    }
    if (shape.arch == DM_ARCH_GPT2) {
        return DM_OK;
    }
    if (shape.head_dim % 2 != 0) {
        return dm_fail(DM_ERR_ARGUMENT, "head-dim: the rotary embedding needs an even number, found %d", shape.head_dim);
    }
    if (shape.n_heads % shape.n_kv_heads != 0) {
        return dm_fail(DM_ERR_ARGUMENT, "kv-heads: %d do not divide heads = %d evenly", shape.n_kv_heads, shape.n_heads);
    }
    if (shape.top_k > shape.n_experts) {
        return dm_fail(DM_ERR_ARGUMENT, "top-k: %d is more than experts = %d", shape.top_k, shape.n_experts);
    }
    dm_train_routing_rules rules;
    return dm_train_config_routing(config, &shape, &rules);
}

dm_status dm_train_config_check(const dm_train_config *config) {
    if (config->out == NULL) {
        return dm_fail(DM_ERR_ARGUMENT, "out: say which folder the run is kept in");
    }
    if (config->data.count == 0) {
        return dm_fail(DM_ERR_ARGUMENT, "data: name at least one file or folder of text to train on");
    }
    if (config->micro_batch > config->batch) {
        return dm_fail(DM_ERR_ARGUMENT, "micro-batch: %lld is more than batch = %lld", (long long)config->micro_batch,
                       (long long)config->batch);
    }
    if (config->context > INT32_MAX / config->batch) {
        return dm_fail(DM_ERR_ARGUMENT, "batch: %lld sequences of context = %lld are too many tokens for one step",
                       (long long)config->batch, (long long)config->context);
    }
    DM_TRY(check_unused(config));
    return config->model == NULL ? check_shape(config) : DM_OK;
}

static dm_status check_routing(const dm_train_config *config, const dm_train_routing_rules *rules) {
    const dm_nash_rules *game = &rules->game;
    if (game->flock < game->top_k || game->flock > game->n_experts) {
        return dm_fail(DM_ERR_ARGUMENT, "flock: %d experts, expected %d (top-k) to %d (all)", game->flock, game->top_k,
                       game->n_experts);
    }
    if (game->min_experts > game->top_k) {
        return dm_fail(DM_ERR_ARGUMENT, "min-experts: %d is more than top-k = %d", game->min_experts, game->top_k);
    }
    if (game->min_experts < game->top_k && config->theta == 0.0) {
        return dm_fail(DM_ERR_ARGUMENT, "min-experts: %d of top-k = %d needs theta, which says when an expert is left out",
                       game->min_experts, game->top_k);
    }
    if (game->keep_top > game->min_experts) {
        return dm_fail(DM_ERR_ARGUMENT, "keep-top: %d is more than min-experts = %d", game->keep_top, game->min_experts);
    }
    if (rules->cache_slots > game->n_experts) {
        return dm_fail(DM_ERR_ARGUMENT, "cache-slots: %d is more than experts = %d", rules->cache_slots, game->n_experts);
    }
    return DM_OK;
}

dm_status dm_train_config_routing(const dm_train_config *config, const dm_config *shape, dm_train_routing_rules *out) {
    *out = (dm_train_routing_rules){.plays = config->router == DM_ROUTER_NASH};
    if (shape->n_experts == 0) {
        return out->plays ? dm_fail(DM_ERR_ARGUMENT, "router: the model has no experts to choose from") : DM_OK;
    }
    const int32_t k = shape->top_k;
    out->game = (dm_nash_rules){
        .n_experts = shape->n_experts,
        .top_k = k,
        .min_experts = config->min_experts > 0 ? (int32_t)config->min_experts
                       : config->theta > 0.0   ? 1
                                               : k,
        .flock = config->flock > 0 ? (int32_t)config->flock : dm_nash_usual_flock(k, shape->n_experts),
        .keep_top = (int32_t)config->keep_top,
        .sweeps = (int32_t)config->sweeps,
        .beta = config->beta,
        .gamma = config->gamma,
        .theta = config->theta,
    };
    out->weights = (dm_router_losses){
        .switch_loss = config->balance == DM_BALANCE_SWITCH ? config->aux : 0.0,
        .balance_loss = config->balance_loss,
        .cache_reward = config->cache_reward,
        .swarm_reward = config->swarm_reward,
        .nash_loss = config->nash_loss,
    };
    out->cache_slots = config->cache_slots > 0 ? (int32_t)config->cache_slots : (shape->n_experts + 1) / 2;
    return check_routing(config, out);
}

void dm_train_config_shape(const dm_train_config *config, int32_t vocab, dm_config *out) {
    *out = (dm_config){
        .arch = strcmp(config->arch, "gpt2") == 0 ? DM_ARCH_GPT2 : DM_ARCH_QWEN3MOE,
        .n_layers = (int32_t)config->layers,
        .dim = (int32_t)config->dim,
        .n_heads = (int32_t)config->heads,
        .head_dim = (int32_t)(config->head_dim != 0 ? config->head_dim : config->dim / config->heads),
        .vocab = vocab,
        .context = (int32_t)config->context,
        .tied_output = config->tied_output,
    };
    if (out->arch == DM_ARCH_GPT2) {
        out->n_kv_heads = out->n_heads;
        out->ffn_dim = (int32_t)(config->ffn_dim != 0 ? config->ffn_dim : 4 * config->dim);
        out->norm_eps = 1e-5F;
    } else {
        out->n_kv_heads = (int32_t)(config->kv_heads != 0 ? config->kv_heads : config->heads);
        out->n_experts = (int32_t)config->experts;
        out->top_k = (int32_t)config->top_k;
        out->expert_dim = (int32_t)config->expert_dim;
        out->norm_eps = 1e-6F;
        out->rope_base = (float)config->rope_base;
    }
}
