/* Source: hwloc 2's documentation. Where a system tells hwloc nothing, as in some virtual machines, sysconf() may know more. */
#include "optimization/hardware.h"

#include <hwloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/status.h"

/* ---- Caches ---- */

static bool same_kind(const dm_cache_kind *a, const dm_cache_kind *b) {
    return a->level == b->level && a->bytes == b->bytes && a->line == b->line && a->shared_by == b->shared_by;
}

static int find_kind(const dm_hardware *hardware, const dm_cache_kind *kind) {
    for (int i = 0; i < hardware->n_caches; i++) {
        if (same_kind(&hardware->caches[i], kind)) {
            return i;
        }
    }
    return -1;
}

static void add_kind(dm_hardware *hardware, const dm_cache_kind *kind) {
    int found = find_kind(hardware, kind);
    if (found >= 0) {
        hardware->caches[found].count++;
    } else if (hardware->n_caches < DM_CACHE_KINDS) {
        hardware->caches[hardware->n_caches] = *kind;
        hardware->caches[hardware->n_caches++].count = 1;
    }
}

/* Processors that this process may not use share a cache as well: of the complete set. False for what is no cache of data, or
 * one whose size is unknown. */
static bool kind_of(hwloc_obj_t object, dm_cache_kind *out) {
    if (!hwloc_obj_type_is_dcache(object->type) || object->attr->cache.size == 0 || object->attr->cache.depth < 1 ||
        object->attr->cache.depth > DM_CACHE_LEVELS) {
        return false;
    }
    *out = (dm_cache_kind){.level = (int)object->attr->cache.depth,
                           .bytes = object->attr->cache.size,
                           .line = (int)object->attr->cache.linesize,
                           .shared_by = hwloc_bitmap_weight(object->complete_cpuset)};
    return true;
}

static int by_level(const void *a, const void *b) {
    const dm_cache_kind *x = a, *y = b;
    return x->level != y->level ? (x->level > y->level) - (x->level < y->level) : (x->bytes < y->bytes) - (x->bytes > y->bytes);
}

static void read_caches(hwloc_topology_t topology, dm_hardware *out) {
    for (int depth = 0; depth < hwloc_topology_get_depth(topology); depth++) {
        for (hwloc_obj_t o = NULL; (o = hwloc_get_next_obj_by_depth(topology, depth, o)) != NULL;) {
            dm_cache_kind kind;
            if (kind_of(o, &kind)) {
                add_kind(out, &kind);
            }
        }
    }
    qsort(out->caches, (size_t)out->n_caches, sizeof *out->caches, by_level);
}

/* Sizes alone: whom a cache serves sysconf() does not tell. */
static void ask_for_caches(long (*ask)(int name), dm_hardware *out) {
    static const int sizes[] = {_SC_LEVEL1_DCACHE_SIZE, _SC_LEVEL2_CACHE_SIZE, _SC_LEVEL3_CACHE_SIZE, _SC_LEVEL4_CACHE_SIZE};
    static const int lines[] = {_SC_LEVEL1_DCACHE_LINESIZE, _SC_LEVEL2_CACHE_LINESIZE, _SC_LEVEL3_CACHE_LINESIZE,
                                _SC_LEVEL4_CACHE_LINESIZE};
    for (int i = 0; i < 4; i++) {
        long bytes = ask(sizes[i]), line = ask(lines[i]);
        if (bytes > 0) {
            dm_cache_kind kind = {.level = i + 1, .bytes = (uint64_t)bytes, .line = line > 0 && line <= 4096 ? (int)line : 0};
            out->caches[out->n_caches++] = kind;
        }
    }
    for (size_t t = 0; t < out->n_usable; t++) {
        for (int i = 0; i < out->n_caches; i++) {
            out->usable[t].kind[out->caches[i].level - 1] = i;
        }
    }
}

/* ---- Hardware threads ---- */

/* The first of the nodes beside a processor; what others there are, of faster or slower memory, comes behind. */
static int node_of(hwloc_topology_t topology, hwloc_obj_t processor) {
    for (hwloc_obj_t o = NULL; (o = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_NUMANODE, o)) != NULL;) {
        if (hwloc_bitmap_isset(o->cpuset, processor->os_index)) {
            return (int)o->logical_index;
        }
    }
    return -1;
}

static dm_hardware_thread thread_of(hwloc_topology_t topology, const dm_hardware *hardware, hwloc_obj_t processor, bool here) {
    const struct hwloc_obj *core = hwloc_get_ancestor_obj_by_type(topology, HWLOC_OBJ_CORE, processor);
    dm_hardware_thread thread = {.processor = here ? (int)processor->os_index : -1,
                                 .core = core != NULL ? (int)core->logical_index : -1,
                                 .node = node_of(topology, processor)};
    for (int i = 0; i < DM_CACHE_LEVELS; i++) {
        thread.kind[i] = -1;
    }
    for (hwloc_obj_t o = processor->parent; o != NULL; o = o->parent) {
        dm_cache_kind kind;
        if (kind_of(o, &kind)) {
            thread.kind[kind.level - 1] = find_kind(hardware, &kind);
            thread.unit[kind.level - 1] = (int)o->logical_index;
        }
    }
    return thread;
}

