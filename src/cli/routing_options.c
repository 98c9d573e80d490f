#include "cli/routing_options.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "moe/expert_store.h"
#include "optimization/memory_limit.h"

cli_routing_values cli_routing;

static const cli_option table[] = {CLI_ROUTING_OPTIONS};
enum { N_OPTIONS = sizeof table / sizeof *table };

static cli_routing_values usual_values(void) {
    const dm_router_options usual = dm_router_default();
    return (cli_routing_values){.policy = "model", .payoff = "gate", .keep_top = usual.keep_top, .sweeps = usual.sweeps};
}

void cli_routing_defaults(void) {
    cli_routing = usual_values();
}

static bool is_same_text(const char *a, const char *b) {
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

/* Whether an option of the table has its default. */
static bool is_usual(const cli_option *option) {
    const cli_routing_values usual = usual_values();
    const void *other = (const char *)&usual + ((const char *)option->value - (const char *)&cli_routing);
    switch (option->kind) {
    case CLI_FLAG:
        return *(const bool *)option->value == *(const bool *)other;
    case CLI_INT:
        return *(const int64_t *)option->value == *(const int64_t *)other;
    case CLI_FLOAT:
        return *(const double *)option->value == *(const double *)other;
    case CLI_STRING:
    case CLI_LIST:
        break;
    }
    return is_same_text(*(const char *const *)option->value, *(const char *const *)other);
}

bool cli_routing_given(void) {
    bool usual = true;
    for (size_t i = 0; i < N_OPTIONS; i++) {
        usual = usual && is_usual(&table[i]);
    }
    return !usual;
}

/* Some have a star, which a shell would take for itself. */
static void print_text(FILE *out, const char *name, const char *text) {
    if (text != NULL) {
        fprintf(out, strchr(text, '*') != NULL ? " --%s '%s'" : " --%s %s", name, text);
    }
}

static void print_option(FILE *out, const cli_option *option) {
    switch (option->kind) {
    case CLI_FLAG:
        fprintf(out, " --%s", option->name);
        break;
    case CLI_INT:
        fprintf(out, " --%s %" PRId64, option->name, *(const int64_t *)option->value);
        break;
    case CLI_FLOAT:
        fprintf(out, " --%s %.10g", option->name, *(const double *)option->value);
        break;
    case CLI_STRING:
    case CLI_LIST:
        print_text(out, option->name, *(const char *const *)option->value);
        break;
    }
}

char *cli_routing_line(void) {
    char *line = NULL;
    size_t length;
    FILE *out = open_memstream(&line, &length);
    for (size_t i = 0; out != NULL && i < N_OPTIONS; i++) {
        if (!is_usual(&table[i])) {
            print_option(out, &table[i]);
        }
    }
    if (out == NULL || fclose(out) != 0) {
        free(line);
        return NULL;
    }
    return line;
}

/* A whole number from `text` on; *end is what follows. */
static bool read_number(const char *text, char **end, int32_t *out) {
    errno = 0;
    long value = strtol(text, end, 10);
    *out = (int32_t)value;
    return *text >= '0' && *text <= '9' && errno == 0 && value <= INT32_MAX;
}

/* One L:E of the list; *end is the comma behind it or the end. */
static bool read_expert(const char *text, char **end, dm_expert_id *out) {
    bool layer = true;
    if (*text == '*') {
        out->layer = -1;
        *end = (char *)text + 1;
    } else {
        layer = read_number(text, end, &out->layer);
    }
    return layer && **end == ':' && read_number(*end + 1, end, &out->expert) && (**end == ',' || **end == '\0');
}

static bool read_disabled(const char *text, dm_router_options *out) {
    static dm_expert_id *list; /* of the last call */
    size_t most = 1;
    for (const char *c = text; *c != '\0'; c++) {
        most += *c == ',';
    }
    free(list);
    list = calloc(most, sizeof *list);
    if (list == NULL) {
        cli_usage_error("out of memory reading --disable-experts");
        return false;
    }
    char *end;
    for (const char *at = text;; at = end + 1) {
        if (!read_expert(at, &end, &list[out->n_disabled++])) {
            cli_usage_error("--disable-experts expects LAYER:EXPERT,.. such as 0:5,3:12 or *:7, not '%s'", text);
            return false;
        }
        if (*end == '\0') {
            break;
        }
    }
    out->disabled = list;
    return true;
}

static bool counts_fit(void) {
    const int64_t counts[] = {cli_routing.flock,  cli_routing.keep_top, cli_routing.max_experts, cli_routing.min_experts,
                              cli_routing.sweeps, cli_routing.resident, cli_routing.chunk};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        if (counts[i] < 0 || counts[i] > INT32_MAX) {
            cli_usage_error(
                "--flock, --keep-top, --max-experts, --min-experts, --sweeps, --resident and --joint expect 0 or more");
            return false;
        }
    }
    if (cli_routing.flock_resident < -1 || cli_routing.flock_resident > INT32_MAX) {
        cli_usage_error("--flock-resident expects -1, 0 or more");
        return false;
    }
    return true;
}

/* What --ram and --memory ask for. */
static dm_stream_options stream;

