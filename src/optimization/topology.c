/* The machine as a whole: what it has, how fast that is, and what was kept of it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/file.h"
#include "kernels/processor.h"
#include "optimization/disk_speed.h"
#include "optimization/huge_pages.h"
#include "optimization/memory_limit.h"
#include "optimization/tiers.h"
#include "optimization/token_cost.h"
#include "optimization/topology_file.h"

/* Of reads where no model says how large an expert is: about that of small models in 4 bits. */
static const uint64_t usual_read = 1 << 20;

/* ---- What there is ---- */

/* Instruction sets beside the widest vectors, which dm_isa() names. */
static void list_features(char *text, size_t size) {
    const dm_processor *p = dm_processor_features();
    const struct {
        bool there;
        const char *name;
    } features[] = {{p->avx512_vnni, "avx512_vnni"}, {p->avx512_vbmi, "avx512_vbmi"}, {p->avx512_bf16, "avx512_bf16"},
                    {p->amx_bf16, "amx_bf16"},       {p->amx_int8, "amx_int8"},       {p->dotprod, "dotprod"}};
    size_t used = 0;
    text[0] = '\0';
    for (size_t i = 0; i < sizeof features / sizeof *features; i++) {
        if (features[i].there) {
            used += (size_t)snprintf(text + used, size - used, "%s%s", used > 0 ? " " : "", features[i].name);
        }
    }
}

/* Takes the nodes over. */
static dm_status describe(dm_hardware *hardware, dm_topology *out) {
    snprintf(out->processor, sizeof out->processor, "%s", hardware->processor);
    list_features(out->features, sizeof out->features);
    out->packages = hardware->packages;
    out->cores = hardware->cores;
    out->threads = hardware->threads;
    out->usable_threads = (int32_t)hardware->n_usable;
    out->measured_threads = dm_tiers_threads(hardware);
    dm_memory_limit("", &out->memory);
    dm_huge_pages_read("", &out->huge_pages);
    hardware->memory = hardware->memory > 0 ? hardware->memory : out->memory.total;
    DM_TRY(dm_tiers_list(hardware, &out->tiers, &out->n_tiers));
    out->nodes = malloc((hardware->n_nodes > 0 ? hardware->n_nodes : 1) * sizeof *out->nodes);
    if (out->nodes == NULL) {
        return dm_fail(DM_ERR_MEMORY, "out of memory listing memory nodes");
    }
    memcpy(out->nodes, hardware->nodes, hardware->n_nodes * sizeof *out->nodes);
    out->n_nodes = hardware->n_nodes;
    return DM_OK;
}

/* ---- The disk ---- */

/* The size of an expert of the model in a file; *bytes stays for one without experts, and for a folder. */
static dm_status choose_read(const char *path, uint64_t *bytes) {
    if (dm_is_folder(path)) {
        return DM_OK;
    }
    dm_model *model;
    DM_TRY(dm_model_open(path, &model));
    double expert = dm_token_cost_of(model).expert_bytes;
    *bytes = expert >= 1 ? (uint64_t)ceil(expert) : *bytes;
    dm_model_close(model);
    return DM_OK;
}

/* The user's cache folder, which is made if need be. Without one there is no disk to look at, which is said. */
static void identify_usual_disk(dm_disk *out) {
    char folder[sizeof out->path];
    if (!dm_cache_path(".", folder, sizeof folder)) {
        snprintf(out->problem, sizeof out->problem, "there is no cache folder to read in: HOME is not set");
        return;
    }
    folder[strlen(folder) - strlen("/.")] = '\0';
    if (dm_make_directory(folder) != DM_OK || dm_disk_identify(folder, out) != DM_OK) {
        snprintf(out->problem, sizeof out->problem, "%.*s", (int)sizeof out->problem - 1, dm_error_message());
    }
}

static dm_status identify_disk(const char *path, uint64_t *read_bytes, dm_disk *out) {
    *out = (dm_disk){.bandwidth_gb_s = NAN, .read_us = NAN, .page_us = NAN};
    *read_bytes = usual_read;
    if (path == NULL) {
        identify_usual_disk(out);
        return DM_OK;
    }
    DM_TRY(dm_disk_identify(path, out));
    return choose_read(path, read_bytes);
}

/* ---- The whole ---- */

static dm_status measure(const dm_topology_options *options, const dm_hardware *hardware, const dm_topology_file *file,
                         uint64_t read_bytes, dm_topology *out) {
    bool tiers = !options->refresh && dm_topology_file_tiers(file, out);
    if (!tiers && !options->kept_only) {
        DM_TRY(dm_tiers_measure(hardware, out->memory.usable, options->on_step, options->user, out->tiers));
        out->measured_at = (int64_t)time(NULL);
        out->measured = true;
    }
    bool known = out->disk.problem[0] == '\0';
    if (known && (options->refresh || !dm_topology_file_disk(file, read_bytes, &out->disk)) && !options->kept_only) {
        if (options->on_step != NULL) {
            options->on_step(options->user, "disk");
        }
        DM_TRY(dm_disk_measure(read_bytes, &out->disk));
        out->measured = true;
    }
    return DM_OK;
}

/* Not to keep figures is no failure, but is said. */
static void keep(const dm_topology_file *file, const char *path, uint64_t read_bytes, dm_topology *out) {
    if (path[0] == '\0') {
        snprintf(out->note, sizeof out->note, "the figures are not kept: there is no cache folder");
    } else if (out->measured && dm_topology_file_write(file, path, read_bytes, out) != DM_OK) {
        snprintf(out->note, sizeof out->note, "the figures are not kept: %.400s", dm_error_message());
    } else {
        snprintf(out->kept, sizeof out->kept, "%s", path);
    }
}

static dm_status run(const dm_topology_options *options, dm_hardware *hardware, dm_topology *out) {
    char path[sizeof out->kept];
    uint64_t read_bytes;
    dm_topology_file file;
    if (!dm_cache_path("topology.json", path, sizeof path)) {
        path[0] = '\0';
    }
    DM_TRY(identify_disk(options->path, &read_bytes, &out->disk));
    DM_TRY(describe(hardware, out));
    DM_TRY(dm_topology_file_open(path, hardware, out, &file));
    dm_status status = measure(options, hardware, &file, read_bytes, out);
    if (status == DM_OK) {
        keep(&file, path, read_bytes, out);
    }
    dm_topology_file_close(&file);
    return status;
}

dm_status dm_topology_measure(const dm_topology_options *options, dm_topology *out) {
    static const dm_topology_options defaults;
    dm_hardware hardware;
    *out = (dm_topology){.n_tiers = 0};
    DM_TRY(dm_hardware_read(NULL, &hardware));
    dm_status status = run(options != NULL ? options : &defaults, &hardware, out);
    dm_hardware_free(&hardware);
    if (status != DM_OK) {
        dm_topology_free(out);
    }
    return status;
}

void dm_topology_free(dm_topology *topology) {
    free(topology->tiers);
    free(topology->nodes);
    *topology = (dm_topology){.n_tiers = 0};
}
