#include "moe/expert_loads.h"

#include <fcntl.h>
#include <string.h>

#include "base/disk_reader.h"
#include "base/memory.h"
#include "base/pages.h"
#include "base/parallel.h"
#include "base/threads.h"
#include "kernels/mixed_panels.h"

enum {
    ROOM = 16 << 20, /* bytes under way, about: several reads of some megabytes keep a disk busy */
    FEWEST = 2,      /* experts: one is packed while the other comes */
    MOST = 12,
    APART = 4096, /* pieces that lie no further from each other are one read */
    USUAL_ALIGNMENT = 4096
};

/* What a load is for. */
typedef enum purpose { FREE, WANTED, GUESS, DROPPED /* nobody wants it, but the disk is at it */ } purpose;

/* What is read in one go: whole units of the disk's around some pieces. */
typedef struct extent {
    uint32_t file;
    uint64_t offset;
    size_t bytes;
    size_t at; /* where in the buffer */
} extent;

/* An expert being read. */
typedef struct load {
    int32_t layer, expert;
    purpose purpose;
    uint8_t *place;                            /* of one that is wanted */
    uint8_t *buffer;                           /* what was read */
    size_t pending;                            /* reads */
    const uint8_t *pieces[DM_EXPERT_MATRICES]; /* in the buffer */
    dm_failure failure;
} load;

struct dm_expert_loads {
    const dm_expert_files *files;
    dm_disk_reader *reader;
    size_t n_wanted, n_loads; /* the first ones are for what is wanted, the others for guesses */
    size_t busy, alignment;   /* wanted ones under way */
    load *loads;              /* [n_loads] */
    dm_pages buffers;         /* in huge pages: a disk fills few long stretches of memory faster than many short ones */
};

static size_t up(size_t n, size_t to) {
    return (n + to - 1) / to * to;
}

size_t dm_expert_place(const dm_expert_files *files, int32_t layer, int32_t expert, size_t offsets[DM_EXPERT_MATRICES]) {
    const dm_expert_piece *pieces = dm_expert_pieces(files, layer, expert);
    size_t bytes = 0;
    for (int i = 0; i < DM_EXPERT_MATRICES; i++) {
        const dm_expert_matrix *m = &files->matrices[layer * DM_EXPERT_MATRICES + i];
        offsets[i] = bytes;
        bytes += m->format != NULL && pieces[i].bytes > 0 ? dm_panel_count(m->rows) * dm_panel_bytes(m->format, m->columns)
                                                          : up(pieces[i].bytes, DM_ALIGNMENT);
    }
    return bytes;
}

/* ---- Buffers ------------------------------------------------------------- */

/* Bytes of the largest expert in its files, with the units of the disk's that it may begin and end in. */
static size_t largest_read(const dm_expert_files *files, size_t alignment) {
    size_t largest = 0;
    for (int32_t l = 0; l < files->layers; l++) {
        for (int32_t e = 0; e < files->experts; e++) {
            const dm_expert_piece *pieces = dm_expert_pieces(files, l, e);
            size_t bytes = 0;
            for (int i = 0; i < DM_EXPERT_MATRICES; i++) {
                bytes += up(pieces[i].bytes, alignment) + 2 * alignment + APART;
            }
            largest = bytes > largest ? bytes : largest;
        }
    }
    return up(largest, alignment);
}

static size_t loads_of(size_t each) {
    size_t n = each > 0 ? ROOM / each : 0;
    return n < FEWEST ? FEWEST : n > MOST ? MOST : n;
}

size_t dm_expert_loads_guess_bytes(const dm_expert_files *files) {
    return largest_read(files, USUAL_ALIGNMENT);
}

size_t dm_expert_loads_bytes(const dm_expert_files *files, size_t guesses) {
    size_t each = dm_expert_loads_guess_bytes(files);
    return (loads_of(each) + guesses) * each;
}

static dm_status check_files(const dm_expert_loads *it) {
    for (size_t i = 0; i < it->files->n_files; i++) {
        const dm_expert_file *was = &it->files->files[i];
        const dm_disk_file *is = dm_disk_reader_file(it->reader, i);
        if (is->size != was->size || is->modified != was->modified) {
            return dm_fail(DM_ERR_IO, "%s: is not the file any more that the model was opened from", was->path);
        }
    }
    return DM_OK;
}

