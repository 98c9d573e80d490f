#include "model/placed.h"

#include <pthread.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/pages.h"
#include "base/parallel.h"
#include "base/threads.h"
#include "kernels/tiles.h"
#include "model/repack.h"

enum {
    ALIGNMENT = 64,
    PIECE = DM_HUGE_PAGE, /* bytes that a thread copies at a time: two that touch a new page together both clear it */
};

/* Rows of a matrix in a group's memory: `units` of unit_bytes each, of a panel's rows; or one of all there is. */
typedef struct part {
    dm_weight from;                /* in the file */
    const dm_panel_format *format; /* becomes panels of it; NULL: is copied */
    size_t first, panels;          /* rows, by panels */
    size_t offset, unit_bytes, units;
    dm_weight_copy *copy; /* what it is to readers */
} part;

/* What lies in one group's memory. */
typedef struct stretch {
    dm_pages memory;
    size_t bytes;
    part *parts; /* [n] by offset */
    size_t n, room;
} stretch;

struct dm_placed {
    pthread_mutex_t lock; /* held by who fills */
    bool done, mirrored;
    size_t groups;
    stretch *stretches;      /* [groups] */
    int32_t *homes;          /* [n_layers, n_experts] */
    dm_weight_copy *shared;  /* [n_layers + 1, DM_ROLES, groups] data NULL: stays as it is */
    dm_weight_copy *experts; /* [n_layers, DM_ROLES, n_experts]; NULL: they are streamed */
};

dm_status dm_placed_create(const dm_model *model, const int32_t *homes, bool mirrored, dm_placed **out) {
    const size_t experts = (size_t)model->config.n_layers * (size_t)model->config.n_experts;
    *out = NULL;
    dm_placed *it = dm_alloc(1, sizeof *it);
    if (it == NULL || pthread_mutex_init(&it->lock, NULL) != 0) {
        dm_free(it);
        return dm_fail(DM_ERR_MEMORY, "out of memory for a model");
    }
    dm_parallel_hold_groups(true);
    it->mirrored = mirrored;
    it->groups = dm_parallel_groups();
    it->stretches = dm_alloc(it->groups, sizeof *it->stretches);
    it->homes = dm_alloc(experts, sizeof *it->homes);
    if (it->stretches == NULL || it->homes == NULL) {
        dm_placed_free(it);
        return DM_ERR_MEMORY;
    }
    memcpy(it->homes, homes, experts * sizeof *homes);
    *out = it;
    return DM_OK;
}

static void forget(dm_placed *it) {
    for (size_t g = 0; it->stretches != NULL && g < it->groups; g++) {
        dm_pages_unmap(&it->stretches[g].memory);
        dm_free(it->stretches[g].parts);
        it->stretches[g] = (stretch){0};
    }
    dm_free(it->shared);
    dm_free(it->experts);
    it->shared = it->experts = NULL;
}

void dm_placed_free(dm_placed *it) {
    if (it == NULL) {
        return;
    }
    forget(it);
    dm_free(it->stretches);
    dm_free(it->homes);
    dm_parallel_hold_groups(false);
    pthread_mutex_destroy(&it->lock);
    dm_free(it);
}

/* ---- Places ---- */

static const dm_mixed_header *tables_of(const part *p) {
    return p->from.data;
}

/* The bytes of a mixed matrix that hold panels first .. first + panels - 1. */
static void mixed_range(const part *p, size_t *begin, size_t *end) {
    const dm_mixed_entry *entries = dm_mixed_entries(tables_of(p));
    *begin = SIZE_MAX;
    *end = 0;
    for (size_t i = p->first; i < p->first + p->panels; i++) {
        const size_t at = (size_t)entries[i].line * DM_PANEL_LINE, after = at + dm_mixed_panel_bytes(&entries[i]);
        *begin = at < *begin ? at : *begin;
        *end = after > *end ? after : *end;
    }
    *begin = *begin < *end ? *begin : *end;
}

static size_t mixed_front(const part *p) {
    return dm_mixed_front_bytes(p->from.rows, tables_of(p)->tiles);
}

static void measure(part *p) {
    p->units = p->panels;
    if (p->format != NULL) {
        p->unit_bytes = dm_panel_bytes(p->format, p->from.columns);
    } else if (p->from.type != DM_TYPE_MIXED) {
        p->unit_bytes = DM_PANEL_ROWS * dm_type_bytes(p->from.type, p->from.columns);
    } else {
        size_t begin, end;
        mixed_range(p, &begin, &end);
        p->units = 1;
        p->unit_bytes = mixed_front(p) + end - begin;
    }
}

