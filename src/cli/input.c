/* Reading what a command works on. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"

static char *read_all(FILE *stream, const char *name, size_t *length) {
    size_t capacity = 1 << 16;
    char *text = malloc(capacity);
    *length = 0;
    while (text != NULL) {
        *length += fread(text + *length, 1, capacity - *length, stream);
        if (*length < capacity) {
            break;
        }
        capacity *= 2;
        char *grown = realloc(text, capacity);
        if (grown == NULL) {
            free(text);
        }
        text = grown;
    }
    if (text == NULL) {
        cli_fail("%s: out of memory after %zu bytes", name, *length);
    } else if (ferror(stream)) {
        cli_fail("%s: cannot read: %s", name, strerror(errno));
        free(text);
        text = NULL;
    }
    return text;
}

char *cli_read_text(const char *path, size_t *length) {
    if (strcmp(path, "-") == 0) {
        return read_all(stdin, "standard input", length);
    }
    FILE *stream = fopen(path, "rbe");
    if (stream == NULL) {
        cli_fail("%s: cannot open: %s", path, strerror(errno));
        return NULL;
    }
    char *text = read_all(stream, path, length);
    fclose(stream);
    return text;
}

bool cli_read_tokens(const char *path, const dm_tokenizer *tokenizer, uint64_t limit, int32_t **ids, size_t *n) {
    size_t length;
    char *text = cli_read_text(path, &length);
    if (text == NULL) {
        return false;
    }
    length = limit > 0 && limit < length ? (size_t)limit : length;
    const bool done = dm_tokenizer_encode(tokenizer, text, length, DM_ENCODE_BOS | DM_ENCODE_EOS, ids, n) == DM_OK;
    free(text);
    if (!done) {
        cli_fail_status();
    }
    return done;
}

bool cli_parse_size(const char *text, uint64_t *out) {
    char *end;
    double value = strtod(text, &end), unit = 1;
    if (end == text) {
        return false;
    }
    if (*end != '\0') {
        unit = *end == 'k' || *end == 'K' ? 1e3 : *end == 'M' ? 1e6 : *end == 'G' ? 1e9 : 0;
        end += 1 + (end[1] == 'B');
    }
    *out = *end == '\0' && value * unit >= 1 && value * unit < 1e18 ? (uint64_t)(value * unit) : 0;
    return *out > 0;
}
