#include "cli/compression.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/compression_report.h"
#include "cli/max_loss_report.h"

enum { LONGEST_DEFAULT_CONTEXT = 1024 };

cli_compression_values cli_compression = {.method = "game", .neighbours = 7, .tokens = 32768};

/* ---- Options ---- */

static bool take_preset(dm_compress_options *how, const char *name) {
    static const struct {
        const char *name;
        double bpw;
    } presets[] = {{"low", 2.0}, {"balanced", 4.0}, {"high", 8.0}};
    for (size_t i = 0; i < sizeof presets / sizeof *presets; i++) {
        if (strcmp(name, presets[i].name) == 0) {
            how->bpw = presets[i].bpw;
            how->players = true;
            return true;
        }
    }
    return false;
}

static bool take_method(dm_compress_options *how) {
    static const char *const names[] = {"game", "gptq", "rtn", "wanda", "magnitude"};
    for (int i = 0; i < (int)(sizeof names / sizeof *names); i++) {
        if (strcmp(cli_compression.method, names[i]) == 0) {
            how->method = (dm_compress_method)i;
            return true;
        }
    }
    return false;
}

static bool parse_nats(const char *text, double *nats) {
    char *end;
    *nats = strtod(text, &end);
    return end != text && *end == '\0' && isfinite(*nats) && *nats >= 0.0;
}

static int read_limit(cli_compressing *out) {
    const cli_compression_values *o = &cli_compression;
    out->within = o->max_loss != NULL || o->max_kl != NULL;
    out->limit = (dm_compress_limit){.loss = o->max_kl != NULL ? DM_LOSS_KL : DM_LOSS_PERPLEXITY};
    if (o->max_loss != NULL && !max_loss_parse(o->max_loss, &out->limit.most)) {
        return cli_usage_error("--max-loss expects a share of perplexity from 0 to below 1, as in 1%% or 0.01, not '%s'",
                               o->max_loss);
    }
    if (o->max_kl != NULL && !parse_nats(o->max_kl, &out->limit.most)) {
        return cli_usage_error("--max-kl expects nats per token, 0 or more, as in 0.01, not '%s'", o->max_kl);
    }
    if (o->context < 0 || o->context > INT32_MAX || o->limit < 0) {
        return cli_usage_error("--ctx and --limit expect 0 or more");
    }
    out->limit.context = (int32_t)o->context;
    return CLI_DONE;
}

static int read_size(cli_compressing *out, const char *usual) {
    const cli_compression_values *o = &cli_compression;
    dm_compress_options *how = &out->how;
    const int targets =
        (o->preset != NULL) + (o->bpw > 0.0) + (o->size != NULL) + (o->width > 0) + (o->max_loss != NULL) + (o->max_kl != NULL);
    if (targets > 1 || (targets == 0 && usual == NULL)) {
        return cli_usage_error("expected one of --preset, --bpw, --size, --width, --max-loss and --max-kl");
    }
    const char *preset = targets == 0 ? usual : o->preset;
    how->bpw = o->bpw;
    how->pruned = o->prune;
    how->width = (int32_t)o->width;
    if (o->compat && (o->width > 0 || o->prune > 0.0)) {
        return cli_usage_error(
            "--compat takes neither --width nor --prune: a tensor has one type, and common types prune nothing");
    }
    if (preset != NULL && !take_preset(how, preset)) {
        return cli_usage_error("--preset expects low, balanced or high, not '%s'", preset);
    }
    if (o->size != NULL && (!cli_parse_size(o->size, &how->bytes) || how->bytes == 0)) {
        return cli_usage_error("--size expects a size such as 500M or 2G, not '%s'", o->size);
    }
    return CLI_DONE;
}

int cli_compression_read(cli_compressing *out, const char *usual) {
    const cli_compression_values *o = &cli_compression;
    dm_compress_options *how = &out->how;
    if (o->calibration != NULL && o->data != NULL) {
        return cli_usage_error("expected --calib or --data, not both");
    }
    if (!take_method(how)) {
        return cli_usage_error("--method expects game, gptq, rtn, wanda or magnitude, not '%s'", o->method);
    }
    if (o->neighbours < 0 || o->neighbours > INT32_MAX || o->sweeps < 0 || o->sweeps > DM_COMPRESS_SWEEPS || o->seed < 0 ||
        o->tokens < 1 || o->width < 0 || o->width > 8 || o->embedding < 0 || o->embedding > 8 || !(o->prune >= 0.0)) {
        return cli_usage_error("expected --neighbours, --seed and --prune of 0 or more, --sweeps 0 to 32, --tokens 1 or more");
    }
    how->embedding = (int32_t)o->embedding;
    how->slopes = o->slopes;
    how->compat = o->compat;
    how->calibration = o->calibration;
    how->neighbours = (int32_t)o->neighbours;
    how->random_neighbours = o->random;
    how->sweeps = (int32_t)o->sweeps;
    how->seed = (uint64_t)o->seed;
    const int status = read_size(out, usual);
    return status == CLI_DONE ? read_limit(out) : status;
}

/* ---- Texts ---- */

