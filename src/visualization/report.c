#include "visualization/report.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "visualization/parts.h"

enum { USUAL_TOKENS = 512, LEAST_TOKENS = 2, TOKEN_BYTES = 64 /* more than most have */, MOST_JSON = 256 << 20 /* bytes */ };

/* What a report is made from, as far as it is there. */
typedef struct sources {
    char *metrics_path, *model_path;
    dm_run_metrics metrics;
    bool has_metrics;
    dm_model *model;
    dm_gguf *file;     /* of the model; its own where the model does not open, as of an architecture that does not run */
    char problem[512]; /* why the model does not open */
    json_t *report;
    dm_tokenizer *tokenizer;
    int32_t *ids;
    dm_run_over run;
    dm_trace trace;
    bool has_trace;
} sources;

/* ---- Small things that parts share ---- */

void dm_bytes_text(double bytes, char text[DM_NUMBER_TEXT]) {
    static const char *const units[] = {"bytes", "kB", "MB", "GB", "TB"};
    size_t unit = 0;
    for (; unit + 1 < sizeof units / sizeof *units && bytes >= 1000.0; unit++) {
        bytes /= 1000.0;
    }
    snprintf(text, DM_NUMBER_TEXT, unit == 0 ? "%.0f %s" : "%.3g %s", bytes, units[unit]);
}

void dm_name_with(char *out, size_t size, const char *name, size_t number) {
    snprintf(out, size, "%s-%zu", name, number);
}

size_t dm_pick(size_t i, size_t n, size_t all) {
    return n > 1 ? i * (all - 1) / (n - 1) : all - 1;
}

/* ---- Opening ---- */

static void close_sources(sources *s) {
    free(s->metrics_path);
    free(s->model_path);
    dm_run_metrics_free(&s->metrics);
    if (s->model == NULL) {
        dm_gguf_close(s->file);
    }
    dm_model_close(s->model);
    json_decref(s->report);
    dm_tokenizer_close(s->tokenizer);
    free(s->ids);
    if (s->has_trace) {
        dm_trace_free(&s->trace);
    }
}

/* One that does not run can be looked into all the same. */
static dm_status open_model(sources *s, const char *path) {
    if (dm_model_open(path, &s->model) == DM_OK) {
        s->file = s->model->file;
        return DM_OK;
    }
    snprintf(s->problem, sizeof s->problem, "%.500s", dm_error_message());
    return dm_gguf_open(path, &s->file);
}

/* True for a file that is there. */
static bool exists(const char *path) {
    return access(path, F_OK) == 0;
}

static dm_status open_run(sources *s, const char *folder) {
    s->metrics_path = dm_path_join(folder, "metrics.jsonl");
    s->model_path = dm_path_join(folder, "model.gguf");
    if (s->metrics_path == NULL || s->model_path == NULL) {
        return dm_fail(DM_ERR_MEMORY, "out of memory for paths");
    }
    bool model = exists(s->model_path), metrics = exists(s->metrics_path);
    if (!model && !metrics) {
        return dm_fail(DM_ERR_ARGUMENT, "%s: has neither metrics.jsonl nor model.gguf: expected the folder of a training run",
                       folder);
    }
    if (metrics) {
        DM_TRY(dm_run_metrics_read(s->metrics_path, &s->metrics));
        s->has_metrics = true;
    }
    return model ? open_model(s, s->model_path) : DM_OK;
}

static dm_status begins_with_gguf(const char *path, bool *out) {
    char magic[4] = "";
    FILE *file = fopen(path, "rbe");
    if (file == NULL) {
        return dm_fail(DM_ERR_IO, "%s: cannot open: %s", path, strerror(errno));
    }
    *out = fread(magic, 1, sizeof magic, file) == sizeof magic && memcmp(magic, "GGUF", sizeof magic) == 0;
    fclose(file);
    return DM_OK;
}

static dm_status open_source(sources *s, const dm_report_options *o) {
    bool gguf = false;
    if (dm_is_folder(o->source)) {
        return open_run(s, o->source);
    }
    DM_TRY(begins_with_gguf(o->source, &gguf));
    if (gguf) {
        return open_model(s, o->source);
    }
    if (dm_json_load(o->source, MOST_JSON, &s->report) != DM_OK) {
        return dm_fail(
            DM_ERR_FORMAT,
            "%s: is neither the folder of a training run, nor a GGUF model, nor a report of quantize or optimize in JSON",
            o->source);
    }
    return o->model != NULL ? open_model(s, o->model) : DM_OK;
}

