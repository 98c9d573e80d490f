#include "model/word_counts.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/threads.h"
#include "model/split.h"
#include "model/tokenizer.h"

enum { PIECE_BYTES = 4 << 20 }; /* what a thread takes at a time */

/* Part of a file: what begins in [from, to) up to where the next piece begins. */
typedef struct piece {
    const char *path;
    size_t from, to;
} piece;

typedef struct piece_list {
    piece *pieces;
    size_t count, room;
} piece_list;

void dm_word_counts_free(dm_word_counts *counts) {
    dm_strings_free(&counts->words);
    free(counts->counts);
    *counts = (dm_word_counts){0};
}

static dm_status add(dm_word_counts *counts, const char *word, size_t length, uint64_t times) {
    uint32_t index;
    bool added;
    DM_TRY(dm_strings_add(&counts->words, word, length, &index, &added));
    if (added) {
        DM_TRY(dm_reserve(&counts->counts, &counts->room, (size_t)index + 1, sizeof *counts->counts));
        counts->counts[index] = 0;
    }
    counts->counts[index] += times;
    return DM_OK;
}

static dm_status add_text(dm_word_counts *counts, dm_splitter *splitter, const char *text, size_t length) {
    DM_TRY(dm_splitter_start(splitter, text, length));
    for (;;) {
        size_t n;
        DM_TRY(dm_splitter_next(splitter, &n));
        if (n == 0) {
            return DM_OK;
        }
        for (; n > DM_LONGEST_COUNTED_WORD; n -= DM_LONGEST_COUNTED_WORD, text += DM_LONGEST_COUNTED_WORD) {
            DM_TRY(add(counts, text, DM_LONGEST_COUNTED_WORD, 1));
        }
        DM_TRY(add(counts, text, n, 1));
        text += n;
    }
}

static dm_status add_documents(dm_word_counts *counts, dm_splitter *splitter, const char *text, size_t length) {
    const char *end = text + length;
    while (text < end) {
        const char *mark = memmem(text, (size_t)(end - text), DM_END_OF_TEXT, strlen(DM_END_OF_TEXT));
        DM_TRY(add_text(counts, splitter, text, (size_t)((mark != NULL ? mark : end) - text)));
        if (mark == NULL) {
            break;
        }
        text = mark + strlen(DM_END_OF_TEXT);
        text += text < end && *text == '\n'; /* ends the mark's line, begins no document */
    }
    return DM_OK;
}

static dm_status add_piece(dm_word_counts *counts, dm_splitter *splitter, const piece *part) {
    dm_map map;
    DM_TRY(dm_map_open(part->path, &map));
    const char *text = (const char *)map.data;
    size_t to = part->to < map.size ? part->to : map.size;
    size_t begin = part->from == 0 ? 0 : dm_split_point(text, part->from, to);
    dm_status status = DM_OK;
    if (begin < to) { /* else the piece before this one reaches past it */
        size_t end = dm_split_point(text, to, map.size);
        status = add_documents(counts, splitter, text + begin, end - begin);
        counts->bytes += end - begin;
    }
    dm_map_close(&map);
    return status;
}

static dm_status list_pieces(char **files, size_t n_files, piece_list *list) {
    for (size_t i = 0; i < n_files; i++) {
        struct stat info;
        size_t size = stat(files[i], &info) == 0 ? (size_t)info.st_size : 1; /* opening it will say what is wrong */
        for (size_t from = 0; from < size; from += PIECE_BYTES) {
            DM_TRY(dm_reserve(&list->pieces, &list->room, list->count + 1, sizeof *list->pieces));
            size_t to = size - from > PIECE_BYTES ? from + PIECE_BYTES : size;
            list->pieces[list->count++] = (piece){files[i], from, to};
        }
    }
    return DM_OK;
}

/* Adds the counts of one thread to those of all. */
static dm_status join(dm_word_counts *all, const dm_word_counts *part) {
    for (uint32_t i = 0; i < part->words.count; i++) {
        size_t length;
        const char *word = dm_strings_at(&part->words, i, &length);
        DM_TRY(add(all, word, length, part->counts[i]));
    }
    all->bytes += part->bytes;
    return DM_OK;
}

/* Messages are kept per thread, so the first failure's is carried over to the caller's. */
typedef struct first_failure {
    dm_status status;
    char message[512];
} first_failure;

static void keep_first(first_failure *failure, dm_status status) {
#pragma omp critical(dm_word_counts_failure)
    if (failure->status == DM_OK) {
        failure->status = status;
        snprintf(failure->message, sizeof failure->message, "%s", dm_error_message());
    }
}

/* Several threads share out the pieces; each returns what it counted through `all`. */
static dm_status count_pieces(dm_word_counts *all, const piece_list *list) {
    first_failure failure = {0};
    bool stop = false;
#pragma omp parallel
    {
        dm_word_counts own = {0};
        dm_splitter *splitter;
        dm_status status = dm_splitter_create(dm_pretokenizer_find("gpt-2", 5), &splitter);
#pragma omp for schedule(dynamic)
        for (size_t i = 0; i < list->count; i++) {
            bool skip;
#pragma omp atomic read
            skip = stop;
            if (skip || status != DM_OK) {
                continue;
            }
            status = dm_interrupted() ? dm_fail(DM_ERR_INTERRUPTED, "interrupted") : add_piece(&own, splitter, &list->pieces[i]);
            if (status != DM_OK) {
#pragma omp atomic write
                stop = true;
            }
        }
#pragma omp critical(dm_word_counts_join)
        if (status == DM_OK && !stop) {
            status = join(all, &own);
        }
        if (status != DM_OK) {
            keep_first(&failure, status);
        }
        dm_word_counts_free(&own);
        dm_splitter_free(splitter);
    }
    return failure.status == DM_OK ? DM_OK : dm_fail(failure.status, "%s", failure.message);
}

dm_status dm_word_counts_read(dm_word_counts *counts, const char *const *data, size_t n_data) {
    char **files;
    size_t n_files;
    DM_TRY(dm_list_files(data, n_data, &files, &n_files));
    piece_list list = {0};
    dm_status status = list_pieces(files, n_files, &list);
    if (status == DM_OK) {
        status = count_pieces(counts, &list);
    }
    free(list.pieces);
    dm_free_list(files, n_files);
    return status;
}
