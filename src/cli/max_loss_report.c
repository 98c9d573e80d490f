#include "cli/max_loss_report.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"

bool max_loss_parse(const char *text, double *limit) {
    char *end;
    double value = strtod(text, &end);
    bool percent = *end == '%';
    *limit = percent ? value / 100.0 : value;
    return end != text && end[percent] == '\0' && *limit >= 0.0 && *limit < 1.0;
}

typedef struct word {
    char text[32];
} word;

static word name_of(double gamma) {
    word out = {"model's own"};
    if (isfinite(gamma)) {
        snprintf(out.text, sizeof out.text, "gamma %.4g", gamma);
    }
    return out;
}

/* "-" for what is not known. */
static word percent_of(double share) {
    word out = {"-"};
    if (isfinite(share)) {
        snprintf(out.text, sizeof out.text, "%.2f%%", 100.0 * share);
    }
    return out;
}

/* ---- Progress ---- */

void max_loss_progress(void *user, const dm_max_loss_progress *progress) {
    const bool terminal = *(const bool *)user, over = progress->done == progress->total;
    if (terminal) {
        fprintf(stderr, "\r\033[K");
    }
    if (terminal || over) {
        fprintf(stderr, "pass %d of at most %d, %s: ", progress->pass, DM_MAX_LOSS_PASSES, name_of(progress->gamma).text);
    }
    if (over) {
        fprintf(stderr, "perplexity %.4f", exp(progress->nll));
        fprintf(stderr, isfinite(progress->change) ? " (%+.2f%%)\n" : "\n", 100.0 * progress->change);
    } else if (terminal) {
        fprintf(stderr, "%" PRIu64 " of %" PRIu64 " tokens", progress->done, progress->total);
        fflush(stderr);
    }
}

/* ---- Text ---- */

static int by_gamma(const void *a, const void *b) {
    const double x = ((const dm_max_loss_pass *)a)->gamma, y = ((const dm_max_loss_pass *)b)->gamma;
    return isnan(x) || isnan(y) ? isnan(y) - isnan(x) : (x > y) - (x < y);
}

static void print_passes(const dm_max_loss_result *r) {
    dm_max_loss_pass sorted[DM_MAX_LOSS_PASSES];
    memcpy(sorted, r->tried, sizeof sorted);
    qsort(sorted, (size_t)r->passes, sizeof *sorted, by_gamma);
    printf("\n  %-14s %10s %8s %10s %9s %14s\n", "choice", "perplexity", "change", "resident", "changed", "MB per token");
    for (int32_t i = 0; i < r->passes; i++) {
        const dm_max_loss_pass *pass = &sorted[i];
        const dm_routing_stats *routing = &pass->result.routing;
        printf("%c %-14s %10.4f %+7.2f%% %10s %8.1f%% %14.4g\n", pass->gamma == r->tried[r->chosen].gamma ? '*' : ' ',
               name_of(pass->gamma).text, pass->result.perplexity, 100.0 * pass->change, percent_of(routing->hit_rate).text,
               100.0 * routing->changed, 1e-6 * routing->bytes_read_per_token);
    }
}

void max_loss_print(const dm_max_loss_result *result, double limit, const char *options) {
    const dm_max_loss_pass *chosen = &result->tried[result->chosen], *model = &result->tried[0];
    switch (result->end) {
    case DM_MAX_LOSS_FOUND:
        printf("largest gamma  %.4g of those that lose at most %g%%\n", chosen->gamma, 100.0 * limit);
        break;
    case DM_MAX_LOSS_ALL:
        printf("largest gamma  any: all up to %g lose at most %g%%, and from %.4g on choices are the same\n",
               result->tried[1].gamma, 100.0 * limit, chosen->gamma);
        break;
    case DM_MAX_LOSS_NONE:
        printf("largest gamma  0: even the smallest that was tried loses more than %g%%\n", 100.0 * limit);
        break;
    }
    printf("change         %+.2f%% against the model's own choice (%.4f) after %d passes\n", 100.0 * chosen->change,
           model->result.perplexity, result->passes);
    if (options != NULL) {
        printf("options       %s\n", options);
    }
    print_passes(result);
}

/* ---- JSON ---- */

static json_t *json_pass(const dm_max_loss_pass *pass) {
    const dm_routing_stats *routing = &pass->result.routing;
    return json_pack("{s:o, s:o, s:o, s:o, s:f, s:f}", "gamma", cli_json_figure(pass->gamma), "perplexity",
                     cli_json_figure(pass->result.perplexity), "change", cli_json_figure(pass->change), "hit_rate",
                     cli_json_figure(routing->hit_rate), "changed", routing->changed, "bytes_read_per_token",
                     routing->bytes_read_per_token);
}

json_t *max_loss_json(const dm_max_loss_result *result, double limit, const char *options) {
    static const char *const ends[] = {[DM_MAX_LOSS_FOUND] = "found", [DM_MAX_LOSS_ALL] = "all", [DM_MAX_LOSS_NONE] = "none"};
    const dm_max_loss_pass *chosen = &result->tried[result->chosen], *model = &result->tried[0];
    json_t *tried = json_array();
    for (int32_t i = 0; i < result->passes; i++) {
        json_array_append_new(tried, json_pass(&result->tried[i]));
    }
    return json_pack("{s:f, s:f, s:o, s:o, s:o, s:i, s:s, s:s*, s:o}", "limit", limit, "gamma", chosen->gamma, "perplexity_model",
                     cli_json_figure(model->result.perplexity), "change", cli_json_figure(chosen->change), "hit_rate_model",
                     cli_json_figure(model->result.routing.hit_rate), "passes", result->passes, "end", ends[result->end],
                     "options", options, "tried", tried);
}
