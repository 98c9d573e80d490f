/*
 * {"machine": {...}, "measured_at": S, "tiers": [{"name": ..., "bandwidth_gb_s": ..., ...}], "disks": [{"device": ..., ...}]}
 *
 * "machine" is compared as a whole with the one that runs, so that a change of anything in it, or of its form, is noticed.
 */
#include "optimization/topology_file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"

enum { VERSION = 1, MOST_BYTES = 1 << 20, MOST_DISKS = 16 };

/* ---- What figures belong to ---- */

static json_t *describe_caches(const dm_hardware *hardware) {
    json_t *array = json_array();
    for (int i = 0; i < hardware->n_caches; i++) {
        const dm_cache_kind *kind = &hardware->caches[i];
        json_array_append_new(array,
                              json_pack("{s:i, s:I, s:i, s:i, s:i}", "level", kind->level, "bytes", (json_int_t)kind->bytes,
                                        "line", kind->line, "shared_by", kind->shared_by, "count", kind->count));
    }
    return array;
}

/* In GiB: what a system has of its memory differs a little from start to start. */
static json_int_t gib(uint64_t bytes) {
    return (json_int_t)(bytes / 1073741824 + (bytes % 1073741824 >= 536870912));
}

static json_t *describe_nodes(const dm_hardware *hardware) {
    json_t *array = json_array();
    for (size_t i = 0; i < hardware->n_nodes; i++) {
        const dm_numa_node *node = &hardware->nodes[i];
        json_array_append_new(
            array, json_pack("{s:i, s:I, s:i}", "node", node->node, "gib", gib(node->bytes), "threads", node->threads));
    }
    return array;
}

static json_t *describe_machine(const dm_hardware *hardware, const dm_topology *topology) {
    return json_pack("{s:i, s:s, s:i, s:i, s:i, s:i, s:i, s:I, s:s, s:s, s:o, s:o}", "version", VERSION, "processor",
                     topology->processor, "packages", hardware->packages, "cores", hardware->cores, "threads", hardware->threads,
                     "usable_threads", topology->usable_threads, "measured_threads", topology->measured_threads, "memory_gib",
                     gib(topology->memory.total), "isa", dm_isa(), "features", topology->features, "caches",
                     describe_caches(hardware), "nodes", describe_nodes(hardware));
}

dm_status dm_topology_file_open(const char *path, const dm_hardware *hardware, const dm_topology *topology,
                                dm_topology_file *out) {
    *out = (dm_topology_file){.machine = describe_machine(hardware, topology)};
    if (out->machine == NULL) {
        return dm_fail(DM_ERR_MEMORY, "out of memory describing the machine");
    }
    if (dm_json_load(path, MOST_BYTES, &out->root) == DM_OK && !json_equal(json_object_get(out->root, "machine"), out->machine)) {
        json_decref(out->root);
        out->root = NULL;
    }
    return DM_OK;
}

void dm_topology_file_close(dm_topology_file *file) {
    json_decref(file->machine);
    json_decref(file->root);
    *file = (dm_topology_file){NULL, NULL};
}

/* ---- Reading ---- */

/* A figure above 0 that a machine may have, or null for NaN; false for anything else. */
static bool read_figure(const json_t *object, const char *key, double *out) {
    const json_t *value = json_object_get(object, key);
    *out = json_is_number(value) ? json_number_value(value) : NAN;
    return json_is_null(value) || (json_is_number(value) && *out > 0 && *out < 1e12);
}

static bool read_tier(const json_t *object, dm_tier *tier) {
    const char *name = json_string_value(json_object_get(object, "name"));
    const json_t *huge = json_object_get(object, "huge_pages");
    tier->huge_pages = json_is_true(huge);
    return name != NULL && strcmp(name, tier->name) == 0 && json_is_boolean(huge) &&
           read_figure(object, "bandwidth_gb_s", &tier->bandwidth_gb_s) &&
           read_figure(object, "total_bandwidth_gb_s", &tier->total_bandwidth_gb_s) &&
           read_figure(object, "latency_ns", &tier->latency_ns);
}

bool dm_topology_file_tiers(const dm_topology_file *file, dm_topology *out) {
    const json_t *array = json_object_get(file->root, "tiers"), *at = json_object_get(file->root, "measured_at");
    if (!json_is_array(array) || json_array_size(array) != out->n_tiers || !json_is_integer(at)) {
        return false;
    }
    dm_tier *tiers = malloc(out->n_tiers * sizeof *tiers);
    bool fine = tiers != NULL;
    for (size_t i = 0; fine && i < out->n_tiers; i++) {
        tiers[i] = out->tiers[i];
        fine = read_tier(json_array_get(array, i), &tiers[i]);
    }
    fine = fine && isfinite(tiers[out->n_tiers - 1].bandwidth_gb_s); /* memory that was short then may not be so now */
    if (fine) {
        memcpy(out->tiers, tiers, out->n_tiers * sizeof *tiers);
        out->measured_at = json_integer_value(at);
    }
    free(tiers);
    return fine;
}

