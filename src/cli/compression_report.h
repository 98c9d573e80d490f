/* What quantize and optimize print of a compression. */
#ifndef DM_CLI_COMPRESSION_REPORT_H
#define DM_CLI_COMPRESSION_REPORT_H

#include "cli/compression.h"

/* The entry of one matrix in a report. */
json_t *compression_json_matrix(const dm_compress_matrix *matrix);
/* All of it but the matrices. */
json_t *compression_json(const cli_compressing *it);
/* Writes `report` (taken over) with the matrices to --report, if that was given. False after printing why. */
bool compression_write_report(const cli_compressing *it, json_t *report);

/* A line for the last trial on standard error. */
void compression_print_trial(const cli_compressing *it, const dm_compress_search *search);
void compression_print(const cli_compressing *it);

#endif
