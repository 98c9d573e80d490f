/* dilmodeli bench: speed of a model, what takes the time and the memory, and the share of the machine's limits reached. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/bench_report.h"
#include "cli/cli.h"
#include "cli/placement_options.h"
#include "cli/routing_options.h"

static struct {
    const char *data, *ids, *cache;
    int64_t prompt, decode, depth, sequences, rounds;
    bool scaling, no_limits;
    dm_router_options router;
} option;

static const cli_option options[] = {
    {"prompt", 'p', CLI_INT, &option.prompt, "N", "tokens of the prompt"},
    {"decode", 'n', CLI_INT, &option.decode, "N", "tokens fed one by one, to each sequence"},
    {"depth", 0, CLI_INT, &option.depth, "N", "tokens of context before them; -1: as many as the prompt has"},
    {"sequences", 's', CLI_INT, &option.sequences, "N", "decoded together, each its own part of the text"},
    {"cache", 0, CLI_STRING, &option.cache, "TYPE", "keys and values in f16 (default), q8 or f32"},
    {"rounds", 'r', CLI_INT, &option.rounds, "N", "how often; the median counts"},
    {"scaling", 0, CLI_FLAG, &option.scaling, NULL, "measure with 1, 2, ... up to --threads threads"},
    {"data", 'd', CLI_STRING, &option.data, "FILE", "text to feed; by default, a passage of its own"},
    {"ids", 0, CLI_STRING, &option.ids, "FILE", "token ids to feed instead of a text"},
    {"no-limits", 0, CLI_FLAG, &option.no_limits, NULL, "do not measure what the machine can do (a few seconds)"},
    CLI_ROUTING_OPTIONS,
    CLI_PLACEMENT_OPTIONS,
    CLI_NUMA_OPTIONS,
};

static const cli_usage usage = {
    .synopsis = "dilmodeli bench MODEL [options]",
    .summary = "Measures how fast a model reads a prompt and goes on from it, on text: where the time goes, what memory is\n"
               "used for, and which share of the memory's bandwidth and of the processor's arithmetic that is. The machine\n"
               "should do nothing else.",
    .example = "  dilmodeli bench model.gguf --prompt 512 --decode 64\n"
               "  dilmodeli bench model.gguf --sequences 8 --data chat.txt --rounds 9 --json\n"
               "  dilmodeli bench model.gguf --prompt 0 --depth 4096 --cache q8 --scaling\n"
               "  dilmodeli bench model.gguf --bind cores --huge-pages off",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .min_arguments = 1,
    .max_arguments = 1,
};

/* Fed when no text is given. */
static const char passage[] =
    "In late autumn the starlings gather over the reed beds before they settle for the night. A flock of many thousands turns as "
    "if it were one body, and yet no bird leads it and none sees the whole. Each attends to some six or seven of its "
    "neighbours, whatever their distance, and changes its course when they change theirs. What one bird knows of a falcon at "
    "the edge reaches the far side within a second. Engineers have borrowed the rule: let every part look only at a few others, "
    "choose what is best for itself given their choices, and repeat until nobody wants to move. Such a state is called an "
    "equilibrium. It need not be the best that a planner could find, but it costs little, it needs no centre, and it adapts by "
    "itself when the load, the weather or the falcon changes.\n";

typedef struct bench {
    dm_model *model;
    dm_tokenizer *tokenizer;
    char *text;
    int32_t *ids;
    size_t n;
    dm_bench_result *results; /* [runs] */
    int runs;
} bench;

static bool encode(bench *b, const char *path) {
    size_t length = sizeof passage - 1;
    const char *text = passage;
    if (option.data != NULL) {
        text = b->text = cli_read_text(option.data, &length);
        if (text == NULL) {
            return false;
        }
    }
    bool done = dm_tokenizer_open(path, &b->tokenizer) == DM_OK &&
                dm_tokenizer_encode(b->tokenizer, text, length, DM_ENCODE_BOS, &b->ids, &b->n) == DM_OK;
    if (!done) {
        cli_fail_status();
    }
    return done;
}

