/* dilmodeli tokenizer train: learn a vocabulary from text. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"

static int learn(const cli_list *data, int64_t vocab, const char *out) {
    dm_tokenizer_train_options options = {data->items, data->count, (int32_t)vocab, out};
    dm_tokenizer_train_result result;
    if (dm_tokenizer_train(&options, &result) != DM_OK) {
        return cli_fail_status();
    }
    if (cli_json()) {
        cli_print_json(json_pack("{s:i, s:I, s:f, s:o}", "vocab", (int)result.vocab, "bytes", (json_int_t)result.bytes, "seconds",
                                 result.seconds, "out", cli_json_text(out, strlen(out))));
    } else {
        printf("%s: %d tokens from %.1f MB of text in %.1f s\n", out, (int)result.vocab, 1e-6 * (double)result.bytes,
               result.seconds);
    }
    return CLI_DONE;
}

int cmd_tokenizer(int argc, char **argv) {
    cli_list data = {0};
    int64_t vocab = 8192;
    const char *out = NULL;
    const cli_option options[] = {
        {"data", 'd', CLI_LIST, &data, "PATH...", "text files or folders of them; <|endoftext|> separates documents"},
        {"vocab", 'v', CLI_INT, &vocab, "N", "tokens: 256 bytes, <|endoftext|>, the rest learned"},
        {"out", 'o', CLI_STRING, &out, "FILE", "GGUF file to write"},
    };
    const cli_usage usage = {
        .synopsis = "dilmodeli tokenizer train --data PATH... --out FILE [--vocab N]",
        .summary =
            "Learns a byte-level BPE vocabulary with GPT-2's splitting rules and writes it as a GGUF file, to be used with\n"
            "`dilmodeli train --tokenizer FILE` and `dilmodeli new --tokenizer FILE`. Text in which no pair of tokens occurs\n"
            "twice any more gives a smaller vocabulary than asked for.",
        .example = "  dilmodeli tokenizer train --data corpus/train --vocab 8192 --out tokenizer.gguf",
        .options = options,
        .n_options = sizeof options / sizeof *options,
        .min_arguments = 1,
        .max_arguments = 1,
    };
    int n, status;
    if (cli_parse(&usage, argc, argv, &n, &status)) {
        if (strcmp(argv[0], "train") != 0) {
            status = cli_usage_error("'%s' is nothing that `tokenizer` does; there is `tokenizer train`", argv[0]);
        } else if (data.count == 0 || out == NULL) {
            status = cli_usage_error("tokenizer train needs --data and --out");
        } else if (vocab < 257 || vocab > INT32_MAX) {
            status = cli_usage_error("--vocab expects 257 (bytes and <|endoftext|>) or more, not %lld", (long long)vocab);
        } else {
            status = learn(&data, vocab, out);
        }
    }
    free(data.items);
    return status;
}
