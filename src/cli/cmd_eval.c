/* dilmodeli eval: perplexity of a text, distance from a base model, logits of given ids. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/max_loss_report.h"
#include "cli/placement_options.h"
#include "cli/routing_options.h"

enum { LONGEST_DEFAULT_CONTEXT = 1024 };

static struct {
    const char *data, *base, *ids, *logits, *trace, *max_loss;
    int64_t context, overlap, limit, sequences;
    double loss; /* of --max-loss, a share */
    dm_router_options router;
    const char *cache_name;
    dm_cache_type cache;
} option = {.cache_name = "f16", .sequences = 0};

static const cli_option options[] = {
    {"data", 'd', CLI_STRING, &option.data, "FILE", "text to predict; - reads standard input"},
    {"ctx", 'c', CLI_INT, &option.context, "N", "tokens per window; 0: the model's context, at most 1024"},
    {"overlap", 0, CLI_INT, &option.overlap, "N", "tokens that a window repeats from the one before as context only"},
    {"sequences", 0, CLI_INT, &option.sequences, "N",
     "read N parts of the text side by side, token by token as in decode; 0: one, in pieces"},
    {"limit", 0, CLI_INT, &option.limit, "BYTES", "use the first BYTES of the text; 0: all"},
    {"cache", 0, CLI_STRING, &option.cache_name, "TYPE", "keep keys and values in f16, q8 (8 bits) or f32"},
    {"base", 'b', CLI_STRING, &option.base, "MODEL", "also measure the KL divergence from this model and top-1 agreement"},
    {"ids", 0, CLI_STRING, &option.ids, "FILE", "token ids to use instead of a text"},
    {"logits", 0, CLI_STRING, &option.logits, "OUT.npy", "write the logits of --ids, float32 [n, vocab], and nothing else"},
    {"trace", 0, CLI_STRING, &option.trace, "FILE", "record which experts each token asks for, for dm-bench-eviction"},
    {"max-loss", 0, CLI_STRING, &option.max_loss, "1%", "find the largest gamma that costs at most this much of perplexity"},
    CLI_ROUTING_OPTIONS,
    CLI_PLACEMENT_OPTIONS,
    CLI_NUMA_OPTIONS,
};

static const cli_usage usage = {
    .synopsis = "dilmodeli eval MODEL --data FILE [options]",
    .summary = "Measures how well a model predicts a text: perplexity, and bits per byte, which compare across tokenizers.\n"
               "Every token but the first is predicted once, from those before it in its window. Tokens that are scored are\n"
               "routed causally: with --router nash each from what earlier ones left, or in a game with the tokens of other\n"
               "--sequences; --joint concerns those that --overlap repeats. With --max-loss the text is read up to 11 times,\n"
               "first as the model chooses, and the report is of the gamma found; run and bench take it as --gamma.",
    .example = "  dilmodeli eval model.gguf --data valid.txt --ctx 256\n"
               "  dilmodeli eval small.gguf --data valid.txt --base model.gguf --json\n"
               "  dilmodeli eval model.gguf --data valid.txt --router nash --resident 16 --gamma 0.2\n"
               "  dilmodeli eval model.gguf --data valid.txt --router nash --resident 16 --max-loss 1%\n"
               "  dilmodeli eval model.gguf --ids ids.txt --logits logits.npy",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .min_arguments = 1,
    .max_arguments = 1,
};

/* What an evaluation holds open. */
typedef struct evaluation {
    dm_model *model, *base;
    dm_tokenizer *tokenizer;
    int32_t *ids;
    size_t n;
} evaluation;

static void close_all(evaluation *e) {
    cli_close_model(e->model);
    cli_close_model(e->base);
    dm_tokenizer_close(e->tokenizer);
    free(e->ids);
}

static void show_progress(void *user, uint64_t done, uint64_t total, double nll) {
    (void)user;
    fprintf(stderr, "\r%" PRIu64 " of %" PRIu64 " tokens, %.4f nats per token ", done, total, nll);
    fflush(stderr);
}