/* Those that the process may run on, so that with fewer threads than processors each has a core of its own. */
static dm_status read_threads(hwloc_topology_t topology, dm_hardware *out) {
    bool here = hwloc_topology_is_thissystem(topology) != 0;
    hwloc_bitmap_t allowed = hwloc_bitmap_dup(hwloc_topology_get_topology_cpuset(topology));
    out->usable = calloc((size_t)(out->threads > 0 ? out->threads : 1), sizeof *out->usable);
    if (allowed == NULL || out->usable == NULL) {
        hwloc_bitmap_free(allowed);
        return dm_fail(DM_ERR_MEMORY, "out of memory listing processors");
    }
    if (here) {
        hwloc_get_cpubind(topology, allowed, HWLOC_CPUBIND_PROCESS); /* where that fails, all */
    }
    for (unsigned turn = 0, left = (unsigned)out->threads; left > 0; turn++) {
        for (hwloc_obj_t o = NULL; (o = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_PU, o)) != NULL;) {
            if (o->sibling_rank != turn) {
                continue;
            }
            left--;
            if (hwloc_bitmap_isset(allowed, o->os_index)) {
                out->usable[out->n_usable++] = thread_of(topology, out, o, here);
            }
        }
    }
    hwloc_bitmap_free(allowed);
    return DM_OK;
}

/* ---- The whole ---- */

static dm_status read_nodes(hwloc_topology_t topology, dm_hardware *out) {
    int n = hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_NUMANODE);
    out->nodes = calloc(n > 0 ? (size_t)n : 1, sizeof *out->nodes);
    if (out->nodes == NULL) {
        return dm_fail(DM_ERR_MEMORY, "out of memory listing memory nodes");
    }
    for (hwloc_obj_t o = NULL; (o = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_NUMANODE, o)) != NULL;) {
        out->nodes[out->n_nodes++] = (dm_numa_node){.node = (int32_t)o->os_index,
                                                    .bytes = o->attr->numanode.local_memory,
                                                    .threads = hwloc_bitmap_weight(o->complete_cpuset)};
    }
    return DM_OK;
}

static int number_of(hwloc_topology_t topology, hwloc_obj_type_t type) {
    int n = hwloc_get_nbobjs_by_type(topology, type);
    return n > 0 ? n : 0; /* objects of a type may lie at several depths */
}

static dm_status read_all(hwloc_topology_t topology, dm_hardware *out) {
    hwloc_obj_t package = hwloc_get_obj_by_type(topology, HWLOC_OBJ_PACKAGE, 0);
    const char *name = package != NULL ? hwloc_obj_get_info_by_name(package, "CPUModel") : NULL;
    snprintf(out->processor, sizeof out->processor, "%s", name != NULL ? name : "");
    for (char *c = out->processor; *c != '\0'; c++) {
        *c = *c < ' ' || *c > '~' ? '?' : *c;
    }
    out->packages = number_of(topology, HWLOC_OBJ_PACKAGE);
    out->cores = number_of(topology, HWLOC_OBJ_CORE);
    out->threads = number_of(topology, HWLOC_OBJ_PU);
    out->memory = hwloc_get_root_obj(topology)->total_memory;
    read_caches(topology, out);
    DM_TRY(read_nodes(topology, out));
    return read_threads(topology, out);
}

/* Without hwloc's help: as many threads as sysconf() knows, and nothing about them. */
static dm_status count_threads(long (*ask)(int name), dm_hardware *out) {
    long n = ask(_SC_NPROCESSORS_ONLN);
    out->threads = n > 0 && n < INT32_MAX ? (int)n : 0;
    out->n_usable = out->threads > 0 ? (size_t)out->threads : 1; /* this one runs */
    out->usable = calloc(out->n_usable, sizeof *out->usable);
    if (out->usable == NULL) {
        return dm_fail(DM_ERR_MEMORY, "out of memory listing processors");
    }
    for (size_t t = 0; t < out->n_usable; t++) {
        out->usable[t].processor = out->usable[t].core = out->usable[t].node = -1;
        memset(out->usable[t].kind, -1, sizeof out->usable[t].kind);
    }
    return DM_OK;
}

static dm_status read_with_hwloc(const dm_hardware_source *source, dm_hardware *out, bool *known) {
    hwloc_topology_t topology;
    *known = false;
    if (hwloc_topology_init(&topology) != 0) {
        return dm_fail(DM_ERR_MEMORY, "out of memory asking for the machine's topology");
    }
    dm_status status = DM_OK;
    if (source->synthetic != NULL && hwloc_topology_set_synthetic(topology, source->synthetic) != 0) {
        status = dm_fail(DM_ERR_ARGUMENT, "'%s' describes no machine", source->synthetic);
    } else if (source->xml != NULL && hwloc_topology_set_xmlbuffer(topology, source->xml, (int)strlen(source->xml) + 1) != 0) {
        status = dm_fail(DM_ERR_ARGUMENT, "this XML describes no machine");
    } else if (hwloc_topology_load(topology) == 0) {
        *known = true;
        status = read_all(topology, out);
    }
    hwloc_topology_destroy(topology);
    return status;
}

dm_status dm_hardware_read(const dm_hardware_source *source, dm_hardware *out) {
    static const dm_hardware_source here = {NULL, NULL, sysconf};
    bool known;
    source = source != NULL ? source : &here;
    *out = (dm_hardware){.threads = 0};
    dm_status status = read_with_hwloc(source, out, &known);
    if (status == DM_OK && (!known || out->n_usable == 0)) {
        free(out->usable);
        out->usable = NULL;
        status = count_threads(source->ask, out);
    }
    if (status != DM_OK) {
        dm_hardware_free(out);
        return status;
    }
    if (out->n_caches == 0) {
        ask_for_caches(source->ask, out);
    }
    return DM_OK;
}

void dm_hardware_free(dm_hardware *hardware) {
    free(hardware->nodes);
    free(hardware->usable);
    *hardware = (dm_hardware){.threads = 0};
}
