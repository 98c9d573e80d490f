/*
 * Speed of encoding text on one core: with the ASCII path and with PCRE2 alone, by an encoder that is new and by one that has
 * read the text before. Seconds are the thread's own, so that neighbours on the machine disturb little; the best of a few
 * passes. Usage: dm-bench-tokenizer VOCABULARY.gguf TEXT
 */
#include <stdio.h>
#include <time.h>

#include "base/file.h"
#include "model/encoder.h"

enum { PASSES = 7 };

static double thread_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Best seconds for the text; *tokens receives their number. */
static dm_status measure(const dm_tokenizer *tokenizer, const dm_map *text, bool fast, bool warm, double *best, size_t *tokens) {
    *best = 1e30;
    dm_encoder *encoder = NULL;
    dm_status status = DM_OK;
    for (int pass = 0; pass < PASSES + warm && status == DM_OK; pass++) {
        if (!warm || encoder == NULL) {
            dm_encoder_free(encoder);
            DM_TRY(dm_encoder_create(tokenizer, &encoder));
            dm_encoder_set_fast(encoder, fast);
        }
        const int32_t *ids;
        double start = thread_seconds();
        status = dm_encoder_run(encoder, (const char *)text->data, text->size, 0, &ids, tokens);
        double seconds = thread_seconds() - start;
        *best = seconds < *best && (!warm || pass > 0) ? seconds : *best;
    }
    dm_encoder_free(encoder);
    return status;
}

static dm_status bench(const char *vocabulary, const char *path) {
    dm_tokenizer *tokenizer;
    dm_map text;
    DM_TRY(dm_tokenizer_open(vocabulary, &tokenizer));
    dm_status status = dm_map_open(path, &text);
    if (status != DM_OK) {
        dm_tokenizer_close(tokenizer);
        return status;
    }
    printf("%s, vocabulary %d\n%s, %.2f MB\n", vocabulary, dm_tokenizer_vocab(tokenizer), path, 1e-6 * (double)text.size);
    for (int i = 0; i < 4 && status == DM_OK; i++) {
        bool fast = i < 2, warm = i % 2 != 0;
        double seconds;
        size_t tokens;
        status = measure(tokenizer, &text, fast, warm, &seconds, &tokens);
        if (status == DM_OK) {
            printf("  %-10s %-12s %7.1f MB/s  %6.1f M tokens/s  %.2f bytes a token\n", fast ? "ASCII path" : "PCRE2",
                   warm ? "warm encoder" : "new encoder", 1e-6 * (double)text.size / seconds, 1e-6 * (double)tokens / seconds,
                   tokens > 0 ? (double)text.size / (double)tokens : 0);
        }
    }
    dm_map_close(&text);
    dm_tokenizer_close(tokenizer);
    return status;
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: dm-bench-tokenizer VOCABULARY.gguf TEXT\n");
        return 2;
    }
    if (bench(argv[1], argv[2]) != DM_OK) {
        fprintf(stderr, "dm-bench-tokenizer: %s\n", dm_error_message());
        return 1;
    }
    return 0;
}