static bool read_options(const bench *b, dm_bench_options *how) {
    *how = (dm_bench_options){.ids = b->ids,
                              .n_ids = b->n,
                              .prompt = (int32_t)option.prompt,
                              .decode = (int32_t)option.decode,
                              .depth = (int32_t)option.depth,
                              .sequences = (int32_t)option.sequences,
                              .rounds = (int32_t)option.rounds,
                              .router = &option.router};
    return option.cache == NULL || dm_cache_type_from_name(option.cache, &how->cache) == DM_OK;
}

/* With all threads, or with 1, 2, ... of them; in the last run the machine's limits too. */
static bool measure(bench *b, dm_bench_options *how) {
    int threads = dm_threads();
    b->runs = option.scaling ? threads : 1;
    b->results = calloc((size_t)b->runs, sizeof *b->results);
    if (b->results == NULL) {
        cli_fail("out of memory");
        return false;
    }
    for (int i = 0; i < b->runs; i++) {
        dm_set_threads(threads - b->runs + 1 + i);
        if (cli_placement_apply() != CLI_DONE) {
            return false;
        }
        if (option.scaling && cli_placement_model(b->model) != DM_OK) {
            cli_fail_status();
            return false;
        }
        how->limits = !option.no_limits && i == b->runs - 1;
        if (dm_bench(b->model, how, &b->results[i]) != DM_OK) {
            cli_fail_status();
            return false;
        }
    }
    return true;
}

static int run(bench *b, const char *path) {
    dm_bench_options how;
    if (!read_options(b, &how)) {
        return cli_usage_error("%s", dm_error_message());
    }
    if (dm_model_open(path, &b->model) != DM_OK || cli_placement_model(b->model) != DM_OK ||
        cli_routing_stream(b->model) != DM_OK) {
        return cli_fail_status();
    }
    if (!(option.ids != NULL ? cli_read_ids(option.ids, &b->ids, &b->n) : encode(b, path))) {
        return CLI_FAILED;
    }
    how.ids = b->ids;
    how.n_ids = b->n;
    if (!measure(b, &how)) {
        return CLI_FAILED;
    }
    if (cli_json()) {
        bench_print_json(b->model, &how, b->results, b->runs);
    } else {
        bench_print_text(b->model, &how, b->results, b->runs);
    }
    return CLI_DONE;
}

static bool in_range(int64_t value, int64_t least) {
    return value >= least && value <= INT32_MAX;
}

int cmd_bench(int argc, char **argv) {
    option.prompt = 128;
    option.decode = 64;
    option.depth = -1;
    option.sequences = 1;
    option.rounds = 5;
    int n, status;
    cli_routing_defaults();
    if (!cli_parse(&usage, argc, argv, &n, &status)) {
        return status;
    }
    if (!in_range(option.prompt, 0) || !in_range(option.decode, 0) || !in_range(option.depth, -1)) {
        return cli_usage_error("--prompt, --decode and --depth expect 0 or more");
    }
    if (!in_range(option.sequences, 1) || !in_range(option.rounds, 1)) {
        return cli_usage_error("--sequences and --rounds expect 1 or more");
    }
    option.depth = option.depth < 0 ? option.prompt : option.depth;
    if (option.data != NULL && option.ids != NULL) {
        return cli_usage_error("expected --data or --ids, not both");
    }
    if (!cli_routing_read(&option.router)) {
        return CLI_USAGE;
    }
    status = cli_placement_apply();
    if (status != CLI_DONE) {
        return status;
    }
    bench b = {0};
    status = run(&b, argv[0]);
    cli_close_model(b.model);
    dm_tokenizer_close(b.tokenizer);
    free(b.text);
    free(b.ids);
    free(b.results);
    return status;
}
