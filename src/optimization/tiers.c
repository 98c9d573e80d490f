/*
 * Working sets. Of a cache: the geometric mean of its size and of the size of the one before it, as far from both as can be, and
 * of the first one half. Of main memory: four times the last cache, so that it answers a quarter of the reads at random places
 * at most (half, of a cache above 256 MiB), and twice where several threads only read in sequence. What these read shares the
 * caches that they have in common.
 */
#include "optimization/tiers.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/threads.h"
#include "optimization/memory_limit.h"
#include "optimization/memory_speed.h"

enum { PAGE = 4096 };
static const double cache_seconds = 0.15, memory_seconds = 0.4; /* for each figure */
static const double least_memory = 256 << 20;                   /* of all threads, where caches are smaller or unknown */
static const double large_memory = 1 << 30;                     /* of each */

/* ---- What there is ---- */

dm_status dm_tiers_list(const dm_hardware *hardware, dm_tier **tiers, size_t *n) {
    *n = (size_t)hardware->n_caches + 1;
    *tiers = calloc(*n, sizeof **tiers);
    if (*tiers == NULL) {
        *n = 0;
        return dm_fail(DM_ERR_MEMORY, "out of memory listing caches");
    }
    for (size_t i = 0; i < *n; i++) {
        dm_tier *tier = &(*tiers)[i];
        *tier = (dm_tier){.bandwidth_gb_s = NAN, .total_bandwidth_gb_s = NAN, .latency_ns = NAN};
        if (i + 1 < *n) {
            const dm_cache_kind *kind = &hardware->caches[i];
            tier->level = kind->level;
            tier->bytes = kind->bytes;
            tier->shared_by = kind->shared_by;
            tier->count = kind->count;
            snprintf(tier->name, sizeof tier->name, "L%d", kind->level);
        } else {
            tier->bytes = hardware->memory;
            tier->shared_by = hardware->threads;
            tier->count = 1;
            snprintf(tier->name, sizeof tier->name, "RAM");
        }
    }
    return DM_OK;
}

int dm_tiers_threads(const dm_hardware *hardware) {
    int wanted = dm_threads();
    return (size_t)wanted < hardware->n_usable ? wanted : (int)hardware->n_usable;
}

/* ---- Working sets ---- */

/* Whether a tier serves a usable thread. Main memory serves all. */
static bool serves(const dm_hardware *hardware, int tier, const dm_hardware_thread *thread) {
    return tier == hardware->n_caches || thread->kind[hardware->caches[tier].level - 1] == tier;
}

/* How many of the first `threads` usable threads share the cache of this level with thread number t, itself included. */
static int sharers(const dm_hardware *hardware, int level, int t, int threads) {
    const dm_hardware_thread *own = &hardware->usable[t];
    int n = 0;
    for (int i = 0; i < threads; i++) {
        const dm_hardware_thread *other = &hardware->usable[i];
        n += other->kind[level - 1] == own->kind[level - 1] && other->unit[level - 1] == own->unit[level - 1];
    }
    return n;
}

/* Bytes that thread number t has of the cache of a level, or of the nearest below it that is known; 0 where none is. */
static double share(const dm_hardware *hardware, int level, int t, int threads) {
    for (; level >= 1; level--) {
        int kind = hardware->usable[t].kind[level - 1];
        if (kind >= 0) {
            int n = threads > 1 ? sharers(hardware, level, t, threads) : 1;
            return (double)hardware->caches[kind].bytes / n;
        }
    }
    return 0;
}

static double cache_set(const dm_hardware *hardware, int tier, int t, int threads) {
    int level = hardware->caches[tier].level;
    double own = share(hardware, level, t, threads), inner = share(hardware, level - 1, t, threads);
    if (threads > 1 && hardware->caches[tier].shared_by == 0) {
        return 0; /* nobody tells what each thread has of it */
    }
    return inner == 0 ? own / 2 : own >= 2 * inner ? sqrt(own * inner) : 0;
}

/* Half as much where memory is short, or the cache so large that preparing would take seconds, but not less than twice the last
 * cache. */
static double memory_set(const dm_hardware *hardware, int t, int threads, uint64_t usable) {
    double last = share(hardware, DM_CACHE_LEVELS, t, threads), most = (double)usable / threads;
    double wanted = fmax((threads > 1 ? 2 : 4) * last, least_memory / threads);
    if (wanted > fmin(most / 4, large_memory)) {
        wanted = fmax(2 * last, least_memory / 4 / threads);
    }
    return wanted <= most / 2 ? wanted : 0;
}

