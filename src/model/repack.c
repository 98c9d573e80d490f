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
#include "base/parallel.h"
#include "base/threads.h"
#include "kernels/quantized.h"

/* Bytes of panels that a thread makes at a time: a huge page, for two that touch a new one together both clear it. */
enum { PIECE = 2 << 20 };

/* How far an expert is. */
enum { MISSING, LISTED, PACKED };

/* A matrix, or a stack of them of one shape. */
typedef struct stack {
    const dm_tensor *tensor;
    const dm_panel_format *format; /* NULL: there are no panels */
    size_t columns, rows, matrices;
    size_t panel_bytes, matrix_bytes; /* of one panel, of all of a matrix */
    size_t offset;                    /* of the first matrix in the memory */
} stack;

/* A matrix to be packed. */
typedef struct item {
    const stack *stack;
    size_t matrix; /* which of the stack */
    size_t start;  /* bytes of panels of the items before it */
} item;

struct dm_repacked {
    pthread_mutex_t lock; /* held by who lays out or packs */
    bool done;
    stack *stacks;       /* [n_layers + 1, DM_ROLES] */
    uint8_t *panels;     /* [size] */
    size_t size;         /* bytes of panels */
    void *memory;        /* what the system gave for them, PIECE bytes more */
    atomic_uchar *state; /* [n_layers, n_experts] */
    atomic_int *missing; /* [n_layers] experts that are not PACKED */
    item *items;         /* [all matrices] those to be packed */
    size_t n_items;
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
    if (repacked->memory != NULL) {
        munmap(repacked->memory, repacked->size + PIECE);
    }
    dm_free(repacked->stacks);
    dm_free(repacked->state);
    dm_free(repacked->missing);
    dm_free(repacked->items);
    repacked->memory = repacked->panels = NULL;
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
    *out = (stack){tensor, format, tensor->dims[0], rows, matrices, panel_bytes, dm_panel_count(rows) * panel_bytes, 0};
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

/* Pages leave this process; the system may keep them, and reads them again if asked. */
static void give_back(const uint8_t *data, size_t size) {
    advise(data, size, MADV_DONTNEED);
}

static const uint8_t *blocks_of(const stack *s, size_t matrix) {
    return s->tensor->experts != NULL
               ? s->tensor->experts[matrix].data
               : (const uint8_t *)s->tensor->data + matrix * s->rows * dm_type_bytes(s->tensor->type, s->columns);
}

static bool of_expert(const stack *s) {
    return s->matrices > 1;
}

static stack *stacks_of(const dm_repacked *repacked, int32_t layer) {
    return repacked->stacks + (size_t)(layer + 1) * DM_ROLES;
}

/* Sizes are about the tensors', which were checked, so that their sums fit. Returns how many matrices there are. */
static size_t find_places(const dm_model *model, dm_repacked *repacked) {
    size_t n = 0;
    for (int32_t l = -1; l < model->config.n_layers; l++) {
        const dm_tensor *tensors = l < 0 ? model->tensors : model->layers[l].tensors;
        bool experts = false;
        for (int role = 0; role < DM_ROLES; role++) {
            stack *s = &stacks_of(repacked, l)[role];
            if (find_stack(&tensors[role], (dm_role)role, model->config.n_experts, s)) {
                s->offset = repacked->size;
                /* in huge pages, what lies beside a matrix would bring it back */
                advise(blocks_of(s, 0), s->matrices * s->rows * dm_type_bytes(s->tensor->type, s->columns), MADV_NOHUGEPAGE);
                repacked->size += s->matrices * s->matrix_bytes;
                n += s->matrices;
                experts = experts || of_expert(s);
            }
        }
        if (experts) {
            atomic_init(&repacked->missing[l], model->config.n_experts);
        }
    }
    return n;
}

static dm_status reserve(dm_repacked *repacked) {
    size_t size = repacked->size + PIECE;
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        return dm_fail(DM_ERR_MEMORY, "out of memory repacking weights (%zu bytes)", size);
    }
    repacked->memory = memory;
    repacked->panels = (uint8_t *)memory + (PIECE - (uintptr_t)memory % PIECE) % PIECE;
    madvise(memory, size, MADV_HUGEPAGE);
    return DM_OK;
}