static dm_status add_part(stretch *s, const part *of) {
    if (s->n == s->room) {
        const size_t room = s->room > 0 ? 2 * s->room : 64;
        part *more = dm_alloc(room, sizeof *more);
        if (more == NULL) {
            return DM_ERR_MEMORY;
        }
        if (s->n > 0) {
            memcpy(more, s->parts, s->n * sizeof *more);
        }
        dm_free(s->parts);
        s->parts = more;
        s->room = room;
    }
    part *p = &s->parts[s->n++];
    *p = *of;
    measure(p);
    p->offset = s->bytes;
    s->bytes += (p->units * p->unit_bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return DM_OK;
}

/* Panels of a matrix that a group reads. */
static void find_share(const dm_placed *it, size_t group, part *p) {
    const size_t panels = dm_panel_count(p->from.rows);
    p->first = 0;
    p->panels = panels;
    if (!it->mirrored) {
        /* int8 products take a panel at a time */
        const bool one = p->from.type == DM_TYPE_MIXED || (p->format != NULL && !dm_tiles());
        const size_t more = one ? 0 : DM_WEIGHT_OVERLAP / DM_PANEL_ROWS;
        size_t end;
        dm_parallel_share(panels, group, &p->first, &end);
        if (end > p->first) {
            end = end + more < panels ? end + more : panels;
        }
        p->panels = end - p->first;
    }
}

static dm_status add_shared(dm_placed *it, const dm_tensor *tensor, const dm_panel_format *format, dm_weight_copy *copies) {
    for (size_t g = 0; g < it->groups; g++) {
        part p = {.from = dm_tensor_matrix(tensor, 0), .format = format, .copy = &copies[g]};
        find_share(it, g, &p);
        DM_TRY(add_part(&it->stretches[g], &p));
    }
    return DM_OK;
}

static dm_status add_experts(dm_placed *it, const dm_model *model, int32_t layer, dm_role role, dm_weight_copy *copies) {
    const dm_tensor *tensor = &model->layers[layer].tensors[role];
    for (int32_t e = 0; e < model->config.n_experts; e++) {
        part p = {
            .from = dm_tensor_matrix(tensor, (size_t)e), .format = dm_repacked_format(model, layer, role), .copy = &copies[e]};
        p.panels = dm_panel_count(p.from.rows);
        DM_TRY(add_part(&it->stretches[it->homes[layer * model->config.n_experts + e]], &p));
    }
    return DM_OK;
}

static dm_weight_copy *shared_at(const dm_placed *it, int32_t layer, dm_role role) {
    return it->shared + ((size_t)(layer + 1) * DM_ROLES + (size_t)role) * it->groups;
}

static dm_weight_copy *expert_at(const dm_placed *it, const dm_model *model, int32_t layer, dm_role role) {
    return it->experts + ((size_t)layer * DM_ROLES + (size_t)role) * (size_t)model->config.n_experts;
}

static dm_status add_tensor(dm_placed *it, const dm_model *model, int32_t layer, dm_role role) {
    const dm_tensor *tensor = layer < 0 ? &model->tensors[role] : &model->layers[layer].tensors[role];
    if (tensor->data == NULL || role == DM_TOKEN_EMBD || role == DM_POSITION_EMBD) {
        return DM_OK;
    }
    if (dm_role_is_expert(role)) {
        return it->experts != NULL ? add_experts(it, model, layer, role, expert_at(it, model, layer, role)) : DM_OK;
    }
    const bool vector = tensor->dims[1] * tensor->dims[2] == 1;
    return vector ? DM_OK : add_shared(it, tensor, dm_repacked_format(model, layer, role), shared_at(it, layer, role));
}

static dm_status lay_out(dm_placed *it, const dm_model *model) {
    const size_t layers = (size_t)model->config.n_layers, experts = (size_t)model->config.n_experts;
    it->shared = dm_alloc((layers + 1) * DM_ROLES * it->groups, sizeof *it->shared);
    if (model->streaming == NULL && experts > 0) {
        it->experts = dm_alloc(layers * DM_ROLES * experts, sizeof *it->experts);
    }
    if (it->shared == NULL || (it->experts == NULL && model->streaming == NULL && experts > 0)) {
        return DM_ERR_MEMORY;
    }
    for (int32_t l = -1; l < model->config.n_layers; l++) {
        for (int role = 0; role < DM_ROLES; role++) {
            DM_TRY(add_tensor(it, model, l, (dm_role)role));
        }
    }
    for (size_t g = 0; g < it->groups; g++) {
        DM_TRY(dm_pages_map_near(it->stretches[g].bytes, dm_parallel_node(g), &it->stretches[g].memory));
    }
    return DM_OK;
}

/* ---- Copying ---- */

/* What readers find there: the address that panel or row 0 would have, if it were there. */
static dm_weight_copy seen_by_readers(const part *p, uint8_t *to) {
    const void *all = (const void *)((uintptr_t)to - p->first * p->unit_bytes);
    if (p->from.type == DM_TYPE_MIXED) {
        return (dm_weight_copy){to, to};
    }
    return p->format != NULL ? (dm_weight_copy){p->from.data, all} : (dm_weight_copy){all, NULL};
}

/* The tables were checked, and nobody changes them; the panels follow them. */
static void copy_mixed(const part *p, uint8_t *to) {
    dm_mixed_header *header = (dm_mixed_header *)(void *)to;
    const size_t front = mixed_front(p);
    size_t begin, end;
    mixed_range(p, &begin, &end);
    memcpy(to, p->from.data, front);
    memcpy(to + front, dm_mixed_origin(tables_of(p)) + begin, end - begin);
    header->elsewhere = (int64_t)front - (int64_t)begin;
}

/* Units from .. to - 1. */
static void copy_units(const part *p, uint8_t *memory, size_t from, size_t to) {
    uint8_t *out = memory + p->offset + from * p->unit_bytes;
    if (p->from.type == DM_TYPE_MIXED) {
        copy_mixed(p, out);
        return;
    }
    const size_t row_bytes = dm_type_bytes(p->from.type, p->from.columns), first = (p->first + from) * DM_PANEL_ROWS;
    const size_t after = (p->first + to) * DM_PANEL_ROWS, last = after < p->from.rows ? after : p->from.rows;
    const uint8_t *rows = (const uint8_t *)p->from.data + first * row_bytes;
    if (p->format != NULL) {
        dm_panels_pack(out, p->format, p->from.data, p->from.rows, p->from.columns, first, to - from);
    } else {
        memcpy(out, rows, (last - first) * row_bytes);
    }
}

/* The first of a part's units that starts at `at` or later. */
static size_t unit_from(const part *p, size_t at) {
    const size_t inside = at > p->offset ? at - p->offset : 0, unit = (inside + p->unit_bytes - 1) / p->unit_bytes;
    return unit < p->units ? unit : p->units;
}

/* Pieces begin .. end - 1 of a group's memory: the units that start in them. */
static void copy_body(void *user, size_t list, size_t begin, size_t end, int thread) {
    const dm_placed *it = user;
    const stretch *s = &it->stretches[list];
    (void)thread;
    for (size_t i = 0; i < s->n; i++) {
        const part *p = &s->parts[i];
        const size_t from = p->units > 0 ? unit_from(p, begin * PIECE) : 0, to = p->units > 0 ? unit_from(p, end * PIECE) : 0;
        if (from < to) {
            copy_units(p, s->memory.data, from, to);
        }
    }
}

static void copy_all(dm_placed *it) {
    size_t pieces[DM_MOST_GROUPS];
    for (size_t g = 0; g < it->groups; g++) {
        const stretch *s = &it->stretches[g];
        pieces[g] = (s->bytes + PIECE - 1) / PIECE;
        for (size_t i = 0; i < s->n; i++) {
            *s->parts[i].copy = seen_by_readers(&s->parts[i], s->memory.data + s->parts[i].offset);
        }
    }
    dm_parallel_lists(dm_threads(), it->groups, pieces, 1, copy_body, it);
}

/* The system may keep the file's pages, and reads them again if asked. */
static void release_file(const dm_model *model) {
    for (size_t i = 0; model->file != NULL && i < dm_gguf_n_files(model->file); i++) {
        const dm_gguf_file file = dm_gguf_file_at(model->file, i);
        dm_pages_release(file.data, file.size);
    }
}

dm_status dm_placed_fill(const dm_model *model) {
    dm_placed *it = model->placed;
    pthread_mutex_lock(&it->lock);
    dm_status status = it->done ? DM_OK : lay_out(it, model);
    if (status != DM_OK) {
        forget(it);
    } else if (!it->done) {
        copy_all(it);
        release_file(model);
        it->done = true;
    }
    pthread_mutex_unlock(&it->lock);
    return status;
}

/* ---- What there is ---- */

bool dm_placed_mirrored(const dm_model *model) {
    return model->placed->mirrored;
}

size_t dm_placed_home(const dm_model *model, int32_t layer, int32_t expert) {
    return (size_t)model->placed->homes[layer * model->config.n_experts + expert];
}

const dm_weight_copy *dm_placed_matrix(const dm_model *model, int32_t layer, dm_role role) {
    const dm_weight_copy *copies = shared_at(model->placed, layer, role);
    return copies->data != NULL ? copies : NULL;
}

const dm_weight_copy *dm_placed_expert(const dm_model *model, int32_t layer, dm_role role, int32_t expert) {
    return model->placed->experts != NULL ? expert_at(model->placed, model, layer, role) + expert : NULL;
}

uint64_t dm_placed_bytes(const dm_model *model, size_t group) {
    const stretch *s = &model->placed->stretches[group];
    return s->memory.data != NULL ? s->bytes : 0;
}

void dm_placed_pages(const dm_model *model, size_t group, uint64_t *there, uint64_t *elsewhere) {
    const size_t bytes = (size_t)dm_placed_bytes(model, group);
    dm_pages_count(&model->placed->stretches[group].memory, bytes, dm_parallel_node(group), there, elsewhere);
}
