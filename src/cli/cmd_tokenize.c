/* dilmodeli tokenize: text to ids and back. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "cli/cli.h"

static int print_ids(const int32_t *ids, size_t n) {
    if (cli_json()) {
        cli_print_json(json_pack("{s:o, s:I}", "ids", cli_json_ids(ids, n), "tokens", (json_int_t)n));
        return CLI_DONE;
    }
    for (size_t i = 0; i < n; i++) {
        printf(i == 0 ? "%d" : " %d", (int)ids[i]);
    }
    printf("\n");
    return CLI_DONE;
}

static int encode(const dm_tokenizer *tokenizer, const char *text, size_t length, unsigned flags) {
    int32_t *ids;
    size_t n;
    if (dm_tokenizer_encode(tokenizer, text, length, flags, &ids, &n) != DM_OK) {
        return cli_fail_status();
    }
    int status = print_ids(ids, n);
    free(ids);
    return status;
}

static int encode_file(const dm_tokenizer *tokenizer, const char *path, unsigned flags) {
    dm_map map;
    if (dm_map_open(path, &map) != DM_OK) {
        return cli_fail_status();
    }
    int status = encode(tokenizer, (const char *)map.data, map.size, flags);
    dm_map_close(&map);
    return status;
}

static int print_text(const dm_tokenizer *tokenizer, const int32_t *ids, size_t n, bool special) {
    char *text;
    size_t length;
    if (dm_tokenizer_decode(tokenizer, ids, n, special, &text, &length) != DM_OK) {
        return cli_fail_status();
    }
    if (cli_json()) {
        cli_print_json(json_pack("{s:o, s:o}", "ids", cli_json_ids(ids, n), "text", cli_json_text(text, length)));
    } else {
        fwrite(text, 1, length, stdout);
        if (isatty(STDOUT_FILENO)) {
            printf("\n");
        }
    }
    free(text);
    return CLI_DONE;
}

static int decode(const dm_tokenizer *tokenizer, const char *numbers, bool special) {
    int32_t *ids;
    size_t n;
    if (!cli_parse_ids(numbers, &ids, &n)) {
        return CLI_FAILED;
    }
    int status = print_text(tokenizer, ids, n, special);
    free(ids);
    return status;
}

int cmd_tokenize(int argc, char **argv) {
    const char *prompt = NULL, *file = NULL, *numbers = NULL;
    bool special = false, bare = false;
    const cli_option options[] = {
        {"prompt", 'p', CLI_STRING, &prompt, "TEXT", "text to encode"},
        {"file", 'f', CLI_STRING, &file, "FILE", "file to encode"},
        {"ids", 0, CLI_STRING, &numbers, "\"N N ...\"", "ids to turn back into text"},
        {"special", 0, CLI_FLAG, &special, NULL,
         "texts of control tokens such as <|endoftext|> stand for those tokens, both ways"},
        {"no-bos", 0, CLI_FLAG, &bare, NULL, "without the tokens that the model wants at the ends of a text"},
    };
    const cli_usage usage = {
        .synopsis = "dilmodeli tokenize MODEL (-p TEXT | --file FILE | --ids \"N N ...\") [--special] [--no-bos]",
        .summary = "Prints the token ids of a text, or the text of token ids, in the vocabulary of a GGUF file.",
        .example = "  dilmodeli tokenize model.gguf -p \"Hello world\"\n  dilmodeli tokenize model.gguf --ids \"15496 995\"",
        .options = options,
        .n_options = sizeof options / sizeof *options,
        .min_arguments = 1,
        .max_arguments = 1,
    };
    int n, status;
    if (!cli_parse(&usage, argc, argv, &n, &status)) {
        return status;
    }
    if ((prompt != NULL) + (file != NULL) + (numbers != NULL) != 1) {
        return cli_usage_error("tokenize needs one of -p, --file and --ids");
    }
    dm_tokenizer *tokenizer;
    if (dm_tokenizer_open(argv[0], &tokenizer) != DM_OK) {
        return cli_fail_status();
    }
    unsigned flags = (special ? DM_ENCODE_SPECIAL : 0) | (bare ? 0 : DM_ENCODE_BOS | DM_ENCODE_EOS);
    if (prompt != NULL) {
        status = encode(tokenizer, prompt, strlen(prompt), flags);
    } else if (file != NULL) {
        status = encode_file(tokenizer, file, flags);
    } else {
        status = decode(tokenizer, numbers, special);
    }
    dm_tokenizer_close(tokenizer);
    return status;
}
