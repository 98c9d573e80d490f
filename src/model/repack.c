/*
 * All panels of a model lie in one stretch of memory, in the order of layers and roles, so that small matrices share huge
 * pages. Memory is the system's until something is packed into it.
 */
#include "model/repack.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/pages.h"
#include "base/parallel.h"
#include "base/threads.h"
#include "kernels/quantized.h"
#include "model/kept.h"

/* Bytes of panels that a thread makes at a time: a huge page, for two that touch a new one together both clear it. */
enum { PIECE = DM_HUGE_PAGE };

/* How far an expert is. */
enum { MISSING, LISTED, PACKED };

/* A matrix, or a stack of them of one shape. */
typedef struct stack {
    const dm_tensor *tensor;
    const dm_panel_format *format; /* NULL: there are no panels */
    size_t columns, rows, matrices;
    size_t panel_bytes, matrix_bytes; /* of one panel, of all of a matrix */
    size_t offset;                    /* of the first matrix in the memory */
    size_t first;                     /* matrices of the model before it */
} stack;

/* A matrix to be packed. */
typedef struct item {
    const stack *stack;
    size_t matrix; /* which of the stack */
    size_t start;  /* bytes of panels of the items before it */
    bool bad;      /* what was kept of it is not what was written */
} item;

struct dm_repacked {
    pthread_mutex_t lock; /* held by who lays out or packs */
    bool done;
    stack *stacks;   /* [n_layers + 1, DM_ROLES] */
    uint8_t *panels; /* [size] */
    size_t size;     /* bytes of panels */
    dm_pages memory; /* where they lie, unless they are `kept` */
    dm_kept kept;    /* where they lie already: using them is checking them, or else packing over them */
    char kept_path[DM_KEPT_PATH];
    char note[DM_KEPT_PATH + 128]; /* what was wrong with a file that was kept */
    atomic_uchar *state;           /* [n_layers, n_experts] */
    atomic_int *missing;           /* [n_layers] experts that are not PACKED */
    item *items;                   /* [all matrices] those to be packed */
    size_t n_items, n_matrices;
};

dm_status dm_repacked_create(dm_repacked **out) {
    *out = calloc(1, sizeof **out);
    if (*out == NULL || pthread_mutex_init(&(*out)->lock, NULL) != 0) {
        free(*out);
        *out = NULL;
        return dm_fail(DM_ERR_MEMORY, "out of memory for a model");
    }
    return DM_OK;
}

static void forget(dm_repacked *repacked) {
    dm_pages_unmap(&repacked->memory);
    dm_kept_close(&repacked->kept);
    dm_free(repacked->stacks);
    dm_free(repacked->state);
    dm_free(repacked->missing);
    dm_free(repacked->items);
    repacked->panels = NULL;
    repacked->stacks = NULL;
    repacked->state = NULL;
    repacked->missing = NULL;
    repacked->items = NULL;
    repacked->size = 0;
}

void dm_repacked_free(dm_repacked *repacked) {
    if (repacked == NULL) {
        return;
    }
    forget(repacked);
    pthread_mutex_destroy(&repacked->lock);
    free(repacked);
}

/* ---- Places ---- */

/* False where the tensor stays as it is: vectors, looked-up tables, types without a format, stacks that do not end with a
 * panel, experts of several types. */
static bool find_stack(const dm_tensor *tensor, dm_role role, int32_t n_experts, stack *out) {
    *out = (stack){0};
    if (tensor->data == NULL || role == DM_TOKEN_EMBD || role == DM_POSITION_EMBD) {
        return false;
    }
    size_t rows = tensor->dims[1], matrices = tensor->experts != NULL ? (size_t)n_experts : tensor->dims[2];
    const dm_panel_format *format = dm_panel_format_of(tensor->type);
    for (size_t e = 0; e < matrices && tensor->experts != NULL; e++) {
        format = tensor->experts[e].type == tensor->type ? format : NULL;
    }
    if (format == NULL || (matrices > 1 && rows % DM_PANEL_ROWS != 0)) {
        return false;
    }
    size_t panel_bytes = dm_panel_bytes(format, tensor->dims[0]);
    *out = (stack){tensor, format, tensor->dims[0], rows, matrices, panel_bytes, dm_panel_count(rows) * panel_bytes, 0, 0};
    return true;
}

