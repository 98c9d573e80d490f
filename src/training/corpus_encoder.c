#include "training/corpus_encoder.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/threads.h"
#include "training/documents.h"

enum {
    PIECE = 128 << 10, /* longest piece, bytes: small enough to share out evenly, large enough to cut few documents */
    TEXT = 16 << 20,   /* gathered at once, bytes */
    PIECES = 1 << 15,  /* gathered at once */
    REPORT = 5,        /* seconds between progress lines */
};

typedef struct text_piece {
    size_t start, length; /* in the gathered text */
    dm_token_writer *writer;
    bool begins, last; /* its document */
    int worker;        /* whose output holds the ids ... */
    size_t first, n;   /* ... here */
} text_piece;

typedef struct worker {
    dm_encoder *encoder;
    int32_t *ids; /* of all pieces it had in this round */
    size_t count, capacity;
} worker;

struct dm_corpus_encoder {
    char *text; /* [TEXT] */
    size_t used;
    text_piece *pieces; /* [PIECES] */
    size_t n_pieces;
    worker *workers;
    int n_workers;
    int32_t end_of_text;  /* -1: none */
    uint64_t done, total; /* bytes */
    double began, reported;
};

dm_status dm_corpus_encoder_create(const dm_tokenizer *tokenizer, uint64_t total, dm_corpus_encoder **out) {
    *out = NULL;
    dm_corpus_encoder *encoder = calloc(1, sizeof *encoder);
    if (encoder == NULL) {
        return dm_fail(DM_ERR_MEMORY, "out of memory encoding text");
    }
    encoder->n_workers = dm_threads();
    encoder->text = malloc(TEXT);
    encoder->pieces = malloc(PIECES * sizeof *encoder->pieces);
    encoder->workers = calloc((size_t)encoder->n_workers, sizeof *encoder->workers);
    encoder->end_of_text = dm_tokenizer_eos(tokenizer);
    encoder->total = total;
    encoder->began = encoder->reported = dm_seconds();
    dm_status status = DM_OK;
    if (encoder->text == NULL || encoder->pieces == NULL || encoder->workers == NULL) {
        status = dm_fail(DM_ERR_MEMORY, "out of memory encoding text");
    }
    for (int i = 0; status == DM_OK && i < encoder->n_workers; i++) {
        status = dm_encoder_create(tokenizer, &encoder->workers[i].encoder);
    }
    if (status != DM_OK) {
        dm_corpus_encoder_free(encoder);
        return status;
    }
    *out = encoder;
    return DM_OK;
}

void dm_corpus_encoder_free(dm_corpus_encoder *encoder) {
    if (encoder == NULL) {
        return;
    }
    for (int i = 0; encoder->workers != NULL && i < encoder->n_workers; i++) {
        dm_encoder_free(encoder->workers[i].encoder);
        free(encoder->workers[i].ids);
    }
    free(encoder->workers);
    free(encoder->pieces);
    free(encoder->text);
    free(encoder);
}

static bool is_graphic(char c) {
    return c > ' ' && c <= '~';
}

/* Where to end a piece of a text longer than PIECE. A newline between two printable characters is best: there GPT-2's
 * pattern splits in any case, so that the ids are those of the uncut text. Then any newline, then any character. */
static size_t cut_piece(const char *text) {
    const char *newline = NULL;
    for (size_t end = PIECE; end > PIECE / 2; end = (size_t)(newline - text)) {
        newline = memrchr(text, '\n', end);
        if (newline == NULL || newline == text) {
            break;
        }
        if (is_graphic(newline[-1]) && is_graphic(newline[1])) {
            return (size_t)(newline + 1 - text);
        }
    }
    newline = memrchr(text, '\n', PIECE);
    if (newline != NULL) {
        return (size_t)(newline + 1 - text);
    }
    size_t cut = dm_character_start(text, PIECE);
    return cut > 0 ? cut : PIECE;
}

static dm_status encode_piece(const dm_corpus_encoder *encoder, worker *self, text_piece *piece) {
    const int32_t *ids;
    DM_TRY(dm_encoder_run(self->encoder, encoder->text + piece->start, piece->length, piece->begins ? 0 : DM_ENCODE_GOES_ON, &ids,
                          &piece->n));
    size_t needed;
    if (!dm_add_size(self->count, piece->n, &needed)) {
        return dm_fail(DM_ERR_MEMORY, "out of memory encoding text");
    }
    if (needed > self->capacity) {
        size_t capacity = needed + needed / 2;
        int32_t *grown = realloc(self->ids, capacity * sizeof *grown);
        if (grown == NULL) {
            return dm_fail(DM_ERR_MEMORY, "out of memory encoding text");
        }
        self->ids = grown;
        self->capacity = capacity;
    }
    if (piece->n > 0) {
        memcpy(self->ids + self->count, ids, piece->n * sizeof *ids);
    }
    piece->first = self->count;
    self->count = needed;
    return DM_OK;
}

static dm_status encode_pieces(dm_corpus_encoder *encoder) {
    dm_failure failure = {DM_OK, ""};
    for (int i = 0; i < encoder->n_workers; i++) {
        encoder->workers[i].count = 0;
    }
#pragma omp parallel for schedule(dynamic) num_threads(encoder->n_workers)
    for (size_t i = 0; i < encoder->n_pieces; i++) {
        text_piece *piece = &encoder->pieces[i];
        piece->worker = omp_get_thread_num();
        dm_failure_note(&failure, encode_piece(encoder, &encoder->workers[piece->worker], piece));
    }
    return dm_failure_raise(&failure);
}

static void report(dm_corpus_encoder *encoder) {
    double now = dm_seconds();
    if (now - encoder->reported >= REPORT) {
        encoder->reported = now;
        double total = encoder->total > encoder->done ? (double)encoder->total : (double)encoder->done;
        dm_log("encoding text: %.0f of %.0f MB, %.1f MB/s", (double)encoder->done * 1e-6, total * 1e-6,
               (double)encoder->done * 1e-6 / (now - encoder->began));
    }
}

dm_status dm_corpus_encoder_flush(dm_corpus_encoder *encoder) {
    DM_TRY(encode_pieces(encoder));
    for (size_t i = 0; i < encoder->n_pieces; i++) {
        const text_piece *piece = &encoder->pieces[i];
        const int32_t *ids = encoder->workers[piece->worker].ids;
        DM_TRY(dm_token_writer_add(piece->writer, ids != NULL ? ids + piece->first : NULL, piece->n, piece->length));
        if (piece->last && encoder->end_of_text >= 0) {
            DM_TRY(dm_token_writer_add(piece->writer, &encoder->end_of_text, 1, 0));
        }
    }
    encoder->done += encoder->used;
    encoder->used = encoder->n_pieces = 0;
    report(encoder);
    return dm_interrupted() ? dm_fail(DM_ERR_INTERRUPTED, "interrupted while encoding text") : DM_OK;
}

dm_status dm_corpus_encoder_add(dm_corpus_encoder *encoder, const char *text, size_t length, dm_token_writer *writer) {
    for (bool begins = true; length > 0; begins = false) {
        size_t n = length > PIECE ? cut_piece(text) : length;
        if (encoder->n_pieces == PIECES || n > TEXT - encoder->used) {
            DM_TRY(dm_corpus_encoder_flush(encoder));
        }
        memcpy(encoder->text + encoder->used, text, n);
        encoder->pieces[encoder->n_pieces++] =
            (text_piece){.start = encoder->used, .length = n, .writer = writer, .begins = begins, .last = n == length};
        encoder->used += n;
        text += n;
        length -= n;
    }
    return DM_OK;
}
