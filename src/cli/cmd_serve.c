/* dilmodeli serve: answer requests over HTTP. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/status.h"
#include "cli/cli.h"
#include "cli/placement_options.h"
#include "cli/routing_options.h"
#include "server/server.h"

static struct {
    const char *host, *name, *template, *key, *key_file, *cors, *cache_name, *max_body, *reuse;
    int64_t port, slots, context, piece, max_queue, max_clients, timeout, idle;
    double grace;
    dm_cache_type cache;
    dm_router_options router;
} option;

static const cli_option options[] = {
    {"host", 0, CLI_STRING, &option.host, "ADDRESS", "listen on this address; 0.0.0.0 lets other machines in: give an API key"},
    {"port", 0, CLI_INT, &option.port, "N", "listen on this port; 0: any that is free"},
    {"name", 0, CLI_STRING, &option.name, "NAME", "what the model is called in answers; the file's name without its end"},
    {"slots", 0, CLI_INT, &option.slots, "N", "answers that are made at a time"},
    {"ctx", 'c', CLI_INT, &option.context, "N", "positions of each; 0: the model's context, or what fits into memory"},
    {"cache", 0, CLI_STRING, &option.cache_name, "TYPE", "keep keys and values in f16, q8 (8 bits) or f32"},
    {"piece", 0, CLI_INT, &option.piece, "N", "tokens of a prompt that are read between two tokens of the other answers"},
    {"reuse", 0, CLI_STRING, &option.reuse, "WHAT",
     "exact: go on from pieces of a prompt that a slot has read, same answers as without; all: from all that it holds"},
    {"chat-template", 0, CLI_STRING, &option.template, "NAME", "how turns are marked instead of the model's way"},
    {"api-key", 0, CLI_STRING, &option.key, "KEY", "answer only who names this key; others see it in a list of processes"},
    {"api-key-file", 0, CLI_STRING, &option.key_file, "FILE", "the same with any of the keys in a file, one a line"},
    {"cors", 0, CLI_STRING, &option.cors, "ORIGIN", "let pages of this origin ask; *: of any"},
    {"max-body", 0, CLI_STRING, &option.max_body, "BYTES", "most of a request"},
    {"max-queue", 0, CLI_INT, &option.max_queue, "N", "most answers that wait for a slot"},
    {"max-clients", 0, CLI_INT, &option.max_clients, "N", "most connections"},
    {"timeout", 0, CLI_INT, &option.timeout, "SECONDS", "most that an answer may take, waiting included"},
    {"idle", 0, CLI_INT, &option.idle, "SECONDS", "most that a client may take to send a request, or be silent"},
    {"grace", 0, CLI_FLOAT, &option.grace, "SECONDS", "after Ctrl-C or SIGTERM, for answers under way; then they are cut"},
    CLI_ROUTING_OPTIONS,
    CLI_PLACEMENT_OPTIONS,
    CLI_NUMA_OPTIONS,
};

static const cli_usage usage = {
    .synopsis = "dilmodeli serve MODEL [--port N] [options]",
    .summary =
        "Answers requests over HTTP as OpenAI's API does, several at a time: /v1/chat/completions, /v1/completions,\n"
        "/v1/embeddings, /v1/models, /tokenize, /detokenize, /health, /metrics. Ctrl-C ends it once answers under way are\n"
        "done. docs/serving.md says what is supported.",
    .example = "  dilmodeli serve model.gguf --slots 8 --ctx 4096\n"
               "  curl http://127.0.0.1:8080/v1/completions -H 'Content-Type: application/json' \\\n"
               "       -d '{\"prompt\": \"The library\", \"max_tokens\": 32, \"stream\": true}'",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .min_arguments = 1,
    .max_arguments = 1,
};

static void set_defaults(void) {
    const dm_server_options usual = dm_server_defaults();
    option.host = usual.host;
    option.port = usual.port;
    option.slots = usual.slots;
    option.piece = usual.piece;
    option.max_body = "1M";
    option.max_queue = usual.max_queue;
    option.max_clients = usual.max_clients;
    option.timeout = usual.timeout_s;
    option.idle = usual.idle_s;
    option.grace = 5.0;
    option.cache_name = "f16";
    option.reuse = "exact";
}

static bool in_range(int64_t value, int64_t least, int64_t most) {
    return value >= least && value <= most;
}

static int check_options(uint64_t *max_body) {
    if (dm_cache_type_from_name(option.cache_name, &option.cache) != DM_OK) {
        return cli_usage_error("%s", dm_error_message());
    }
    if (!cli_routing_read(&option.router)) {
        return CLI_USAGE;
    }
    if (!in_range(option.port, 0, 65535)) {
        return cli_usage_error("--port expects 0 to 65535");
    }
    if (!in_range(option.slots, 1, 256)) {
        return cli_usage_error("--slots expects 1 to 256");
    }
    if (!in_range(option.context, 0, INT32_MAX) || !in_range(option.max_queue, 0, INT32_MAX / 2)) {
        return cli_usage_error("--ctx and --max-queue expect 0 or more");
    }
    if (!in_range(option.piece, 1, INT32_MAX) || !in_range(option.max_clients, 1, 100000) ||
        !in_range(option.timeout, 1, INT32_MAX / 1000) || !in_range(option.idle, 1, INT32_MAX / 1000)) {
        return cli_usage_error("--piece, --max-clients, --timeout and --idle expect 1 or more");
    }
    if (!(option.grace >= 0.0 && option.grace < 1e6)) {
        return cli_usage_error("--grace expects 0 or more");
    }
    if (strcmp(option.reuse, "exact") != 0 && strcmp(option.reuse, "all") != 0) {
        return cli_usage_error("--reuse expects exact or all, not '%s'", option.reuse);
    }
    if (!cli_parse_size(option.max_body, max_body) || *max_body > UINT64_C(1) << 32) {
        return cli_usage_error("--max-body expects bytes up to 4G");
    }
    return CLI_DONE;
}

/* ---- Keys ---- */