static dm_status open_files(dm_expert_loads *it, size_t guesses) {
    const char **paths = dm_alloc(it->files->n_files, sizeof *paths);
    if (paths == NULL) {
        return DM_ERR_MEMORY;
    }
    for (size_t i = 0; i < it->files->n_files; i++) {
        paths[i] = it->files->files[i].path;
    }
    const size_t depth = (MOST + guesses) * DM_EXPERT_MATRICES;
    dm_status status = dm_disk_reader_create(paths, it->files->n_files, (unsigned)depth, false, &it->reader);
    dm_free(paths);
    DM_TRY(status);
    return check_files(it);
}

static dm_status build(dm_expert_loads *it, size_t guesses) {
    DM_TRY(open_files(it, guesses));
    it->alignment = dm_disk_reader_alignment(it->reader);
    const size_t each = largest_read(it->files, it->alignment);
    it->n_wanted = loads_of(each);
    it->n_loads = it->n_wanted + guesses;
    it->loads = dm_alloc(it->n_loads, sizeof *it->loads);
    if (it->loads == NULL) {
        return DM_ERR_MEMORY;
    }
    DM_TRY(dm_pages_map(it->n_loads * each, &it->buffers));
    for (size_t i = 0; i < it->n_loads; i++) {
        it->loads[i].buffer = it->buffers.data + i * each;
    }
    return DM_OK;
}

dm_status dm_expert_loads_create(const dm_expert_files *files, size_t guesses, dm_expert_loads **out) {
    *out = NULL;
    dm_expert_loads *it = dm_alloc(1, sizeof *it);
    if (it == NULL) {
        return DM_ERR_MEMORY;
    }
    it->files = files;
    dm_status status = build(it, guesses);
    if (status != DM_OK) {
        dm_expert_loads_free(it);
        return status;
    }
    *out = it;
    return DM_OK;
}

void dm_expert_loads_free(dm_expert_loads *it) {
    if (it != NULL) {
        dm_disk_reader_free(it->reader); /* before the memory that it reads into */
        dm_pages_unmap(&it->buffers);
        dm_free(it->loads);
        dm_free(it);
    }
}

void dm_expert_loads_forget(const dm_expert_loads *it, size_t file, uint64_t offset, uint64_t bytes) {
    posix_fadvise(dm_disk_reader_file(it->reader, file)->descriptor, (off_t)offset, (off_t)bytes, POSIX_FADV_DONTNEED);
}

uint64_t dm_expert_loads_read(const dm_expert_loads *it) {
    return dm_disk_reader_counts(it->reader).bytes;
}

/* ---- Reading ------------------------------------------------------------- */

/* The reads that bring an expert's pieces, in the order of the file; pieces[] receives where each will lie. */
static size_t plan(const dm_expert_loads *it, load *of, extent extents[DM_EXPERT_MATRICES]) {
    const dm_expert_piece *pieces = dm_expert_pieces(it->files, of->layer, of->expert);
    int order[DM_EXPERT_MATRICES] = {0, 1, 2};
    for (int i = 1; i < DM_EXPERT_MATRICES; i++) { /* by place */
        for (int j = i; j > 0 && (pieces[order[j]].file < pieces[order[j - 1]].file ||
                                  (pieces[order[j]].file == pieces[order[j - 1]].file &&
                                   pieces[order[j]].offset < pieces[order[j - 1]].offset));
             j--) {
            int other = order[j];
            order[j] = order[j - 1];
            order[j - 1] = other;
        }
    }
    size_t n = 0, at = 0;
    for (int i = 0; i < DM_EXPERT_MATRICES; i++) {
        const dm_expert_piece *piece = &pieces[order[i]];
        const uint64_t begin = piece->offset / it->alignment * it->alignment;
        const uint64_t end = (piece->offset + piece->bytes + it->alignment - 1) / it->alignment * it->alignment;
        extent *last = n > 0 ? &extents[n - 1] : NULL;
        if (last != NULL && last->file == piece->file && begin <= last->offset + last->bytes + APART) {
            const uint64_t so_far = last->offset + last->bytes;
            last->bytes = (size_t)((end > so_far ? end : so_far) - last->offset);
        } else {
            at = last != NULL ? last->at + last->bytes : 0;
            extents[n++] = (extent){piece->file, begin, (size_t)(end - begin), at};
        }
        of->pieces[order[i]] = of->buffer + extents[n - 1].at + (piece->offset - extents[n - 1].offset);
    }
    return n;
}