/* Advice on the pages that begin in [data, data + size) or before it: all but a last one that goes on. */
static void advise(const uint8_t *data, size_t size, int advice) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t start = (uintptr_t)data & ~(page - 1), end = ((uintptr_t)data + size) & ~(page - 1);
    if (end > start) {
        madvise((void *)start, end - start, advice);
    }
}

static bool make_writable(uint8_t *panels, size_t size) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), start = (uintptr_t)panels & ~(page - 1);
    return mprotect((void *)start, (uintptr_t)panels + size - start, PROT_READ | PROT_WRITE) == 0;
}

/* Pages leave this process; the system may keep them, and reads them again if asked. */
static void give_back(const uint8_t *data, size_t size) {
    advise(data, size, MADV_DONTNEED);
}

static const uint8_t *blocks_of(const stack *s, size_t matrix) {
    return s->tensor->experts != NULL
               ? s->tensor->experts[matrix].data
               : (const uint8_t *)s->tensor->data + matrix * s->rows * dm_type_bytes(s->tensor->type, s->columns);
}

/* Bytes of one of the stack's matrices in the model's file. */
static size_t matrix_size(const stack *s) {
    return s->rows * dm_type_bytes(s->tensor->type, s->columns);
}

static bool of_expert(const stack *s) {
    return s->matrices > 1;
}

static stack *stacks_of(const dm_repacked *repacked, int32_t layer) {
    return repacked->stacks + (size_t)(layer + 1) * DM_ROLES;
}

/* In huge pages, what lies beside a matrix would bring it back. Of experts that lie apart the last pages count too, so that
 * neighbours make one stretch of memory: the system bounds how many a process may have. */
static void keep_out_of_huge_pages(const stack *s) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (s->tensor->experts == NULL) {
        advise(blocks_of(s, 0), s->matrices * matrix_size(s), MADV_NOHUGEPAGE);
        return;
    }
    for (size_t m = 0; m < s->matrices; m++) {
        advise(blocks_of(s, m), matrix_size(s) + page - 1, MADV_NOHUGEPAGE);
    }
}

/* Sizes are about the tensors', which were checked, so that their sums fit. */
static void find_places(const dm_model *model, dm_repacked *repacked) {
    repacked->size = repacked->n_matrices = 0;
    for (int32_t l = -1; l < model->config.n_layers; l++) {
        const dm_tensor *tensors = l < 0 ? model->tensors : model->layers[l].tensors;
        bool experts = false;
        for (int role = 0; role < DM_ROLES; role++) {
            stack *s = &stacks_of(repacked, l)[role];
            if (find_stack(&tensors[role], (dm_role)role, model->config.n_experts, s)) {
                s->offset = repacked->size;
                s->first = repacked->n_matrices;
                keep_out_of_huge_pages(s);
                repacked->size += s->matrices * s->matrix_bytes;
                repacked->n_matrices += s->matrices;
                experts = experts || of_expert(s);
            }
        }
        if (experts) {
            atomic_init(&repacked->missing[l], model->placed != NULL ? 0 : model->config.n_experts);
        }
    }
}

static dm_status reserve(dm_repacked *repacked) {
    DM_TRY(dm_pages_map(repacked->size, &repacked->memory));
    repacked->panels = repacked->memory.data;
    return DM_OK;
}

/* The fingerprint reads a little of every matrix, whose pages would stay. */
static dm_kept_header header_of(const dm_model *model, const dm_repacked *repacked) {
    dm_kept_header header = dm_kept_header_of(model, repacked->n_matrices, repacked->size);
    for (size_t i = 0; i < ((size_t)model->config.n_layers + 1) * DM_ROLES; i++) {
        const stack *s = &repacked->stacks[i];
        for (size_t m = 0; s->format != NULL && m < s->matrices; m++) {
            give_back(blocks_of(s, m), matrix_size(s));
        }
    }
    return header;
}

/* What is wrong with a file is no reason not to run. */
static bool use_kept(const dm_model *model, dm_repacked *repacked) {
    if (model->file == NULL || repacked->n_matrices == 0 || !dm_kept_exists(model)) {
        return false;
    }
    const dm_kept_header wanted = header_of(model, repacked);
    if (dm_kept_find(model, &wanted, repacked->kept_path, sizeof repacked->kept_path, &repacked->kept) != DM_OK) {
        snprintf(repacked->note, sizeof repacked->note, "%s", dm_error_message());
    }
    repacked->panels = (uint8_t *)(uintptr_t)repacked->kept.panels;
    return repacked->panels != NULL;
}

