/* dilmodeli optimize: calibrate, compress, repack and tune in one go, with what all that is worth. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/spread.h"
#include "cli/compression_report.h"
#include "cli/optimize_report.h"
#include "cli/placement_options.h"

enum { KEPT_PATH = 4096, GENERATED_CALIBRATION = 8192, GENERATED_TEXT = 2048, LONGEST_PIECE = 512, MOST_ROUNDS = 1000 };

static struct { int64_t prompt, decode, rounds; } option = {128, 32, 3};

static const cli_option options[] = {
    CLI_COMPRESSION_OPTIONS,
    {"prompt", 'p', CLI_INT, &option.prompt, "N", "speeds: tokens read at once"},
    {"decode", 'n', CLI_INT, &option.decode, "N", "speeds: tokens fed one by one after them"},
    {"rounds", 'r', CLI_INT, &option.rounds, "N", "speeds: how often each in turns; the median counts"},
    CLI_PLACEMENT_OPTIONS,
};

static const cli_usage usage = {
    .synopsis = "dilmodeli optimize MODEL OUT [options]",
    .summary = "Makes a model ready for this machine: calibrates (--data or --calib; else with text that the model writes\n"
               "itself), compresses as quantize does (--preset balanced where nothing says how small), keeps weights as the\n"
               "kernels read them where the format needs that, and measures how many threads and how many sequences at a time\n"
               "serve it best. Then size, memory, speed and loss are printed, before and after; speeds before are those of\n"
               "MODEL with all threads. Losses are of --text FILE, or of text that the model writes. The machine should do\n"
               "nothing else. Interrupted, the same command goes on with the calibration where it was.",
    .example = "  dilmodeli optimize model.gguf small.gguf --data text.txt --text valid.txt\n"
               "  dilmodeli optimize model.gguf small.gguf --max-loss 1% --data text.txt --text valid.txt --report report.json\n"
               "  dilmodeli optimize model.gguf small.gguf --compat --bpw 4.5 --calib model.stats",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .min_arguments = 2,
    .max_arguments = 2,
};

static int check(cli_compressing *it) {
    const int status = cli_compression_read(it, "balanced");
    if (status != CLI_DONE) {
        return status;
    }
    if (it->within && cli_compression.text == NULL) {
        return cli_usage_error("--max-loss and --max-kl need --text FILE, a text that was not calibrated with");
    }
    if (option.prompt < 1 || option.prompt > INT32_MAX / 2 || option.decode < 1 || option.decode > INT32_MAX / 2 ||
        option.rounds < 1 || option.rounds > MOST_ROUNDS) {
        return cli_usage_error("--prompt and --decode expect 1 or more, --rounds 1 to %d", MOST_ROUNDS);
    }
    return CLI_DONE;
}

static bool checked(dm_status status) {
    if (status != DM_OK) {
        cli_fail_status();
    }
    return status == DM_OK;
}

/* MODEL is still needed when OUT is there. */
static bool same_file(const char *a, const char *b) {
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* ---- The text ---- */

/* Of the model's own, with another seed than that of calibration, in pieces that are windows later. */
static bool write_text(cli_compressing *it) {
    dm_model *model = NULL;
    dm_model_info info = {0};
    dm_tokenizer *tokenizer = NULL;
    bool done = checked(dm_model_open(it->from, &model)) && checked(dm_tokenizer_open(it->from, &tokenizer));
    if (done) {
        dm_model_get_info(model, &info);
        it->limit.context = it->limit.context > 0          ? it->limit.context
                            : info.context < LONGEST_PIECE ? info.context
                                                           : LONGEST_PIECE;
        done =
            checked(dm_calibrate_generate(model, tokenizer, GENERATED_TEXT, it->limit.context, (uint64_t)cli_compression.seed + 1,
                                          it->terminal ? calibration_progress : NULL, NULL, &it->ids));
    }
    dm_tokenizer_close(tokenizer);
    cli_close_model(model);
    it->limit.ids = it->ids;
    it->limit.n = GENERATED_TEXT;
    return done;
}

/* ---- Before and after ---- */

static bool measure_loss(const cli_compressing *it, const dm_model *model, const dm_model *base, optimize_side *side) {
    const dm_evaluate_options how = {.context = it->limit.context};
    const bool done = checked(dm_evaluate(model, base, it->tokenizer, it->limit.ids, it->limit.n, &how, NULL, NULL, &side->loss));
    if (done && side->loss.interrupted) {
        cli_fail("interrupted while losses were measured");
        return false;
    }
    return done;
}

static void say(const cli_compressing *it, const char *what) {
    if (it->terminal) {
        fprintf(stderr, "\r\033[K%s", what);
    }
}

static void show_point(void *user, const dm_tune_point *point) {
    const cli_compressing *it = user;
    if (it->terminal) {
        fprintf(stderr, "\r\033[Kmeasuring with %d threads, %d at a time", point->threads, point->sequences);
    }
}

/* The number of threads and of sequences that suit OUT. */
static bool tune(cli_compressing *it, optimize_result *r) {
    dm_model *model = NULL;
    r->before.threads = dm_threads();
    const bool done = checked(dm_model_open(it->to, &model)) && checked(dm_tune(model, &r->how, show_point, it, &r->advice));
    r->after.threads = r->advice.threads;
    cli_close_model(model);
    return done;
}

/* Tokens a second of one side's rounds. */
typedef struct turns {
    double prefill[MOST_ROUNDS], decode[MOST_ROUNDS];
} turns;

static bool use_threads(int32_t threads) {
    dm_set_threads(threads);
    return cli_placement_apply() == CLI_DONE;
}

/* One round, of which the last one's memory and times stay. */
static bool take_turn(const char *path, const dm_bench_options *how, optimize_side *side, turns *out, int64_t turn) {
    dm_model *model = NULL;
    dm_bench_options once = *how;
    once.rounds = 1;
    const bool done =
        use_threads(side->threads) && checked(dm_model_open(path, &model)) && checked(dm_bench(model, &once, &side->speed));
    out->prefill[turn] = side->speed.prefill.tps;
    out->decode[turn] = side->speed.decode.tps;
    cli_close_model(model);
    return done;
}

static void settle(dm_bench_speed *speed, double *tps, size_t n) {
    const dm_spread spread = dm_spread_of(tps, n);
    speed->tps = spread.median;
    speed->slowest = spread.least;
    speed->fastest = spread.most;
}

/* In turns, since what else goes on should meet both. */
static bool measure_speeds(const cli_compressing *it, optimize_result *r) {
    const char *const paths[] = {it->from, it->to};
    optimize_side *const sides[] = {&r->before, &r->after};
    turns *taken = calloc(2, sizeof *taken);
    if (taken == NULL) {
        cli_fail("out of memory");
        return false;
    }
    bool done = true;
    for (int64_t i = 0; i < 2 * option.rounds && done; i++) {
        say(it, i % 2 == 0 ? "measuring the model before" : "measuring the model after");
        done = take_turn(paths[i % 2], &r->how, sides[i % 2], &taken[i % 2], i / 2);
    }
    for (int i = 0; i < 2 && done; i++) {
        settle(&sides[i]->speed.prefill, taken[i].prefill, (size_t)option.rounds);
        settle(&sides[i]->speed.decode, taken[i].decode, (size_t)option.rounds);
        sides[i]->bytes = sides[i]->speed.memory.file_size;
    }
    free(taken);
    r->before.bpw = it->result.bpw_in;
    r->after.bpw = it->result.bpw;
    return done;
}

static bool measure_losses(const cli_compressing *it, optimize_result *r) {
    dm_model *before = NULL, *after = NULL;
    say(it, "measuring losses");
    const bool done = checked(dm_model_open(it->from, &before)) && measure_loss(it, before, NULL, &r->before) &&
                      checked(dm_model_open(it->to, &after)) && measure_loss(it, after, before, &r->after);
    cli_close_model(after);
    cli_close_model(before);
    return done;
}

/* ---- The chain ---- */

/* Panels of mixed widths are as the kernels read them; others are kept repacked, where this machine's kernels want that. */
static bool keep(const cli_compressing *it, optimize_result *r, char *path) {
    dm_model *model = NULL;
    if (!it->how.compat) {
        return true;
    }
    if (!checked(dm_model_open(it->to, &model))) {
        return false;
    }
    const dm_status status = dm_model_keep(model, path, KEPT_PATH, &r->kept_bytes);
    cli_close_model(model);
    r->kept = status == DM_OK ? path : NULL;
    return status == DM_ERR_UNSUPPORTED || checked(status);
}

static bool run(cli_compressing *it, const char *stats, optimize_result *r, char *kept) {
    const int64_t tokens = cli_compression.tokens < GENERATED_CALIBRATION ? cli_compression.tokens : GENERATED_CALIBRATION;
    const bool needs =
        it->how.calibration == NULL && it->how.method != DM_COMPRESS_RTN && it->how.method != DM_COMPRESS_MAGNITUDE;
    if ((needs || cli_compression.data != NULL) && !cli_compression_calibrate(it, stats, tokens)) {
        return false;
    }
    r->generated = cli_compression.text == NULL;
    if (!(r->generated ? write_text(it) : cli_compression_read_text(it)) || !cli_compression_run(it) || !keep(it, r, kept)) {
        return false;
    }
    r->how = (dm_bench_options){.ids = it->limit.ids,
                                .n_ids = it->limit.n,
                                .prompt = (int32_t)option.prompt,
                                .decode = (int32_t)option.decode,
                                .depth = (int32_t)option.prompt,
                                .sequences = 1,
                                .rounds = (int32_t)option.rounds};
    const bool measured = tune(it, r) && measure_speeds(it, r) && measure_losses(it, r);
    say(it, "");
    return measured;
}

static int optimize(cli_compressing *it) {
    char kept[KEPT_PATH];
    optimize_result *r = calloc(1, sizeof *r);
    char *stats = cli_compression_stats(it->to);
    const bool done = r != NULL && stats != NULL && run(it, stats, r, kept) && compression_write_report(it, optimize_json(it, r));
    if (done && it->how.calibration == stats) {
        unlink(stats);
    }
    if (done && cli_json()) {
        cli_print_json(optimize_json(it, r));
    } else if (done) {
        optimize_print(it, r);
    }
    free(r);
    free(stats);
    return done ? CLI_DONE : CLI_FAILED;
}

int cmd_optimize(int argc, char **argv) {
    int n, status;
    cli_compressing it = {.terminal = isatty(STDERR_FILENO) != 0};
    if (!cli_parse(&usage, argc, argv, &n, &status)) {
        return status;
    }
    status = check(&it);
    status = status == CLI_DONE ? cli_placement_apply() : status;
    if (status == CLI_DONE && same_file(argv[0], argv[1])) {
        status = cli_fail("%s: is MODEL and OUT, expected two files: one is compared with the other", argv[1]);
    } else if (status == CLI_DONE) {
        it.from = argv[0];
        it.to = argv[1];
        status = optimize(&it);
    }
    cli_compression_end(&it);
    return status;
}