/* ---- Running over a text ---- */

static dm_status encode(sources *s, const dm_report_options *o) {
    size_t n, most = o->tokens > 0 ? (size_t)o->tokens : USUAL_TOKENS, length = o->text_length;
    if (length / TOKEN_BYTES > most) { /* no need to encode what will not be read */
        length = most * TOKEN_BYTES;
    }
    DM_TRY(dm_tokenizer_open(dm_gguf_path(s->file), &s->tokenizer));
    DM_TRY(dm_tokenizer_encode(s->tokenizer, o->text, length, DM_ENCODE_BOS, &s->ids, &n));
    most = most < (size_t)s->model->config.context ? most : (size_t)s->model->config.context;
    n = n < most ? n : most;
    if (n < LEAST_TOKENS) {
        return dm_fail(DM_ERR_ARGUMENT, "a text of %zu tokens: expected %d or more to run over", n, LEAST_TOKENS);
    }
    s->run = (dm_run_over){.model = s->model,
                           .tokenizer = s->tokenizer,
                           .ids = s->ids,
                           .n = n,
                           .beta = o->beta > 0.0 || o->gamma > 0.0 ? o->beta : 0.5,
                           .gamma = o->beta > 0.0 || o->gamma > 0.0 ? o->gamma : 0.2};
    return DM_OK;
}

/* The trace goes through a file, as that is what evaluations write. */
static dm_status trace_text(sources *s) {
    char path[] = "/tmp/dilmodeli-report-XXXXXX";
    int descriptor = mkstemp(path);
    if (descriptor < 0) {
        return dm_fail(DM_ERR_IO, "%s: cannot create: %s", path, strerror(errno));
    }
    close(descriptor);
    dm_evaluate_result result;
    const dm_evaluate_options how = {.context = (int32_t)s->run.n, .trace = path};
    dm_status status = dm_evaluate(s->model, NULL, NULL, s->ids, s->run.n, &how, NULL, NULL, &result);
    if (status == DM_OK && result.interrupted) {
        status = dm_fail(DM_ERR_INTERRUPTED, "interrupted");
    }
    if (status == DM_OK) {
        status = dm_trace_read(path, &s->trace);
        s->has_trace = status == DM_OK;
    }
    unlink(path);
    return status;
}

static dm_status run_over_text(sources *s, const dm_report_options *o) {
    if (o->text == NULL) {
        return DM_OK;
    }
    if (s->model == NULL) {
        return dm_fail(DM_ERR_ARGUMENT, "there is no model to run over a text%s%s", s->problem[0] != '\0' ? ": " : "",
                       s->problem);
    }
    DM_TRY(encode(s, o));
    return s->model->config.n_experts > 0 ? trace_text(s) : DM_OK;
}

/* ---- The page ---- */

static void tell_model(dm_page *page, const sources *s) {
    char size[DM_NUMBER_TEXT], params[DM_NUMBER_TEXT], active[DM_NUMBER_TEXT];
    if (s->file == NULL) {
        return;
    }
    dm_bytes_text((double)dm_gguf_size(s->file), size);
    dm_page_fact(page, "File", "%s, %s", dm_gguf_path(s->file), size);
    if (s->model == NULL) {
        return;
    }
    dm_model_info info;
    dm_model_get_info(s->model, &info);
    dm_number_text((double)info.params, params);
    dm_number_text((double)info.active_params, active);
    if (info.name[0] != '\0') {
        dm_page_fact(page, "Name", "%s", info.name);
    }
    dm_page_fact(page, "Model", "%s, %s parameters, %s of them active for a token, %d layers of dimension %d", info.architecture,
                 params, active, info.layers, info.dim);
    if (info.experts > 0) {
        dm_page_fact(page, "Experts", "%d in a layer, of which a token uses %d", info.experts, info.top_k);
    }
    if (s->ids != NULL) {
        dm_page_fact(page, "Text", "%zu tokens of the text given", s->run.n);
    }
}

static void tell_run(dm_page *page, const sources *s) {
    const dm_run_metrics *m = &s->metrics;
    if (!s->has_metrics) {
        return;
    }
    if (m->n > 0) {
        dm_page_fact(page, "Run", "%.0f steps", m->values[DM_RUN_STEP][m->n - 1]);
    }
    if (m->skipped > 0 || m->cut_short) {
        dm_page_fact(page, "Left out", "%zu lines of metrics.jsonl that could not be used%s", m->skipped,
                     m->cut_short ? ", and the last one, which is only begun" : "");
    }
}

