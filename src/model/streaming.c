#include "model/streaming.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

#include "base/memory.h"
#include "kernels/panels.h"
#include "kernels/weight.h"
#include "model/repack.h"

enum { MOST_PATIENCE = 86400 };

static const dm_role roles[DM_EXPERT_MATRICES] = {DM_FFN_GATE_EXPS, DM_FFN_UP_EXPS, DM_FFN_DOWN_EXPS};

struct dm_streaming {
    pthread_mutex_t lock;  /* held by who makes the store */
    uint64_t ram, memory;  /* what was asked for; one is 0 */
    double patience;       /* seconds; 0: as long as is usual */
    dm_expert_ahead ahead; /* its buffers: 0 until the store is made, unless memory was given as a share */
    dm_residency_rule rule;
    dm_expert_matrix *matrices;
    dm_expert_piece *pieces;
    dm_expert_file *paths;
    dm_expert_files files; /* of the above */
    atomic_llong sessions; /* bytes that they take */
    atomic_size_t tokens;  /* fed */
    dm_expert_store *store;
};

/* ---- Where experts lie --------------------------------------------------- */

static const dm_tensor *tensor_of(const dm_model *model, int32_t layer, int matrix) {
    return &model->layers[layer].tensors[roles[matrix]];
}

/* The tensor was checked when the file was opened: it lies in one of them. */
static dm_expert_piece locate(const dm_gguf *file, const uint8_t *data, size_t bytes) {
    dm_expert_piece piece = {.bytes = bytes};
    for (size_t i = 0; i < dm_gguf_n_files(file); i++) {
        const dm_gguf_file part = dm_gguf_file_at(file, i);
        if ((uintptr_t)data >= (uintptr_t)part.data && (uintptr_t)data < (uintptr_t)part.data + part.size) {
            piece.file = (uint32_t)i;
            piece.offset = (uint64_t)(data - part.data);
        }
    }
    return piece;
}

/* Panels in the file that keeps them, the last one. */
static dm_expert_piece locate_kept(const dm_streaming *it, const dm_model *model, int32_t l, dm_role role, int32_t expert) {
    const dm_kept_place place = dm_repacked_kept(model, l, role, expert);
    return (dm_expert_piece){.file = (uint32_t)it->files.n_files - 1,
                             .offset = place.offset,
                             .bytes = place.bytes,
                             .kept = true,
                             .check = place.check};
}

static dm_status describe_layer(dm_streaming *it, const dm_model *model, int32_t l) {
    const dm_map *map;
    const bool kept = dm_repacked_file(model, &map) != NULL;
    int packed = 0;
    for (int m = 0; m < DM_EXPERT_MATRICES; m++) {
        const dm_tensor *tensor = tensor_of(model, l, m);
        const bool panels = dm_repacked_format(model, l, roles[m]) != NULL;
        packed += panels;
        it->matrices[l * DM_EXPERT_MATRICES + m] = (dm_expert_matrix){(size_t)tensor->dims[1], (size_t)tensor->dims[0],
                                                                      panels && !kept ? dm_panel_format_of(tensor->type) : NULL};
        for (int32_t e = 0; e < model->config.n_experts; e++) {
            const dm_weight own = dm_tensor_matrix(tensor, (size_t)e);
            size_t bytes;
            const uint8_t *data = dm_weight_stored(&own, &bytes);
            dm_expert_piece *pieces = it->pieces + ((size_t)l * (size_t)model->config.n_experts + (size_t)e) * DM_EXPERT_MATRICES;
            pieces[m] = panels && kept ? locate_kept(it, model, l, roles[m], e) : locate(model->file, data, bytes);
            pieces[m].mixed = own.type == DM_TYPE_MIXED;
        }
    }
    return packed == 0 || (packed == DM_EXPERT_MATRICES && model->config.expert_dim % DM_PANEL_UNIT == 0)
               ? DM_OK
               : dm_fail(DM_ERR_UNSUPPORTED,
                         "%s: layer %d has experts whose matrices are of types of different kinds, which cannot "
                         "be streamed",
                         dm_gguf_path(model->file), l);
}