static dm_status lay_out(const dm_model *model, dm_repacked *repacked) {
    size_t layers = (size_t)model->config.n_layers, experts = layers * (size_t)model->config.n_experts;
    repacked->stacks = dm_alloc((layers + 1) * DM_ROLES, sizeof *repacked->stacks);
    repacked->state = dm_alloc(experts, sizeof *repacked->state);
    repacked->missing = dm_alloc(layers, sizeof *repacked->missing);
    if (repacked->stacks == NULL || repacked->state == NULL || repacked->missing == NULL) {
        return DM_ERR_MEMORY;
    }
    find_places(model, repacked);
    repacked->items = dm_alloc(repacked->n_matrices, sizeof *repacked->items);
    if (repacked->items == NULL) {
        return DM_ERR_MEMORY;
    }
    if (model->placed != NULL) {
        return DM_OK;
    }
    return use_kept(model, repacked) ? DM_OK : reserve(repacked);
}

/* ---- Packing ---- */

static uint8_t *panels_of(const dm_repacked *repacked, const item *it) {
    return repacked->panels + it->stack->offset + it->matrix * it->stack->matrix_bytes;
}

/* Panels from .. to - 1 of an item. */
static void pack_panels(const dm_repacked *repacked, const item *it, size_t from, size_t to) {
    const stack *s = it->stack;
    const uint8_t *blocks = blocks_of(s, it->matrix);
    size_t row_bytes = dm_type_bytes(s->tensor->type, s->columns);
    size_t first = from * DM_PANEL_ROWS, last = to * DM_PANEL_ROWS < s->rows ? to * DM_PANEL_ROWS : s->rows;
    dm_panels_pack(panels_of(repacked, it) + from * s->panel_bytes, s->format, blocks, s->rows, s->columns, first, to - from);
    give_back(blocks + first * row_bytes, (last - first) * row_bytes);
}

/* The first of an item's panels that starts at `at` or later, when the panels of all items are laid end to end. */
static size_t panel_from(const item *it, size_t at) {
    size_t bytes = it->stack->panel_bytes, all = it->stack->matrix_bytes;
    size_t inside = at > it->start ? at - it->start : 0;
    return ((inside < all ? inside : all) + bytes - 1) / bytes;
}

/* Pieces begin .. end - 1: the panels that start in them. */
static void pack_body(void *user, size_t begin, size_t end, int thread) {
    const dm_repacked *repacked = user;
    (void)thread;
    for (size_t i = 0; i < repacked->n_items; i++) {
        const item *it = &repacked->items[i];
        size_t from = panel_from(it, begin * PIECE), to = panel_from(it, end * PIECE);
        if (from < to) {
            pack_panels(repacked, it, from, to);
        }
    }
}

static void add_item(dm_repacked *repacked, const stack *s, size_t matrix) {
    size_t start = 0;
    if (repacked->n_items > 0) {
        const item *before = &repacked->items[repacked->n_items - 1];
        start = before->start + before->stack->matrix_bytes;
    }
    repacked->items[repacked->n_items++] = (item){s, matrix, start, false};
}

static void pack_items(dm_repacked *repacked) {
    if (repacked->n_items > 0) {
        const item *last = &repacked->items[repacked->n_items - 1];
        size_t bytes = last->start + last->stack->matrix_bytes;
        dm_parallel(dm_threads(), (bytes + PIECE - 1) / PIECE, 1, pack_body, repacked);
    }
    for (size_t i = 0; i < repacked->n_items; i++) {
        const item *it = &repacked->items[i];
        bool apart = it->stack->tensor->experts != NULL, first = i == 0 || it[-1].stack != it->stack;
        if (apart) {
            give_back(blocks_of(it->stack, it->matrix), matrix_size(it->stack));
        } else if (first) { /* with what the system mapped of its neighbours */
            give_back(blocks_of(it->stack, 0), it->stack->matrices * matrix_size(it->stack));
        }
    }
}

/* ---- Checking what was kept ---- */

