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
    ROOM = 12 << 20, /* bytes of buffers, about */
    FEWEST = 2,      /* experts: one is packed while the other comes */
    MOST = 12,
    AT_DISK = 8 << 20, /* bytes, about: keep it busy; with more, some disks bring none before all are there */
    APART = 4096,      /* pieces that lie no further from each other are one read */
    UNIT = DM_EXPERT_ALIGNMENT
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
    uint8_t *place; /* of one that is wanted */
    uint8_t *buffer;
    uint8_t *read;                     /* what was read: the place, or the buffer */
    size_t pending;                    /* reads */
    size_t pieces[DM_EXPERT_MATRICES]; /* where they lie there */
    dm_failure failure;
} load;

struct dm_expert_loads {
    const dm_expert_files *files;
    dm_disk_reader *reader;
    size_t n_wanted, n_loads; /* the first ones are for what is wanted, the others for guesses */
    size_t busy;              /* wanted ones under way */
    bool *checked;            /* [layers, experts] kept panels that were what was written */
    load *loads;              /* [n_loads] */
    dm_pages buffers;         /* in huge pages: a disk fills few long stretches of memory faster than many short ones */
};

static size_t up(size_t n, size_t to) {
    return (n + to - 1) / to * to;
}

/* ---- Places -------------------------------------------------------------- */

static const dm_expert_matrix *matrix_of(const dm_expert_files *files, int32_t layer, int matrix) {
    return &files->matrices[layer * DM_EXPERT_MATRICES + matrix];
}

bool dm_expert_stays(const dm_expert_files *files, int32_t layer) {
    bool all = true;
    for (int i = 0; i < DM_EXPERT_MATRICES; i++) {
        all = all && matrix_of(files, layer, i)->format == NULL;
    }
    return all;
}

static bool before(const dm_expert_piece *a, const dm_expert_piece *b) {
    return a->file < b->file || (a->file == b->file && a->offset < b->offset);
}

/* The reads that bring an expert's pieces, in the order of the file, and where each piece will lie; bytes of all of them. */
static size_t plan(const dm_expert_files *files, int32_t layer, int32_t expert, extent extents[DM_EXPERT_MATRICES],
                   size_t *n_extents, size_t where[DM_EXPERT_MATRICES]) {
    const dm_expert_piece *pieces = dm_expert_pieces(files, layer, expert);
    int order[DM_EXPERT_MATRICES] = {0, 1, 2};
    for (int i = 1; i < DM_EXPERT_MATRICES; i++) {
        for (int j = i; j > 0 && before(&pieces[order[j]], &pieces[order[j - 1]]); j--) {
            int other = order[j];
            order[j] = order[j - 1];
            order[j - 1] = other;
        }
    }
    size_t n = 0;
    for (int i = 0; i < DM_EXPERT_MATRICES; i++) {
        const dm_expert_piece *piece = &pieces[order[i]];
        const uint64_t begin = piece->offset / UNIT * UNIT, end = (piece->offset + piece->bytes + UNIT - 1) / UNIT * UNIT;
        extent *last = n > 0 ? &extents[n - 1] : NULL;
        if (last != NULL && last->file == piece->file && begin <= last->offset + last->bytes + APART) {
            const uint64_t so_far = last->offset + last->bytes;
            last->bytes = (size_t)((end > so_far ? end : so_far) - last->offset);
        } else {
            const size_t at = last != NULL ? last->at + last->bytes : 0;
            extents[n++] = (extent){piece->file, begin, (size_t)(end - begin), at};
        }
        where[order[i]] = extents[n - 1].at + (size_t)(piece->offset - extents[n - 1].offset);
    }
    *n_extents = n;
    return extents[n - 1].at + extents[n - 1].bytes;
}