size_t dm_tier_working_set(const dm_hardware *hardware, int tier, int threads, uint64_t usable) {
    double least = INFINITY, most = 0;
    for (int t = 0; t < (threads > 1 ? threads : (int)hardware->n_usable); t++) {
        if (serves(hardware, tier, &hardware->usable[t])) {
            double set =
                tier == hardware->n_caches ? memory_set(hardware, t, threads, usable) : cache_set(hardware, tier, t, threads);
            least = fmin(least, set);
            most = fmax(most, set);
        }
    }
    double bytes = tier == hardware->n_caches && least > 0 ? most : least;
    return isfinite(bytes) && bytes > 0 ? (size_t)fmax(bytes / PAGE, 1) * PAGE : 0;
}

/* ---- Measuring ---- */

/* The processors of those of the first `threads` usable threads that a tier serves, or of the first usable one that it
 * serves; returns how many. */
static int choose(const dm_hardware *hardware, int tier, int threads, int *processors) {
    int n = 0;
    for (int t = 0; t < (threads > 1 ? threads : (int)hardware->n_usable) && (threads > 1 || n == 0); t++) {
        if (serves(hardware, tier, &hardware->usable[t])) {
            processors[n++] = hardware->usable[t].processor;
        }
    }
    return n;
}

/* NaN throughout where there is no working set or no memory for it, which is no failure. */
static dm_status measure(const dm_hardware *hardware, int tier, int threads, uint64_t usable, int *processors,
                         dm_memory_speed *out) {
    *out = (dm_memory_speed){NAN, NAN, false};
    bool memory = tier == hardware->n_caches;
    dm_readers readers = {.threads = choose(hardware, tier, threads, processors),
                          .processors = processors,
                          .bytes = dm_tier_working_set(hardware, tier, threads, usable),
                          .line = memory ? 0 : (size_t)hardware->caches[tier].line,
                          .seconds = memory ? memory_seconds : cache_seconds};
    if (memory && hardware->n_caches > 0) {
        readers.line = (size_t)hardware->caches[hardware->n_caches - 1].line;
    }
    if (readers.threads == 0 || readers.bytes == 0) {
        return DM_OK;
    }
    dm_status status = dm_memory_speed_measure(&readers, out);
    if (status == DM_ERR_MEMORY) {
        *out = (dm_memory_speed){NAN, NAN, false};
        return DM_OK;
    }
    return status;
}

static dm_status measure_tier(const dm_hardware *hardware, int tier, uint64_t usable, int *processors, dm_tier *out) {
    int threads = dm_tiers_threads(hardware);
    dm_memory_speed speed;
    DM_TRY(measure(hardware, tier, 1, usable, processors, &speed));
    out->bandwidth_gb_s = speed.bandwidth_gb_s;
    out->latency_ns = speed.latency_ns;
    out->huge_pages = speed.huge_pages;
    if (threads > 1) {
        DM_TRY(measure(hardware, tier, threads, usable, processors, &speed));
    }
    out->total_bandwidth_gb_s = speed.bandwidth_gb_s;
    return DM_OK;
}

dm_status dm_tiers_measure(const dm_hardware *hardware, uint64_t usable, dm_topology_fn on_step, void *user, dm_tier *tiers) {
    int *processors = calloc(hardware->n_usable, sizeof *processors);
    dm_status status = processors != NULL ? DM_OK : dm_fail(DM_ERR_MEMORY, "out of memory listing processors");
    for (int i = 0; i <= hardware->n_caches && status == DM_OK; i++) {
        if (on_step != NULL) {
            on_step(user, tiers[i].name);
        }
        status = measure_tier(hardware, i, usable, processors, &tiers[i]);
    }
    free(processors);
    return status;
}

double dm_main_memory_bandwidth(void) {
    dm_hardware hardware;
    dm_memory memory;
    dm_memory_speed speed = {NAN, NAN, false};
    if (dm_hardware_read(NULL, &hardware) != DM_OK) {
        return 0;
    }
    dm_memory_limit("", &memory);
    int *processors = calloc(hardware.n_usable, sizeof *processors);
    if (processors != NULL) {
        dm_status status = measure(&hardware, hardware.n_caches, dm_tiers_threads(&hardware), memory.usable, processors, &speed);
        speed.bandwidth_gb_s = status == DM_OK ? speed.bandwidth_gb_s : NAN;
    }
    free(processors);
    dm_hardware_free(&hardware);
    return isfinite(speed.bandwidth_gb_s) ? speed.bandwidth_gb_s : 0;
}