bool cli_compression_read_text(cli_compressing *it) {
    dm_model *model = NULL;
    dm_model_info info;
    if (dm_tokenizer_open(it->from, &it->tokenizer) != DM_OK || dm_model_open(it->from, &model) != DM_OK) {
        cli_fail_status();
        return false;
    }
    dm_model_get_info(model, &info);
    dm_model_close(model);
    if (it->limit.context == 0) {
        it->limit.context = info.context < LONGEST_DEFAULT_CONTEXT ? info.context : LONGEST_DEFAULT_CONTEXT;
    }
    it->limit.tokenizer = it->tokenizer;
    if (!cli_read_tokens(cli_compression.text, it->tokenizer, (uint64_t)cli_compression.limit, &it->ids, &it->limit.n)) {
        return false;
    }
    it->limit.ids = it->ids;
    return true;
}

void calibration_progress(void *user, const dm_calibrate_progress *p) {
    const int64_t left = p->seconds_left >= 0 && p->seconds_left < 1e8 ? (int64_t)(p->seconds_left + 0.5) : 0;
    (void)user;
    fprintf(stderr, "\r%s: %" PRIu64 " of %" PRIu64 " tokens, %" PRId64 "m %02" PRId64 "s left \033[K", p->stage, p->done,
            p->total, left / 60, left % 60);
    fflush(stderr);
}

char *cli_compression_stats(const char *out) {
    const size_t room = strlen(out) + sizeof ".stats";
    char *stats = malloc(room);
    if (stats == NULL) {
        cli_fail("out of memory");
        return NULL;
    }
    snprintf(stats, room, "%s.stats", out);
    return stats;
}

bool cli_compression_calibrate(cli_compressing *it, const char *stats, int64_t generated) {
    const dm_calibrate_fn on_step = it->terminal ? calibration_progress : NULL;
    const dm_calibrate_options how = {.tokens = (uint64_t)cli_compression.tokens,
                                      .seed = (uint64_t)cli_compression.seed,
                                      .slopes = cli_compression.slopes ? DM_SLOPES_AUTO : DM_SLOPES_NONE,
                                      .on_step = on_step};
    dm_model *model = NULL;
    dm_tokenizer *tokenizer = NULL;
    int32_t *ids = NULL;
    size_t n = (size_t)generated;
    bool done = dm_model_open(it->from, &model) == DM_OK && dm_tokenizer_open(it->from, &tokenizer) == DM_OK, told = false;
    if (done && cli_compression.data != NULL) {
        done = cli_read_tokens(cli_compression.data, tokenizer, 0, &ids, &n);
        told = !done;
    } else if (done) {
        done = dm_calibrate_generate(model, tokenizer, n, 0, how.seed, on_step, NULL, &ids) == DM_OK;
    }
    done = done && dm_calibrate(model, tokenizer, ids, n, stats, &how, NULL) == DM_OK;
    if (it->terminal) {
        fputs("\r\033[K", stderr);
    }
    if (!done && !told) {
        cli_fail_status();
    }
    it->how.calibration = stats;
    free(ids);
    dm_tokenizer_close(tokenizer);
    cli_close_model(model);
    return done;
}

/* ---- The file ---- */

static void show_progress(void *user, uint64_t done, uint64_t total) {
    const cli_compressing *it = user;
    if (it->terminal && total > 0) {
        fprintf(stderr, "\r\033[K%3.0f%% of the weights", 100.0 * (double)done / (double)total);
    }
}

static void note_matrix(void *user, const dm_compress_matrix *matrix) {
    const cli_compressing *it = user;
    json_array_append_new(it->matrices, compression_json_matrix(matrix));
}

/* Keeps what was told of the matrices for the best trial. */
static void note_trial(void *user, const dm_compress_search *search) {
    cli_compressing *it = user;
    if (it->terminal) {
        fputs("\r\033[K", stderr);
    }
    compression_print_trial(it, search);
    if (search->chosen == search->trials - 1) {
        json_decref(it->chosen);
        it->chosen = it->matrices;
    } else {
        json_decref(it->matrices);
    }
    it->matrices = json_array();
}

bool cli_compression_run(cli_compressing *it) {
    it->matrices = json_array();
    it->how.on_progress = show_progress;
    it->how.on_matrix = note_matrix;
    it->how.user = it;
    const dm_status status = it->within ? dm_compress_within(it->from, it->to, &it->how, &it->limit, note_trial, &it->search)
                                        : dm_compress(it->from, it->to, &it->how, &it->result);
    if (it->terminal) {
        fputs("\r\033[K", stderr);
    }
    if (status != DM_OK) {
        cli_fail_status();
        return false;
    }
    if (it->within) {
        json_decref(it->matrices);
        it->matrices = json_incref(it->chosen);
        it->result = it->search.tried[it->search.chosen].result;
        it->result.seconds = it->search.seconds;
    }
    return true;
}

void cli_compression_end(cli_compressing *it) {
    json_decref(it->matrices);
    json_decref(it->chosen);
    dm_tokenizer_close(it->tokenizer);
    free(it->ids);
}
