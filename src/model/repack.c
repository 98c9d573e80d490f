#include "model/repack.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/parallel.h"
#include "base/threads.h"
#include "kernels/quantized.h"

enum { HUGE_PAGE = 2 << 20, PANELS_TOGETHER = 4 };

typedef struct block {
    void *memory;
    size_t size;
} block;

struct dm_repacked {
    pthread_mutex_t lock;
    bool done;
    block *blocks; /* [n_layers + 1, DM_ROLES], memory NULL where there are no panels */
    size_t n_blocks;
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

static void unmap_all(dm_repacked *repacked) {
    for (size_t i = 0; i < repacked->n_blocks; i++) {
        if (repacked->blocks[i].memory != NULL) {
            munmap(repacked->blocks[i].memory, repacked->blocks[i].size);
        }
    }
    free(repacked->blocks);
    repacked->blocks = NULL;
    repacked->n_blocks = 0;
}

void dm_repacked_free(dm_repacked *repacked) {
    if (repacked == NULL) {
        return;
    }
    unmap_all(repacked);
    pthread_mutex_destroy(&repacked->lock);
    free(repacked);
}

/* A matrix, or a stack of them of one shape. */
typedef struct source {
    const dm_tensor *tensor;
    const dm_panel_format *format;
    size_t columns, rows, matrices;
} source;

static const void *matrix_data(const source *s, size_t i) {
    return s->tensor->experts != NULL ? s->tensor->experts[i].data
                                      : (const char *)s->tensor->data + i * s->rows * dm_type_bytes(s->tensor->type, s->columns);
}

/* False where the tensor stays as it is: vectors, looked-up tables, types without a format, stacks that do not end with a
 * panel, experts of several types. */
static bool find_source(const dm_tensor *tensor, dm_role role, int32_t n_experts, source *out) {
    if (tensor->data == NULL || role == DM_TOKEN_EMBD || role == DM_POSITION_EMBD) {
        return false;
    }
    *out = (source){tensor, dm_panel_format_of(tensor->type), tensor->dims[0], tensor->dims[1], tensor->dims[2]};
    if (tensor->experts != NULL) {
        out->matrices = (size_t)n_experts;
        for (size_t e = 0; e < out->matrices; e++) {
            if (tensor->experts[e].type != tensor->type) {
                return false;
            }
        }
    }
    return out->format != NULL && (out->matrices == 1 || out->rows % DM_PANEL_ROWS == 0);
}

/* The whole pages of [data, data + size) leave this process; the system may keep them, and reads them again if asked. */
static void give_back(const void *data, size_t size) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t start = ((uintptr_t)data + page - 1) & ~(page - 1);
    uintptr_t end = ((uintptr_t)data + size) & ~(page - 1);
    if (end > start) {
        madvise((void *)start, end - start, MADV_DONTNEED);
    }
}

typedef struct packing {
    const source *from;
    char *to;
} packing;

/* Panels begin .. end - 1 of all matrices laid end to end. */
static void pack_body(void *user, size_t begin, size_t end, int thread) {
    const packing *it = user;
    const source *s = it->from;
    size_t panels = dm_panel_count(s->rows), panel_bytes = dm_panel_bytes(s->format, s->columns);
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        dm_panels_pack(it->to + i * panel_bytes, s->format, matrix_data(s, i / panels), s->rows, s->columns,
                       i % panels * DM_PANEL_ROWS, 1);
    }
}

static dm_status pack(const source *s, block *out) {
    size_t panels = dm_panel_count(s->rows), panel_bytes = dm_panel_bytes(s->format, s->columns);
    size_t bytes = s->matrices * panels * panel_bytes; /* about as large as the tensor, whose size was checked */
    out->size = (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    void *memory = mmap(NULL, out->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        return dm_fail(DM_ERR_MEMORY, "out of memory repacking weights (%zu bytes)", out->size);
    }
    out->memory = memory;
    madvise(memory, out->size, MADV_HUGEPAGE);
    packing it = {s, memory};
    dm_parallel(dm_threads(), s->matrices * panels, PANELS_TOGETHER, pack_body, &it);
    for (size_t i = 0; i < s->matrices; i++) {
        give_back(matrix_data(s, i), s->rows * dm_type_bytes(s->tensor->type, s->columns));
    }
    return DM_OK;
}

static dm_status pack_all(const dm_model *model, dm_repacked *repacked) {
    size_t layers = (size_t)model->config.n_layers;
    repacked->blocks = calloc((layers + 1) * DM_ROLES, sizeof *repacked->blocks);
    if (repacked->blocks == NULL) {
        return dm_fail(DM_ERR_MEMORY, "out of memory repacking weights");
    }
    repacked->n_blocks = (layers + 1) * DM_ROLES;
    for (size_t i = 0; i < repacked->n_blocks; i++) {
        dm_role role = (dm_role)(i % DM_ROLES);
        const dm_tensor *tensors = i < DM_ROLES ? model->tensors : model->layers[i / DM_ROLES - 1].tensors;
        source s;
        if (find_source(&tensors[role], role, model->config.n_experts, &s)) {
            DM_TRY(pack(&s, &repacked->blocks[i]));
        }
    }
    return DM_OK;
}

dm_status dm_repack(const dm_model *model) {
    dm_repacked *repacked = model->repacked;
    if (strcmp(dm_quantized()->isa, "scalar") == 0) {
        return DM_OK;
    }
    pthread_mutex_lock(&repacked->lock);
    dm_status status = repacked->done ? DM_OK : pack_all(model, repacked);
    repacked->done = status == DM_OK;
    if (status != DM_OK) {
        unmap_all(repacked);
    }
    pthread_mutex_unlock(&repacked->lock);
    return status;
}

const void *dm_repacked_panels(const dm_model *model, int32_t layer, dm_role role) {
    const dm_repacked *repacked = model->repacked;
    return repacked->blocks != NULL ? repacked->blocks[(size_t)(layer + 1) * DM_ROLES + (size_t)role].memory : NULL;
}
