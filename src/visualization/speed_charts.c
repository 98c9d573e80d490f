/* Where the time of a token goes, and the memory. */
#include <math.h>

#include "visualization/parts.h"

enum { PROMPT = 128, DECODE = 32, ROUNDS = 2 };

static void draw_times(dm_page *page, const dm_bench_options *how, const dm_bench_result *r) {
    const char *labels[DM_OPERATIONS + 1];
    double values[DM_OPERATIONS + 1][2], rest[2] = {r->prefill.seconds, r->decode.seconds};
    char note[256];
    size_t rows = 0;
    for (int i = 0; i < DM_OPERATIONS; i++) {
        rest[0] -= r->prefill.times[i];
        rest[1] -= r->decode.times[i];
        if (r->prefill.times[i] > 0.0 || r->decode.times[i] > 0.0) {
            labels[rows] = dm_operation_name((dm_operation)i);
            values[rows][0] = 1e6 * r->prefill.times[i];
            values[rows++][1] = 1e6 * r->decode.times[i];
        }
    }
    labels[rows] = "other";
    values[rows][0] = fmax(1e6 * rest[0], 0.0);
    values[rows++][1] = fmax(1e6 * rest[1], 0.0);
    snprintf(note, sizeof note,
             "A short run on %d threads: a prompt of %d tokens at %.0f tokens per second, then %d one by one at %.0f.",
             dm_threads(), how->prompt, r->prefill.tps, how->decode, r->decode.tps);
    const dm_bar_chart chart = {{&dm_bar_chart_kind, "operations", "Time of a token, by kind of operation", note},
                                .row_name = "operation",
                                .value_name = "microseconds per token",
                                .rows = rows,
                                .n_series = 2,
                                .labels = labels,
                                .series = {"prefill", "decode"},
                                .values = &values[0][0]};
    dm_page_chart(page, &chart.head);
}

static void draw_memory(dm_page *page, const dm_bench_memory *m) {
    static const char *const labels[] = {"model's file", "repacked weights", "keys and values", "scratch", "other"};
    const double parts[] = {(double)m->file, (double)m->repacked, (double)m->cache, (double)m->scratch};
    double values[5], rest = (double)m->resident;
    for (size_t i = 0; i < 4; i++) {
        values[i] = 1e-6 * parts[i];
        rest -= parts[i];
    }
    values[4] = fmax(1e-6 * rest, 0.0);
    const dm_bar_chart chart = {{&dm_bar_chart_kind, "memory", "Memory that the run holds",
                                 "Resident at the end of that run; the report's own memory is part of the last."},
                                .row_name = "what",
                                .value_name = "MB",
                                .rows = 5,
                                .n_series = 1,
                                .labels = labels,
                                .series = {"resident"},
                                .values = values};
    dm_page_chart(page, &chart.head);
}

dm_status dm_part_speed(dm_page *page, const dm_run_over *run) {
    const int32_t context = run->model->config.context;
    const dm_bench_options how = {.ids = run->ids,
                                  .n_ids = run->n,
                                  .prompt = context < PROMPT ? context : PROMPT,
                                  .decode = context < DECODE ? context : DECODE,
                                  .sequences = 1,
                                  .rounds = ROUNDS};
    dm_bench_result result;
    DM_TRY(dm_bench(run->model, &how, &result));
    dm_page_section(page, "speed", "Time and memory",
                    "Measured on this machine while the report was made; `dilmodeli bench` measures longer.");
    draw_times(page, &how, &result);
    draw_memory(page, &result.memory);
    return page->status;
}
