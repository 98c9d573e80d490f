#include "cli/optimize_report.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "cli/compression_report.h"

uint64_t optimize_memory(const optimize_side *side) {
    const dm_bench_memory *m = &side->speed.memory;
    return m->file + m->repacked + m->cache + m->scratch;
}

/* ---- JSON ---- */

static json_t *times_of(const dm_bench_speed *speed) {
    json_t *times = json_object();
    for (int i = 0; i < DM_OPERATIONS; i++) {
        json_object_set_new(times, dm_operation_name((dm_operation)i), json_real(speed->times[i]));
    }
    return times;
}

static json_t *side_of(const optimize_side *s) {
    return json_pack("{s:I, s:f, s:i, s:I, s:o, s:o, s:o, s:o, s:o, s:f, s:o}", "bytes", (json_int_t)s->bytes, "bpw", s->bpw,
                     "threads", s->threads, "memory_bytes", (json_int_t)optimize_memory(s), "latency_ms",
                     cli_json_figure(1e3 / s->speed.decode.tps), "prefill_tps", cli_json_figure(s->speed.prefill.tps),
                     "decode_tps", cli_json_figure(s->speed.decode.tps), "perplexity", cli_json_figure(s->loss.perplexity), "nll",
                     cli_json_figure(s->loss.nll), "load_s", s->speed.load_s, "times", times_of(&s->speed.decode));
}

static json_t *tuning_of(const dm_tune_result *tune) {
    json_t *points = json_array();
    for (int32_t i = 0; i < tune->points; i++) {
        const dm_tune_point *p = &tune->measured[i];
        json_array_append_new(points,
                              json_pack("{s:i, s:i, s:o, s:o}", "threads", p->threads, "sequences", p->sequences, "prefill_tps",
                                        cli_json_figure(p->prefill_tps), "decode_tps", cli_json_figure(p->decode_tps)));
    }
    return points;
}

json_t *optimize_json(const cli_compressing *c, const optimize_result *r) {
    const dm_evaluate_result *loss = &r->after.loss;
    json_t *object = compression_json(c);
    json_object_set_new(object, "before", side_of(&r->before));
    json_object_set_new(object, "after", side_of(&r->after));
    json_object_set_new(object, "loss",
                        json_pack("{s:s, s:I, s:o, s:o, s:o}", "text", r->generated ? "generated" : cli_compression.text,
                                  "tokens", (json_int_t)loss->tokens, "perplexity_change",
                                  cli_json_figure(loss->perplexity / r->before.loss.perplexity - 1.0), "kl_mean",
                                  cli_json_figure(loss->kl_mean), "top1_agreement", cli_json_figure(loss->top1_agreement)));
    json_object_set_new(object, "advice",
                        json_pack("{s:i, s:i}", "threads", r->advice.threads, "sequences", r->advice.sequences));
    json_object_set_new(object, "tuning", tuning_of(&r->advice));
    json_object_set_new(object, "kept", r->kept != NULL ? json_string(r->kept) : json_null());
    return object;
}

/* ---- Text ---- */

static void print_row(const char *name, const char *unit, double before, double after, int digits) {
    printf("  %-10s %12.*f %12.*f %-10s %8.3f\n", name, digits, before, digits, after, unit, after / before);
}

static void print_table(const optimize_result *r) {
    const optimize_side *a = &r->before, *b = &r->after;
    printf("\n  %-10s %12s %12s %-10s %8s\n", "", "before", "after", "", "times");
    print_row("file", "MB", 1e-6 * (double)a->bytes, 1e-6 * (double)b->bytes, 2);
    print_row("bits", "per weight", a->bpw, b->bpw, 3);
    print_row("memory", "MB", 1e-6 * (double)optimize_memory(a), 1e-6 * (double)optimize_memory(b), 2);
    print_row("latency", "ms/token", 1e3 / a->speed.decode.tps, 1e3 / b->speed.decode.tps, 3);
    print_row("decode", "tokens/s", a->speed.decode.tps, b->speed.decode.tps, 1);
    print_row("prefill", "tokens/s", a->speed.prefill.tps, b->speed.prefill.tps, 1);
    print_row("perplexity", "", a->loss.perplexity, b->loss.perplexity, 4);
    printf("\nloss           %+.2f%% of perplexity, %.5f nats of divergence, the same first choice for %.2f%%; %" PRIu64
           " tokens of %s\n",
           100.0 * (b->loss.perplexity / a->loss.perplexity - 1.0), b->loss.kl_mean, 100.0 * b->loss.top1_agreement,
           b->loss.tokens, r->generated ? "the model's own text" : cli_compression.text);
    printf("measured       prompts of %d tokens, then %d one by one; %d threads before, %d after\n", r->how.prompt, r->how.decode,
           a->threads, b->threads);
}

static void print_advice(const cli_compressing *c, const optimize_result *r) {
    const dm_tune_result *t = &r->advice;
    double alone = NAN, together = NAN;
    for (int32_t i = 0; i < t->points; i++) {
        const dm_tune_point *p = &t->measured[i];
        alone = p->threads == t->threads && p->sequences == 1 ? p->decode_tps : alone;
        together = p->threads == t->threads && p->sequences == t->sequences ? p->decode_tps : together;
    }
    printf("advice         --threads %d; %d at a time decode %.1f tokens/s, %.2f times as many as one\n", t->threads,
           t->sequences, together, together / alone);
    printf("               dilmodeli run %s --threads %d\n", c->to, t->threads);
    printf("               dilmodeli serve %s --threads %d --slots %d\n", c->to, t->threads, t->sequences);
}

void optimize_print(const cli_compressing *c, const optimize_result *r) {
    compression_print(c);
    if (r->kept != NULL) {
        printf("repacked: %.2f MB are kept in %s\n", 1e-6 * (double)r->kept_bytes, r->kept);
    }
    print_table(r);
    print_advice(c, r);
}
