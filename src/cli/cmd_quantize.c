/* dilmodeli quantize: compress a model. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

static struct {
    const char *preset, *size, *calibration, *data, *method, *report;
    double bpw, prune;
    int64_t width, embedding, neighbours, sweeps, seed, tokens;
    bool slopes, random, compat;
} option = {.method = "game", .neighbours = 7, .tokens = 32768};

static const cli_option options[] = {
    {"preset", 0, CLI_STRING, &option.preset, "NAME",
     "low (2 bits a weight, half of the tiles pruned), balanced (4 and 30%) or high (8 and 10%)"},
    {"bpw", 'b', CLI_FLOAT, &option.bpw, "X", "bits per weight, all tensors together"},
    {"size", 0, CLI_STRING, &option.size, "BYTES", "of the file, at most: 100M, 2G"},
    {"width", 0, CLI_INT, &option.width, "BITS", "instead: the same for all tiles that are kept: 2, 3, 4, 5, 6 or 8"},
    {"compat", 0, CLI_FLAG, &option.compat, NULL, "only block types that every GGUF program reads, one for each tensor"},
    {"embedding", 0, CLI_INT, &option.embedding, "BITS", "of the token embedding; 0: 6, above 4.25 bits per weight 8"},
    {"slopes", 0, CLI_FLAG, &option.slopes, NULL, "weigh errors by the statistics' slopes, not relative to each matrix's output"},
    {"prune", 0, CLI_FLOAT, &option.prune, "R", "at least this share of the tiles is pruned [0, or the preset's]"},
    {"calib", 0, CLI_STRING, &option.calibration, "STATS", "what `dilmodeli calibrate` wrote, or llama.cpp's importance matrix"},
    {"data", 'd', CLI_STRING, &option.data, "FILE", "instead: a text to calibrate with now"},
    {"tokens", 0, CLI_INT, &option.tokens, "N", "how much of it to read"},
    {"method", 'm', CLI_STRING, &option.method, "NAME", "game, gptq, rtn, wanda or magnitude"},
    {"neighbours", 0, CLI_INT, &option.neighbours, "K", "units that a move wakes; 0: all units look in every sweep"},
    {"random-neighbours", 0, CLI_FLAG, &option.random, NULL, "any K units instead of the nearest, to compare"},
    {"sweeps", 0, CLI_INT, &option.sweeps, "N", "of the game, at most 32; 0: 2"},
    {"seed", 0, CLI_INT, &option.seed, "N", "of what is drawn"},
    {"report", 0, CLI_STRING, &option.report, "FILE", "write what was done to each matrix as JSON"},
};

static const cli_usage usage = {
    .synopsis = "dilmodeli quantize MODEL OUT --preset NAME | --bpw X | --size BYTES | --width BITS [options]",
    .summary =
        "Compresses a model to mixed-width panels, this program's own format: every tile of 16 rows and 32 columns is\n"
        "pruned or gets 2, 3, 4, 5, 6 or 8 bits, all under one price of a byte. Codes are chosen by compensation and\n"
        "then by a game, in which a change is made only if it makes the expected error smaller. With --compat each matrix\n"
        "gets blocks of one of GGUF's common types instead, chosen in the same way, which other programs read too.",
    .example = "  dilmodeli quantize model.gguf small.gguf --bpw 3.4 --data text.txt\n"
               "  dilmodeli quantize model.gguf small.gguf --preset low --calib model.stats --report report.json\n"
               "  dilmodeli quantize model.gguf small.gguf --bpw 4.5 --calib model.stats --compat",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .min_arguments = 2,
    .max_arguments = 2,
};

/* What a run gathers. */
typedef struct quantizing {
    bool terminal;
    json_t *matrices;
} quantizing;

static const char *const width_names[DM_COMPRESS_WIDTHS] = {"0", "2", "3", "4", "5", "6", "8"};

static json_t *histogram(const uint64_t *tiles) {
    json_t *object = json_object();
    for (int i = 0; i < DM_COMPRESS_WIDTHS; i++) {
        json_object_set_new(object, width_names[i], json_integer((json_int_t)tiles[i]));
    }
    return object;
}

static void show_progress(void *user, uint64_t done, uint64_t total) {
    const quantizing *q = user;
    if (q->terminal && total > 0) {
        fprintf(stderr, "\r\033[K%3.0f%% of the weights", 100.0 * (double)done / (double)total);
    }
}

static void note_matrix(void *user, const dm_compress_matrix *m) {
    quantizing *q = user;
    json_t *object =
        json_pack("{s:s, s:i, s:i, s:I, s:I, s:I, s:o, s:f, s:f}", "name", m->name, "layer", (int)m->layer, "expert",
                  (int)m->expert, "rows", (json_int_t)m->rows, "columns", (json_int_t)m->columns, "bytes", (json_int_t)m->bytes,
                  "tiles", histogram(m->tiles), "error_before", m->error_before, "error_after", m->error_after);
    if (m->type != NULL) {
        json_object_set_new(object, "type", json_string(m->type));
    }
    json_array_append_new(q->matrices, object);
}

