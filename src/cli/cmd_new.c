/* `dilmodeli new`: a freshly initialised model of a given or a named shape. */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

typedef struct named_shape {
    const char *name, *what;
    bool tied_output;
    dm_model_info info;
} named_shape;

/* The shapes that results are reported for. */
static const named_shape shapes[] = {
    {"gpt2-124m",
     "GPT-2 small: 12 layers, dim 768",
     true,
     {.architecture = "gpt2", .layers = 12, .dim = 768, .heads = 12, .ffn_dim = 3072, .vocab = 50257, .context = 1024}},
    {"moe-22m",
     "6 layers, dim 256, 32 experts of 128, top 4",
     true,
     {.architecture = "qwen3moe",
      .layers = 6,
      .dim = 256,
      .heads = 4,
      .kv_heads = 2,
      .head_dim = 64,
      .experts = 32,
      .top_k = 4,
      .expert_dim = 128,
      .vocab = 8192,
      .context = 1024}},
    {"moe-110m",
     "8 layers, dim 512, 32 experts of 256, top 4",
     true,
     {.architecture = "qwen3moe",
      .layers = 8,
      .dim = 512,
      .heads = 8,
      .kv_heads = 4,
      .head_dim = 64,
      .experts = 32,
      .top_k = 4,
      .expert_dim = 256,
      .vocab = 8192,
      .context = 1024}},
    {"llama-124m",
     "GPT-2 small's size as a Llama: 12 layers, dim 768, 12 heads",
     true,
     {.architecture = "llama", .layers = 12, .dim = 768, .heads = 12, .ffn_dim = 2048, .vocab = 50257, .context = 8192}},
    {"llama-124m-gqa",
     "the same with 4 heads of keys and values",
     true,
     {.architecture = "llama",
      .layers = 12,
      .dim = 768,
      .heads = 12,
      .kv_heads = 4,
      .ffn_dim = 2304,
      .vocab = 50257,
      .context = 8192}},
    {"fine-12l",
     "12 layers, dim 768, 64 experts of 256, top 8 (0.56 B)",
     false,
     {.architecture = "llama",
      .layers = 12,
      .dim = 768,
      .heads = 12,
      .head_dim = 64,
      .experts = 64,
      .top_k = 8,
      .expert_dim = 256,
      .vocab = 50257,
      .context = 1024}},
    {"olmoe-4l",
     "4 layers of OLMoE's shape: dim 2048, 64 experts of 1024, top 8 (1.9 B)",
     false,
     {.architecture = "llama",
      .layers = 4,
      .dim = 2048,
      .heads = 16,
      .head_dim = 128,
      .experts = 64,
      .top_k = 8,
      .expert_dim = 1024,
      .vocab = 50257,
      .context = 4096}},
};

enum { N_SHAPES = sizeof shapes / sizeof *shapes };

typedef struct choices {
    const char *shape, *arch, *tokenizer, *type, *name;
    int64_t layers, dim, heads, kv_heads, head_dim, ffn_dim, experts, top_k, expert_dim, shared_dim, vocab, context, window, seed;
    bool tied_output;
} choices;

static bool find_shape(const choices *c, dm_model_info *info, bool *tied_output) {
    if (c->shape == NULL) {
        return true;
    }
    for (size_t i = 0; i < N_SHAPES; i++) {
        if (strcmp(shapes[i].name, c->shape) == 0) {
            *info = shapes[i].info;
            snprintf(info->name, sizeof info->name, "%s", shapes[i].name);
            *tied_output = shapes[i].tied_output;
            return true;
        }
    }
    fprintf(stderr, "shapes:\n");
    for (size_t i = 0; i < N_SHAPES; i++) {
        fprintf(stderr, "  %-14s %s\n", shapes[i].name, shapes[i].what);
    }
    return false;
}

static bool override(const char *option, int64_t value, int32_t *field) {
    if (value < 0 || value > INT32_MAX) {
        cli_usage_error("--%s is %lld, expected 1 to %d", option, (long long)value, (int)INT32_MAX);
        return false;
    }
    *field = value != 0 ? (int32_t)value : *field;
    return true;
}

