#include "cli/compression_report.h"

#include <inttypes.h>
#include <stdio.h>

static const char *const width_names[DM_COMPRESS_WIDTHS] = {"0", "2", "3", "4", "5", "6", "8"};

/* ---- JSON ---- */

static json_t *histogram(const uint64_t *tiles) {
    json_t *object = json_object();
    for (int i = 0; i < DM_COMPRESS_WIDTHS; i++) {
        json_object_set_new(object, width_names[i], json_integer((json_int_t)tiles[i]));
    }
    return object;
}

json_t *compression_json_matrix(const dm_compress_matrix *m) {
    json_t *object =
        json_pack("{s:s, s:i, s:i, s:I, s:I, s:I, s:o, s:f, s:f}", "name", m->name, "layer", (int)m->layer, "expert",
                  (int)m->expert, "rows", (json_int_t)m->rows, "columns", (json_int_t)m->columns, "bytes", (json_int_t)m->bytes,
                  "tiles", histogram(m->tiles), "error_before", m->error_before, "error_after", m->error_after);
    if (m->type != NULL) {
        json_object_set_new(object, "type", json_string(m->type));
    }
    return object;
}

static json_t *sweeps_of(const dm_compress_result *r) {
    json_t *list = json_array();
    for (int32_t i = 0; i < r->sweeps; i++) {
        json_array_append_new(list, json_pack("{s:I, s:I, s:f, s:f}", "proposals", (json_int_t)r->proposals[i], "moves",
                                              (json_int_t)r->moves[i], "payoff_before", r->payoff[i], "payoff_after",
                                              r->payoff[i + 1]));
    }
    return list;
}

static json_t *trial_of(const dm_compress_trial *t, double most) {
    json_t *object =
        json_pack("{s:f, s:b, s:b}", "bpw_asked", t->bpw, "possible", t->possible, "within", t->possible && t->loss <= most);
    if (t->possible) {
        json_object_set_new(object, "bpw", json_real(t->result.bpw));
        json_object_set_new(object, "bytes", json_integer((json_int_t)t->result.bytes_out));
        json_object_set_new(object, "loss", cli_json_figure(t->loss));
        json_object_set_new(object, "perplexity", cli_json_figure(t->evaluation.perplexity));
        json_object_set_new(object, "seconds", json_real(t->result.seconds));
    }
    return object;
}

/* The object "max_loss". */
static json_t *search_of(const cli_compressing *it) {
    const dm_compress_search *s = &it->search;
    json_t *trials = json_array();
    for (int32_t i = 0; i < s->trials; i++) {
        json_array_append_new(trials, trial_of(&s->tried[i], it->limit.most));
    }
    return json_pack("{s:s, s:f, s:o, s:f, s:I, s:o}", "measure", it->limit.loss == DM_LOSS_KL ? "kl" : "perplexity", "limit",
                     it->limit.most, "loss", cli_json_figure(s->tried[s->chosen].loss), "bound_bpw", s->bound, "tokens",
                     (json_int_t)s->tried[s->chosen].evaluation.tokens, "trials", trials);
}

json_t *compression_json(const cli_compressing *it) {
    const dm_compress_result *r = &it->result;
    json_t *object =
        json_pack("{s:s, s:s, s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:I, s:I, s:o, s:o}", "path", it->to, "method",
                  cli_compression.method, "bytes_in", (json_int_t)r->bytes_in, "bytes_out", (json_int_t)r->bytes_out, "bpw_in",
                  r->bpw_in, "bpw", r->bpw, "pruned", r->pruned, "seconds", r->seconds, "error_before", r->error_before,
                  "error_after", r->error_after, "price", r->price, "kept_price", r->kept_price, "panels", (json_int_t)r->panels,
                  "panels_at_rest", (json_int_t)r->panels_at_rest, "tiles", histogram(r->tiles), "sweeps", sweeps_of(r));
    if (it->within) {
        const dm_compress_search *s = &it->search;
        json_object_set_new(object, "perplexity_in", cli_json_figure(s->perplexity));
        json_object_set_new(object, "perplexity_out", cli_json_figure(s->tried[s->chosen].evaluation.perplexity));
        json_object_set_new(object, "max_loss", search_of(it));
    }
    return object;
}

bool compression_write_report(const cli_compressing *it, json_t *report) {
    const char *path = cli_compression.report;
    if (path == NULL) {
        json_decref(report);
        return true;
    }
    json_object_set(report, "matrices", it->matrices);
    const bool written = json_dump_file(report, path, JSON_INDENT(1)) == 0;
    json_decref(report);
    if (!written) {
        cli_fail("%s: the report cannot be written", path);
    }
    return written;
}

/* ---- Text ---- */

static void print_loss(FILE *stream, dm_loss measure, double loss) {
    if (measure == DM_LOSS_KL) {
        fprintf(stream, "divergence %.3g nats", loss);
    } else {
        fprintf(stream, "%+.2f%% of perplexity", 100.0 * loss);
    }
}

void compression_print_trial(const cli_compressing *it, const dm_compress_search *s) {
    const dm_compress_trial *t = &s->tried[s->trials - 1];
    const int64_t left = (int64_t)(s->seconds_left + 0.5);
    fprintf(stderr, "trial %d: ", (int)s->trials);
    if (!t->possible) {
        fprintf(stderr, "%.3f bits per weight are too few for any file", t->bpw);
    } else {
        fprintf(stderr, "%.3f bits per weight, %.2f MB: ", t->result.bpw, 1e-6 * (double)t->result.bytes_out);
        print_loss(stderr, it->limit.loss, t->loss);
        fputs(s->chosen == s->trials - 1 ? ", within" : ", too much", stderr);
    }
    fprintf(stderr, "; about %" PRId64 "m %02" PRId64 "s left\n", left / 60, left % 60);
}

static void print_search(const cli_compressing *it) {
    const dm_compress_search *s = &it->search;
    const dm_compress_trial *chosen = &s->tried[s->chosen];
    printf("loss: ");
    print_loss(stdout, it->limit.loss, chosen->loss);
    printf(it->limit.loss == DM_LOSS_KL ? ", at most %.3g" : ", at most %g%%",
           it->limit.loss == DM_LOSS_KL ? it->limit.most : 100.0 * it->limit.most);
    printf("; perplexity %.4f, of the original %.4f\n", chosen->evaluation.perplexity, s->perplexity);
    printf("%.3f bits per weight are too few, of %d sizes tried\n", s->bound, (int)s->trials);
}

void compression_print(const cli_compressing *it) {
    const dm_compress_result *r = &it->result;
    printf("%s: %.2f MB of %.2f MB, %.3f bits per weight, ", it->to, 1e-6 * (double)r->bytes_out, 1e-6 * (double)r->bytes_in,
           r->bpw);
    if (!it->how.compat) {
        printf("%.1f%% of the tiles pruned, ", 100.0 * r->pruned);
    }
    printf("%.1f s\n", r->seconds);
    if (it->within) {
        print_search(it);
    }
    fflush(stdout);
    if (!it->how.compat) {
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
