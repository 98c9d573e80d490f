/* Compressing as quantize and optimize do: their options, the statistics, one file or the search for one. */
#ifndef DM_CLI_COMPRESSION_H
#define DM_CLI_COMPRESSION_H

#include "cli/cli.h"

/* What was given, or the default. */
typedef struct cli_compression_values {
    const char *preset, *size, *max_loss, *max_kl, *text, *calibration, *data, *method, *report;
    double bpw, prune;
    int64_t width, embedding, neighbours, sweeps, seed, tokens, context, limit;
    bool slopes, random, compat;
} cli_compression_values;

extern cli_compression_values cli_compression;

/* Entries for a command's table of options. */
#define CLI_COMPRESSION_OPTIONS                                                                                                  \
    {"preset",   0,                                                                                                              \
     CLI_STRING, &cli_compression.preset,                                                                                        \
     "NAME",     "low, balanced or high: 2, 4 or 8 bits a weight in the layers, the token embedding on top"},                    \
        {"bpw", 'b', CLI_FLOAT, &cli_compression.bpw, "X", "bits per weight, all tensors together"},                             \
        {"size", 0, CLI_STRING, &cli_compression.size, "BYTES", "of the file, at most: 100M, 2G"},                               \
        {"width", 0, CLI_INT, &cli_compression.width, "BITS", "the same for all tiles that are kept: 2, 3, 4, 5, 6 or 8"},       \
        {"max-loss", 0, CLI_STRING, &cli_compression.max_loss, "1%", "the smallest file that loses at most this of perplexity"}, \
        {"max-kl", 0, CLI_STRING, &cli_compression.max_kl, "NATS", "the same by mean KL divergence, nats per token"},            \
        {"text", 0, CLI_STRING, &cli_compression.text, "FILE", "text to measure losses on, not the one to calibrate with"},      \
        {"ctx", 'c', CLI_INT, &cli_compression.context, "N", "tokens per window of it; 0: the model's context, at most 1024"},   \
        {"limit", 0, CLI_INT, &cli_compression.limit, "BYTES", "use its first BYTES; 0: all"},                                   \
        {"compat", 0, CLI_FLAG, &cli_compression.compat, NULL, "only block types that every GGUF program reads"},                \
        {"embedding", 0,                                                                                                         \
         CLI_INT,     &cli_compression.embedding,                                                                                \
         "BITS",      "of the token embedding; 0: 6, or 8 where the layers have 4 beside it"},                                   \
        {"slopes", 0, CLI_FLAG, &cli_compression.slopes, NULL, "weigh errors by the statistics' slopes, not by outputs"},        \
        {"prune", 0, CLI_FLOAT, &cli_compression.prune, "R", "prune at least this share of the tiles, 0: as pays"},              \
        {"calib", 0, CLI_STRING, &cli_compression.calibration, "STATS", "of `dilmodeli calibrate`, or an importance matrix"},    \
        {"data", 'd', CLI_STRING, &cli_compression.data, "FILE", "instead: a text to calibrate with now"},                       \
        {"tokens", 0, CLI_INT, &cli_compression.tokens, "N", "how much of it to read"},                                          \
        {"method", 'm', CLI_STRING, &cli_compression.method, "NAME", "game, gptq, rtn, wanda or magnitude"},                     \
        {"neighbours", 0, CLI_INT, &cli_compression.neighbours, "K", "units that a move wakes; 0: all look in every sweep"},     \
        {"random-neighbours", 0, CLI_FLAG, &cli_compression.random, NULL, "any K units instead of the nearest, to compare"},     \
        {"sweeps", 0, CLI_INT, &cli_compression.sweeps, "N", "of the game, at most 32; 0: 2, of blocks 4"},                      \
        {"seed", 0, CLI_INT, &cli_compression.seed, "N", "of what is drawn"}, {                                                  \
        "report", 0, CLI_STRING, &cli_compression.report, "FILE", "write what was done to each matrix as JSON"                   \
    }

/* What is to be done. */
typedef struct cli_compressing {
    const char *from, *to;
    dm_compress_options how;
    bool within;             /* a limit decides on the size */
    dm_compress_limit limit; /* with the text, once it is read */
    dm_tokenizer *tokenizer;
    int32_t *ids;     /* of the text */
    json_t *matrices; /* as reports have them */
    json_t *chosen;   /* of the trial that is the best so far */
    bool terminal;
    dm_compress_result result;
    dm_compress_search search; /* of a limit */
} cli_compressing;

/* The options as the library takes them; the preset `usual` where none says how small, NULL: that is an error. CLI_DONE, or
 * CLI_USAGE after printing what was wrong. */
int cli_compression_read(cli_compressing *out, const char *usual);

/* Reads the text to measure losses on into `limit`. False after printing why. */
bool cli_compression_read_text(cli_compressing *it);

/* Calibrates with --data, or with `generated` tokens that the model writes, into `stats`, which `how` then names. False after
 * printing why. */
bool cli_compression_calibrate(cli_compressing *it, const char *stats, int64_t generated);

/* Compresses, printing progress on standard error. False after printing why. */
bool cli_compression_run(cli_compressing *it);
void cli_compression_end(cli_compressing *it);

/* "OUT.stats" (malloc), where statistics live until OUT is written; NULL after printing why. */
char *cli_compression_stats(const char *out);

/* A dm_calibrate_fn for a terminal. */
void calibration_progress(void *user, const dm_calibrate_progress *progress);

#endif
