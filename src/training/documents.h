/* Text files as a sequence of documents. */
#ifndef DM_TRAINING_DOCUMENTS_H
#define DM_TRAINING_DOCUMENTS_H

#include "base/file.h"

/* The files that a list of files and folders stands for. */
typedef struct dm_corpus {
    char **files; /* [n_files], owned */
    size_t n_files;
    uint64_t bytes;       /* of all files */
    uint64_t fingerprint; /* changes with the list, and with the size and time of every file */
} dm_corpus;

/* Lists the files of `paths`, but for those in `without` (unless NULL) and those inside `folder`, where the run keeps
 * files of its own. Free with dm_corpus_free(), after a failure too. */
dm_status dm_corpus_list(const char *const *paths, size_t n, const dm_corpus *without, const char *folder, dm_corpus *out);
void dm_corpus_free(dm_corpus *corpus);

/* A document is a file, or a part of one between lines of text <|endoftext|>; empty ones are left out. */
typedef struct dm_document {
    const char *text; /* valid until the next call */
    size_t length;    /* bytes, 1 or more */
} dm_document;

typedef struct dm_document_reader {
    const dm_corpus *corpus;
    size_t next_file;
    dm_map map; /* the current file */
    size_t position, released;
} dm_document_reader;

/* Starts at the first document. The corpus must outlive the reader; end it with dm_documents_close(). */
void dm_documents_open(const dm_corpus *corpus, dm_document_reader *reader);
/* The next document; its text is NULL after the last. */
dm_status dm_documents_next(dm_document_reader *reader, dm_document *out);
void dm_documents_close(dm_document_reader *reader);

/* The last position <= `at` where a UTF-8 character starts; `at` itself in bytes that are no UTF-8. */
size_t dm_character_start(const char *text, size_t at);

#endif
