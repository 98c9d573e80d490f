/* `dilmodeli inspect`: what is in a GGUF file, of any architecture and type. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "model/expert_layout.h"
#include "model/mixed_tensor.h"

enum { N_TYPES = 64 };
#define MIXED "mixed"

typedef struct type_total {
    uint64_t tensors, bytes, elements;
} type_total;

typedef struct inspection {
    dm_gguf *file;
    char arch[64], name[128];
    bool is_model; /* of a shape that is known here; info is set */
    dm_model_info info;
    char problem[512];   /* why it is not */
    char kept[4096];     /* where its weights are kept, or why what is there is of no use; empty: nowhere */
    uint64_t kept_bytes; /* 0: it is of no use */
    const char *layout;  /* of experts; NULL: there are none, or the model does not open */
    uint64_t params;
    uint64_t bytes; /* of all tensors */
    type_total types[N_TYPES];
    type_total mixed; /* tensors of mixed-width panels, which to GGUF are bytes */
    dm_mixed_totals widths;
} inspection;

/* ---- Looking ---- */

static void read_text(const dm_gguf *file, const char *key, char *text, size_t size) {
    dm_gguf_string string;
    text[0] = '\0';
    if (dm_gguf_get_string(file, key, &string) == DM_OK) {
        dm_gguf_clean_text(string, text, size);
    }
}

/* What takes the whole model to tell. */
static void look_inside(inspection *it, const char *path) {
    dm_model *model;
    if (dm_model_open(path, &model) != DM_OK) {
        return;
    }
    it->layout = dm_expert_layout_name(dm_model_expert_layout(model));
    if (dm_model_kept(model, it->kept, sizeof it->kept, &it->kept_bytes) != DM_OK) {
        snprintf(it->kept, sizeof it->kept, "%s", dm_error_message());
    }
    dm_model_close(model);
}

static void look_at_model(inspection *it, const char *path) {
    dm_config config;
    if (dm_config_read(it->file, &config) != DM_OK) {
        const char *message = dm_error_message();
        size_t length = strlen(path);
        bool repeats = strncmp(message, path, length) == 0 && strncmp(message + length, ": ", 2) == 0;
        snprintf(it->problem, sizeof it->problem, "%s", message + (repeats ? length + 2 : 0));
        return;
    }
    it->is_model = true;
    dm_config_info(&config, &it->info);
    look_inside(it, path);
}

static double bits_per_weight(uint64_t bytes, uint64_t elements) {
    return elements > 0 ? 8.0 * (double)bytes / (double)elements : 0.0;
}

/* False for a tensor of another type, and for one that is damaged: it is then what GGUF takes it for. */
static bool measure_mixed(const dm_gguf_tensor *tensor, dm_mixed_totals *out) {
    *out = (dm_mixed_totals){0};
    return dm_tensor_is_mixed(tensor) && dm_mixed_measure(tensor->data, (size_t)tensor->bytes, out) == DM_OK;
}

static void count(type_total *total, uint64_t bytes, uint64_t elements) {
    total->tensors++;
    total->bytes += bytes;
    total->elements += elements;
}

static uint64_t tiles_of(const dm_mixed_totals *totals) {
    uint64_t tiles = totals->pruned;
    for (int i = 0; i < DM_MIXED_WIDTHS; i++) {
        tiles += totals->tiles[i];
    }
    return tiles;
}

static void add_widths(dm_mixed_totals *all, const dm_mixed_totals *one) {
    all->pruned += one->pruned;
    for (int i = 0; i < DM_MIXED_WIDTHS; i++) {
        all->tiles[i] += one->tiles[i];
    }
}

static void look(inspection *it, const char *path) {
    read_text(it->file, "general.architecture", it->arch, sizeof it->arch);
    read_text(it->file, "general.name", it->name, sizeof it->name);
    for (size_t i = 0; i < dm_gguf_n_tensors(it->file); i++) {
        const dm_gguf_tensor *tensor = dm_gguf_tensor_at(it->file, i);
        dm_mixed_totals mixed;
        it->bytes += tensor->bytes;
        if (measure_mixed(tensor, &mixed)) {
            count(&it->mixed, tensor->bytes, mixed.weights);
            add_widths(&it->widths, &mixed);
            it->params += mixed.weights;
            continue;
        }
        it->params += tensor->elements;
        if ((uint32_t)tensor->type < N_TYPES) {
            count(&it->types[tensor->type], tensor->bytes, tensor->elements);
        }
    }
    look_at_model(it, path);
}

