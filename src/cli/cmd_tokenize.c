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

static int encode(const dm_tokenizer *tokenizer, const char *text, size_t length, bool special) {
    int32_t *ids;
    size_t n;
    if (dm_tokenizer_encode(tokenizer, text, length, special, &ids, &n) != DM_OK) {
        return cli_fail_status();
    }
    int status = print_ids(ids, n);
    free(ids);
    return status;
}

static int encode_file(const dm_tokenizer *tokenizer, const char *path, bool special) {
    dm_map map;
    if (dm_map_open(path, &map) != DM_OK) {
        return cli_fail_status();
    }
    int status = encode(tokenizer, (const char *)map.data, map.size, special);
    dm_map_close(&map);
    return status;
}

/* Control tokens have no bytes of their own and leave no trace in the text. */
static int print_text(const dm_tokenizer *tokenizer, const int32_t *ids, size_t n) {
    char *text = NULL;
    size_t length = 0;
    FILE *stream = open_memstream(&text, &length);
    if (stream == NULL) {
        return cli_fail("out of memory for the text of %zu tokens", n);
    }
    for (size_t i = 0; i < n; i++) {
        size_t piece;
        const char *bytes = dm_tokenizer_bytes(tokenizer, ids[i], &piece);
        if (bytes == NULL) {
            fclose(stream);
            free(text);
            return cli_fail("token %d is outside the vocabulary of %d", (int)ids[i], (int)dm_tokenizer_vocab(tokenizer));
        }
        fwrite(bytes, 1, piece, stream);
    }
    if (fclose(stream) != 0) {
        free(text);
        return cli_fail("out of memory for the text of %zu tokens", n);
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

static int decode(const dm_tokenizer *tokenizer, const char *numbers) {
    int32_t *ids;
    size_t n;
    if (!cli_parse_ids(numbers, &ids, &n)) {
        return CLI_FAILED;
    }
    int status = print_text(tokenizer, ids, n);
    free(ids);
    return status;
}

int cmd_tokenize(int argc, char **argv) {
    const char *prompt = NULL, *file = NULL, *numbers = NULL;
    bool special = false;
    const cli_option options[] = {
        {"prompt", 'p', CLI_STRING, &prompt, "TEXT", "text to encode"},
        {"file", 'f', CLI_STRING, &file, "FILE", "file to encode"},
        {"ids", 0, CLI_STRING, &numbers, "\"N N ...\"", "ids to turn back into text"},
        {"special", 0, CLI_FLAG, &special, NULL, "words of control tokens such as <|endoftext|> become those tokens"},
    };
    const cli_usage usage = {
        .synopsis = "dilmodeli tokenize MODEL (-p TEXT | --file FILE | --ids \"N N ...\") [--special]",
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
    if (prompt != NULL) {
        status = encode(tokenizer, prompt, strlen(prompt), special);
    } else if (file != NULL) {
        status = encode_file(tokenizer, file, special);
    } else {
        status = decode(tokenizer, numbers);
    }
    dm_tokenizer_close(tokenizer);
    return status;
}