static dm_status describe(dm_streaming *it, const dm_model *model) {
    const size_t layers = (size_t)model->config.n_layers, experts = (size_t)model->config.n_experts;
    const dm_map *map;
    const char *kept = dm_repacked_file(model, &map);
    const size_t own = dm_gguf_n_files(model->file), files = own + (kept != NULL);
    it->matrices = dm_alloc(layers * DM_EXPERT_MATRICES, sizeof *it->matrices);
    it->pieces = dm_alloc(layers * experts * DM_EXPERT_MATRICES, sizeof *it->pieces);
    it->paths = dm_alloc(files, sizeof *it->paths);
    if (it->matrices == NULL || it->pieces == NULL || it->paths == NULL) {
        return DM_ERR_MEMORY;
    }
    for (size_t i = 0; i < own; i++) {
        const dm_gguf_file file = dm_gguf_file_at(model->file, i);
        it->paths[i] = (dm_expert_file){file.path, file.size, file.modified};
    }
    if (kept != NULL) {
        it->paths[own] = (dm_expert_file){kept, map->size, map->modified};
    }
    it->files = (dm_expert_files){(int32_t)layers, (int32_t)experts, it->matrices, it->pieces, it->paths, files};
    for (int32_t l = 0; l < model->config.n_layers; l++) {
        if (model->layers[l].tensors[DM_FFN_ROUTER].data != NULL) {
            DM_TRY(describe_layer(it, model, l));
        }
    }
    return DM_OK;
}

/* ---- Making -------------------------------------------------------------- */

static dm_status check(const dm_model *model, const dm_stream_options *options) {
    if (model->file == NULL || model->config.n_experts == 0) {
        return dm_fail(DM_ERR_ARGUMENT, "%s: only models that have experts, and a file, can be streamed",
                       model->file != NULL ? dm_gguf_path(model->file) : "a model in memory");
    }
    if (model->streaming != NULL) {
        return dm_fail(DM_ERR_ARGUMENT, "%s: is streamed already", dm_gguf_path(model->file));
    }
    const int given = (options->ram > 0) + (options->memory > 0) + (options->ram_share != 0.0);
    if (given != 1 || !(options->ram_share >= 0.0 && options->ram_share <= 1.0)) {
        return dm_fail(DM_ERR_ARGUMENT,
                       "memory for experts is given in bytes, as a share up to 1 of what all of them take, or by what "
                       "the whole process may use: expected one of the three");
    }
    if (options->prefetch < 0 || options->prefetch > DM_EXPERT_MOST_AHEAD) {
        return dm_fail(DM_ERR_ARGUMENT, "experts can be read 0 to %d layers ahead, not %d", DM_EXPERT_MOST_AHEAD,
                       options->prefetch);
    }
    if (!(options->patience >= 0.0 && options->patience <= MOST_PATIENCE)) {
        return dm_fail(DM_ERR_ARGUMENT, "a disk can be waited for 0 to %d seconds, not %g", MOST_PATIENCE, options->patience);
    }
    return DM_OK;
}

static dm_status build(dm_streaming *it, const dm_model *model, const dm_stream_options *options) {
    DM_TRY(dm_residency_parse(options->evict != NULL ? options->evict : "lfu:64", &it->rule));
    DM_TRY(dm_repack(model));
    DM_TRY(describe(it, model));
    it->ahead.layers = options->prefetch;
    it->patience = options->patience;
    it->ram = options->ram;
    it->memory = options->memory;
    size_t buffers = 0;
    if (options->ram_share > 0.0) {
        const size_t reading = dm_expert_loads_bytes(&it->files, 0), all = dm_expert_store_most(&it->files) - reading;
        it->ahead.buffers = (size_t)it->ahead.layers * DM_EXPERT_AHEAD_A_LAYER; /* beside the share, as reading is */
        it->ram = dm_expert_loads_bytes(&it->files, it->ahead.buffers) + (uint64_t)(options->ram_share * (double)all);
        buffers = it->ahead.buffers * dm_expert_loads_guess_bytes(&it->files);
    }
    if (it->ram > 0) { /* what is no use is said at once */
        dm_status status = dm_expert_store_check(&it->files, &it->rule, it->ram - buffers);
        return status == DM_OK ? DM_OK : dm_fail_in(status, dm_gguf_path(model->file));
    }
    return DM_OK;
}