static bool open_all(evaluation *e, const char *path) {
    bool open = dm_model_open(path, &e->model) == DM_OK;
    open = open && cli_placement_model(e->model) == DM_OK && cli_routing_stream(e->model) == DM_OK;
    open =
        open && (option.base == NULL || (dm_model_open(option.base, &e->base) == DM_OK && cli_placement_model(e->base) == DM_OK));
    open = open && (option.data == NULL || dm_tokenizer_open(path, &e->tokenizer) == DM_OK);
    if (!open) {
        cli_fail_status();
        return false;
    }
    return option.data != NULL ? cli_read_tokens(option.data, e->tokenizer, (uint64_t)option.limit, &e->ids, &e->n)
                               : cli_read_ids(option.ids, &e->ids, &e->n);
}

static void print_text(const dm_model *model, const dm_evaluate_result *r) {
    printf("tokens         %" PRIu64 "\n", r->tokens);
    printf("nll            %.5f nats per token\n", r->nll);
    printf("perplexity     %.4f\n", r->perplexity);
    if (r->bytes > 0) {
        printf("bits per byte  %.4f\n", r->bits_per_byte);
    }
    printf("speed          %.1f tokens/s\n", (double)r->tokens / r->seconds);
    if (option.base != NULL) {
        printf("KL from base   %.6f nats\n", r->kl_mean);
        printf("same top-1     %.2f%%\n", 100.0 * r->top1_agreement);
    }
    if (r->routing.tokens > 0) {
        cli_print_routing(&r->routing);
    }
    cli_print_stream(model);
}

static json_t *json_of(const dm_model *model, const dm_evaluate_result *r) {
    json_t *object = json_pack("{s:I, s:f, s:f}", "tokens", (json_int_t)r->tokens, "nll", r->nll, "perplexity", r->perplexity);
    if (r->bytes > 0) {
        json_object_set_new(object, "bytes", json_integer((json_int_t)r->bytes));
        json_object_set_new(object, "bits_per_byte", json_real(r->bits_per_byte));
    }
    if (option.base != NULL) {
        json_object_set_new(object, "kl_mean", json_real(r->kl_mean));
        json_object_set_new(object, "top1_agreement", json_real(r->top1_agreement));
    }
    json_object_set_new(object, "tokens_per_s", cli_json_figure((double)r->tokens / r->seconds));
    json_object_set_new(object, "routing", cli_json_routing(&r->routing));
    json_object_set_new(object, "stream", cli_json_stream(model));
    json_object_set_new(object, "interrupted", json_boolean(r->interrupted));
    return object;
}

static dm_evaluate_options how_to(const evaluation *e) {
    dm_model_info info;
    dm_model_get_info(e->model, &info);
    int32_t most = info.context < LONGEST_DEFAULT_CONTEXT ? info.context : LONGEST_DEFAULT_CONTEXT;
    return (dm_evaluate_options){.context = option.context > 0 ? (int32_t)option.context : most,
                                 .overlap = (int32_t)option.overlap,
                                 .cache = option.cache,
                                 .router = &option.router,
                                 .sequences = (int32_t)option.sequences,
                                 .trace = option.trace};
}

static int evaluate(const evaluation *e) {
    const dm_evaluate_options how = how_to(e);
    bool terminal = isatty(STDERR_FILENO) != 0;
    dm_evaluate_result result;
    dm_status status =
        dm_evaluate(e->model, e->base, e->tokenizer, e->ids, e->n, &how, terminal ? show_progress : NULL, NULL, &result);
    if (terminal) {
        fprintf(stderr, "\r\033[K");
    }
    if (status != DM_OK) {
        return cli_fail_status();
    }
    if (cli_json()) {
        cli_print_json(json_of(e->model, &result));
    } else {
        print_text(e->model, &result);
    }
    if (result.interrupted) {
        return cli_fail("interrupted: the figures cover %" PRIu64 " of %zu tokens", result.tokens, e->n - 1);
    }
    return CLI_DONE;
}