/* ---- What comes out ---- */

static json_t *sweeps_of(const dm_compress_result *r) {
    json_t *list = json_array();
    for (int32_t i = 0; i < r->sweeps; i++) {
        json_array_append_new(list, json_pack("{s:I, s:I, s:f, s:f}", "proposals", (json_int_t)r->proposals[i], "moves",
                                              (json_int_t)r->moves[i], "payoff_before", r->payoff[i], "payoff_after",
                                              r->payoff[i + 1]));
    }
    return list;
}

static json_t *summary_of(const dm_compress_result *r, const char *path) {
    return json_pack("{s:s, s:s, s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:I, s:I, s:o, s:o}", "path", path, "method",
                     option.method, "bytes_in", (json_int_t)r->bytes_in, "bytes_out", (json_int_t)r->bytes_out, "bpw", r->bpw,
                     "pruned", r->pruned, "seconds", r->seconds, "error_before", r->error_before, "error_after", r->error_after,
                     "price", r->price, "kept_price", r->kept_price, "panels", (json_int_t)r->panels, "panels_at_rest",
                     (json_int_t)r->panels_at_rest, "tiles", histogram(r->tiles), "sweeps", sweeps_of(r));
}

static bool write_report(const quantizing *q, const dm_compress_result *r, const char *path) {
    json_t *report = summary_of(r, path);
    if (option.report == NULL) {
        json_decref(report);
        return true;
    }
    json_object_set(report, "matrices", q->matrices);
    const bool written = json_dump_file(report, option.report, JSON_INDENT(1)) == 0;
    json_decref(report);
    if (!written) {
        cli_fail("%s: the report cannot be written", option.report);
    }
    return written;
}

static void print(const dm_compress_result *r, const char *path) {
    if (cli_json()) {
        cli_print_json(summary_of(r, path));
        return;
    }
    printf("%s: %.2f MB of %.2f MB, %.3f bits per weight, %.1f%% of the tiles pruned, %.1f s\n", path,
           1e-6 * (double)r->bytes_out, 1e-6 * (double)r->bytes_in, r->bpw, 100.0 * r->pruned, r->seconds);
    if (!option.compat) {
        fprintf(stderr, "tiles by bits:");
        for (int i = 0; i < DM_COMPRESS_WIDTHS; i++) {
            fprintf(stderr, " %s: %" PRIu64 "%s", width_names[i], r->tiles[i], i == DM_COMPRESS_WIDTHS - 1 ? "\n" : "");
        }
    }
    fprintf(stderr, "expected error: %.6g after construction, %.6g at the end\n", r->error_before, r->error_after);
    for (int32_t i = 0; i < r->sweeps; i++) {
        fprintf(stderr, "sweep %d: %" PRIu64 " tiles looked, %" PRIu64 " changed, payoff %.6g to %.6g\n", (int)i + 1,
                r->proposals[i], r->moves[i], r->payoff[i], r->payoff[i + 1]);
    }
}

/* ---- What goes in ---- */

static bool take_preset(dm_compress_options *how) {
    static const struct {
        const char *name;
        double bpw, prune;
    } presets[] = {{"low", 2.0, 0.5}, {"balanced", 4.0, 0.3}, {"high", 8.0, 0.1}};
    for (size_t i = 0; i < sizeof presets / sizeof *presets; i++) {
        if (strcmp(option.preset, presets[i].name) == 0) {
            how->bpw = presets[i].bpw;
            how->pruned = option.prune > 0.0 ? option.prune : presets[i].prune;
            return true;
        }
    }
    return false;
}

static bool take_method(dm_compress_options *how) {
    static const char *const names[] = {"game", "gptq", "rtn", "wanda", "magnitude"};
    for (int i = 0; i < (int)(sizeof names / sizeof *names); i++) {
        if (strcmp(option.method, names[i]) == 0) {
            how->method = (dm_compress_method)i;
            return true;
        }
    }
    return false;
}