typedef struct keys {
    char *text;
    const char **list; /* [n] into the text, or option.key */
    size_t n;
} keys;

static bool add_key(keys *all, const char *key) {
    const char **grown = realloc(all->list, (all->n + 1) * sizeof(char *));
    if (grown == NULL) {
        cli_fail("out of memory for API keys");
        return false;
    }
    all->list = grown;
    all->list[all->n++] = key;
    return true;
}

static bool read_keys(keys *all) {
    if (option.key != NULL && *option.key == '\0') {
        cli_fail("--api-key expects a key that is not empty");
        return false;
    }
    if (option.key != NULL && !add_key(all, option.key)) {
        return false;
    }
    if (option.key_file == NULL) {
        return true;
    }
    size_t length;
    char *text = cli_read_text(option.key_file, &length), *rest;
    if (text == NULL) {
        return false;
    }
    all->text = calloc(length + 1, 1);
    if (all->text != NULL) {
        memcpy(all->text, text, length);
    }
    free(text);
    size_t before = all->n;
    char *key = all->text != NULL ? strtok_r(all->text, "\r\n", &rest) : NULL;
    for (; key != NULL; key = strtok_r(NULL, "\r\n", &rest)) {
        if (!add_key(all, key)) {
            return false;
        }
    }
    if (all->n == before) {
        cli_fail("%s: holds no key", option.key_file);
    }
    return all->n > before;
}

/* ---- Serving ---- */

/* "models/fine.gguf" is called "fine". */
static char *name_of(const char *path) {
    const char *slash = strrchr(path, '/');
    char *name = strdup(option.name != NULL ? option.name : slash != NULL ? slash + 1 : path);
    size_t length = name != NULL ? strlen(name) : 0;
    if (option.name == NULL && length > 5 && strcmp(name + length - 5, ".gguf") == 0) {
        name[length - 5] = '\0';
    }
    return name;
}