/* The report is of the gamma found, whose options go into the line to give again. */
static int report_max_loss(const dm_model *model, const dm_max_loss_result *r) {
    const dm_evaluate_result *result = &r->tried[r->chosen].result;
    cli_routing.gamma = r->tried[r->chosen].gamma;
    char *line = cli_routing_line();
    if (cli_json()) {
        json_t *object = json_of(model, result);
        json_object_set_new(object, "max_loss", max_loss_json(r, option.loss, line));
        json_object_set_new(object, "interrupted", json_boolean(r->interrupted));
        cli_print_json(object);
    } else {
        print_text(model, result);
        max_loss_print(r, option.loss, line);
    }
    free(line);
    if (r->interrupted) {
        return cli_fail("interrupted after %d passes: a larger gamma may be within the limit too", r->passes);
    }
    return CLI_DONE;
}

static int evaluate_max_loss(const evaluation *e) {
    const dm_evaluate_options how = how_to(e);
    bool terminal = isatty(STDERR_FILENO) != 0;
    dm_max_loss_result result;
    dm_status status =
        dm_evaluate_max_loss(e->model, e->tokenizer, e->ids, e->n, &how, option.loss, max_loss_progress, &terminal, &result);
    if (terminal) {
        fprintf(stderr, "\r\033[K");
    }
    return status == DM_OK ? report_max_loss(e->model, &result) : cli_fail_status();
}

static int write_logits(const evaluation *e) {
    if (dm_evaluate_logits(e->model, e->ids, e->n, option.cache, option.logits) != DM_OK) {
        return cli_fail_status();
    }
    if (cli_json()) {
        cli_print_json(json_pack("{s:I, s:s}", "tokens", (json_int_t)e->n, "path", option.logits));
    } else {
        printf("logits of %zu tokens are in %s\n", e->n, option.logits);
    }
    return CLI_DONE;
}

/* Something needs a price here: what, the library says. */
static int check_max_loss(void) {
    if (option.max_loss == NULL) {
        return CLI_DONE;
    }
    if (!max_loss_parse(option.max_loss, &option.loss)) {
        return cli_usage_error("--max-loss expects a share of perplexity such as 1%% or 0.01, not '%s'", option.max_loss);
    }
    if (option.router.policy != DM_ROUTER_NASH || option.router.gamma != 0.0) {
        return cli_usage_error("--max-loss looks for the gamma of --router nash: leave --gamma out");
    }
    if (option.base != NULL || option.trace != NULL) {
        return cli_usage_error("--max-loss reads the text many times; --base and --trace go with the --gamma that it finds");
    }
    return CLI_DONE;
}

static int check_options(void) {
    if (dm_cache_type_from_name(option.cache_name, &option.cache) != DM_OK) {
        return cli_usage_error("%s", dm_error_message());
    }
    if ((option.data == NULL) == (option.ids == NULL)) {
        return cli_usage_error("expected either --data FILE or --ids FILE");
    }
    if (option.logits != NULL && (option.ids == NULL || option.base != NULL)) {
        return cli_usage_error("--logits goes with --ids, and without --base");
    }
    if (option.logits != NULL &&
        (option.trace != NULL || option.sequences != 0 || option.max_loss != NULL || cli_routing_given())) {
        return cli_usage_error("--logits writes those of the model's own choice, of one sequence; --trace, --sequences, "
                               "--max-loss and the options of routing belong to an evaluation");
    }
    if (option.sequences < 0 || option.sequences > INT32_MAX) {
        return cli_usage_error("--sequences expects 0 or more");
    }
    if (!cli_routing_read(&option.router)) {
        return CLI_USAGE;
    }
    if (option.context < 0 || option.context > INT32_MAX || option.overlap < 0 || option.overlap > INT32_MAX ||
        option.limit < 0) {
        return cli_usage_error("--ctx, --overlap and --limit expect 0 or more");
    }
    return check_max_loss();
}

int cmd_eval(int argc, char **argv) {
    int n, status;
    cli_routing_defaults();
    if (!cli_parse(&usage, argc, argv, &n, &status)) {
        return status;
    }
    status = check_options();
    if (status != CLI_DONE) {
        return status;
    }
    status = cli_placement_apply();
    if (status != CLI_DONE) {
        return status;
    }
    evaluation e = {0};
    if (!open_all(&e, argv[0])) {
        status = CLI_FAILED;
    } else {
        status = option.logits != NULL ? write_logits(&e) : option.max_loss != NULL ? evaluate_max_loss(&e) : evaluate(&e);
    }
    close_all(&e);
    return status;
}
