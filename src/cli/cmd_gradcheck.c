/* dilmodeli gradcheck: judge one backward pass. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"

static const char *ids_file;
static dm_gradcheck_options option = {.precision = "f32"};

static const cli_option options[] = {
    {"ids", 'i', CLI_STRING, &ids_file, "FILE", "token ids; each is predicted from those before it"},
    {"aux", 'a', CLI_FLOAT, &option.aux, "C", "add C times the Switch balancing loss"},
    {"balance-loss", 0, CLI_FLOAT, &option.balance_loss, "C", "add C times the loss of uneven soft loads"},
    {"cache-reward", 0, CLI_FLOAT, &option.cache_reward, "C", "take off C times the reward of resident experts"},
    {"swarm-reward", 0, CLI_FLOAT, &option.swarm_reward, "C", "take off C times the reward of alignment with 7 neighbours"},
    {"ref", 'r', CLI_STRING, &option.reference, "GRAD.gguf", "gradients to compare with; without, finite differences"},
    {"precision", 0, CLI_STRING, &option.precision, "P", "operands of the products: f32 or bf16"},
};

static const cli_usage usage = {
    .synopsis = "dilmodeli gradcheck MODEL --ids FILE [--aux C] [--balance-loss C]... [--ref GRAD.gguf]",
    .summary = "Runs one forward and backward pass and compares the gradients with a reference, or with finite differences.\n"
               "The relative error of a tensor is the norm of the difference over the norm of the reference.",
    .example = "  dilmodeli gradcheck model.gguf --ids ids.txt --aux 0.01 --ref gradients.gguf",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .min_arguments = 1,
    .max_arguments = 1,
};

static void print_text(const dm_gradcheck_result *r) {
    printf("%-40s %s\n", "tensor", "relative error");
    for (size_t i = 0; i < r->n_tensors; i++) {
        printf("%-40s %.3e\n", r->tensors[i].name, r->tensors[i].relative_error);
    }
    printf("\nloss                %.6f\n", r->loss);
    printf("cross-entropy       %.6f nats per token\n", r->cross_entropy);
    printf("balancing loss      %.6f\n", r->aux_loss);
    printf("max relative error  %.3e\n", r->max_relative_error);
}

static void print_json(const dm_gradcheck_result *r) {
    json_t *tensors = json_array();
    for (size_t i = 0; i < r->n_tensors; i++) {
        json_t *tensor = json_object();
        json_object_set_new(tensor, "name", cli_json_text(r->tensors[i].name, strlen(r->tensors[i].name)));
        json_object_set_new(tensor, "relative_error", cli_json_figure(r->tensors[i].relative_error));
        json_array_append_new(tensors, tensor);
    }
    json_t *object = json_object();
    json_object_set_new(object, "loss", cli_json_figure(r->loss));
    json_object_set_new(object, "cross_entropy", cli_json_figure(r->cross_entropy));
    json_object_set_new(object, "aux_loss", cli_json_figure(r->aux_loss));
    json_object_set_new(object, "max_relative_error", cli_json_figure(r->max_relative_error));
    json_object_set_new(object, "tensors", tensors);
    cli_print_json(object);
}

int cmd_gradcheck(int argc, char **argv) {
    int n, status;
    if (!cli_parse(&usage, argc, argv, &n, &status)) {
        return status;
    }
    if (ids_file == NULL) {
        return cli_usage_error("expected --ids FILE");
    }
    int32_t *ids;
    size_t count;
    if (!cli_read_ids(ids_file, &ids, &count)) {
        return CLI_FAILED;
    }
    dm_gradcheck_result result;
    dm_status done = dm_gradcheck(argv[0], ids, count, &option, &result);
    free(ids);
    if (done != DM_OK) {
        return cli_fail_status();
    }
    if (cli_json()) {
        print_json(&result);
    } else {
        print_text(&result);
    }
    free(result.tensors);
    return CLI_DONE;
}
