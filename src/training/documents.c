#include "training/documents.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/hash.h"
#include "model/tokenizer.h"

/* ---- The list of files ---- */

static int by_text(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The absolute paths of a corpus, sorted; *names is freed with dm_free_list(). */
static dm_status real_names(const dm_corpus *corpus, char ***names) {
    *names = calloc(corpus->n_files, sizeof **names);
    for (size_t i = 0; *names != NULL && i < corpus->n_files; i++) {
        (*names)[i] = realpath(corpus->files[i], NULL);
        if ((*names)[i] == NULL) {
            dm_status status = dm_fail(DM_ERR_IO, "%s: %s", corpus->files[i], strerror(errno));
            dm_free_list(*names, i);
            *names = NULL;
            return status;
        }
    }
    if (*names == NULL) {
        return dm_fail(DM_ERR_MEMORY, "out of memory listing files");
    }
    qsort(*names, corpus->n_files, sizeof **names, by_text);
    return DM_OK;
}

static bool is_inside(const char *name, const char *folder) {
    size_t length = strlen(folder);
    return strncmp(name, folder, length) == 0 && name[length] == '/';
}

/* Drops from `corpus` what lies in `folder` (absolute, or NULL) or among the sorted absolute `names`. */
static dm_status leave_out(dm_corpus *corpus, const char *folder, char **names, size_t n_names) {
    size_t kept = 0;
    dm_status status = DM_OK;
    for (size_t i = 0; i < corpus->n_files; i++) {
        char *file = corpus->files[i];
        char *name = realpath(file, NULL);
        if (name == NULL && status == DM_OK) {
            status = dm_fail(DM_ERR_IO, "%s: %s", file, strerror(errno));
        }
        bool drop = name != NULL && ((folder != NULL && is_inside(name, folder)) ||
                                     (n_names > 0 && bsearch(&name, names, n_names, sizeof *names, by_text) != NULL));
        free(name);
        if (drop) {
            free(file);
        } else {
            corpus->files[kept++] = file;
        }
    }
    if (status == DM_OK && kept == 0) {
        status = dm_fail(DM_ERR_ARGUMENT, "no text to train on is left: every file of data is in valid or in the run folder");
    }
    corpus->n_files = kept;
    return status;
}

static dm_status measure(dm_corpus *corpus) {
    for (size_t i = 0; i < corpus->n_files; i++) {
        struct stat info;
        const char *file = corpus->files[i];
        if (stat(file, &info) != 0) {
            return dm_fail(DM_ERR_IO, "%s: %s", file, strerror(errno));
        }
        if (!S_ISREG(info.st_mode)) {
            return dm_fail(DM_ERR_IO, "%s: not a regular file", file);
        }
        int64_t facts[] = {info.st_size, info.st_mtim.tv_sec, info.st_mtim.tv_nsec};
        corpus->fingerprint = dm_hash_bytes(file, strlen(file), corpus->fingerprint);
        corpus->fingerprint = dm_hash_bytes(facts, sizeof facts, corpus->fingerprint);
        corpus->bytes += (uint64_t)info.st_size;
    }
    return DM_OK;
}

dm_status dm_corpus_list(const char *const *paths, size_t n, const dm_corpus *without, const char *folder, dm_corpus *out) {
    *out = (dm_corpus){0};
    DM_TRY(dm_list_files(paths, n, &out->files, &out->n_files));
    char *inside = folder != NULL ? realpath(folder, NULL) : NULL; /* a folder that is not there holds nothing */
    char **names = NULL;
    size_t n_names = without != NULL ? without->n_files : 0;
    dm_status status = n_names > 0 ? real_names(without, &names) : DM_OK;
    if (status == DM_OK) {
        status = leave_out(out, inside, names, n_names);
    }
    if (names != NULL) {
        dm_free_list(names, n_names);
    }
    free(inside);
    return status == DM_OK ? measure(out) : status;
}

void dm_corpus_free(dm_corpus *corpus) {
    dm_free_list(corpus->files, corpus->n_files);
    *corpus = (dm_corpus){0};
}

/* ---- Documents ---- */

enum { RELEASE = 32 << 20 }; /* bytes read before their pages are given back */

void dm_documents_open(const dm_corpus *corpus, dm_document_reader *reader) {
    *reader = (dm_document_reader){.corpus = corpus};
}

void dm_documents_close(dm_document_reader *reader) {
    dm_map_close(&reader->map);
}

static void release_pages(dm_document_reader *reader) {
    if (reader->position - reader->released >= RELEASE) {
        dm_map_release(&reader->map, reader->released, reader->position);
        reader->released = reader->position / RELEASE * RELEASE;
    }
}

/* Where the next separating line begins at or after `from`, a line's start, and where the line after it begins. */
static const char *find_separator(const char *from, const char *end, const char **after) {
    static const char mark[] = DM_END_OF_TEXT;
    for (const char *at = from; (at = memmem(at, (size_t)(end - at), mark, sizeof mark - 1)) != NULL; at++) {
        const char *rest = at + sizeof mark - 1;
        if (rest < end && *rest == '\r') {
            rest++;
        }
        if ((at == from || at[-1] == '\n') && (rest == end || *rest == '\n')) {
            *after = rest == end ? end : rest + 1;
            return at;
        }
    }
    *after = end;
    return end;
}

dm_status dm_documents_next(dm_document_reader *reader, dm_document *out) {
    *out = (dm_document){0};
    for (;;) {
        while (reader->position == reader->map.size) {
            dm_map_close(&reader->map);
            reader->position = reader->released = 0;
            if (reader->next_file == reader->corpus->n_files) {
                return DM_OK;
            }
            DM_TRY(dm_map_open(reader->corpus->files[reader->next_file++], &reader->map));
        }
        release_pages(reader);
        const char *start = (const char *)reader->map.data + reader->position;
        const char *after, *stop = find_separator(start, (const char *)reader->map.data + reader->map.size, &after);
        reader->position += (size_t)(after - start);
        if (stop > start) {
            *out = (dm_document){start, (size_t)(stop - start)};
            return DM_OK;
        }
    }
}

size_t dm_character_start(const char *text, size_t at) {
    for (size_t back = 0; back < 4 && back <= at; back++) {
        if (((unsigned char)text[at - back] & 0xc0) != 0x80) {
            return at - back;
        }
    }
    return at;
}