static void say_ready(const dm_server *server, size_t n_keys) {
    bool v6 = strchr(option.host, ':') != NULL;
    fprintf(stderr, "listening on http://%s%s%s:%u, %lld slots of %d positions%s\n", v6 ? "[" : "", option.host, v6 ? "]" : "",
            dm_server_port(server), (long long)option.slots, dm_server_context(server), n_keys > 0 ? ", for who has a key" : "");
    if (cli_json()) {
        cli_print_json(json_pack("{s:s, s:i}", "host", option.host, "port", (int)dm_server_port(server)));
    }
}

static void wait_for_signal(void) {
    static const struct timespec moment = {.tv_nsec = 50000000};
    while (cli_signal() == 0) {
        nanosleep(&moment, NULL);
    }
    dm_interrupt_clear(); /* what is under way goes on for a while; another signal ends the program at once */
}

static int serve(const dm_model *model, const dm_tokenizer *tokenizer, const dm_server_options *how) {
    dm_server *server = NULL;
    if (dm_server_start(model, tokenizer, how, &server) != DM_OK) {
        return cli_fail_status();
    }
    say_ready(server, how->n_keys);
    wait_for_signal();
    fprintf(stderr, "stopping: answers under way have %g seconds\n", option.grace);
    dm_server_stop(server, option.grace);
    return CLI_DONE;
}

/* The model's own way of marking turns, or none where it has none. */
static bool find_family(const dm_tokenizer *tokenizer, const char **family) {
    char *nothing;
    *family = option.template != NULL                     ? option.template
              : dm_tokenizer_has_chat_template(tokenizer) ? dm_tokenizer_chat_family(tokenizer)
                                                          : "plain";
    if (option.template != NULL && dm_chat_render(tokenizer, option.template, NULL, 0, false, &nothing) != DM_OK) {
        cli_fail("%s (--chat-template NAME)", dm_error_message());
        return false;
    }
    if (option.template != NULL) {
        free(nothing);
    }
    return true;
}

static int run(const char *path, const dm_server_options *given) {
    dm_model *model = NULL;
    dm_tokenizer *tokenizer = NULL;
    dm_server_options how = *given;
    char *name = name_of(path);
    int status = CLI_FAILED;
    how.name = name;
    bool open = name != NULL && dm_model_open(path, &model) == DM_OK && cli_placement_model(model) == DM_OK &&
                cli_routing_stream(model) == DM_OK && dm_tokenizer_open(path, &tokenizer) == DM_OK;
    if (!open) {
        cli_fail_status();
    } else if (find_family(tokenizer, &how.family)) {
        status = serve(model, tokenizer, &how);
    }
    dm_tokenizer_close(tokenizer);
    cli_close_model(model);
    free(name);
    return status;
}

int cmd_serve(int argc, char **argv) {
    int n, status;
    uint64_t max_body;
    cli_routing_defaults();
    set_defaults();
    if (!cli_parse(&usage, argc, argv, &n, &status)) {
        return status;
    }
    status = check_options(&max_body);
    status = status == CLI_DONE ? cli_placement_apply() : status;
    if (status != CLI_DONE) {
        return status;
    }
    keys all = {0};
    status = CLI_FAILED;
    if (read_keys(&all)) {
        const dm_server_options how = {
            .host = option.host,
            .port = (uint16_t)option.port,
            .keys = all.list,
            .n_keys = all.n,
            .cors = option.cors,
            .slots = (int32_t)option.slots,
            .context = (int32_t)option.context,
            .piece = (int32_t)option.piece,
            .reuse_all = strcmp(option.reuse, "all") == 0,
            .cache = option.cache,
            .router = &option.router,
            .max_body = (size_t)max_body,
            .max_queue = (int32_t)option.max_queue,
            .max_clients = (int32_t)option.max_clients,
            .timeout_s = (int32_t)option.timeout,
            .idle_s = (int32_t)option.idle,
        };
        status = run(argv[0], &how);
    }
    free(all.text);
    free(all.list);
    return status;
}
