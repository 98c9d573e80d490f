/* Carries out the plan of placement.h: threads in groups, one for each memory node that has some, and a model's weights near
 * them. */
#include <string.h>
#include <unistd.h>

#include "base/pages.h"
#include "base/parallel.h"
#include "base/status.h"
#include "model/placed.h"
#include "model/repack.h"
#include "optimization/memory_limit.h"
#include "optimization/placement.h"

static const char *const names[] = {
    [DM_NUMA_AUTO] = "auto", [DM_NUMA_OFF] = "off", [DM_NUMA_SPREAD] = "spread", [DM_NUMA_MIRROR] = "mirror"};

dm_status dm_numa_from_name(const char *name, dm_numa *out) {
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(names[i], name) == 0) {
            *out = (dm_numa)i;
            return DM_OK;
        }
    }
    return dm_fail(DM_ERR_ARGUMENT, "weights cannot be placed '%.40s', expected auto, off, spread or mirror", name);
}

const char *dm_numa_name(dm_numa how) {
    return names[how];
}

/* Whether nodes have room to spare for copies of what every token reads. */
static bool affords_mirrors(const dm_placement *plan, uint64_t shared_bytes) {
    enum { OF_NODE = 4, OF_ALL = 2 }; /* one of so many parts of its memory, of what the process may still take */
    dm_memory memory;
    dm_memory_limit("", &memory);
    uint64_t all = 0;
    bool fits = plan->fits;
    for (size_t n = 0; n < plan->n_nodes; n++) {
        fits = fits && shared_bytes <= plan->shares[n].memory / OF_NODE;
        all += plan->shares[n].shared_bytes + plan->shares[n].expert_bytes;
    }
    return fits && (memory.usable == 0 || all <= memory.usable / OF_ALL);
}

/* *how becomes what is done. */
static dm_status make_plan(const dm_model *model, const dm_hardware *hardware, dm_numa *how, dm_placement *out) {
    dm_placement_demand demand;
    DM_TRY(dm_placement_demand_of(model, &demand));
    demand.mirrored = *how != DM_NUMA_SPREAD;
    dm_status status = dm_placement_plan(hardware, &demand, (size_t)dm_threads(), out);
    if (status == DM_OK && *how == DM_NUMA_AUTO) {
        *how = out->n_nodes < 2 ? DM_NUMA_OFF : affords_mirrors(out, demand.shared_bytes) ? DM_NUMA_MIRROR : DM_NUMA_SPREAD;
        if (*how == DM_NUMA_SPREAD) {
            dm_placement_free(out);
            demand.mirrored = false;
            status = dm_placement_plan(hardware, &demand, (size_t)dm_threads(), out);
        }
    }
    dm_placement_demand_free(&demand);
    return status;
}

/* Nodes of another machine are none of the system's. */
static dm_status carry_out(dm_model *model, const dm_placement *plan, bool mirrored, bool here) {
    int32_t nodes[DM_MOST_GROUPS];
    const size_t threads = (size_t)dm_threads();
    if (plan->n_nodes > DM_MOST_GROUPS) {
        return dm_fail(DM_ERR_UNSUPPORTED, "weights can be placed on up to %d memory nodes; there are %zu", DM_MOST_GROUPS,
                       plan->n_nodes);
    }
    for (size_t n = 0; n < plan->n_nodes; n++) {
        nodes[n] = here ? plan->shares[n].node : -1;
    }
    if (!dm_parallel_set_groups(plan->group, threads < DM_MOST_THREADS ? threads : DM_MOST_THREADS, nodes, plan->n_nodes)) {
        return dm_fail(DM_ERR_ARGUMENT, "another model is placed for other threads or memory nodes; close it before");
    }
    return dm_placed_create(model, plan->home, mirrored, &model->placed);
}

static dm_status place(dm_model *model, dm_numa how, const char *machine) {
    const dm_hardware_source source = {.synthetic = machine, .ask = sysconf};
    dm_hardware hardware;
    dm_placement plan = {0};
    if (machine == NULL && dm_pages_one_node()) {
        return DM_OK;
    }
    dm_parallel_roam(true); /* what may be used is what could be before threads were bound */
    dm_status status = dm_hardware_read(&source, &hardware);
    dm_parallel_roam(false);
    DM_TRY(status);
    if (hardware.n_nodes < 2) {
        dm_hardware_free(&hardware);
        return DM_OK;
    }
    const bool asked = how != DM_NUMA_AUTO;
    status = make_plan(model, &hardware, &how, &plan);
    dm_hardware_free(&hardware);
    if (status == DM_OK && plan.n_nodes > 1) {
        status = carry_out(model, &plan, how == DM_NUMA_MIRROR, machine == NULL);
    }
    dm_placement_free(&plan);
    return asked || status == DM_ERR_MEMORY ? status : DM_OK; /* what cannot be done is left out, if nobody asked for it */
}

dm_status dm_model_place(dm_model *model, dm_numa how, const char *machine) {
    const bool was = model->placed != NULL;
    dm_placed_free(model->placed);
    model->placed = NULL;
    dm_status status = how != DM_NUMA_OFF ? place(model, how, machine) : DM_OK;
    if (was || model->placed != NULL) {
        dm_repack_forget(model);
    }
    return status;
}

/* ---- What was done ---- */

dm_numa dm_model_numa(const dm_model *model) {
    return model->placed == NULL ? DM_NUMA_OFF : dm_placed_mirrored(model) ? DM_NUMA_MIRROR : DM_NUMA_SPREAD;
}

size_t dm_model_nodes(const dm_model *model) {
    return model->placed != NULL ? dm_parallel_groups() : 0;
}

void dm_model_node(const dm_model *model, size_t number, dm_node_use *out) {
    *out = (dm_node_use){.node = dm_parallel_node(number), .bytes = dm_placed_bytes(model, number)};
    for (int t = 0; t < dm_threads(); t++) {
        out->threads += dm_parallel_group(t) == number;
    }
    for (int32_t l = 0; l < model->config.n_layers; l++) {
        for (int32_t e = 0; e < model->config.n_experts && dm_placed_expert(model, l, DM_FFN_DOWN_EXPS, e) != NULL; e++) {
            out->experts += dm_placed_home(model, l, e) == number;
        }
    }
    dm_parallel_counts(number, &out->own_work, &out->foreign_work);
    dm_placed_pages(model, number, &out->pages_there, &out->pages_elsewhere);
}