/* A free one of loads begin .. end - 1; `end` where there is none. */
static size_t find_free(const dm_expert_loads *it, size_t begin, size_t end) {
    while (begin < end && it->loads[begin].purpose != FREE) {
        begin++;
    }
    return begin;
}

bool dm_expert_loads_has_room(const dm_expert_loads *it) {
    return find_free(it, 0, it->n_wanted) < it->n_wanted;
}

/* Queues an expert's reads. */
static dm_status queue_reads(dm_expert_loads *it, size_t number, int32_t layer, int32_t expert) {
    load *of = &it->loads[number];
    extent extents[DM_EXPERT_MATRICES];
    of->layer = layer;
    of->expert = expert;
    of->failure = (dm_failure){0};
    const size_t n = plan(it, of, extents);
    for (size_t i = 0; i < n; i++) {
        const dm_disk_read read = {extents[i].file, extents[i].offset, extents[i].bytes, of->buffer + extents[i].at, number};
        dm_status status = dm_disk_reader_submit(it->reader, read);
        if (status != DM_OK && of->pending == 0) {
            return status;
        }
        dm_failure_note(&of->failure, status); /* raised once those before it are there */
        of->pending += status == DM_OK;
    }
    return DM_OK;
}

dm_status dm_expert_loads_start(dm_expert_loads *it, int32_t layer, int32_t expert, uint8_t *place) {
    const size_t number = find_free(it, 0, it->n_wanted);
    DM_TRY(queue_reads(it, number, layer, expert));
    it->loads[number].purpose = WANTED;
    it->loads[number].place = place;
    it->busy++;
    return DM_OK;
}

void dm_expert_loads_flush(dm_expert_loads *it) {
    dm_disk_reader_flush(it->reader);
}

/* Takes note of one read that is done; false where there is none. */
static bool take_one(dm_expert_loads *it, bool wait) {
    dm_disk_done done;
    if (!dm_disk_reader_wait(it->reader, wait, &done)) {
        return false;
    }
    load *of = &it->loads[done.tag];
    dm_failure_note(&of->failure, done.status);
    of->pending--;
    if (of->pending == 0 && of->purpose == DROPPED) {
        of->purpose = FREE;
    }
    return true;
}

/* ---- Guesses ------------------------------------------------------------- */

/* NULL: there is none of this expert. */
static load *find_guess(const dm_expert_loads *it, int32_t layer, int32_t expert) {
    for (size_t i = it->n_wanted; i < it->n_loads; i++) {
        load *of = &it->loads[i];
        if (of->purpose == GUESS && of->layer == layer && of->expert == expert) {
            return of;
        }
    }
    return NULL;
}

bool dm_expert_loads_guess(dm_expert_loads *it, int32_t layer, int32_t expert) {
    while (it->n_loads > it->n_wanted && take_one(it, false)) { /* which may make a buffer free */
    }
    const size_t number = find_free(it, it->n_wanted, it->n_loads);
    if (number == it->n_loads || find_guess(it, layer, expert) != NULL || queue_reads(it, number, layer, expert) != DM_OK) {
        return false;
    }
    it->loads[number].purpose = GUESS;
    return true;
}

bool dm_expert_loads_adopt(dm_expert_loads *it, int32_t layer, int32_t expert, uint8_t *place) {
    load *of = find_guess(it, layer, expert);
    if (of != NULL) {
        of->purpose = WANTED;
        of->place = place;
        it->busy++;
    }
    return of != NULL;
}

uint64_t dm_expert_loads_drop(dm_expert_loads *it, int32_t layer) {
    uint64_t bytes = 0;
    for (size_t i = it->n_wanted; i < it->n_loads; i++) {
        load *of = &it->loads[i];
        if (of->purpose == GUESS && of->layer == layer) {
            of->purpose = of->pending > 0 ? DROPPED : FREE;
            bytes += dm_expert_bytes(it->files, layer, of->expert);
        }
    }
    return bytes;
}