size_t dm_expert_place(const dm_expert_files *files, int32_t layer, int32_t expert, size_t offsets[DM_EXPERT_MATRICES]) {
    const dm_expert_piece *pieces = dm_expert_pieces(files, layer, expert);
    if (dm_expert_stays(files, layer)) {
        extent extents[DM_EXPERT_MATRICES];
        size_t n;
        return pieces[0].bytes > 0 ? plan(files, layer, expert, extents, &n, offsets) : 0;
    }
    size_t bytes = 0;
    for (int i = 0; i < DM_EXPERT_MATRICES; i++) {
        const dm_expert_matrix *m = matrix_of(files, layer, i);
        offsets[i] = bytes;
        bytes += m->format != NULL ? dm_panel_count(m->rows) * dm_panel_bytes(m->format, m->columns)
                                   : up(pieces[i].bytes, DM_ALIGNMENT);
    }
    return bytes;
}

/* ---- Buffers ------------------------------------------------------------- */

/* Bytes of the largest read of an expert; only of those that are packed, or of all. */
static size_t largest_read(const dm_expert_files *files, bool all) {
    size_t largest = 0;
    for (int32_t l = 0; l < files->layers; l++) {
        for (int32_t e = 0; e < files->experts && (all || !dm_expert_stays(files, l)); e++) {
            extent extents[DM_EXPERT_MATRICES];
            size_t n, where[DM_EXPERT_MATRICES], bytes = plan(files, l, e, extents, &n, where);
            largest = bytes > largest ? bytes : largest;
        }
    }
    return largest;
}

/* How many are read at a time, whose buffers have `each` bytes. */
static size_t loads_of(size_t each) {
    size_t n = each > 0 ? ROOM / each : MOST;
    return n < FEWEST ? FEWEST : n > MOST ? MOST : n;
}

size_t dm_expert_loads_guess_bytes(const dm_expert_files *files) {
    return largest_read(files, true);
}

size_t dm_expert_loads_bytes(const dm_expert_files *files, size_t guesses) {
    size_t each = largest_read(files, false);
    return loads_of(each) * each + guesses * dm_expert_loads_guess_bytes(files);
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
    const size_t each = largest_read(it->files, false), of_guess = dm_expert_loads_guess_bytes(it->files);
    it->n_wanted = loads_of(each);
    it->n_loads = it->n_wanted + guesses;
    it->loads = dm_alloc(it->n_loads, sizeof *it->loads);
    it->checked = dm_alloc((size_t)it->files->layers * (size_t)it->files->experts, sizeof *it->checked);
    if (it->loads == NULL || it->checked == NULL) {
        return DM_ERR_MEMORY;
    }
    DM_TRY(dm_pages_map(it->n_wanted * each + guesses * of_guess, &it->buffers));
    uint8_t *next = it->buffers.data;
    for (size_t i = 0; i < it->n_loads; i++) {
        it->loads[i].buffer = next;
        next += i < it->n_wanted ? each : of_guess;
    }
    return DM_OK;
}

dm_status dm_expert_loads_create(const dm_expert_files *files, size_t guesses, double patience, dm_expert_loads **out) {
    *out = NULL;
    dm_expert_loads *it = dm_alloc(1, sizeof *it);
    if (it == NULL) {
        return DM_ERR_MEMORY;
    }
    it->files = files;
    dm_status status = build(it, guesses);
    if (status == DM_OK && patience > 0.0) {
        dm_disk_reader_set_patience(it->reader, patience);
    }
    if (status != DM_OK) {
        dm_expert_loads_free(it);
        return status;
    }
    *out = it;
    return DM_OK;
}

bool dm_expert_loads_free(dm_expert_loads *it) {
    bool done = true;
    if (it != NULL) {
        done = dm_disk_reader_free(it->reader); /* before the memory that it reads into */
        if (done) {
            dm_pages_unmap(&it->buffers);
        }
        dm_free(it->checked);
        dm_free(it->loads);
        dm_free(it);
    }
    return done;
}

