/* dilmodeli report: pictures of a run, a model or a compression, as a page that needs no network. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "cli/cli.h"
#include "visualization/report.h"

static struct {
    const char *data, *model, *out, *svg;
    int64_t tokens;
    double beta, gamma;
} option = {.tokens = 512, .beta = 0.5, .gamma = 0.2};

static const cli_option options[] = {
    {"data", 'd', CLI_STRING, &option.data, "FILE",
     "text to run the model over: flock, games, caches, times; - reads standard input"},
    {"tokens", 'n', CLI_INT, &option.tokens, "N", "most tokens of it"},
    {"beta", 0, CLI_FLOAT, &option.beta, "X", "games: price of crowding, at an even load"},
    {"gamma", 0, CLI_FLOAT, &option.gamma, "X", "games: price of fetching an expert, with room for half of them"},
    {"model", 'm', CLI_STRING, &option.model, "MODEL", "the model that a report of quantize is about"},
    {"out", 'o', CLI_STRING, &option.out, "FILE.html", "the page; without, beside what it is about, unless --svg is given"},
    {"svg", 0, CLI_STRING, &option.svg, "DIR", "write each picture as an SVG file, too"},
};

static const cli_usage usage = {
    .synopsis = "dilmodeli report RUN_DIR|MODEL|QUANTIZE_REPORT.json [options]",
    .summary =
        "Draws what there is to see: curves of a training run and loads of its experts, the flock of experts, games that come\n"
        "to rest, caches and hits, types and sizes of the weights, time and memory. The page is one file and asks the network\n"
        "for nothing. What there is no data for is left out and named. The run over --data takes seconds.",
    .example = "  dilmodeli report run --data valid.txt\n"
               "  dilmodeli report model.gguf --out model.html\n"
               "  dilmodeli report run --svg pictures",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .min_arguments = 1,
    .max_arguments = 1,
};

/* RUN_DIR/report.html, or FILE.html; the caller's to free(). */
static char *usual_page(const char *source) {
    if (dm_is_folder(source)) {
        return dm_path_join(source, "report.html");
    }
    size_t size = strlen(source) + sizeof ".html";
    char *path = malloc(size);
    if (path != NULL) {
        snprintf(path, size, "%s.html", source);
    }
    return path;
}

static void print_result(const dm_report_result *r, const char *page) {
    if (cli_json()) {
        json_t *path = page != NULL ? cli_json_text(page, strlen(page)) : json_null();
        json_t *svg = option.svg != NULL ? cli_json_text(option.svg, strlen(option.svg)) : json_null();
        cli_print_json(json_pack("{s:o, s:o, s:I, s:I, s:I}", "path", path, "svg", svg, "charts", (json_int_t)r->charts,
                                 "left_out", (json_int_t)r->left_out, "skipped_lines", (json_int_t)r->skipped));
        return;
    }
    if (page != NULL) {
        printf("%zu charts are in %s\n", r->charts, page);
    }
    if (option.svg != NULL) {
        printf("%zu charts are in %s, a file each\n", r->charts, option.svg);
    }
    if (r->skipped > 0) {
        printf("%zu lines of metrics.jsonl could not be used\n", r->skipped);
    }
}

static int report(const char *source, const char *page) {
    size_t length = 0;
    char *text = option.data != NULL ? cli_read_text(option.data, &length) : NULL;
    if (option.data != NULL && text == NULL) {
        return CLI_FAILED;
    }
    const dm_report_options how = {.source = source,
                                   .model = option.model,
                                   .text = text,
                                   .text_length = length,
                                   .tokens = (int32_t)option.tokens,
                                   .beta = option.beta,
                                   .gamma = option.gamma,
                                   .page = page,
                                   .svg = option.svg};
    dm_report_result result;
    dm_status status = dm_report(&how, &result);
    free(text);
    if (status != DM_OK) {
        return cli_fail_status();
    }
    print_result(&result, page);
    return CLI_DONE;
}

int cmd_report(int argc, char **argv) {
    int n, status;
    if (!cli_parse(&usage, argc, argv, &n, &status)) {
        return status;
    }
    if (option.tokens < 2 || option.tokens > INT32_MAX) {
        return cli_usage_error("--tokens expects 2 or more");
    }
    if (option.beta < 0.0 || option.gamma < 0.0 || option.beta + option.gamma == 0.0) {
        return cli_usage_error("--beta and --gamma are prices: expected 0 or more, and one of them above 0");
    }
    char *usual = option.out == NULL && option.svg == NULL ? usual_page(argv[0]) : NULL;
    if (option.out == NULL && option.svg == NULL && usual == NULL) {
        return cli_fail("out of memory for the page's path");
    }
    status = report(argv[0], option.out != NULL ? option.out : usual);
    free(usual);
    return status;
}