/* ---- JSON ---- */

/* Numbers, truths and strings as such; arrays, which may be long, as the text that people see. */
static json_t *json_value(const dm_gguf *file, size_t index, const char *key, dm_gguf_kind kind) {
    dm_gguf_string string;
    if (kind == DM_GGUF_STRING && dm_gguf_get_string(file, key, &string) == DM_OK) {
        return cli_json_text(string.bytes, (size_t)string.length);
    }
    char text[1024];
    dm_gguf_describe(file, index, text, sizeof text);
    json_t *number = kind == DM_GGUF_ARRAY ? NULL : json_loads(text, JSON_DECODE_ANY, NULL);
    return number != NULL ? number : json_string(text); /* a number that JSON has no words for, such as nan, too */
}

static json_t *json_metadata(const dm_gguf *file) {
    json_t *object = json_object();
    for (size_t i = 0; i < dm_gguf_n_values(file); i++) {
        dm_gguf_kind kind;
        const char *key = dm_gguf_key_at(file, i, &kind);
        json_object_set_new(object, key, json_value(file, i, key, kind));
    }
    return object;
}

static void set_integer(json_t *object, const char *key, uint64_t value) {
    json_object_set_new(object, key, json_integer((json_int_t)value));
}

/* Shares of all weights by bits: {"0": 0.3, "4": 0.7}. */
static json_t *json_widths(const dm_mixed_totals *totals) {
    const double all = (double)tiles_of(totals);
    json_t *object = json_object();
    if (totals->pruned > 0) {
        json_object_set_new(object, "0", json_real((double)totals->pruned / all));
    }
    for (int i = 0; i < DM_MIXED_WIDTHS; i++) {
        if (totals->tiles[i] > 0) {
            char bits[] = {(char)('0' + dm_mixed_bits(i)), '\0'};
            json_object_set_new(object, bits, json_real((double)totals->tiles[i] / all));
        }
    }
    return object;
}

static json_t *json_tensors(const dm_gguf *file) {
    json_t *array = json_array();
    for (size_t i = 0; i < dm_gguf_n_tensors(file); i++) {
        const dm_gguf_tensor *tensor = dm_gguf_tensor_at(file, i);
        json_t *dims = json_array();
        for (uint32_t d = 0; d < tensor->n_dims; d++) {
            json_array_append_new(dims, json_integer((json_int_t)tensor->dims[d]));
        }
        dm_mixed_totals mixed;
        const bool is_mixed = measure_mixed(tensor, &mixed);
        const char *type = is_mixed ? MIXED : dm_type_name((uint32_t)tensor->type);
        json_t *object = json_pack("{s:s, s:s, s:o, s:I}", "name", tensor->name, "type", type, "dims", dims, "bytes",
                                   (json_int_t)tensor->bytes);
        if (is_mixed) {
            set_integer(object, "weights", mixed.weights);
            json_object_set_new(object, "widths", json_widths(&mixed));
        }
        json_array_append_new(array, object);
    }
    return array;
}

static json_t *json_total(const type_total *total) {
    return json_pack("{s:I, s:I, s:f}", "tensors", (json_int_t)total->tensors, "bytes", (json_int_t)total->bytes, "bpw",
                     bits_per_weight(total->bytes, total->elements));
}

static json_t *json_types(const inspection *it) {
    json_t *object = json_object();
    if (it->mixed.tensors > 0) {
        json_t *mixed = json_total(&it->mixed);
        json_object_set_new(mixed, "widths", json_widths(&it->widths));
        json_object_set_new(object, MIXED, mixed);
    }
    for (uint32_t type = 0; type < N_TYPES; type++) {
        if (it->types[type].tensors > 0) {
            json_object_set_new(object, dm_type_name(type), json_total(&it->types[type]));
        }
    }
    return object;
}

static json_t *json_shape(const dm_model_info *info) {
    json_t *shape = json_object();
    const struct {
        const char *key;
        int32_t value;
    } fields[] = {
        {"layers", info->layers},     {"dim", info->dim},           {"heads", info->heads},
        {"kv_heads", info->kv_heads}, {"head_dim", info->head_dim}, {"ffn_dim", info->ffn_dim},
        {"experts", info->experts},   {"top_k", info->top_k},       {"expert_dim", info->expert_dim},
        {"vocab", info->vocab},       {"context", info->context},   {"shared_dim", info->shared_dim},
        {"window", info->window},
    };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        set_integer(shape, fields[i].key, (uint64_t)fields[i].value);
    }
    return shape;
}