static void check_body(void *user, size_t begin, size_t end, int thread) {
    const dm_repacked *repacked = user;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        item *it = &repacked->items[i];
        it->bad = dm_panels_check(panels_of(repacked, it), it->stack->matrix_bytes) !=
                  repacked->kept.checks[it->stack->first + it->matrix];
    }
}

/* Leaves the items that have to be packed, in memory of this process's own. */
static void check_items(dm_repacked *repacked) {
    size_t n = repacked->n_items;
    dm_parallel(dm_threads(), n, 1, check_body, repacked);
    repacked->n_items = 0;
    for (size_t i = 0; i < n; i++) {
        const item it = repacked->items[i];
        if (it.bad && make_writable(panels_of(repacked, &it), it.stack->matrix_bytes)) {
            add_item(repacked, it.stack, it.matrix);
        }
        if (it.bad) {
            snprintf(repacked->note, sizeof repacked->note, "%s: is damaged: what it has of some weights was packed anew",
                     repacked->kept_path);
        }
    }
}

/* Makes the panels of all items, or finds them good. */
static void provide_items(dm_repacked *repacked) {
    if (repacked->kept.panels != NULL) {
        check_items(repacked);
    }
    pack_items(repacked);
    repacked->n_items = 0;
}

/* All that is no expert's. */
static void pack_shared(const dm_model *model, dm_repacked *repacked) {
    for (size_t i = 0; i < ((size_t)model->config.n_layers + 1) * DM_ROLES; i++) {
        const stack *s = &repacked->stacks[i];
        if (s->format != NULL && !of_expert(s)) {
            add_item(repacked, s, 0);
        }
    }
    provide_items(repacked);
}

dm_status dm_repack(const dm_model *model) {
    dm_repacked *repacked = model->repacked;
    if (strcmp(dm_quantized()->isa, "scalar") == 0) {
        return DM_OK;
    }
    pthread_mutex_lock(&repacked->lock);
    dm_status status = repacked->done ? DM_OK : lay_out(model, repacked);
    if (status != DM_OK) {
        forget(repacked);
    } else if (!repacked->done) {
        if (model->placed == NULL) {
            pack_shared(model, repacked);
        }
        repacked->done = true;
    }
    pthread_mutex_unlock(&repacked->lock);
    return status;
}

void dm_repack_forget(const dm_model *model) {
    pthread_mutex_lock(&model->repacked->lock);
    forget(model->repacked);
    model->repacked->done = false;
    pthread_mutex_unlock(&model->repacked->lock);
}

const dm_panel_format *dm_repacked_format(const dm_model *model, int32_t layer, dm_role role) {
    return model->repacked->stacks != NULL ? stacks_of(model->repacked, layer)[role].format : NULL;
}

const void *dm_repacked_panels(const dm_model *model, int32_t layer, dm_role role) {
    const dm_repacked *repacked = model->repacked;
    return repacked->panels != NULL && dm_repacked_format(model, layer, role) != NULL
               ? repacked->panels + stacks_of(repacked, layer)[role].offset
               : NULL;
}

const char *dm_repacked_file(const dm_model *model, const dm_map **map) {
    *map = &model->repacked->kept.map;
    return model->repacked->kept.panels != NULL ? model->repacked->kept_path : NULL;
}

dm_kept_place dm_repacked_kept(const dm_model *model, int32_t layer, dm_role role, int32_t expert) {
    const dm_repacked *repacked = model->repacked;
    const stack *s = &stacks_of(repacked, layer)[role];
    const uint8_t *panels = repacked->kept.panels + s->offset + (size_t)expert * s->matrix_bytes;
    return (dm_kept_place){(uint64_t)(panels - repacked->kept.map.data), s->matrix_bytes,
                           repacked->kept.checks[s->first + (size_t)expert]};
}

/* ---- Experts ---- */

