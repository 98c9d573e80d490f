/* dilmodeli: one program, a command per file. */
#include <locale.h>
#include <stdio.h>
#include <string.h>

#include "cli/help.h"

static const cli_command commands[] = {
    {"inspect", "show what is in a GGUF file", cmd_inspect},
    {"new", "write a freshly initialised model", cmd_new},
    {"convert", "between Hugging Face's folders and GGUF", cmd_convert},
    {"tokenize", "text to token ids and back", cmd_tokenize},
    {"tokenizer", "learn a vocabulary from text", cmd_tokenizer},
    {"train", "train a model on text, or go on with a run", cmd_train},
    {"gradcheck", "compare the gradients of one backward pass", cmd_gradcheck},
    {"eval", "perplexity of a text, distance from a base model, logits", cmd_eval},
    {"run", "generate text", cmd_run},
    {"calibrate", "measure what compression wants to know about a model", cmd_calibrate},
    {"quantize", "compress a model: bits where they matter, under one price of a byte", cmd_quantize},
    {"optimize", "calibrate, compress and tune for this machine, with figures before and after", cmd_optimize},
    {"repack", "keep a model's weights as the kernels read them, to start faster", cmd_repack},
#if DM_SERVER
    {"serve", "answer requests over HTTP, as OpenAI's API does", cmd_serve},
#endif
    {"bench", "how fast a model runs here, and what would be possible", cmd_bench},
    {"topology", "caches, memory, disk and processor of this machine, measured", cmd_topology},
    {"report", "pictures of a run, a model or a compression", cmd_report},
    {"nash", "equilibria of a game in strategic form", cmd_nash},
    {NULL, NULL, NULL},
};

/* `dilmodeli --help[=KIND]`, `-h`, `help`; `help COMMAND` becomes `COMMAND --help`. */
static cli_help_kind asks_for_help(int argc, char **argv) {
    static char help[] = "--help";
    if (strncmp(argv[1], help, strlen(help)) == 0 && (argv[1][strlen(help)] == '\0' || argv[1][strlen(help)] == '=')) {
        return cli_help_parse(argv[1][strlen(help)] == '=' ? argv[1] + strlen(help) + 1 : NULL);
    }
    if (strcmp(argv[1], "help") == 0 && argc == 3) {
        argv[1] = argv[2];
        argv[2] = help;
        return CLI_HELP_NONE;
    }
    return strcmp(argv[1], "help") == 0 || strcmp(argv[1], "-h") == 0 ? CLI_HELP_TEXT : CLI_HELP_NONE;
}

int main(int argc, char **argv) {
    setlocale(LC_CTYPE, ""); /* numbers stay in the C locale */
    dm_set_log(cli_log_line, NULL);
    if (argc < 2) {
        cli_help_print_program(CLI_HELP_TEXT, commands, stderr);
        return CLI_USAGE;
    }
    const cli_help_kind help = asks_for_help(argc, argv);
    if (help != CLI_HELP_NONE) {
        cli_help_print_program(help, commands, stdout);
        return CLI_DONE;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("dilmodeli %s (%s)\n", dm_version(), dm_isa());
        return CLI_DONE;
    }
    for (const cli_command *command = commands; command->name != NULL; command++) {
        if (strcmp(argv[1], command->name) == 0) {
            cli_catch_signals();
            cli_catch_bus_errors();
            return command->run(argc - 1, argv + 1);
        }
    }
    fprintf(stderr, "dilmodeli: unknown command '%s'; `dilmodeli --help` lists them\n", argv[1]);
    return CLI_USAGE;
}