static void print_json(const inspection *it) {
    json_t *object = json_object();
    json_object_set_new(object, "arch", json_string(it->arch));
    json_object_set_new(object, "name", json_string(it->name));
    set_integer(object, "version", dm_gguf_version(it->file));
    set_integer(object, "bytes", dm_gguf_size(it->file));
    set_integer(object, "params", it->params);
    json_object_set_new(object, "bpw", json_real(bits_per_weight(it->bytes, it->params)));
    if (it->is_model) {
        set_integer(object, "active_params", it->info.active_params);
        json_object_set_new(object, "shape", json_shape(&it->info));
        if (it->layout != NULL) {
            json_object_set_new(object, "layout", json_string(it->layout));
        }
        if (it->kept[0] != '\0') {
            const char *key = it->kept_bytes > 0 ? "path" : "problem";
            json_object_set_new(object, "kept", json_pack("{s:s, s:I}", key, it->kept, "bytes", (json_int_t)it->kept_bytes));
        }
    } else {
        json_object_set_new(object, "problem", cli_json_text(it->problem, strlen(it->problem)));
    }
    json_object_set_new(object, "types", json_types(it));
    json_object_set_new(object, "metadata", json_metadata(it->file));
    json_object_set_new(object, "tensors", json_tensors(it->file));
    cli_print_json(object);
}

/* ---- Text ---- */

typedef struct amount {
    char text[24];
} amount;

/* 1234567 as "1.23 M" */
static amount short_number(uint64_t value) {
    static const char *const units[] = {" ", " K", " M", " G", " T", " P", " E"};
    double scaled = (double)value;
    size_t unit = 0;
    while (scaled >= 999.5 && unit + 1 < sizeof units / sizeof *units) {
        scaled /= 1000;
        unit++;
    }
    amount out;
    int digits = unit == 0 || scaled >= 99.95 ? 0 : scaled >= 9.995 ? 1 : 2;
    snprintf(out.text, sizeof out.text, "%.*f%s", digits, scaled, units[unit]);
    return out;
}

static void print_shape(const dm_model_info *info) {
    printf("shape         %" PRId32 " layers, dim %" PRId32 ", %" PRId32 " heads of %" PRId32 " (%" PRId32
           " for keys and values), vocabulary %" PRId32 ", context %" PRId32 "\n",
           info->layers, info->dim, info->heads, info->head_dim, info->kv_heads, info->vocab, info->context);
    if (info->experts > 0) {
        printf("experts       %" PRId32 " of %" PRId32 " in each layer, %" PRId32 " for a token\n", info->experts,
               info->expert_dim, info->top_k);
    } else {
        printf("feed-forward  %" PRId32 "\n", info->ffn_dim);
    }
}

static void print_layout(const char *layout) {
    const char *means = strcmp(layout, "streaming") == 0 ? "each expert is one aligned read"
                        : strcmp(layout, "apart") == 0   ? "each matrix of an expert is a tensor of its own"
                                                         : "stacked, all experts of a layer in one tensor";
    printf("layout        %s: %s\n", layout, means);
}

static void print_type(const char *name, const type_total *total) {
    if (total->tensors > 0) {
        printf(" %s (%" PRIu64 " x, %sB, %.4g bits)", name, total->tensors, short_number(total->bytes).text,
               bits_per_weight(total->bytes, total->elements));
    }
}

/* "0 bits 30%, 4 bits 70%" */
static void print_widths(const dm_mixed_totals *totals) {
    const double all = (double)tiles_of(totals);
    const char *separator = "\nwidths        ";
    for (int i = -1; i < DM_MIXED_WIDTHS; i++) {
        const uint64_t tiles = i < 0 ? totals->pruned : totals->tiles[i];
        if (tiles > 0) {
            printf("%s%d bits %.1f%%", separator, i < 0 ? 0 : dm_mixed_bits(i), 100.0 * (double)tiles / all);
            separator = ", ";
        }
    }
}

