/* dilmodeli calibrate: measure what compression wants to know about a model. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/compression.h"

static struct {
    const char *data, *out, *imatrix, *memory, *slopes;
    int64_t tokens, slope_tokens, context, seed, generate;
} option = {.memory = "1G", .slopes = "none", .tokens = 32768, .slope_tokens = 8192};

static const cli_option options[] = {
    {"data", 'd', CLI_STRING, &option.data, "FILE", "text such as the model will meet; - reads standard input"},
    {"generate", 0, CLI_INT, &option.generate, "N", "instead of --data: N tokens that the model writes itself, at temperature 1"},
    {"out", 'o', CLI_STRING, &option.out, "STATS", "file to write"},
    {"tokens", 'n', CLI_INT, &option.tokens, "N", "how much of the text to read, in windows spread evenly over it"},
    {"ctx", 'c', CLI_INT, &option.context, "N", "tokens per window; 0: 512, at most the model's context"},
    {"slopes", 0, CLI_STRING, &option.slopes, "HOW",
     "also what errors cost, for quantize --slopes: gradient, measured (with noise, one number a matrix), scaled (both) or auto"},
    {"slope-tokens", 0, CLI_INT, &option.slope_tokens, "N",
     "how much of the text to read for them; measured ones take 1024 at most"},
    {"memory", 0, CLI_STRING, &option.memory, "BYTES", "for sums; where they need more, the text is read several times"},
    {"seed", 0, CLI_INT, &option.seed, "N", "of where windows begin, and of what is drawn"},
    {"imatrix", 0, CLI_STRING, &option.imatrix, "FILE",
     "also write an importance matrix for llama.cpp; in the older format if FILE ends in .dat"},
};

static const cli_usage usage = {
    .synopsis = "dilmodeli calibrate MODEL --data FILE --out STATS [options]",
    .summary = "Reads a text with the model and writes what compression wants to know: for every matrix the second moments of\n"
               "what it multiplies, each expert's weighted by its gates; with --slopes also how much the model's predictions\n"
               "mind errors of what it gives. Interrupted, it leaves parts beside STATS, and the same command goes on with them.",
    .example = "  dilmodeli calibrate model.gguf --data text.txt --out model.stats\n"
               "  dilmodeli calibrate model.gguf --generate 16384 --tokens 16384 --out model.stats\n"
               "  dilmodeli calibrate model.gguf --data text.txt --out model.stats --imatrix model.imatrix.gguf",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .min_arguments = 1,
    .max_arguments = 1,
};

/* What a calibration works on. */
typedef struct calibration {
    dm_model *model;
    dm_tokenizer *tokenizer;
    int32_t *ids;
    size_t n;
    bool terminal;
} calibration;

static bool open_all(calibration *c, const char *path) {
    if (dm_model_open(path, &c->model) != DM_OK || dm_tokenizer_open(path, &c->tokenizer) != DM_OK) {
        cli_fail_status();
        return false;
    }
    if (option.data != NULL) {
        return cli_read_tokens(option.data, c->tokenizer, 0, &c->ids, &c->n);
    }
    c->n = (size_t)option.generate;
    if (dm_calibrate_generate(c->model, c->tokenizer, c->n, (int32_t)option.context, (uint64_t)option.seed,
                              c->terminal ? calibration_progress : NULL, NULL, &c->ids) != DM_OK) {
        cli_fail_status();
        return false;
    }
    return true;
}

static void print(const dm_calibrate_result *r) {
    if (cli_json()) {
        cli_print_json(json_pack("{s:I, s:I, s:I, s:I, s:s, s:I, s:f, s:s}", "tokens", (json_int_t)r->tokens, "slope_tokens",
                                 (json_int_t)r->slope_tokens, "windows", (json_int_t)r->windows, "passes", (json_int_t)r->passes,
                                 "slopes", r->slopes, "resumed_tokens", (json_int_t)r->resumed_tokens, "seconds", r->seconds,
                                 "path", option.out));
        return;
    }
    printf("%" PRIu64 " tokens in %" PRIu64 " windows, read %" PRIu32 " times; slopes: %s, of %" PRIu64 " tokens\n", r->tokens,
           r->windows, r->passes, r->slopes, r->slope_tokens);
    printf("%s is written after %.1f s\n", option.out, r->seconds);
}

static int check_options(dm_calibrate_options *how) {
    static const char *const names[] = {"none", "auto", "scaled", "gradient", "measured"};
    size_t slopes = 0;
    if (option.out == NULL) {
        return cli_usage_error("expected --out STATS: the file to write");
    }
    if ((option.data == NULL) == (option.generate == 0)) {
        return cli_usage_error(
            "expected either --data FILE, a text such as the model will meet, or --generate N, for N tokens that "
            "the model writes itself");
    }
    if (option.generate < 0 || option.generate > INT32_MAX || option.tokens < 1 || option.slope_tokens < 1 ||
        option.context < 0 || option.context > INT32_MAX || option.seed < 0) {
        return cli_usage_error("--tokens, --slope-tokens and --generate expect 1 or more, --ctx and --seed 0 or more");
    }
    if (!cli_parse_size(option.memory, &how->memory)) {
        return cli_usage_error("--memory expects a size such as 500M or 2G, not '%s'", option.memory);
    }
    while (slopes < 5 && strcmp(option.slopes, names[slopes]) != 0) {
        slopes++;
    }
    if (slopes == 5) {
        return cli_usage_error("--slopes expects auto, scaled, gradient, measured or none, not '%s'", option.slopes);
    }
    how->slopes = (dm_slopes)slopes;
    how->tokens = (uint64_t)option.tokens;
    how->slope_tokens = (uint64_t)option.slope_tokens;
    how->context = (int32_t)option.context;
    how->seed = (uint64_t)option.seed;
    how->imatrix = option.imatrix;
    return CLI_DONE;
}

static int calibrate(const char *path, dm_calibrate_options *how) {
    calibration c = {.terminal = isatty(STDERR_FILENO) != 0};
    dm_calibrate_result result;
    int status = CLI_FAILED;
    how->on_step = c.terminal ? calibration_progress : NULL;
    if (open_all(&c, path)) {
        dm_status done = dm_calibrate(c.model, c.tokenizer, c.ids, c.n, option.out, how, &result);
        if (c.terminal) {
            fprintf(stderr, "\r\033[K");
        }
        status = done == DM_OK ? CLI_DONE : cli_fail_status();
    }
    if (status == CLI_DONE) {
        print(&result);
    }
    cli_close_model(c.model);
    dm_tokenizer_close(c.tokenizer);
    free(c.ids);
    return status;
}

int cmd_calibrate(int argc, char **argv) {
    int n, status;
    dm_calibrate_options how = {0};
    if (!cli_parse(&usage, argc, argv, &n, &status)) {
        return status;
    }
    status = check_options(&how);
    return status == CLI_DONE ? calibrate(argv[0], &how) : status;
}