static dm_status lay_out(const dm_model *model, dm_repacked *repacked) {
    size_t layers = (size_t)model->config.n_layers, experts = layers * (size_t)model->config.n_experts;
    repacked->stacks = dm_alloc((layers + 1) * DM_ROLES, sizeof *repacked->stacks);
    repacked->state = dm_alloc(experts, sizeof *repacked->state);
    repacked->missing = dm_alloc(layers, sizeof *repacked->missing);
    if (repacked->stacks == NULL || repacked->state == NULL || repacked->missing == NULL) {
        return DM_ERR_MEMORY;
    }
    repacked->items = dm_alloc(find_places(model, repacked), sizeof *repacked->items);
    return repacked->items == NULL ? DM_ERR_MEMORY : reserve(repacked);
}

/* ---- Packing ---- */

/* Panels from .. to - 1 of an item. */
static void pack_panels(const dm_repacked *repacked, const item *it, size_t from, size_t to) {
    const stack *s = it->stack;
    const uint8_t *blocks = blocks_of(s, it->matrix);
    size_t row_bytes = dm_type_bytes(s->tensor->type, s->columns);
    size_t first = from * DM_PANEL_ROWS, last = to * DM_PANEL_ROWS < s->rows ? to * DM_PANEL_ROWS : s->rows;
    uint8_t *panels = repacked->panels + s->offset + it->matrix * s->matrix_bytes;
    dm_panels_pack(panels + from * s->panel_bytes, s->format, blocks, s->rows, s->columns, first, to - from);
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
    const item *before = repacked->n_items > 0 ? &repacked->items[repacked->n_items - 1] : NULL;
    size_t start = before != NULL ? before->start + before->stack->matrix_bytes : 0;
    repacked->items[repacked->n_items++] = (item){s, matrix, start};
}

static void pack_items(dm_repacked *repacked) {
    if (repacked->n_items > 0) {
        const item *it = &repacked->items[repacked->n_items - 1];
        size_t bytes = it->start + it->stack->matrix_bytes;
        dm_parallel(dm_threads(), (bytes + PIECE - 1) / PIECE, 1, pack_body, repacked);
        for (; repacked->n_items > 0; repacked->n_items--) {
            it = &repacked->items[repacked->n_items - 1];
            give_back(blocks_of(it->stack, it->matrix),
                      it->stack->rows * dm_type_bytes(it->stack->tensor->type, it->stack->columns));
        }
    }
}

/* All that is no expert's. */
static void pack_shared(const dm_model *model, dm_repacked *repacked) {
    for (size_t i = 0; i < ((size_t)model->config.n_layers + 1) * DM_ROLES; i++) {
        const stack *s = &repacked->stacks[i];
        if (s->format != NULL && !of_expert(s)) {
            add_item(repacked, s, 0);
        }
    }
    pack_items(repacked);
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
        pack_shared(model, repacked);
        repacked->done = true;
    }
    pthread_mutex_unlock(&repacked->lock);
    return status;
}

const void *dm_repacked_panels(const dm_model *model, int32_t layer, dm_role role) {
    const dm_repacked *repacked = model->repacked;
    const stack *s = repacked->stacks != NULL ? &stacks_of(repacked, layer)[role] : NULL;
    return s != NULL && s->format != NULL ? repacked->panels + s->offset : NULL;
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
    pack_items(repacked);
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
    while (first < n && atomic_load_explicit(&state[experts[first]], memory_order_acquire) == PACKED) {
        first++;
    }
    if (first == n) {
        return;
    }
    pthread_mutex_lock(&repacked->lock);
    int listed = 0;
    for (size_t i = first; i < n; i++) {
        if (atomic_load_explicit(&state[experts[i]], memory_order_relaxed) == MISSING) {
            atomic_store_explicit(&state[experts[i]], LISTED, memory_order_relaxed);
            listed++;
        }
    }
    pack_listed(model, repacked, layer, listed);
    pthread_mutex_unlock(&repacked->lock);
}