dm_status dm_model_stream(dm_model *model, const dm_stream_options *options) {
    DM_TRY(check(model, options));
    dm_streaming *it = dm_alloc(1, sizeof *it);
    if (it == NULL) {
        return DM_ERR_MEMORY;
    }
    if (pthread_mutex_init(&it->lock, NULL) != 0) {
        dm_free(it);
        return dm_fail(DM_ERR_MEMORY, "out of memory for a model");
    }
    dm_status status = build(it, model, options);
    if (status != DM_OK) {
        dm_streaming_free(it);
        return status;
    }
    model->streaming = it;
    return DM_OK;
}

void dm_streaming_free(dm_streaming *it) {
    if (it == NULL) {
        return;
    }
    dm_expert_store_free(it->store);
    dm_free(it->matrices);
    dm_free(it->pieces);
    dm_free(it->paths);
    pthread_mutex_destroy(&it->lock);
    dm_free(it);
}

void dm_streaming_note_session(const dm_model *model, int64_t bytes) {
    if (model->streaming != NULL) {
        atomic_fetch_add(&model->streaming->sessions, bytes);
    }
}

/* ---- The store ----------------------------------------------------------- */

/* Tables of which a token reads a row: their pages are given back again and again. */
enum { TABLE_TOKENS = 1024, TABLE_PAGES = 2 /* that a token's row may lie in */, PAGE = 4096 };

static bool is_table(const dm_model *model, int role) {
    return role == DM_POSITION_EMBD || (role == DM_TOKEN_EMBD && (!model->config.tied_output || model->placed != NULL ||
                                                                  dm_repacked_format(model, -1, DM_OUTPUT) != NULL));
}

/* All of a tensor in its file. */
static const uint8_t *stored(const dm_tensor *t, size_t *bytes) {
    const dm_weight all = {.data = t->data, .type = t->type, .rows = t->dims[1] * t->dims[2] * t->dims[3], .columns = t->dims[0]};
    return dm_weight_stored(&all, bytes);
}

static uint64_t tensor_bytes(const dm_tensor *t) {
    size_t bytes = 0;
    if (t->data != NULL) {
        stored(t, &bytes);
    }
    return bytes;
}

/* Gives back what the system holds of the tables, and reads of them what is asked for alone. */
static void release_tables(const dm_streaming *it, const dm_model *model) {
    const int tables[] = {DM_TOKEN_EMBD, DM_POSITION_EMBD};
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
        const dm_tensor *t = &model->tensors[tables[i]];
        if (t->data != NULL && is_table(model, tables[i])) {
            size_t bytes;
            const uint8_t *data = stored(t, &bytes);
            const dm_expert_piece piece = locate(model->file, data, bytes);
            dm_pages_release(data, bytes);
            dm_expert_store_forget(it->store, piece.file, piece.offset, bytes);
        }
    }
}

void dm_streaming_note_tokens(const dm_model *model, size_t n) {
    dm_streaming *it = model->streaming;
    if (it != NULL && atomic_fetch_add(&it->tokens, n) % TABLE_TOKENS + n >= TABLE_TOKENS) {
        release_tables(it, model);
    }
}

/* Bytes of the file that will be read as tokens come: tensors that have neither panels nor copies and are no experts'. */
static uint64_t looked_up(const dm_model *model) {
    uint64_t bytes = 0;
    for (int32_t l = -1; l < model->config.n_layers; l++) {
        const dm_tensor *tensors = l < 0 ? model->tensors : model->layers[l].tensors;
        for (int role = 0; role < DM_ROLES; role++) {
            const uint64_t all = tensor_bytes(&tensors[role]), some = (uint64_t)TABLE_TOKENS * TABLE_PAGES * PAGE;
            if (l < 0 && is_table(model, role)) {
                bytes += all < some ? all : some;
            } else if (!dm_role_is_expert((dm_role)role) && model->placed == NULL &&
                       dm_repacked_format(model, l, (dm_role)role) == NULL) {
                bytes += all;
            }
        }
    }
    return bytes;
}

