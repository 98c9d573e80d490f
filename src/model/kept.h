/*
 * A model's panels kept on disk, so that they are mapped instead of packed: beside the model as MODEL.panels, or, where
 * that folder cannot be written to, below the user's cache folder.
 *
 * The file: a header, a check for each matrix, zeros to the next multiple of DM_KEPT_ALIGNMENT, all panels as repack.c lays
 * them out. Numbers are of this machine's byte order. The header and the checks are believed only if they hash to what the
 * header says; panels are compared with their checks when they are first used, so that opening reads none of them.
 */
#ifndef DM_MODEL_KEPT_H
#define DM_MODEL_KEPT_H

#include "base/file.h"
#include "model/model.h"

enum { DM_KEPT_ALIGNMENT = 4096, DM_KEPT_PATH = 4096 };

/* All of it but the hash must be what the model asks for. */
typedef struct dm_kept_header {
    char magic[8];
    uint32_t version, layout; /* of this file's form, of panels */
    uint64_t model;           /* fingerprint */
    uint64_t stamp;           /* sizes and times of the model's files */
    uint64_t matrices, bytes; /* checks; panels */
    uint64_t hash;            /* of the above and the checks */
} dm_kept_header;

typedef struct dm_kept {
    dm_map map;             /* private to the process; data NULL: none is kept */
    const uint64_t *checks; /* [matrices] */
    const uint8_t *panels;  /* [bytes] */
} dm_kept;

/* The header, less its hash, of a model with `matrices` matrices whose panels have `bytes` bytes. */
dm_kept_header dm_kept_header_of(const dm_model *model, size_t matrices, size_t bytes);

/* Whether there is a file in one of the places, whatever it holds. */
bool dm_kept_exists(const dm_model *model);
/* Opens the file that is kept for a model, in one place or the other; *path (of `size`) is where. None is no failure. */
dm_status dm_kept_find(const dm_model *model, const dm_kept_header *wanted, char *path, size_t size, dm_kept *out);
/* Opens one file and checks everything but the panels. DM_ERR_ARGUMENT: it is of another model or version. */
dm_status dm_kept_open(const char *path, const dm_kept_header *wanted, dm_kept *out);
void dm_kept_close(dm_kept *kept);

/* Writes a file atomically; *path (of `size`) is where. */
dm_status dm_kept_write(const dm_model *model, const dm_kept_header *header, const uint64_t *checks, const uint8_t *panels,
                        char *path, size_t size);

/* What goes into a header with these checks. */
uint64_t dm_kept_hash(const dm_kept_header *header, const uint64_t *checks);

#endif