static bool read_ram(const char *text) {
    char *end;
    const double percent = strtod(text, &end);
    if (strcmp(text, "auto") == 0) { /* what the machine, or this process's control group, leaves, and some room for others */
        dm_memory now;
        dm_memory_limit("", &now);
        stream.memory = dm_rss() + (uint64_t)(0.9 * (double)now.usable);
        return true;
    }
    if (end != text && strcmp(end, "%") == 0 && percent > 0.0 && percent <= 100.0) {
        stream.ram_share = percent / 100.0;
        return true;
    }
    if (!cli_parse_size(text, &stream.ram)) {
        cli_usage_error(
            "--ram expects bytes such as 2G or 500M, a share such as 50%% of what all experts take, or auto, not '%s'", text);
        return false;
    }
    return true;
}

static bool read_memory(void) {
    enum { DAY = 86400 };
    if (cli_routing.prefetch < 0 || cli_routing.prefetch > DM_EXPERT_MOST_AHEAD) {
        cli_usage_error("--prefetch expects 0 to %d layers", DM_EXPERT_MOST_AHEAD);
        return false;
    }
    if (!(cli_routing.patience >= 0.0 && cli_routing.patience <= DAY)) {
        cli_usage_error("--disk-timeout expects 0 to %d seconds", DAY);
        return false;
    }
    if (cli_routing.ram == NULL && cli_routing.memory == NULL && (cli_routing.prefetch > 0 || cli_routing.patience > 0.0)) {
        cli_usage_error("--prefetch and --disk-timeout go with --ram or --memory");
        return false;
    }
    stream = (dm_stream_options){
        .evict = cli_routing.evict, .prefetch = (int32_t)cli_routing.prefetch, .patience = cli_routing.patience};
    if (cli_routing.ram != NULL && cli_routing.memory != NULL) {
        cli_usage_error("--ram and --memory both say how much memory experts get: expected one of them");
        return false;
    }
    if (cli_routing.memory != NULL && !cli_parse_size(cli_routing.memory, &stream.memory)) {
        cli_usage_error("--memory expects bytes, such as 2G or 500M, not '%s'", cli_routing.memory);
        return false;
    }
    return cli_routing.ram == NULL || read_ram(cli_routing.ram);
}

static bool streams(void) {
    return cli_routing.ram != NULL || cli_routing.memory != NULL;
}

dm_status cli_routing_stream(dm_model *model) {
    return streams() ? dm_model_stream(model, &stream) : DM_OK;
}

static bool read_evict(const char *text) {
    dm_residency_rule rule;
    if (text != NULL && cli_routing.resident == 0 && !streams()) {
        cli_usage_error("--evict goes with --ram, --memory or --resident");
        return false;
    }
    if (dm_residency_parse(text, &rule) != DM_OK) {
        cli_usage_error("--evict: %s", dm_error_message());
        return false;
    }
    return true;
}

bool cli_routing_read(dm_router_options *out) {
    *out = (dm_router_options){.flock = (int32_t)cli_routing.flock,
                               .flock_resident = (int32_t)cli_routing.flock_resident,
                               .gamma = cli_routing.gamma,
                               .beta = cli_routing.beta,
                               .keep_top = (int32_t)cli_routing.keep_top,
                               .max_experts = (int32_t)cli_routing.max_experts,
                               .min_experts = (int32_t)cli_routing.min_experts,
                               .theta = cli_routing.theta,
                               .sweeps = (int32_t)cli_routing.sweeps,
                               .resident = (int32_t)cli_routing.resident,
                               .evict = cli_routing.resident > 0 ? cli_routing.evict : NULL,
                               .sleep = cli_routing.sleep,
                               .chunk = (int32_t)cli_routing.chunk,
                               .no_bias = cli_routing.no_bias};
    const dm_router_options usual = dm_router_default();
    bool nash = strcmp(cli_routing.policy, "nash") == 0;
    if (!nash && strcmp(cli_routing.policy, "model") != 0) {
        cli_usage_error("--router expects model or nash, not '%s'", cli_routing.policy);
        return false;
    }
    out->policy = nash ? DM_ROUTER_NASH : DM_ROUTER_MODEL;
    bool gate = strcmp(cli_routing.payoff, "gate") == 0;
    if (!gate && strcmp(cli_routing.payoff, "affinity") != 0) {
        cli_usage_error("--payoff expects gate or affinity, not '%s'", cli_routing.payoff);
        return false;
    }
    out->payoff = gate ? DM_PAYOFF_GATE : DM_PAYOFF_AFFINITY;
    bool priced = !gate || out->flock != 0 || out->flock_resident != 0 || out->gamma != 0.0 || out->beta != 0.0 ||
                  out->min_experts != 0 || out->theta != 0.0 || out->keep_top != usual.keep_top || out->sweeps != usual.sweeps;
    if (!nash && priced) {
        cli_usage_error("--flock, --flock-resident, --payoff, --gamma, --beta, --keep-top, --min-experts, --theta and --sweeps "
                        "go with --router nash");
        return false;
    }
    if (streams() && out->resident > 0) {
        cli_usage_error("--resident simulates what --ram and --memory do: expected one of them");
        return false;
    }
    return counts_fit() && read_memory() && read_evict(cli_routing.evict) &&
           (cli_routing.disabled == NULL || read_disabled(cli_routing.disabled, out));
}