/* The named shape, if any, changed by what was given beside it. */
static bool make_shape(const choices *c, dm_model_info *info, bool *tied_output) {
    if (!find_shape(c, info, tied_output)) {
        cli_usage_error("the shape '%s' is unknown", c->shape);
        return false;
    }
    if (c->arch != NULL) {
        snprintf(info->architecture, sizeof info->architecture, "%s", c->arch);
    }
    if (c->name != NULL) {
        snprintf(info->name, sizeof info->name, "%s", c->name);
    }
    if (c->tokenizer != NULL) {
        info->vocab = 0; /* its own, unless --vocab says what is expected */
    }
    *tied_output = *tied_output || c->tied_output;
    return override("layers", c->layers, &info->layers) && override("dim", c->dim, &info->dim) &&
           override("heads", c->heads, &info->heads) && override("kv-heads", c->kv_heads, &info->kv_heads) &&
           override("head-dim", c->head_dim, &info->head_dim) && override("ffn-dim", c->ffn_dim, &info->ffn_dim) &&
           override("experts", c->experts, &info->experts) && override("top-k", c->top_k, &info->top_k) &&
           override("expert-dim", c->expert_dim, &info->expert_dim) && override("shared-dim", c->shared_dim, &info->shared_dim) &&
           override("window", c->window, &info->window) && override("vocab", c->vocab, &info->vocab) &&
           override("context", c->context, &info->context);
}

static void report(const char *path, const dm_model_info *info) {
    if (cli_json()) {
        cli_print_json(json_pack("{s:s, s:s, s:I, s:I}", "path", path, "arch", info->architecture, "params",
                                 (json_int_t)info->params, "active_params", (json_int_t)info->active_params));
    } else {
        printf("%s: %s, %.2f M parameters, %.2f M of them active for a token\n", path, info->architecture,
               1e-6 * (double)info->params, 1e-6 * (double)info->active_params);
    }
}

int cmd_new(int argc, char **argv) {
    choices c = {.type = "f32"};
    const cli_option options[] = {
        {"shape", 0, CLI_STRING, &c.shape, "NAME",
         "start from a named shape: gpt2-124m, llama-124m, llama-124m-gqa, moe-22m, moe-110m, fine-12l, olmoe-4l"},
        {"arch", 0, CLI_STRING, &c.arch, "NAME",
         "llama (with experts: as Mixtral), qwen2, qwen2moe, qwen3, qwen3moe, olmoe or gpt2"},
        {"layers", 0, CLI_INT, &c.layers, "N", "layers; 0, here and below: the shape's or the architecture's"},
        {"dim", 0, CLI_INT, &c.dim, "N", "width of the residual stream"},
        {"heads", 0, CLI_INT, &c.heads, "N", "query heads"},
        {"kv-heads", 0, CLI_INT, &c.kv_heads, "N", "key and value heads, shared by groups of heads"},
        {"head-dim", 0, CLI_INT, &c.head_dim, "N", "width of a head"},
        {"ffn-dim", 0, CLI_INT, &c.ffn_dim, "N", "feed-forward width, where there are no experts"},
        {"experts", 0, CLI_INT, &c.experts, "N", "experts per layer"},
        {"top-k", 0, CLI_INT, &c.top_k, "N", "experts that one token uses"},
        {"expert-dim", 0, CLI_INT, &c.expert_dim, "N", "width of an expert"},
        {"shared-dim", 0, CLI_INT, &c.shared_dim, "N", "width of the expert that all tokens use (qwen2moe)"},
        {"vocab", 0, CLI_INT, &c.vocab, "N", "size of the vocabulary; without --tokenizer it is bytes and filling"},
        {"context", 0, CLI_INT, &c.context, "N", "longest context, tokens"},
        {"window", 0, CLI_INT, &c.window, "N", "newest positions that a token sees; 0: all"},
        {"tied-output", 0, CLI_FLAG, &c.tied_output, NULL, "the output projection is the token embedding"},
        {"tokenizer", 0, CLI_STRING, &c.tokenizer, "GGUF", "take the vocabulary of this file"},
        {"type", 0, CLI_STRING, &c.type, "TYPE",
         "of the matrices: f32, f16, bf16, q8_0, q6_k, q4_k_m, ...; a wrong one lists all"},
        {"name", 0, CLI_STRING, &c.name, "TEXT", "the model's name in the file"},
        {"seed", 0, CLI_INT, &c.seed, "N", "of the random weights"},
    };
    const cli_usage usage = {
        "dilmodeli new OUT.gguf [options]",
        "Writes a freshly initialised model that training, other programs and measurements can start from.",
        "  dilmodeli new small.gguf --arch qwen3moe --layers 4 --dim 128 --experts 8 --top-k 2 --tied-output\n"
        "  dilmodeli new bench.gguf --shape moe-22m --type q4_k_m",
        options,
        sizeof options / sizeof *options,
        1,
        1,
    };
    int n, status;
    if (!cli_parse(&usage, argc, argv, &n, &status)) {
        return status;
    }
    dm_model_info shape = {0}, made;
    bool tied_output = false;
    if (!make_shape(&c, &shape, &tied_output)) {
        return CLI_USAGE;
    }
    if (dm_model_create(argv[0], &shape, c.tokenizer, tied_output, c.type, (uint64_t)c.seed, &made) != DM_OK) {
        return cli_fail_status();
    }
    report(argv[0], &made);
    return CLI_DONE;
}