static bool read_text(const json_t *object, const char *key, char *text, size_t size) {
    const char *found = json_string_value(json_object_get(object, key));
    return found != NULL && (size_t)snprintf(text, size, "%s", found) < size;
}

/* *wanted is the size of reads that was asked for, which a file that is smaller cuts. */
static bool read_disk(const json_t *object, dm_disk *out, uint64_t *wanted) {
    const json_t *direct = json_object_get(object, "direct");
    *out = (dm_disk){.direct = json_is_true(direct),
                     .file_bytes = (uint64_t)json_integer_value(json_object_get(object, "file_bytes")),
                     .read_bytes = (uint64_t)json_integer_value(json_object_get(object, "read_bytes"))};
    *wanted = (uint64_t)json_integer_value(json_object_get(object, "wanted_bytes"));
    return read_text(object, "device", out->device, sizeof out->device) &&
           read_text(object, "filesystem", out->filesystem, sizeof out->filesystem) && json_is_boolean(direct) &&
           out->file_bytes - 1 < INT64_MAX && out->read_bytes - 1 < out->file_bytes && *wanted >= 1 &&
           read_figure(object, "bandwidth_gb_s", &out->bandwidth_gb_s) && read_figure(object, "read_us", &out->read_us) &&
           read_figure(object, "page_us", &out->page_us) && isfinite(out->bandwidth_gb_s);
}

static bool same_disk(const dm_disk *a, const dm_disk *b) {
    return strcmp(a->device, b->device) == 0 && strcmp(a->filesystem, b->filesystem) == 0;
}

bool dm_topology_file_disk(const dm_topology_file *file, uint64_t read_bytes, dm_disk *out) {
    const json_t *array = json_object_get(file->root, "disks");
    for (size_t i = 0; i < json_array_size(array); i++) {
        dm_disk disk;
        uint64_t wanted;
        if (read_disk(json_array_get(array, i), &disk, &wanted) && same_disk(&disk, out) && wanted == read_bytes) {
            memcpy(disk.path, out->path, sizeof disk.path);
            *out = disk;
            return true;
        }
    }
    return false;
}

/* ---- Writing ---- */

static json_t *figure(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *tiers_json(const dm_topology *topology) {
    json_t *array = json_array();
    for (size_t i = 0; i < topology->n_tiers; i++) {
        const dm_tier *tier = &topology->tiers[i];
        json_array_append_new(array,
                              json_pack("{s:s, s:o, s:o, s:o, s:b}", "name", tier->name, "bandwidth_gb_s",
                                        figure(tier->bandwidth_gb_s), "total_bandwidth_gb_s", figure(tier->total_bandwidth_gb_s),
                                        "latency_ns", figure(tier->latency_ns), "huge_pages", tier->huge_pages));
    }
    return array;
}

static json_t *disk_json(const dm_disk *disk, uint64_t read_bytes) {
    return json_pack("{s:s, s:s, s:I, s:b, s:I, s:I, s:o, s:o, s:o}", "device", disk->device, "filesystem", disk->filesystem,
                     "wanted_bytes", (json_int_t)read_bytes, "direct", disk->direct, "file_bytes", (json_int_t)disk->file_bytes,
                     "read_bytes", (json_int_t)disk->read_bytes, "bandwidth_gb_s", figure(disk->bandwidth_gb_s), "read_us",
                     figure(disk->read_us), "page_us", figure(disk->page_us));
}

/* This disk, then those that the file has of others, the latest first. */
static json_t *disks_json(const dm_topology_file *file, const dm_disk *disk, uint64_t read_bytes) {
    const json_t *old = json_object_get(file->root, "disks");
    json_t *array = json_array();
    if (isfinite(disk->bandwidth_gb_s)) {
        json_array_append_new(array, disk_json(disk, read_bytes));
    }
    for (size_t i = 0; i < json_array_size(old) && json_array_size(array) < MOST_DISKS; i++) {
        dm_disk other;
        uint64_t wanted;
        if (read_disk(json_array_get(old, i), &other, &wanted) && !(same_disk(&other, disk) && wanted == read_bytes)) {
            json_array_append_new(array, disk_json(&other, wanted));
        }
    }
    return array;
}

dm_status dm_topology_file_write(const dm_topology_file *file, const char *path, uint64_t read_bytes,
                                 const dm_topology *topology) {
    char folder[4096];
    snprintf(folder, sizeof folder, "%s", path);
    char *slash = strrchr(folder, '/');
    if (slash == NULL) {
        return dm_fail(DM_ERR_ARGUMENT, "%s: names no folder", path);
    }
    *slash = '\0';
    DM_TRY(dm_make_directory(folder));
    json_t *root = json_pack("{s:O, s:I, s:o, s:o}", "machine", file->machine, "measured_at", (json_int_t)topology->measured_at,
                             "tiers", tiers_json(topology), "disks", disks_json(file, &topology->disk, read_bytes));
    return dm_json_save(root, folder, slash + 1);
}