void dm_expert_loads_forget(const dm_expert_loads *it, size_t file, uint64_t offset, uint64_t bytes) {
    posix_fadvise(dm_disk_reader_file(it->reader, file)->descriptor, (off_t)offset, (off_t)bytes, POSIX_FADV_DONTNEED);
}

uint64_t dm_expert_loads_read(const dm_expert_loads *it) {
    return dm_disk_reader_counts(it->reader).bytes;
}

/* ---- Reading ------------------------------------------------------------- */

/* A free one of loads begin .. end - 1; `end` where there is none. */
static size_t find_free(const dm_expert_loads *it, size_t begin, size_t end) {
    while (begin < end && it->loads[begin].purpose != FREE) {
        begin++;
    }
    return begin;
}

bool dm_expert_loads_has_room(const dm_expert_loads *it) {
    size_t at_disk = 0;
    uint64_t bytes = 0;
    for (size_t i = 0; i < it->n_loads; i++) {
        const load *of = &it->loads[i];
        if (of->purpose == WANTED && of->pending > 0) {
            at_disk++;
            bytes += dm_expert_bytes(it->files, of->layer, of->expert);
        }
    }
    return find_free(it, 0, it->n_wanted) < it->n_wanted && (at_disk < FEWEST || bytes + bytes / at_disk <= AT_DISK);
}

