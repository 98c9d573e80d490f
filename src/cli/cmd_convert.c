/* `dilmodeli convert`: Hugging Face's folders to GGUF, and back; GGUF with experts laid out in another way, or of this program's
 * own format. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/threads.h"
#include "cli/cli.h"

static const double REDRAW = 0.1; /* seconds between redrawings */

typedef struct progress {
    bool drawn;
    double start, shown;
} progress;

/* A line on a terminal, nothing elsewhere. */
static void draw(void *user, uint64_t done, uint64_t total) {
    progress *p = user;
    double now = dm_seconds();
    if (now - p->shown < REDRAW || total == 0) {
        return;
    }
    p->shown = now;
    p->drawn = true;
    fprintf(stderr, "\r\033[K%3.0f%%  %.1f of %.1f MB, %.0f MB/s", 100.0 * (double)done / (double)total, 1e-6 * (double)done,
            1e-6 * (double)total, 1e-6 * (double)done / fmax(now - p->start, 1e-3));
}

static void report(const char *path, const dm_convert_result *made, bool dry_run) {
    if (cli_json()) {
        cli_print_json(json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:b}", "path", path, "arch", made->info.architecture, "tensors",
                                 (json_int_t)made->tensors, "bytes", (json_int_t)made->bytes, "files", (json_int_t)made->files,
                                 "params", (json_int_t)made->info.params, "dry_run", (int)dry_run));
        return;
    }
    printf("%s: %s%s, %.2f M parameters in %llu tensors, %.1f MB", path, dry_run ? "would be " : "", made->info.architecture,
           1e-6 * (double)made->info.params, (unsigned long long)made->tensors, 1e-6 * (double)made->bytes);
    if (made->files > 1) {
        printf(" in %u files", made->files);
    }
    printf("\n");
}

int cmd_convert(int argc, char **argv) {
    dm_convert_options choices = {0};
    const char *shard_size = NULL;
    const cli_option options[] = {
        {"type", 0, CLI_STRING, &choices.type, "TYPE",
         "of the matrices: f32, f16, bf16, to GGUF also q8_0, q4_k_m, ...; a wrong one lists all; from GGUF to GGUF mixed:BITS "
         "[as they are]"},
        {"name", 0, CLI_STRING, &choices.name, "TEXT", "the model's name in the GGUF file [the folder's]"},
        {"shard-size", 0, CLI_STRING, &shard_size, "SIZE", "most bytes of a safetensors file, e.g. 2G [5G]"},
        {"layout", 0, CLI_STRING, &choices.layout, "LAYOUT",
         "of a mixture's experts in a GGUF file: streaming (each is one aligned read) or standard (stacked) [standard]"},
        {"dry-run", 0, CLI_FLAG, &choices.dry_run, NULL, "check everything and write nothing"},
    };
    const cli_usage usage = {
        "dilmodeli convert FOLDER OUT.gguf | MODEL.gguf FOLDER | MODEL.gguf OUT.gguf --layout LAYOUT | --type mixed:BITS "
        "[options]",
        "Makes a GGUF file of a Hugging Face folder (config.json, safetensors, tokenizer.json), or such a folder of a GGUF "
        "file.\n"
        "Models are llama, mistral, mixtral, olmoe, qwen2, qwen2_moe, qwen3, qwen3_moe, gpt2. With --layout a GGUF file of a "
        "mixture\n"
        "of experts becomes another one, with the same weights in that layout; with --type mixed:BITS (2, 3, 4, 5, 6 or 8) one "
        "whose\n"
        "matrices are mixed-width panels of so many bits, this program's own format (`dilmodeli quantize` gives each tile the "
        "bits\n"
        "that it is worth, for a size or within a loss). A GGUF file is replaced if it exists; a folder must be new or empty.",
        "  dilmodeli convert Qwen3-0.6B/ qwen3.gguf --type q4_k_m\n"
        "  dilmodeli convert run/model.gguf my-model/ --type bf16\n"
        "  dilmodeli convert mixtral.gguf mixtral-streaming.gguf --layout streaming\n"
        "  dilmodeli convert model.gguf small.gguf --type mixed:4",
        options,
        sizeof options / sizeof *options,
        2,
        2,
    };
    int n, status;
    if (!cli_parse(&usage, argc, argv, &n, &status)) {
        return status;
    }
    if (shard_size != NULL && !cli_parse_size(shard_size, &choices.shard_bytes)) {
        cli_usage_error("--shard-size expects bytes, such as 5G, 500M or 64k, not '%s'", shard_size);
        return CLI_USAGE;
    }
    progress shown = {.start = dm_seconds()};
    bool terminal = isatty(STDERR_FILENO) != 0;
    dm_convert_result made;
    dm_status converted = dm_convert(argv[0], argv[1], &choices, terminal ? draw : NULL, &shown, &made);
    if (shown.drawn) {
        fputs("\r\033[K", stderr);
    }
    if (converted != DM_OK) {
        return cli_fail_status();
    }
    report(argv[1], &made, choices.dry_run);
    return CLI_DONE;
}
