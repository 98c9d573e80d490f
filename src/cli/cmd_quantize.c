/* dilmodeli quantize: compress a model. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/compression_report.h"

static const cli_option options[] = {CLI_COMPRESSION_OPTIONS};

static const cli_usage usage = {
    .synopsis = "dilmodeli quantize MODEL OUT --preset NAME | --bpw X | --size BYTES | --max-loss 1% --text FILE [options]",
    .summary =
        "Compresses a model to mixed-width panels, this program's own format: every tile of 16 rows and 32 columns is\n"
        "pruned or gets 2, 3, 4, 5, 6 or 8 bits, all under one price of a byte. Codes are chosen by compensation and\n"
        "then by a game, in which a change is made only if it makes the expected error smaller. With --compat each matrix\n"
        "gets blocks of one of GGUF's common types instead, chosen in the same way, which other programs read too. With\n"
        "--max-loss or --max-kl it looks for the smallest file that stays within that loss on a text, which --text names:\n"
        "some 10 files are made and measured, and the best one is written at the end.",
    .example = "  dilmodeli quantize model.gguf small.gguf --bpw 3.4 --data text.txt\n"
               "  dilmodeli quantize model.gguf small.gguf --preset low --calib model.stats --report report.json\n"
               "  dilmodeli quantize model.gguf small.gguf --bpw 4.5 --calib model.stats --compat\n"
               "  dilmodeli quantize model.gguf small.gguf --max-loss 1% --text valid.txt --calib model.stats",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .min_arguments = 2,
    .max_arguments = 2,
};

static int check(cli_compressing *it) {
    const int status = cli_compression_read(it, NULL);
    if (status != CLI_DONE) {
        return status;
    }
    if (it->within != (cli_compression.text != NULL)) {
        return cli_usage_error(it->within ? "--max-loss and --max-kl need --text FILE, a text that was not calibrated with"
                                          : "--text is what --max-loss and --max-kl measure on: expected one of them");
    }
    if (cli_compression.calibration == NULL && cli_compression.data == NULL && it->how.method != DM_COMPRESS_RTN &&
        it->how.method != DM_COMPRESS_MAGNITUDE) {
        return cli_usage_error("--method %s needs --data FILE, a text such as the model will meet, or --calib STATS",
                               cli_compression.method);
    }
    return CLI_DONE;
}

static int quantize(cli_compressing *it) {
    if (!cli_compression_run(it) || !compression_write_report(it, compression_json(it))) {
        return CLI_FAILED;
    }
    if (cli_json()) {
        cli_print_json(compression_json(it));
    } else {
        compression_print(it);
    }
    return CLI_DONE;
}

/* With --data the statistics live beside OUT until it is written; after an interruption the same command goes on with them. */
static int calibrate_and_quantize(cli_compressing *it) {
    char *stats = cli_compression_stats(it->to);
    const bool done = stats != NULL && cli_compression_calibrate(it, stats, 0);
    const int status = done ? quantize(it) : CLI_FAILED;
    if (status == CLI_DONE) {
        unlink(stats);
    }
    free(stats);
    return status;
}

int cmd_quantize(int argc, char **argv) {
    int n, status;
    cli_compressing it = {.terminal = isatty(STDERR_FILENO) != 0};
    if (!cli_parse(&usage, argc, argv, &n, &status)) {
        return status;
    }
    status = check(&it);
    if (status != CLI_DONE) {
        return status;
    }
    it.from = argv[0];
    it.to = argv[1];
    if (it.within && !cli_compression_read_text(&it)) {
        status = CLI_FAILED;
    } else {
        status = cli_compression.data != NULL ? calibrate_and_quantize(&it) : quantize(&it);
    }
    cli_compression_end(&it);
    return status;
}