static int check_options(dm_compress_options *how) {
    const int targets = (option.preset != NULL) + (option.bpw > 0.0) + (option.size != NULL) + (option.width > 0);
    if (targets != 1) {
        return cli_usage_error("expected one of --preset, --bpw, --size and --width");
    }
    if (option.calibration != NULL && option.data != NULL) {
        return cli_usage_error("expected --calib or --data, not both");
    }
    if (!take_method(how)) {
        return cli_usage_error("--method expects game, gptq, rtn, wanda or magnitude, not '%s'", option.method);
    }
    if (option.neighbours < 0 || option.neighbours > INT32_MAX || option.sweeps < 0 || option.sweeps > DM_COMPRESS_SWEEPS ||
        option.seed < 0 || option.tokens < 1 || option.width < 0 || option.width > 8 || option.embedding < 0 ||
        option.embedding > 8 || !(option.prune >= 0.0)) {
        return cli_usage_error("expected --neighbours, --seed and --prune of 0 or more, --sweeps 0 to 32, --tokens 1 or more");
    }
    if (option.calibration == NULL && option.data == NULL && how->method != DM_COMPRESS_RTN &&
        how->method != DM_COMPRESS_MAGNITUDE) {
        return cli_usage_error("--method %s needs --data FILE, a text such as the model will meet, or --calib STATS",
                               option.method);
    }
    how->bpw = option.bpw;
    how->pruned = option.prune;
    how->width = (int32_t)option.width;
    how->embedding = (int32_t)option.embedding;
    how->slopes = option.slopes;
    if (option.preset != NULL && !take_preset(how)) {
        return cli_usage_error("--preset expects low, balanced or high, not '%s'", option.preset);
    }
    if (option.size != NULL && (!cli_parse_size(option.size, &how->bytes) || how->bytes == 0)) {
        return cli_usage_error("--size expects a size such as 500M or 2G, not '%s'", option.size);
    }
    if (option.compat && (option.width > 0 || how->pruned > 0.0)) {
        return cli_usage_error("--compat expects --bpw or --size: common types prune nothing and have no --width");
    }
    how->compat = option.compat;
    how->calibration = option.calibration;
    how->neighbours = (int32_t)option.neighbours;
    how->random_neighbours = option.random;
    how->sweeps = (int32_t)option.sweeps;
    how->seed = (uint64_t)option.seed;
    return CLI_DONE;
}

/* Calibrates with --data into `stats`. */
static bool calibrate(const char *path, const char *stats) {
    dm_calibrate_options how = {.tokens = (uint64_t)option.tokens, .seed = (uint64_t)option.seed};
    dm_model *model = NULL;
    dm_tokenizer *tokenizer = NULL;
    int32_t *ids = NULL;
    size_t length = 0, n = 0;
    char *text = cli_read_text(option.data, &length);
    if (text == NULL) {
        return false;
    }
    const bool done = dm_model_open(path, &model) == DM_OK && dm_tokenizer_open(path, &tokenizer) == DM_OK &&
                      dm_tokenizer_encode(tokenizer, text, length, DM_ENCODE_BOS | DM_ENCODE_EOS, &ids, &n) == DM_OK &&
                      dm_calibrate(model, tokenizer, ids, n, stats, &how, NULL) == DM_OK;
    if (!done) {
        cli_fail_status();
    }
    free(text);
    free(ids);
    dm_tokenizer_close(tokenizer);
    cli_close_model(model);
    return done;
}

static int quantize(const char *from, const char *to, dm_compress_options *how) {
    quantizing q = {.terminal = isatty(STDERR_FILENO) != 0, .matrices = json_array()};
    dm_compress_result result;
    how->on_progress = show_progress;
    how->on_matrix = note_matrix;
    how->user = &q;
    dm_status done = dm_compress(from, to, how, &result);
    if (q.terminal) {
        fputs("\r\033[K", stderr);
    }
    int status = done == DM_OK ? CLI_DONE : cli_fail_status();
    if (status == CLI_DONE && !write_report(&q, &result, to)) {
        status = CLI_FAILED;
    }
    if (status == CLI_DONE) {
        print(&result, to);
    }
    json_decref(q.matrices);
    return status;
}

/* With --data the statistics live beside OUT until it is written; an interrupted calibration's parts stay, for the same command.
 */
static int calibrate_and_quantize(const char *from, const char *to, dm_compress_options *how) {
    const size_t room = strlen(to) + sizeof ".stats";
    char *stats = malloc(room);
    if (stats == NULL) {
        return cli_fail("out of memory");
    }
    snprintf(stats, room, "%s.stats", to);
    how->calibration = stats;
    int status = calibrate(from, stats) ? quantize(from, to, how) : CLI_FAILED;
    if (status == CLI_DONE) {
        unlink(stats);
    }
    free(stats);
    return status;
}

int cmd_quantize(int argc, char **argv) {
    int n, status;
    dm_compress_options how = {0};
    if (!cli_parse(&usage, argc, argv, &n, &status)) {
        return status;
    }
    status = check_options(&how);
    if (status != CLI_DONE) {
        return status;
    }
    return option.data != NULL ? calibrate_and_quantize(argv[0], argv[1], &how) : quantize(argv[0], argv[1], &how);
}
