/* dilmodeli train: train a model on text, or go on with a run. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/train_display.h"
#include "training/train_config.h"
#include "visualization/dashboard.h"

enum { MOST_OPTIONS = 96 };

/* The library's table of options as the command line's, plus --config. An option that was not given still holds the very
 * pointer of its default. */
typedef struct train_options {
    cli_option rows[MOST_OPTIONS];
    const char *defaults[MOST_OPTIONS];
    const char *values[MOST_OPTIONS];
    cli_list lists[MOST_OPTIONS];
    size_t n; /* of the library's, before those of this command */
    const char *config_path;
    int64_t dashboard; /* port; -1: none */
} train_options;

enum { OWN_OPTIONS = 2 /* beside the library's */ };

static train_options given = {.dashboard = -1};

static bool adds_up(const char *name) {
    return strcmp(name, "data") == 0 || strcmp(name, "valid") == 0;
}

static void list_options(void) {
    const char *name, *help, *fallback;
    while (given.n + OWN_OPTIONS < MOST_OPTIONS && dm_train_config_describe(given.n, &name, &help, &fallback)) {
        size_t i = given.n++;
        bool list = adds_up(name);
        given.defaults[i] = given.values[i] = *fallback != '\0' ? fallback : NULL;
        given.rows[i] = (cli_option){
            .name = name,
            .kind = list ? CLI_LIST : CLI_STRING,
            .value = list ? (void *)&given.lists[i] : (void *)&given.values[i],
            .argument = list ? "PATH..." : "VALUE",
            .help = help,
        };
    }
    given.rows[given.n] =
        (cli_option){"config", 'c', CLI_STRING, &given.config_path, "FILE", "lines `name = value`; options given here win"};
    given.rows[given.n + 1] = (cli_option){
        "dashboard", 0, CLI_INT, &given.dashboard, "PORT", "show the run at http://127.0.0.1:PORT; 0: any that is free, -1: no"};
}

/* What to return; CLI_DONE to go on. */
static int apply_options(dm_train_config *config) {
    if (given.dashboard < -1 || given.dashboard > UINT16_MAX) {
        return cli_usage_error("--dashboard expects a port, 0 to %d", UINT16_MAX);
    }
    if (given.config_path != NULL && dm_train_config_load(config, given.config_path) != DM_OK) {
        return cli_fail_status();
    }
    dm_status status = DM_OK;
    for (size_t i = 0; i < given.n && status == DM_OK; i++) {
        const char *name = given.rows[i].name;
        for (size_t j = 0; j < given.lists[i].count && status == DM_OK; j++) {
            status = dm_train_config_set(config, name, given.lists[i].items[j]);
        }
        if (given.values[i] != given.defaults[i] && status == DM_OK) {
            status = dm_train_config_set(config, name, given.values[i]);
        }
    }
    if (status == DM_OK) {
        status = dm_train_config_check(config);
    }
    return status == DM_OK ? CLI_DONE : cli_usage_error("--%s", dm_error_message()); /* messages start with the option's name */
}

static void free_options(void) {
    for (size_t i = 0; i < given.n; i++) {
        free(given.lists[i].items);
    }
}

static void print_json(const dm_train_result *r, const char *out) {
    json_t *object = json_pack("{s:I, s:I}", "steps", (json_int_t)r->steps, "tokens", (json_int_t)r->tokens);
    json_object_set_new(object, "loss", cli_json_figure(r->loss));
    json_object_set_new(object, "val_loss", cli_json_figure(r->val_loss));
    json_object_set_new(object, "val_bpb", cli_json_figure(r->val_bpb));
    json_object_set_new(object, "tokens_per_s", cli_json_figure(r->tokens_per_s));
    json_object_set_new(object, "maxvio", cli_json_figure(r->maxvio));
    json_object_set_new(object, "interrupted", json_boolean(r->interrupted));
    json_object_set_new(object, "out", cli_json_text(out, strlen(out)));
    cli_print_json(object);
}

static void print_text(const dm_train_result *r, const char *out) {
    printf("%" PRId64 " steps, %" PRId64 " tokens, loss %.4f", r->steps, r->tokens, r->loss);
    if (isfinite(r->val_loss)) {
        printf("\nvalidation: loss %.4f, %.4f bits per byte", r->val_loss, r->val_bpb);
    }
    if (r->maxvio > 0) {
        printf(", MaxVio %.3f", r->maxvio);
    }
    printf("\n%.0f tokens/s\n", r->tokens_per_s);
    if (!r->interrupted) {
        printf("the model is in %s/model.gguf\n", out);
    }
}

static int train_and_tell(const dm_train_config *config) {
    dm_train_result result;
    train_display_begin();
    dm_status status = dm_train(config, train_display_step, NULL, &result);
    train_display_end();
    if (status == DM_ERR_INTERRUPTED) { /* before the first step */
        return cli_fail("%s; the same command goes on from there", dm_error_message());
    }
    if (status != DM_OK) {
        return cli_fail_status();
    }
    if (cli_json()) {
        print_json(&result, config->out);
    } else {
        print_text(&result, config->out);
    }
    if (result.interrupted) {
        return cli_fail("interrupted after step %" PRId64 "; the same command goes on from there", result.steps);
    }
    return CLI_DONE;
}

static int train(const dm_train_config *config) {
    dm_dashboard *dashboard = NULL;
    if (given.dashboard >= 0) {
        if (dm_dashboard_start(config->out, (uint16_t)given.dashboard, &dashboard) != DM_OK) {
            return cli_fail_status();
        }
        fprintf(stderr, "the run can be watched at http://127.0.0.1:%u\n", dm_dashboard_port(dashboard));
    }
    int status = train_and_tell(config);
    dm_dashboard_stop(dashboard);
    return status;
}

int cmd_train(int argc, char **argv) {
    list_options();
    const cli_usage usage = {
        .synopsis = "dilmodeli train --data PATH... --out DIR [--config FILE] [options]",
        .summary = "Trains a model on text, or goes on with the run in DIR. Counts may end in k, M or G. The run can be\n"
                   "interrupted at any time; the same command resumes it. DIR/config.txt records every value.",
        .example = "  dilmodeli train --data texts/ --out run --tokens 2M\n"
                   "  dilmodeli train --data a.txt b.txt --out run --layers 8 --dim 512 --heads 8 --precision bf16\n"
                   "  dilmodeli train --data texts/ --out run --dashboard 8080",
        .options = given.rows,
        .n_options = given.n + OWN_OPTIONS,
    };
    int n, status;
    dm_train_config *config = NULL;
    if (cli_parse(&usage, argc, argv, &n, &status)) {
        config = dm_train_config_create();
        status = config == NULL ? cli_fail_status() : apply_options(config);
        if (config != NULL && status == CLI_DONE) {
            status = train(config);
        }
    }
    dm_train_config_free(config);
    free_options();
    return status;
}
