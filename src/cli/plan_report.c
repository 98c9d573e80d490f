#include "cli/plan_report.h"

#include <stdio.h>
#include <unistd.h>

#include "base/status.h"
#include "cli/cli.h"
#include "optimization/placement.h"

static void print_text(const dm_placement *p) {
    for (size_t n = 0; n < p->n_nodes; n++) {
        const dm_node_share *s = &p->shares[n];
        printf("node %d: %d threads, %.1f MiB of what every token reads, %zu experts of %.1f MiB, of %.1f GiB\n", s->node,
               s->threads, (double)s->shared_bytes / 0x1p20, s->experts, (double)s->expert_bytes / 0x1p20,
               (double)s->memory / 0x1p30);
    }
    printf("experts of a layer take %.3f times as long as an even share; dealt out in turn, %.3f\n", p->imbalance, p->in_turn);
    if (p->n_nodes == 1) {
        printf("one node: there is nothing to place\n");
    } else if (!p->fits) {
        printf("the model does not fit: some node has less memory than this\n");
    }
}

static void print_json(const dm_placement *p) {
    json_t *nodes = json_array();
    for (size_t n = 0; n < p->n_nodes; n++) {
        const dm_node_share *s = &p->shares[n];
        json_array_append_new(nodes, json_pack("{s:i, s:i, s:I, s:I, s:I, s:I}", "node", s->node, "threads", s->threads, "memory",
                                               (json_int_t)s->memory, "shared_bytes", (json_int_t)s->shared_bytes, "expert_bytes",
                                               (json_int_t)s->expert_bytes, "experts", (json_int_t)s->experts));
    }
    cli_print_json(json_pack("{s:o, s:f, s:f, s:b}", "nodes", nodes, "imbalance", p->imbalance, "in_turn", p->in_turn, "fits",
                             (int)p->fits));
}

static dm_status plan(const dm_model *model, const char *machine, dm_placement *out) {
    const dm_hardware_source source = {.synthetic = machine, .ask = sysconf};
    dm_placement_demand demand;
    dm_hardware hardware;
    DM_TRY(dm_placement_demand_of(model, &demand));
    dm_status status = dm_hardware_read(&source, &hardware);
    if (status == DM_OK) {
        size_t threads = machine != NULL && hardware.cores > 0 ? (size_t)hardware.cores : (size_t)dm_threads();
        status = dm_placement_plan(&hardware, &demand, threads, out);
        dm_hardware_free(&hardware);
    }
    dm_placement_demand_free(&demand);
    return status;
}

int plan_print(const char *path, const char *machine) {
    dm_model *model;
    dm_placement placement;
    if (dm_model_open(path, &model) != DM_OK) {
        return cli_fail_status();
    }
    dm_status status = plan(model, machine, &placement);
    dm_model_close(model);
    if (status != DM_OK) {
        return cli_fail_status();
    }
    if (cli_json()) {
        print_json(&placement);
    } else {
        print_text(&placement);
    }
    dm_placement_free(&placement);
    return CLI_DONE;
}