/* Queues an expert's reads to `to`. */
static dm_status queue_reads(dm_expert_loads *it, size_t number, int32_t layer, int32_t expert, uint8_t *to) {
    load *of = &it->loads[number];
    extent extents[DM_EXPERT_MATRICES];
    size_t n;
    of->layer = layer;
    of->expert = expert;
    of->read = to;
    of->failure = (dm_failure){0};
    plan(it->files, layer, expert, extents, &n, of->pieces);
    for (size_t i = 0; i < n; i++) {
        const uint64_t left = dm_disk_reader_file(it->reader, extents[i].file)->size - extents[i].offset;
        const size_t to_end = up((size_t)left, dm_disk_reader_alignment(it->reader));
        const size_t bytes = extents[i].bytes < to_end ? extents[i].bytes : to_end;
        const dm_disk_read read = {extents[i].file, extents[i].offset, bytes, to + extents[i].at, number};
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
    load *of = &it->loads[number];
    DM_TRY(queue_reads(it, number, layer, expert, dm_expert_stays(it->files, layer) ? place : of->buffer));
    of->purpose = WANTED;
    of->place = place;
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
    if (number == it->n_loads || find_guess(it, layer, expert) != NULL ||
        queue_reads(it, number, layer, expert, it->loads[number].buffer) != DM_OK) {
        return false;
    }
    it->loads[number].purpose = GUESS;
    return true;
}

bool dm_expert_loads_adopt(dm_expert_loads *it, int32_t layer, int32_t expert, bool exchange, uint8_t **place) {
    load *of = find_guess(it, layer, expert);
    if (of == NULL) {
        return false;
    }
    if (exchange) {
        uint8_t *const buffer = of->buffer;
        of->buffer = *place;
        *place = buffer;
    }
    of->purpose = WANTED;
    of->place = *place;
    it->busy++;
    return true;
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

/* ---- After failures ------------------------------------------------------ */

void dm_expert_loads_abandon(dm_expert_loads *it) {
    for (size_t i = 0; i < it->n_loads; i++) {
        load *of = &it->loads[i];
        if (of->purpose == WANTED) {
            of->purpose = of->pending > 0 ? DROPPED : FREE;
        }
    }
    it->busy = 0;
}

/* Whether the disk writes to a place that nobody has. */
static bool unsettled(const dm_expert_loads *it) {
    bool any = false;
    for (size_t i = 0; i < it->n_loads; i++) {
        const load *of = &it->loads[i];
        any = any || (of->purpose == DROPPED && (i < it->n_wanted || of->read != of->buffer));
    }
    return any;
}

dm_status dm_expert_loads_settle(dm_expert_loads *it) {
    while (unsettled(it)) {
        if (!take_one(it, true)) {
            return dm_disk_reader_stalled(it->reader);
        }
    }
    return DM_OK;
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
        const dm_expert_matrix *m = matrix_of(it->files, it->of->layer, i);
        size_t from = begin > base ? begin - base : 0, to = end > base ? end - base : 0;
        to = to < it->panels[i] ? to : it->panels[i];
        if (from < to) {
            dm_panels_pack(it->of->place + it->offsets[i] + from * dm_panel_bytes(m->format, m->columns), m->format,
                           it->of->read + it->of->pieces[i], m->rows, m->columns, from * DM_PANEL_ROWS, to - from);
        }
    }
}

static void put_in_place(const dm_expert_files *files, const load *of) {
    enum { PANELS_A_TURN = 8 };
    if (of->read == of->place) {
        return;
    }
    packing it = {.files = files, .of = of};
    const dm_expert_piece *pieces = dm_expert_pieces(files, of->layer, of->expert);
    size_t panels = 0;
    dm_expert_place(files, of->layer, of->expert, it.offsets);
    for (int i = 0; i < DM_EXPERT_MATRICES; i++) {
        const dm_expert_matrix *m = matrix_of(files, of->layer, i);
        if (m->format != NULL) {
            it.panels[i] = dm_panel_count(m->rows);
            panels += it.panels[i];
        } else {
            memcpy(of->place + it.offsets[i], of->read + of->pieces[i], pieces[i].bytes);
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
        const dm_expert_matrix *m = matrix_of(files, of->layer, i);
        if (pieces[i].mixed) {
            dm_status status = dm_mixed_check(of->place + offsets[i], pieces[i].bytes, m->rows, m->columns);
            DM_TRY(status == DM_OK ? DM_OK : dm_fail_in(status, files->files[pieces[i].file].path));
        }
    }
    return DM_OK;
}

typedef struct checking {
    const dm_expert_piece *pieces;
    const load *of;
    bool bad[DM_EXPERT_MATRICES];
} checking;

static void check_body(void *user, size_t begin, size_t end, int thread) {
    checking *it = user;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        const uint8_t *panels = it->of->read + it->of->pieces[i];
        it->bad[i] = it->pieces[i].kept && dm_panels_check(panels, it->pieces[i].bytes) != it->pieces[i].check;
    }
}

/* Panels that are kept in a file are compared with what was written, once: the reader sees to it that the file stays as it is. */
static dm_status check_kept(dm_expert_loads *it, const load *of) {
    checking c = {.pieces = dm_expert_pieces(it->files, of->layer, of->expert), .of = of};
    bool *checked = &it->checked[(size_t)of->layer * (size_t)it->files->experts + (size_t)of->expert];
    if (*checked) {
        return DM_OK;
    }
    dm_parallel(dm_threads(), DM_EXPERT_MATRICES, 1, check_body, &c);
    for (int i = 0; i < DM_EXPERT_MATRICES; i++) {
        if (c.bad[i]) {
            return dm_fail(DM_ERR_FORMAT, "%s: is damaged; delete it, or let `dilmodeli repack` make it anew",
                           it->files->files[c.pieces[i].file].path);
        }
    }
    *checked = true;
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

dm_status dm_expert_loads_await(dm_expert_loads *it, bool wait) {
    while (it->busy > 0 && find_ready(it) == NULL) {
        if (!take_one(it, wait)) {
            return wait ? dm_disk_reader_stalled(it->reader) : DM_OK;
        }
    }
    return DM_OK;
}

dm_status dm_expert_loads_finish(dm_expert_loads *it, int32_t *layer, int32_t *expert) {
    *layer = *expert = -1;
    load *of = find_ready(it);
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
    if (status == DM_OK) {
        status = check_kept(it, of);
    }
    of->purpose = FREE;
    it->busy--;
    return status;
}