/* ---- Packing ------------------------------------------------------------- */

typedef struct packing {
    const dm_expert_files *files;
    const load *of;
    size_t panels[DM_EXPERT_MATRICES]; /* of each matrix; 0: it is copied */
    size_t offsets[DM_EXPERT_MATRICES];
} packing;

/* Panels begin .. end - 1 of all three matrices, laid end to end. */
static void pack_body(void *user, size_t begin, size_t end, int thread) {
    const packing *it = user;
    size_t base = 0;
    (void)thread;
    for (int i = 0; i < DM_EXPERT_MATRICES; base += it->panels[i++]) {
        const dm_expert_matrix *m = &it->files->matrices[it->of->layer * DM_EXPERT_MATRICES + i];
        size_t from = begin > base ? begin - base : 0, to = end > base ? end - base : 0;
        to = to < it->panels[i] ? to : it->panels[i];
        if (from < to) {
            dm_panels_pack(it->of->place + it->offsets[i] + from * dm_panel_bytes(m->format, m->columns), m->format,
                           it->of->pieces[i], m->rows, m->columns, from * DM_PANEL_ROWS, to - from);
        }
    }
}

static void put_in_place(const dm_expert_files *files, const load *of) {
    enum { PANELS_A_TURN = 8 };
    packing it = {.files = files, .of = of};
    const dm_expert_piece *pieces = dm_expert_pieces(files, of->layer, of->expert);
    size_t panels = 0;
    dm_expert_place(files, of->layer, of->expert, it.offsets);
    for (int i = 0; i < DM_EXPERT_MATRICES; i++) {
        const dm_expert_matrix *m = &files->matrices[of->layer * DM_EXPERT_MATRICES + i];
        if (m->format != NULL) {
            it.panels[i] = dm_panel_count(m->rows);
            panels += it.panels[i];
        } else {
            memcpy(of->place + it.offsets[i], of->pieces[i], pieces[i].bytes);
        }
    }
    dm_parallel(dm_threads(), panels, PANELS_A_TURN, pack_body, &it);
}

/* The file may have changed since the model was opened, and products follow these tables without looking. */
static dm_status check_tables(const dm_expert_files *files, const load *of) {
    const dm_expert_piece *pieces = dm_expert_pieces(files, of->layer, of->expert);
    size_t offsets[DM_EXPERT_MATRICES];
    dm_expert_place(files, of->layer, of->expert, offsets);
    for (int i = 0; i < DM_EXPERT_MATRICES; i++) {
        const dm_expert_matrix *m = &files->matrices[of->layer * DM_EXPERT_MATRICES + i];
        if (pieces[i].mixed) {
            dm_status status = dm_mixed_check(of->place + offsets[i], pieces[i].bytes, m->rows, m->columns);
            DM_TRY(status == DM_OK ? DM_OK : dm_fail_in(status, files->files[pieces[i].file].path));
        }
    }
    return DM_OK;
}

/* One that is wanted and whose reads are all done; NULL: none. */
static load *find_ready(const dm_expert_loads *it) {
    for (size_t i = 0; i < it->n_loads; i++) {
        if (it->loads[i].purpose == WANTED && it->loads[i].pending == 0) {
            return &it->loads[i];
        }
    }
    return NULL;
}

dm_status dm_expert_loads_finish(dm_expert_loads *it, bool wait, int32_t *layer, int32_t *expert) {
    *layer = *expert = -1;
    load *of = NULL;
    while (it->busy > 0 && (of = find_ready(it)) == NULL) {
        if (!take_one(it, wait)) {
            return DM_OK;
        }
    }
    if (of == NULL) {
        return DM_OK;
    }
    *layer = of->layer;
    *expert = of->expert;
    dm_status status = dm_failure_raise(&of->failure);
    if (status == DM_OK) {
        put_in_place(it->files, of);
        status = check_tables(it->files, of);
    }
    of->purpose = FREE;
    it->busy--;
    return status;
}
