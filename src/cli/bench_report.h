/* What `dilmodeli bench` prints. */
#ifndef DM_CLI_BENCH_REPORT_H
#define DM_CLI_BENCH_REPORT_H

#include "dilmodeli.h"

/* Of one run, or of `runs` runs with 1, 2, ... threads; the last one, with all threads, in full. */
void bench_print_text(const dm_model *model, const dm_bench_options *how, const dm_bench_result *results, int runs);
void bench_print_json(const dm_model *model, const dm_bench_options *how, const dm_bench_result *results, int runs);

#endif
