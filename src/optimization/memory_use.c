#include "optimization/memory_use.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "model/gguf.h"
#include "model/placed.h"
#include "model/session.h"

/* Memory mapped from `begin` to `end` - 1. */
typedef struct mapping {
    uintptr_t begin, end;
    bool of_file;
} mapping;

/* Reads the line of /proc/self/smaps that begins a mapping: "55a0-55b0 r--p 00000000 fe:01 42   /path". */
static bool parse_mapping(const char *line, mapping *out) {
    char path[8];
    int matched = sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %*4s %*x %*s %*u %7s", &out->begin, &out->end, path);
    out->of_file = matched == 3 && path[0] == '/';
    return matched >= 2;
}

static bool holds_weights(const mapping *m, const dm_gguf *file) {
    for (size_t i = 0; m->of_file && i < dm_gguf_n_tensors(file); i++) {
        uintptr_t data = (uintptr_t)dm_gguf_tensor_at(file, i)->data;
        if (data >= m->begin && data < m->end) {
            return true;
        }
    }
    return false;
}

/* Bytes that a line of /proc/self/smaps counts on huge pages. Those that were reserved are not part of "Rss". */
static uint64_t on_huge_pages(const char *line, bool *reserved) {
    uint64_t kib;
    *reserved = sscanf(line, "Private_Hugetlb: %" SCNu64, &kib) == 1;
    return *reserved || sscanf(line, "AnonHugePages: %" SCNu64, &kib) == 1 ? kib * 1024 : 0;
}

/* Resident bytes of the process, and of the mappings that hold the tensors of `file`; 0 where the system does not tell. */
static void read_smaps(const dm_gguf *file, dm_bench_memory *out) {
    FILE *smaps = fopen("/proc/self/smaps", "re");
    char line[4352]; /* a path of 4096 bytes, and what is before it */
    bool counts = false;
    while (smaps != NULL && fgets(line, sizeof line, smaps) != NULL) {
        uint64_t kib;
        mapping m;
        bool reserved;
        uint64_t huge = on_huge_pages(line, &reserved);
        out->huge += huge;
        out->resident += reserved ? huge : 0;
        if (sscanf(line, "Rss: %" SCNu64, &kib) == 1) {
            out->resident += kib * 1024;
            out->file += counts ? kib * 1024 : 0;
        } else if (parse_mapping(line, &m)) {
            counts = file != NULL && holds_weights(&m, file);
        }
    }
    if (smaps != NULL) {
        fclose(smaps);
    }
}

static uint64_t panels_of(const dm_session *session, const dm_weights *weights) {
    uint64_t bytes = 0;
    for (int role = 0; role < DM_ROLES; role++) {
        const dm_weight *matrix = &weights->matrices[role];
        if (session->model->streaming != NULL && dm_role_is_expert((dm_role)role)) {
            continue; /* the store has those that are there */
        }
        uint64_t matrices = weights->apart[role] != NULL ? (uint64_t)session->model->config.n_experts : 1;
        bytes += matrix->panels != NULL && matrix->type != DM_TYPE_MIXED ? matrices * dm_weight_panel_bytes(matrix) : 0;
    }
    return bytes;
}

/* Panels of all sessions, or what groups of threads have instead. */
static uint64_t repacked_of(const dm_session *session) {
    const dm_model *model = session->model;
    uint64_t bytes = 0;
    for (size_t g = 0; model->placed != NULL && g < dm_parallel_groups(); g++) {
        bytes += dm_placed_bytes(model, g);
    }
    bytes += model->placed == NULL ? panels_of(session, &session->global) : 0;
    for (int32_t l = 0; model->placed == NULL && l < model->config.n_layers; l++) {
        bytes += panels_of(session, &session->layers[l]);
    }
    return bytes;
}

void dm_memory_use(dm_session *const *sessions, size_t n, size_t positions, dm_bench_memory *out) {
    const dm_model *model = sessions[0]->model;
    *out = (dm_bench_memory){.repacked = repacked_of(sessions[0])};
    dm_stream_stats stream;
    dm_model_stream_stats(model, &stream);
    out->repacked += stream.bytes;
    for (size_t i = 0; i < n; i++) {
        out->cache += positions * dm_kv_cache_position_bytes(&sessions[i]->cache);
        out->scratch += sessions[i]->owned_bytes;
    }
    out->file_size = model->file != NULL ? dm_gguf_size(model->file) : 0;
    read_smaps(model->file, out);
}
