/*
 * Experts being read from the model's files, several at a time and past the page cache, into places of their own: as panels where
 * the kernels have such, else as the file has them. What stays as it is in the file is read right into its place; the rest into
 * buffers, and packed from there. One thread at a time uses what is below; packing takes all of them.
 */
#ifndef DM_MOE_EXPERT_LOADS_H
#define DM_MOE_EXPERT_LOADS_H

#include "base/disk_file.h"
#include "kernels/panels.h"

enum { DM_EXPERT_MATRICES = 3 /* gate, up, down */ };

/* Of all experts of a layer. */
typedef struct dm_expert_matrix {
    size_t rows, columns;
    const dm_panel_format *format; /* becomes panels of it; NULL: stays as it is */
} dm_expert_matrix;

/* Where a matrix of one expert lies. */
typedef struct dm_expert_piece {
    uint32_t file; /* which of `files` */
    uint64_t offset;
    size_t bytes; /* 0: this layer has no experts */
    bool mixed;   /* panels of mixed widths, whose tables are checked again when they were read */
    bool kept;    /* panels of a file of those: dm_panels_check() of them is `check` */
    uint64_t check;
} dm_expert_piece;

/* A file as it was when the model was opened. */
typedef struct dm_expert_file {
    const char *path;
    uint64_t size, modified; /* bytes; nanoseconds since 1970 */
} dm_expert_file;

/* A model's experts on disk; what it points to outlives all that is made from it. */
typedef struct dm_expert_files {
    int32_t layers, experts;
    const dm_expert_matrix *matrices; /* [layers, DM_EXPERT_MATRICES] */
    const dm_expert_piece *pieces;    /* [layers, experts, DM_EXPERT_MATRICES] */
    const dm_expert_file *files;      /* [n_files] */
    size_t n_files;
} dm_expert_files;

static inline const dm_expert_piece *dm_expert_pieces(const dm_expert_files *files, int32_t layer, int32_t expert) {
    return files->pieces + ((size_t)layer * (size_t)files->experts + (size_t)expert) * DM_EXPERT_MATRICES;
}

/* Bytes of an expert in its files. */
static inline uint64_t dm_expert_bytes(const dm_expert_files *files, int32_t layer, int32_t expert) {
    const dm_expert_piece *pieces = dm_expert_pieces(files, layer, expert);
    uint64_t bytes = 0;
    for (int m = 0; m < DM_EXPERT_MATRICES; m++) {
        bytes += pieces[m].bytes;
    }
    return bytes;
}

enum { DM_EXPERT_ALIGNMENT = DM_DISK_MOST_ALIGNMENT }; /* of places */

/* Whether experts of the layer are read right into their places: all of their matrices stay as they are. */
bool dm_expert_stays(const dm_expert_files *files, int32_t layer);
/* Bytes of an expert in its place, and where each of its matrices begins there. */
size_t dm_expert_place(const dm_expert_files *files, int32_t layer, int32_t expert, size_t offsets[DM_EXPERT_MATRICES]);

typedef struct dm_expert_loads dm_expert_loads;

/* Bytes that reading takes beside the experts' places, with buffers for so many guesses. */
size_t dm_expert_loads_bytes(const dm_expert_files *files, size_t guesses);
/* Those of one guess's buffer. */
size_t dm_expert_loads_guess_bytes(const dm_expert_files *files);

/* A disk that does not answer for `patience` seconds is given up; 0: DM_DISK_PATIENCE. DM_ERR_IO where a file is not the one that
 * the model was opened from. */
dm_status dm_expert_loads_create(const dm_expert_files *files, size_t guesses, double patience, dm_expert_loads **out);
/* Waits for what is under way. False where the disk does not answer: places of experts that were started belong to the system
 * for good. NULL is fine. */
bool dm_expert_loads_free(dm_expert_loads *it);

/* After a failure, what was started is nobody's any more. dm_expert_loads_settle() waits until the disk is done with all of that:
 * to be called before others get those places; DM_ERR_IO where it does not answer. */
void dm_expert_loads_abandon(dm_expert_loads *it);
dm_status dm_expert_loads_settle(dm_expert_loads *it);

/* Whether there is room for one more, which is no guess: a buffer, and a disk that has not enough to do. */
bool dm_expert_loads_has_room(const dm_expert_loads *it);
/* An expert will be read into `place`, which nobody may look at until it is finished; reading begins with the next flush or when
 * one is waited for. */
dm_status dm_expert_loads_start(dm_expert_loads *it, int32_t layer, int32_t expert, uint8_t *place);
void dm_expert_loads_flush(dm_expert_loads *it);

/* An expert that may be wanted later is read into a buffer of its own, and waits there, also where reading it fails. False where
 * no buffer is free, it is being read already, or the read is refused. */
bool dm_expert_loads_guess(dm_expert_loads *it, int32_t layer, int32_t expert);
/* A guess comes true: it is as if it had been started into *place. With `exchange` its buffer becomes *place, and the place the
 * buffer of a later guess. False where this expert was not guessed. */
bool dm_expert_loads_adopt(dm_expert_loads *it, int32_t layer, int32_t expert, bool exchange, uint8_t **place);
/* The guesses left of a layer are wrong: their buffers are free once the disk is done with them. Returns their bytes in files. */
uint64_t dm_expert_loads_drop(dm_expert_loads *it, int32_t layer);

/* Takes note of what has been read; with `wait` until one that was started is read, if any is under way. DM_ERR_IO where the disk
 * does not answer. */
dm_status dm_expert_loads_await(dm_expert_loads *it, bool wait);
/* Finishes one that has been read and is no guess: *layer, *expert, or -1 where there is none. A failure is that expert's, whose
 * place then holds nothing. */
dm_status dm_expert_loads_finish(dm_expert_loads *it, int32_t *layer, int32_t *expert);

/* The system need not keep these bytes of a file in its cache. */
void dm_expert_loads_forget(const dm_expert_loads *it, size_t file, uint64_t offset, uint64_t bytes);

/* Bytes read from files so far. */
uint64_t dm_expert_loads_read(const dm_expert_loads *it);

#endif
