/* dilmodeli repack: keep a model's weights on disk as the kernels read them. */
#include <stdio.h>

#include "cli/cli.h"

static const cli_usage usage = {
    .synopsis = "dilmodeli repack MODEL",
    .summary = "Keeps the weights of a quantized model on disk as this program's kernels read them, in MODEL.panels, so that\n"
               "run, eval and bench map them instead of repacking them each time, and processes share them. The file is\n"
               "about as large as the model. It goes to ~/.cache/dilmodeli/panels where the model's folder cannot be\n"
               "written, is not used once the model has changed, and can be deleted at any time.",
    .example = "  dilmodeli repack model.gguf",
    .min_arguments = 1,
    .max_arguments = 1,
};

int cmd_repack(int argc, char **argv) {
    int n, status;
    if (!cli_parse(&usage, argc, argv, &n, &status)) {
        return status;
    }
    dm_model *model = NULL;
    char path[4096];
    uint64_t bytes;
    if (dm_model_open(argv[0], &model) != DM_OK || dm_model_keep(model, path, sizeof path, &bytes) != DM_OK) {
        status = cli_fail_status();
    } else if (cli_json()) {
        cli_print_json(json_pack("{s:s, s:I}", "path", path, "bytes", (json_int_t)bytes));
    } else {
        printf("%.2f MB are kept in %s\n", 1e-6 * (double)bytes, path);
    }
    dm_model_close(model);
    return status;
}