/* Those that are LISTED, in the order of their places. */
static void pack_listed(const dm_model *model, dm_repacked *repacked, int32_t layer, int listed) {
    size_t n = (size_t)model->config.n_experts;
    atomic_uchar *state = repacked->state + (size_t)layer * n;
    for (int role = 0; role < DM_ROLES; role++) {
        const stack *s = &stacks_of(repacked, layer)[role];
        for (size_t e = 0; e < n && s->format != NULL && of_expert(s); e++) {
            if (atomic_load_explicit(&state[e], memory_order_relaxed) == LISTED) {
                add_item(repacked, s, e);
            }
        }
    }
    provide_items(repacked);
    for (size_t e = 0; e < n; e++) {
        if (atomic_load_explicit(&state[e], memory_order_relaxed) == LISTED) {
            atomic_store_explicit(&state[e], PACKED, memory_order_release);
        }
    }
    atomic_fetch_sub(&repacked->missing[layer], listed);
}

void dm_repack_experts(const dm_model *model, int32_t layer, const int32_t *experts, size_t n) {
    dm_repacked *repacked = model->repacked;
    if (!repacked->done || atomic_load_explicit(&repacked->missing[layer], memory_order_acquire) == 0) {
        return;
    }
    atomic_uchar *state = repacked->state + (size_t)layer * (size_t)model->config.n_experts;
    size_t first = 0;
    while (first < n && (experts[first] < 0 || atomic_load_explicit(&state[experts[first]], memory_order_acquire) == PACKED)) {
        first++;
    }
    if (first == n) {
        return;
    }
    pthread_mutex_lock(&repacked->lock);
    int listed = 0;
    for (size_t i = first; i < n; i++) {
        if (experts[i] >= 0 && atomic_load_explicit(&state[experts[i]], memory_order_relaxed) == MISSING) {
            atomic_store_explicit(&state[experts[i]], LISTED, memory_order_relaxed);
            listed++;
        }
    }
    pack_listed(model, repacked, layer, listed);
    pthread_mutex_unlock(&repacked->lock);
}

void dm_repack_all_experts(const dm_model *model) {
    for (int32_t l = 0; l < model->config.n_layers; l++) {
        for (int32_t e = 0; e < model->config.n_experts; e++) {
            dm_repack_experts(model, l, &e, 1);
        }
    }
}

/* ---- Keeping ---- */

const char *dm_model_note(const dm_model *model) {
    return model->repacked->note[0] != '\0' ? model->repacked->note : NULL;
}

static dm_status write_kept(const dm_model *model, const dm_repacked *repacked, char *path, size_t size) {
    uint64_t *checks = dm_alloc(repacked->n_matrices, sizeof *checks);
    if (checks == NULL) {
        return DM_ERR_MEMORY;
    }
    for (size_t i = 0; i < ((size_t)model->config.n_layers + 1) * DM_ROLES; i++) {
        const stack *s = &repacked->stacks[i];
        for (size_t m = 0; s->format != NULL && m < s->matrices; m++) {
            checks[s->first + m] = dm_panels_check(repacked->panels + s->offset + m * s->matrix_bytes, s->matrix_bytes);
        }
    }
    const dm_kept_header header = header_of(model, repacked);
    dm_status status = dm_kept_write(model, &header, checks, repacked->panels, path, size);
    dm_free(checks);
    return status;
}

dm_status dm_model_keep(const dm_model *model, char *path, size_t size, uint64_t *bytes) {
    DM_TRY(dm_repack(model));
    const dm_repacked *repacked = model->repacked;
    *bytes = repacked->size;
    if (model->placed != NULL) {
        return dm_fail(DM_ERR_UNSUPPORTED, "%s: lies on several memory nodes; it is kept from one", model->name);
    }
    if (model->file == NULL || repacked->size == 0) {
        return dm_fail(DM_ERR_UNSUPPORTED, "%s: has no weights that are repacked on this machine",
                       model->file != NULL ? dm_gguf_path(model->file) : "a model in memory");
    }
    dm_repack_all_experts(model);
    return write_kept(model, repacked, path, size);
}

dm_status dm_model_kept(const dm_model *model, char *path, size_t size, uint64_t *bytes) {
    dm_repacked *looking;
    path[0] = '\0';
    DM_TRY(dm_repacked_create(&looking));
    dm_status status = lay_out(model, looking);
    if (status == DM_OK && looking->note[0] != '\0') {
        status = dm_fail(DM_ERR_FORMAT, "%s", looking->note);
    } else if (status == DM_OK && looking->kept.panels != NULL) {
        snprintf(path, size, "%s", looking->kept_path);
        *bytes = looking->kept.map.size;
    }
    dm_repacked_free(looking);
    return status;
}
