/* dilmodeli: one program, a command per file. */
#include <locale.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

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
    {"repack", "keep a model's weights as the kernels read them, to start faster", cmd_repack},
#if DM_SERVER
    {"serve", "answer requests over HTTP, as OpenAI's API does", cmd_serve},
#endif
    {"bench", "how fast a model runs here, and what would be possible", cmd_bench},
    {"topology", "caches, memory, disk and processor of this machine, measured", cmd_topology},
    {"nash", "equilibria of a game in strategic form", cmd_nash},
    {NULL, NULL, NULL},
};

static void print_overview(FILE *stream) {
    fprintf(stream, "dilmodeli %s: small, balanced and fast language models on ordinary CPUs\n\n", dm_version());
    fprintf(stream, "usage: dilmodeli COMMAND [ARGUMENTS]\n\ncommands:\n");
    for (const cli_command *command = commands; command->name != NULL; command++) {
        fprintf(stream, "  %-12s %s\n", command->name, command->summary);
    }
    fprintf(stream, "\n`dilmodeli COMMAND --help` explains one, with an example.\n");
}

int main(int argc, char **argv) {
    setlocale(LC_CTYPE, ""); /* numbers stay in the C locale */
    dm_set_log(cli_log_line, NULL);
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        print_overview(argc < 2 ? stderr : stdout);
        return argc < 2 ? CLI_USAGE : CLI_DONE;
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