/* What `memory` leaves for experts: less what the process has taken, what its sessions may still touch, and what of the file is
 * looked up. */
static dm_status budget_of(const dm_streaming *it, const dm_model *model, size_t *out) {
    enum { OTHERS = 8 << 20 }; /* stacks, and what the allocator keeps */
    if (it->ram > 0) {
        *out = (size_t)it->ram;
        return DM_OK;
    }
    const uint64_t taken = dm_rss() + (uint64_t)atomic_load(&it->sessions) + looked_up(model) + OTHERS;
    const uint64_t least = dm_expert_store_least(&it->files);
    if (it->memory < taken + least) {
        return dm_fail(DM_ERR_ARGUMENT,
                       "%s: %.0f MB for the whole process is too little: %.0f MB are taken without experts, and the least for "
                       "those is %.0f MB; a shorter context takes less",
                       dm_gguf_path(model->file), (double)it->memory / 1e6, (double)taken / 1e6, (double)least / 1e6);
    }
    *out = (size_t)(it->memory - taken);
    return DM_OK;
}

static dm_status make_store(dm_streaming *it, const dm_model *model) {
    size_t budget = 0;
    DM_TRY(budget_of(it, model, &budget));
    if (it->ahead.buffers == 0) {
        it->ahead.buffers = dm_expert_store_buffers(&it->files, budget, it->ahead.layers);
    }
    DM_TRY(dm_expert_store_create(&it->files, &it->rule, budget, &it->ahead, it->patience, model->placed != NULL, &it->store));
    for (size_t i = 0; i < dm_gguf_n_files(model->file);
         i++) { /* what was read to pack it; from now on rows of tables are read, by chance */
        const dm_gguf_file file = dm_gguf_file_at(model->file, i);
        dm_pages_release(file.data, file.size);
        madvise((void *)(uintptr_t)file.data, file.size, MADV_RANDOM);
        dm_expert_store_forget(it->store, i, 0, file.size);
    }
    return DM_OK;
}

dm_status dm_streaming_start(const dm_model *model, dm_expert_store **out) {
    dm_streaming *it = model->streaming;
    dm_status status = DM_OK;
    *out = NULL;
    if (it == NULL) {
        return DM_OK;
    }
    pthread_mutex_lock(&it->lock);
    if (it->store == NULL) {
        status = make_store(it, model);
    }
    *out = it->store;
    pthread_mutex_unlock(&it->lock);
    return status;
}

bool dm_model_stream_stats(const dm_model *model, dm_stream_stats *out) {
    *out = (dm_stream_stats){0};
    dm_streaming *it = model->streaming;
    if (it == NULL) {
        return false;
    }
    pthread_mutex_lock(&it->lock);
    if (it->store != NULL) {
        dm_expert_store_stats stats;
        dm_expert_store_enter(it->store);
        dm_expert_store_stats_of(it->store, &stats);
        dm_expert_store_leave(it->store);
        *out = (dm_stream_stats){stats.slots,     stats.experts, stats.bytes, stats.read,  stats.guessed,
                                 stats.came_true, stats.missed,  stats.ahead, stats.wasted};
    }
    pthread_mutex_unlock(&it->lock);
    return true;
}

/* ---- For routers --------------------------------------------------------- */

static void times(void *user, int32_t layer, float *tau) {
    const dm_streaming *it = user;
    dm_expert_store_times(it->store, layer, tau);
}

static size_t use(void *user, int32_t layer, const int32_t *experts, size_t n) {
    dm_streaming *it = user;
    return dm_expert_store_want(it->store, layer, experts, n);
}

dm_residency dm_streaming_residency(const dm_model *model) {
    return (dm_residency){.user = model->streaming, .slowest = 1.0, .times = times, .use = use};
}
