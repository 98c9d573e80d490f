/* dilmodeli bench: prefill and decode speed of a model, and the share of the machine's limits that they reach. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"

static struct {
    const char *data, *ids;
    int64_t prompt, decode, rounds;
    bool no_limits;
} option;

static const cli_option options[] = {
    {"prompt", 'p', CLI_INT, &option.prompt, "N", "tokens of the prompt"},
    {"decode", 'n', CLI_INT, &option.decode, "N", "tokens fed one by one after it"},
    {"rounds", 'r', CLI_INT, &option.rounds, "N", "how often; the median counts"},
    {"data", 'd', CLI_STRING, &option.data, "FILE", "text to feed; by default, a passage of its own"},
    {"ids", 0, CLI_STRING, &option.ids, "FILE", "token ids to feed instead of a text"},
    {"no-limits", 0, CLI_FLAG, &option.no_limits, NULL, "do not measure what the machine can do (a few seconds)"},
};

static const cli_usage usage = {
    .synopsis = "dilmodeli bench MODEL [options]",
    .summary = "Measures how fast a model reads a prompt and goes on from it, on text, and which share of the memory's\n"
               "bandwidth and of the processor's int8 arithmetic that is. The machine should do nothing else.",
    .example = "  dilmodeli bench model.gguf --prompt 512 --decode 64\n"
               "  dilmodeli bench model.gguf --data chat.txt --rounds 9 --json",
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

static double share(double rate, double cost, double limit) {
    return limit > 0 ? rate * cost / (limit * 1e9) : 0;
}

static void print_rate(const char *name, double median, double slowest, double fastest, int64_t tokens) {
    if (tokens > 0) {
        printf("%-14s %.1f tokens/s (%.1f to %.1f over %d rounds of %d)\n", name, median, slowest, fastest, (int)option.rounds,
               (int)tokens);
    }
}

static void print_text(const dm_bench_result *r) {
    print_rate("prefill", r->prefill_tps, r->prefill_slowest, r->prefill_fastest, option.prompt);
    print_rate("decode", r->decode_tps, r->decode_slowest, r->decode_fastest, option.decode);
    printf("%-14s %.2f s\n", "load", r->load_s);
    printf("%-14s %.0f MiB at most\n", "memory", (double)r->peak_rss / 1048576);
    printf("%-14s %.1f MB of weights and %.1f million operations for a decoded token, %.1f for one of a prompt\n", "cost",
           r->bytes_per_token * 1e-6, r->decode_operations * 1e-6, r->prefill_operations * 1e-6);
    if (r->read_gb_s > 0) {
        printf("%-14s %.1f GB/s read; 10^9 operations a second: float32 %.0f, bfloat16 %.0f, int8 %.0f (vectors %.0f)\n",
               "limits", r->read_gb_s, r->fp32_gops, r->bf16_gops, r->int8_gops, r->int8_vector_gops);
    }
    if (r->read_gb_s > 0 && option.decode > 0) {
        printf("%-14s %.0f%% of the bandwidth in decode\n", "share",
               100 * share(r->decode_tps, r->bytes_per_token, r->read_gb_s));
    }
    if (r->int8_gops > 0 && option.prompt > 0) {
        printf("%-14s %.0f%% of int8 arithmetic in prefill, %.0f%% of that of vectors\n", "share",
               100 * share(r->prefill_tps, r->prefill_operations, r->int8_gops),
               100 * share(r->prefill_tps, r->prefill_operations, r->int8_vector_gops));
    }
}

static void set_figure(json_t *object, const char *key, double value) {
    json_object_set_new(object, key, cli_json_figure(value));
}

static void print_json(const dm_bench_result *r) {
    json_t *object = json_object();
    set_figure(object, "prefill_tps", r->prefill_tps);
    set_figure(object, "prefill_slowest", r->prefill_slowest);
    set_figure(object, "prefill_fastest", r->prefill_fastest);
    set_figure(object, "decode_tps", r->decode_tps);
    set_figure(object, "decode_slowest", r->decode_slowest);
    set_figure(object, "decode_fastest", r->decode_fastest);
    set_figure(object, "load_s", r->load_s);
    json_object_set_new(object, "peak_rss_bytes", json_integer((json_int_t)r->peak_rss));
    set_figure(object, "bytes_per_token", r->bytes_per_token);
    set_figure(object, "decode_operations", r->decode_operations);
    set_figure(object, "prefill_operations", r->prefill_operations);
    if (!option.no_limits) {
        set_figure(object, "read_gb_s", r->read_gb_s);
        set_figure(object, "fp32_gops", r->fp32_gops);
        set_figure(object, "bf16_gops", r->bf16_gops);
        set_figure(object, "int8_gops", r->int8_gops);
        set_figure(object, "int8_vector_gops", r->int8_vector_gops);
        set_figure(object, "bandwidth_share", share(r->decode_tps, r->bytes_per_token, r->read_gb_s));
        set_figure(object, "arithmetic_share", share(r->prefill_tps, r->prefill_operations, r->int8_gops));
    }
    json_object_set_new(object, "routing", cli_json_routing(&r->routing));
    cli_print_json(object);
}

static int run(bench *b, const char *path) {
    if (dm_model_open(path, &b->model) != DM_OK) {
        return cli_fail_status();
    }
    if (!(option.ids != NULL ? cli_read_ids(option.ids, &b->ids, &b->n) : encode(b, path))) {
        return CLI_FAILED;
    }
    const dm_bench_options how = {b->ids,           b->n, (int32_t)option.prompt, (int32_t)option.decode, (int32_t)option.rounds,
                                  !option.no_limits};
    dm_bench_result result;
    if (dm_bench(b->model, &how, &result) != DM_OK) {
        return cli_fail_status();
    }
    if (cli_json()) {
        print_json(&result);
    } else {
        print_text(&result);
    }
    return CLI_DONE;
}

int cmd_bench(int argc, char **argv) {
    option.prompt = 128;
    option.decode = 64;
    option.rounds = 5;
    int n, status;
    if (!cli_parse(&usage, argc, argv, &n, &status)) {
        return status;
    }
    if (option.prompt < 0 || option.prompt > INT32_MAX || option.decode < 0 || option.decode > INT32_MAX || option.rounds < 1 ||
        option.rounds > INT32_MAX) {
        return cli_usage_error("--prompt and --decode expect 0 or more, --rounds 1 or more");
    }
    if (option.data != NULL && option.ids != NULL) {
        return cli_usage_error("expected --data or --ids, not both");
    }
    bench b = {0};
    status = run(&b, argv[0]);
    cli_close_model(b.model);
    dm_tokenizer_close(b.tokenizer);
    free(b.text);
    free(b.ids);
    return status;
}