static void print_summary(const inspection *it, const char *path) {
    printf("file          %s, GGUF version %" PRIu32 ", %sB\n", path, dm_gguf_version(it->file),
           short_number(dm_gguf_size(it->file)).text);
    printf("architecture  %s%s%s%s\n", it->arch[0] != '\0' ? it->arch : "not stated", it->name[0] != '\0' ? " (" : "", it->name,
           it->name[0] != '\0' ? ")" : "");
    printf("parameters    %s", short_number(it->params).text);
    if (it->is_model) {
        printf(", %s of them active for a token\n", short_number(it->info.active_params).text);
        print_shape(&it->info);
        if (it->layout != NULL) {
            print_layout(it->layout);
        }
    } else {
        printf("\nnote          %s\n", it->problem);
    }
    printf("types        ");
    for (uint32_t type = 0; type < N_TYPES; type++) {
        print_type(dm_type_name(type), &it->types[type]);
    }
    print_type(MIXED, &it->mixed);
    print_widths(&it->widths);
    if (it->params > 0) {
        printf("\nbits          %.2f per weight\n", bits_per_weight(it->bytes, it->params));
    } else {
        printf(" no tensors\n");
    }
    if (it->kept[0] != '\0') {
        printf("repacked      %s%s%s\n", it->kept_bytes > 0 ? short_number(it->kept_bytes).text : "",
               it->kept_bytes > 0 ? "B in " : "", it->kept);
    }
}

static void print_metadata(const dm_gguf *file) {
    printf("metadata (%zu)\n", dm_gguf_n_values(file));
    for (size_t i = 0; i < dm_gguf_n_values(file); i++) {
        dm_gguf_kind kind;
        const char *key = dm_gguf_key_at(file, i, &kind);
        char text[100];
        dm_gguf_describe(file, i, text, sizeof text);
        printf("  %-44s %-7s %s\n", key, dm_gguf_kind_name((uint32_t)kind), text);
    }
}

static void print_tensors(const dm_gguf *file) {
    printf("tensors (%zu)\n", dm_gguf_n_tensors(file));
    for (size_t i = 0; i < dm_gguf_n_tensors(file); i++) {
        const dm_gguf_tensor *tensor = dm_gguf_tensor_at(file, i);
        char shape[96] = "1";
        size_t used = 0;
        for (uint32_t d = 0; d < tensor->n_dims; d++) {
            used += (size_t)snprintf(shape + used, sizeof shape - used, "%s%" PRIu64, d > 0 ? " x " : "", tensor->dims[d]);
        }
        dm_mixed_totals mixed;
        if (measure_mixed(tensor, &mixed)) {
            snprintf(shape, sizeof shape, "%s x %.2f bits", short_number(mixed.weights).text,
                     bits_per_weight(tensor->bytes, mixed.weights));
        }
        printf("  %-44s %-7s %-24s %sB\n", tensor->name, mixed.matrices > 0 ? MIXED : dm_type_name((uint32_t)tensor->type), shape,
               short_number(tensor->bytes).text);
    }
}

/* ---- The command ---- */

int cmd_inspect(int argc, char **argv) {
    bool tensors = false, metadata = false, summary = false;
    const cli_option options[] = {
        {"summary", 0, CLI_FLAG, &summary, NULL, "the summary only; these three add up, and without any all is shown"},
        {"metadata", 0, CLI_FLAG, &metadata, NULL, "the metadata only"},
        {"tensors", 0, CLI_FLAG, &tensors, NULL, "the tensors only"},
    };
    const cli_usage usage = {
        "dilmodeli inspect FILE.gguf [options]",
        "Shows what is in a GGUF file: architecture, shape, metadata, tensors with their types and sizes.",
        "  dilmodeli inspect model.gguf --summary",
        options,
        sizeof options / sizeof *options,
        1,
        1,
    };
    int n, status;
    if (!cli_parse(&usage, argc, argv, &n, &status)) {
        return status;
    }
    inspection it = {0};
    if (dm_gguf_open(argv[0], &it.file) != DM_OK) {
        return cli_fail_status();
    }
    look(&it, argv[0]);
    bool all = !summary && !metadata && !tensors;
    if (cli_json()) {
        print_json(&it);
    } else {
        if (all || summary) {
            print_summary(&it, argv[0]);
        }
        if (all || metadata) {
            print_metadata(it.file);
        }
        if (all || tensors) {
            print_tensors(it.file);
        }
    }
    dm_gguf_close(it.file);
    return CLI_DONE;
}
