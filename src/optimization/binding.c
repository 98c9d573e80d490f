#include "optimization/binding.h"

#include <sched.h>
#include <string.h>

#include "base/memory.h"
#include "base/pages.h"
#include "base/parallel.h"
#include "base/status.h"

dm_status dm_binding_from_name(const char *name, dm_binding *out) {
    static const char *const names[] = {[DM_BIND_AUTO] = "auto", [DM_BIND_NONE] = "none", [DM_BIND_CORES] = "cores"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(names[i], name) == 0) {
            *out = (dm_binding)i;
            return DM_OK;
        }
    }
    return dm_fail(DM_ERR_ARGUMENT, "threads cannot be bound to '%.40s', expected auto, none or cores", name);
}

/* The k-th usable hardware thread of a node, or n_usable: `usable` has first ones of cores before second ones. */
static size_t of_node(const dm_hardware *hardware, int node, size_t k) {
    size_t i = 0;
    for (; i < hardware->n_usable; i++) {
        if (hardware->usable[i].node == node && k-- == 0) {
            break;
        }
    }
    return i;
}

bool dm_binding_seats(const dm_hardware *hardware, size_t threads, size_t *seats) {
    for (size_t i = 0; i < hardware->n_usable; i++) {
        if (hardware->usable[i].node < 0 || hardware->usable[i].core < 0) {
            return false;
        }
    }
    for (size_t t = 0, turn = 0; t < threads && hardware->n_usable > 0; turn++) {
        size_t before = t;
        for (int node = 0; node < (int)hardware->n_nodes && t < threads; node++) {
            size_t seat = of_node(hardware, node, turn);
            if (seat < hardware->n_usable) {
                seats[t++] = seat;
            }
        }
        if (t == before) { /* all have been given away */
            for (; t < threads; t++) {
                seats[t] = seats[t - before];
            }
        }
    }
    return hardware->n_usable > 0;
}

/* All usable processors of a node. */
static void node_set(const dm_hardware *hardware, int node, cpu_set_t *out) {
    CPU_ZERO(out);
    for (size_t i = 0; i < hardware->n_usable; i++) {
        int processor = hardware->usable[i].processor;
        if (hardware->usable[i].node == node && processor >= 0 && processor < CPU_SETSIZE) {
            CPU_SET(processor, out);
        }
    }
}

static void bind_to_seats(const dm_hardware *hardware, dm_binding binding, size_t n, const size_t *seats, cpu_set_t *places) {
    for (size_t t = 0; t < n; t++) {
        const dm_hardware_thread *seat = &hardware->usable[seats[t]];
        if (binding == DM_BIND_CORES && t > 0 && seat->processor >= 0 && seat->processor < CPU_SETSIZE) {
            CPU_ZERO(&places[t]);
            CPU_SET(seat->processor, &places[t]);
        } else {
            node_set(hardware, seat->node, &places[t]);
        }
    }
    dm_parallel_bind(places, n);
}

static dm_status bind_on(const dm_hardware *hardware, dm_binding binding) {
    size_t n = (size_t)dm_threads();
    size_t *seats = dm_alloc(n, sizeof *seats);
    cpu_set_t *places = dm_alloc(n, sizeof *places);
    dm_status status = seats != NULL && places != NULL ? DM_OK : DM_ERR_MEMORY;
    if (status == DM_OK && dm_binding_seats(hardware, n, seats)) {
        bind_to_seats(hardware, binding, n, seats, places);
    }
    dm_free(seats);
    dm_free(places);
    return status;
}

dm_status dm_bind_threads(dm_binding binding) {
    dm_hardware hardware;
    dm_parallel_bind(NULL, 0); /* what may be used is what could be before */
    if (binding == DM_BIND_NONE || (binding == DM_BIND_AUTO && dm_pages_one_node())) {
        return DM_OK;
    }
    DM_TRY(dm_hardware_read(NULL, &hardware));
    dm_status status = binding == DM_BIND_CORES || hardware.n_nodes > 1 ? bind_on(&hardware, binding) : DM_OK;
    dm_hardware_free(&hardware);
    return status;
}