static dm_status add_training(dm_page *page, const sources *s) {
    if (!s->has_metrics || s->metrics.n == 0) {
        dm_page_leave_out(page, "Training", "because %s",
                          s->has_metrics            ? "metrics.jsonl has no step that can be used"
                          : s->metrics_path != NULL ? "there is no metrics.jsonl"
                                                    : "this is no folder of a training run, which has metrics.jsonl");
        return page->status;
    }
    DM_TRY(dm_part_training(page, &s->metrics));
    return dm_part_loads(page, &s->metrics);
}

static dm_status add_run(dm_page *page, const sources *s) {
    if (s->ids == NULL) {
        dm_page_leave_out(page, "Games, caches and hits, time and memory", "because there was no text to run over (--data)");
        return page->status;
    }
    DM_TRY(dm_part_games(page, &s->run));
    if (s->has_trace) {
        DM_TRY(dm_part_tiers(page, s->model, &s->trace));
    } else {
        dm_page_leave_out(page, "Caches and hits", "because the model has no experts");
    }
    return dm_part_speed(page, &s->run);
}

static dm_status add_model(dm_page *page, const sources *s) {
    if (s->file == NULL) {
        dm_page_leave_out(page, "The weights, the flock, games", "because there is no model (model.gguf)");
        return page->status;
    }
    if (s->model == NULL) {
        dm_page_leave_out(page, "The flock, games, caches, time and memory", "because the model does not run: %s", s->problem);
        return dm_part_weights(page, s->file);
    }
    DM_TRY(dm_part_flock(page, s->model, &s->run, s->has_trace ? &s->trace : NULL, s->has_metrics ? &s->metrics : NULL));
    DM_TRY(add_run(page, s));
    return dm_part_weights(page, s->file);
}

static dm_status add_compression(dm_page *page, const sources *s) {
    if (s->report == NULL) {
        dm_page_leave_out(page, "Before and after compression", "because this is no report of quantize or optimize");
        return page->status;
    }
    return dm_part_compression(page, s->report);
}

static dm_status add_all(dm_page *page, const sources *s) {
    tell_model(page, s);
    tell_run(page, s);
    DM_TRY(add_training(page, s));
    DM_TRY(add_model(page, s));
    return add_compression(page, s);
}

enum { TITLE = 512 };

static void write_title(const char *source, char title[TITLE]) {
    const char *name = strrchr(source, '/');
    name = name != NULL && name[1] != '\0' ? name + 1 : source;
    snprintf(title, TITLE, "DilModeli: %.400s", name);
}

static dm_status write_report(const sources *s, const dm_report_options *o, dm_report_result *result) {
    char title[TITLE];
    dm_page page;
    write_title(o->source, title);
    dm_page_begin(&page, o->svg);
    dm_status status = add_all(&page, s);
    page.status = page.status == DM_OK ? status : page.status;
    if (page.status == DM_OK && page.charts == 0) {
        page.status = dm_fail(DM_ERR_ARGUMENT, "%s: there is nothing to draw: no step of a run, no layer of a model", o->source);
    }
    *result = (dm_report_result){page.charts, page.left_out, s->metrics.skipped};
    return dm_page_end(&page, o->page, title);
}

dm_status dm_report(const dm_report_options *options, dm_report_result *result) {
    sources s = {0};
    *result = (dm_report_result){0};
    dm_status status = open_source(&s, options);
    if (status == DM_OK) {
        status = run_over_text(&s, options);
    }
    if (status == DM_OK) {
        status = write_report(&s, options, result);
    }
    close_sources(&s);
    return status;
}

dm_status dm_report_content(const char *folder, char **out) {
    dm_page page;
    sources s = {0};
    *out = NULL;
    s.metrics_path = dm_path_join(folder, "metrics.jsonl");
    dm_status status = s.metrics_path != NULL ? DM_OK : dm_fail(DM_ERR_MEMORY, "out of memory for a path");
    if (status == DM_OK && exists(s.metrics_path)) {
        status = dm_run_metrics_read(s.metrics_path, &s.metrics);
        s.has_metrics = status == DM_OK;
    }
    if (status == DM_OK) {
        dm_page_begin(&page, NULL);
        tell_run(&page, &s);
        status = add_training(&page, &s);
        page.status = page.status == DM_OK ? status : page.status;
        status = dm_page_end_content(&page, out);
    }
    close_sources(&s);
    return status;
}

dm_status dm_report_live_page(const char *folder, char **out) {
    char title[TITLE];
    write_title(folder, title);
    return dm_page_live(title, out);
}
