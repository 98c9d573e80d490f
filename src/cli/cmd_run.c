/* dilmodeli run: generate from a prompt, or talk. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/chat.h"
#include "cli/cli.h"
#include "cli/placement_options.h"
#include "cli/routing_options.h"

enum { DEFAULT_TOKENS = 256 };

static struct {
    const char *prompt, *ids, *system, *template, *cache_name, *session;
    dm_cache_type cache;
    int64_t n, context, top_k, window, seed;
    double temperature, top_p, min_p, penalty;
    bool print_ids, chat, no_history;
    dm_router_options router;
} option;

static const cli_option options[] = {
    {"prompt", 'p', CLI_STRING, &option.prompt, "TEXT", "text to go on from; - reads standard input"},
    {"ids", 0, CLI_STRING, &option.ids, "FILE", "token ids to go on from instead of a text"},
    {"tokens", 'n', CLI_INT, &option.n, "N", "most tokens to generate; -1: 256, in a chat as many as fit"},
    {"chat", 0, CLI_FLAG, &option.chat, NULL, "talk: -p is a message to answer, or each line of standard input is one"},
    {"system", 0, CLI_STRING, &option.system, "TEXT", "instructions before the first message of a chat"},
    {"no-history", 0, CLI_FLAG, &option.no_history, NULL, "keep nothing of what is typed in a chat for the next one"},
    {"chat-template", 0, CLI_STRING, &option.template, "NAME",
     "how turns are marked instead of the model's way: chatml, llama3, plain, ..."},
    {"ctx", 'c', CLI_INT, &option.context, "N", "positions to hold; 0: the model's context"},
    {"cache", 0, CLI_STRING, &option.cache_name, "TYPE", "keep keys and values in f16, q8 (8 bits) or f32"},
    {"session", 0, CLI_STRING, &option.session, "FILE", "go on from what this file knows of the prompt, and save it there after"},
    {"temp", 0, CLI_FLOAT, &option.temperature, "X", "temperature; 0 takes the best token each time"},
    {"top-k", 0, CLI_INT, &option.top_k, "K", "draw from the K best tokens; 0: off"},
    {"top-p", 0, CLI_FLOAT, &option.top_p, "P", "of these, from the fewest that hold P of the probability; 1: off"},
    {"min-p", 0, CLI_FLOAT, &option.min_p, "P", "of these, from those with P times the best one's or more; 0: off"},
    {"repeat-penalty", 0, CLI_FLOAT, &option.penalty, "X", "make recent tokens less likely; 1: off"},
    {"repeat-window", 0, CLI_INT, &option.window, "N", "how many tokens are recent"},
    {"seed", 's', CLI_INT, &option.seed, "N", "of the random numbers"},
    {"print-ids", 0, CLI_FLAG, &option.print_ids, NULL, "print token ids instead of text"},
    CLI_ROUTING_OPTIONS,
    CLI_PLACEMENT_OPTIONS,
    CLI_NUMA_OPTIONS,
};

static const cli_usage usage = {
    .synopsis = "dilmodeli run MODEL [-p TEXT] [-n N] [options]",
    .summary = "Generates text. With a terminal and no prompt it talks: each line is a message, and what was said is kept.\n"
               "/reset forgets, /quit or Ctrl-D ends, Ctrl-C stops an answer; lines can be edited, and those of earlier chats "
               "called back\n"
               "(arrow keys, Ctrl-R).",
    .example = "  dilmodeli run model.gguf -p \"The library\" -n 100\n"
               "  dilmodeli run model.gguf -p \"The library\" -n 64 --temp 0 --json\n"
               "  dilmodeli run model.gguf --system \"Answer in one sentence.\"",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .min_arguments = 1,
    .max_arguments = 1,
};

/* What a run holds, and the text it has made. */
typedef struct run {
    dm_model *model;
    dm_tokenizer *tokenizer; /* NULL: the model has none, and ids are all there is */
    dm_session *session;
    int32_t *prompt; /* [n_prompt] */
    size_t n_prompt;
    int32_t *made; /* [option.n] generated ids */
    char *text;
    size_t length, capacity;
    bool print; /* text goes to standard output as it comes */
} run;

static void close_all(run *r) {
    dm_session_free(r->session);
    dm_tokenizer_close(r->tokenizer);
    cli_close_model(r->model);
    free(r->prompt);
    free(r->made);
    free(r->text);
}

static bool keep_text(run *r, const char *bytes, size_t length) {
    if (r->length + length > r->capacity) {
        size_t capacity = 2 * (r->length + length) + 256;
        char *text = realloc(r->text, capacity);
        if (text == NULL) {
            return false;
        }
        r->text = text;
        r->capacity = capacity;
    }
    memcpy(r->text + r->length, bytes, length);
    r->length += length;
    return true;
}

static bool on_text(void *user, const char *bytes, size_t length) {
    run *r = user;
    if (!r->print) {
        return keep_text(r, bytes, length);
    }
    return fwrite(bytes, 1, length, stdout) == length && fflush(stdout) == 0;
}

static dm_sampling sampling(void) {
    return (dm_sampling){
        .temperature = (float)option.temperature,
        .top_k = (int32_t)option.top_k,
        .top_p = (float)option.top_p,
        .min_p = (float)option.min_p,
        .repetition_penalty = (float)option.penalty,
        .penalty_window = (int32_t)option.window,
        .seed = (uint64_t)option.seed,
    };
}

/* ---- One prompt ---- */

static double per_second(int32_t tokens, double seconds) {
    return tokens > 0 && seconds > 0.0 ? tokens / seconds : 0.0;
}

static void print_ids(const int32_t *ids, int32_t n) {
    for (int32_t i = 0; i < n; i++) {
        printf("%s%d", i > 0 ? " " : "", ids[i]);
    }
    printf("\n");
}

static void print_json(const run *r, size_t known, const dm_generate_result *result) {
    dm_routing_stats routing;
    dm_session_routing(r->session, &routing);
    cli_print_json(json_pack(
        "{s:o, s:i, s:o, s:i, s:i, s:f, s:f, s:I, s:o, s:b}", "text", cli_json_text(r->text, r->length), "tokens",
        (int)result->tokens, "ids", cli_json_ids(r->made, (size_t)result->tokens), "prompt_tokens", (int)result->prompt_tokens,
        "known_tokens", (int)known, "prompt_tps", per_second(result->prompt_tokens, result->prompt_s), "decode_tps",
        per_second(result->tokens - 1, result->decode_s), "peak_rss_bytes", (json_int_t)dm_peak_rss(), "routing",
        cli_json_routing(&routing), "stream", cli_json_stream(r->model), "interrupted", (int)result->interrupted));
}

static int run_once(run *r) {
    dm_sampling how = sampling();
    dm_generate_result result;
    r->print = !cli_json() && !option.print_ids;
    size_t known = (size_t)dm_session_keep(r->session, r->prompt, (int32_t)r->n_prompt);
    if (dm_generate(r->session, r->prompt + known, r->n_prompt - known, (int32_t)option.n, &how, on_text, r, r->made, &result) !=
        DM_OK) {
        return cli_fail_status();
    }
    if (cli_json()) {
        print_json(r, known, &result);
    } else if (option.print_ids) {
        print_ids(r->made, result.tokens);
    } else {
        printf("\n");
    }
    if (!cli_json() && isatty(STDERR_FILENO)) {
        fprintf(stderr, "prompt %d tokens at %.1f a second, then %d at %.1f\n", result.prompt_tokens,
                per_second(result.prompt_tokens, result.prompt_s), result.tokens, per_second(result.tokens - 1, result.decode_s));
    }
    return CLI_DONE;
}

/* ---- Talking ---- */

static int32_t context_of(const run *r) {
    dm_model_info info;
    dm_model_get_info(r->model, &info);
    return option.context > 0 ? (int32_t)option.context : info.context;
}

static int talk(const run *r, const char *family) {
    int32_t context = context_of(r);
    return cli_chat_talk(&(cli_chat){
        .session = r->session,
        .tokenizer = r->tokenizer,
        .family = family,
        .system = option.system,
        .context = context,
        .most = option.n >= 0 ? (int32_t)option.n : context,
        .sampling = sampling(),
        .keep = !option.no_history,
    });
}

/* The prompt as one message, marked. */
static bool encode_message(run *r, const char *family) {
    const dm_chat_message messages[] = {{"system", option.system != NULL ? option.system : ""}, {"user", option.prompt}};
    size_t skip = option.system == NULL;
    if (dm_chat_encode(r->tokenizer, family, messages + skip, 2 - skip, true, &r->prompt, &r->n_prompt) != DM_OK) {
        cli_fail_status();
        return false;
    }
    return true;
}

/* ---- Setting up ---- */

/* An empty text starts at the token that begins a document. */
static bool start_of_text(run *r) {
    int32_t bos = dm_tokenizer_bos(r->tokenizer);
    int32_t start = bos >= 0 ? bos : dm_tokenizer_eos(r->tokenizer);
    free(r->prompt);
    r->prompt = malloc(sizeof *r->prompt);
    if (start < 0 || r->prompt == NULL) {
        cli_fail("the prompt is empty and the vocabulary has no token that begins a text; give one with -p TEXT");
        return false;
    }
    r->prompt[0] = start;
    r->n_prompt = 1;
    return true;
}

static bool encode_prompt(run *r) {
    size_t length = option.prompt != NULL ? strlen(option.prompt) : 0;
    char *read = NULL;
    if (option.prompt == NULL || strcmp(option.prompt, "-") == 0) {
        read = cli_read_text("-", &length);
        if (read == NULL) {
            return false;
        }
    }
    const char *text = read != NULL ? read : option.prompt;
    dm_status status =
        dm_tokenizer_encode(r->tokenizer, text, length, DM_ENCODE_BOS | DM_ENCODE_SPECIAL, &r->prompt, &r->n_prompt);
    free(read);
    if (status != DM_OK) {
        cli_fail_status();
        return false;
    }
    return r->n_prompt > 0 || start_of_text(r);
}

static bool open_all(run *r, const char *path) {
    const dm_session_options wanted = {.context = (int32_t)option.context, .cache = option.cache, .router = &option.router};
    bool open = dm_model_open(path, &r->model) == DM_OK;
    open = open && cli_placement_model(r->model) == DM_OK && cli_routing_stream(r->model) == DM_OK;
    open = open && (dm_tokenizer_open(path, &r->tokenizer) == DM_OK || option.ids != NULL);
    open = open && dm_session_create_with(r->model, &wanted, &r->session) == DM_OK; /* last: it takes memory and time */
    open = open &&
           (option.session == NULL || access(option.session, F_OK) != 0 || dm_session_load(r->session, option.session) == DM_OK);
    if (!open) {
        cli_fail_status();
    }
    return open;
}

/* What was read and made can be gone on from, also after an answer that was stopped. */
static int keep_session(const run *r, int status) {
    if (status != CLI_DONE || option.session == NULL || dm_session_save(r->session, option.session) == DM_OK) {
        return status;
    }
    return cli_fail_status();
}

/* Room for what one prompt makes. */
static bool make_room(run *r) {
    int64_t room = (int64_t)context_of(r) + 1; /* a full context predicts one more */
    option.n = option.n < 0 ? DEFAULT_TOKENS : option.n;
    option.n = option.n < room ? option.n : room;
    r->made = malloc(((size_t)option.n + 1) * sizeof *r->made);
    if (r->made == NULL) {
        cli_fail("out of memory for %lld tokens", (long long)option.n);
    }
    return r->made != NULL;
}

static int check_options(bool talks) {
    if (dm_cache_type_from_name(option.cache_name, &option.cache) != DM_OK) {
        return cli_usage_error("%s", dm_error_message());
    }
    if (!cli_routing_read(&option.router)) {
        return CLI_USAGE;
    }
    if (option.prompt != NULL && option.ids != NULL) {
        return cli_usage_error("expected either -p TEXT or --ids FILE");
    }
    if (option.chat && option.ids != NULL) {
        return cli_usage_error("--ids are a prompt as it is; a chat needs -p TEXT or standard input");
    }
    if (talks && cli_json()) {
        return cli_usage_error("--json needs a prompt: give -p TEXT or --ids FILE");
    }
    if (option.n < -1 || option.n > INT32_MAX || option.context < 0 || option.context > INT32_MAX) {
        return cli_usage_error("-n and --ctx expect 0 or more");
    }
    if (option.top_k < 0 || option.top_k > INT32_MAX || option.window < 0 || option.window > INT32_MAX) {
        return cli_usage_error("--top-k and --repeat-window expect 0 or more");
    }
    return CLI_DONE;
}

static void set_defaults(void) {
    const dm_sampling usual = dm_sampling_default();
    option.n = -1;
    option.cache_name = "f16";
    option.temperature = (double)usual.temperature;
    option.top_k = usual.top_k;
    option.top_p = (double)usual.top_p;
    option.min_p = (double)usual.min_p;
    option.penalty = (double)usual.repetition_penalty;
    option.window = usual.penalty_window;
    option.seed = (int64_t)usual.seed;
}

static int run_prompt(run *r, const char *family) {
    bool ready = family != NULL       ? encode_message(r, family)
                 : option.ids != NULL ? cli_read_ids(option.ids, &r->prompt, &r->n_prompt)
                                      : encode_prompt(r);
    return ready && make_room(r) ? run_once(r) : CLI_FAILED;
}

int cmd_run(int argc, char **argv) {
    int n, status;
    cli_routing_defaults();
    set_defaults();
    if (!cli_parse(&usage, argc, argv, &n, &status)) {
        return status;
    }
    bool asked = option.chat || option.system != NULL || option.template != NULL;
    option.chat = asked || (option.prompt == NULL && option.ids == NULL && isatty(STDIN_FILENO) != 0);
    bool talks = option.chat && option.prompt == NULL;
    status = check_options(talks);
    if (status != CLI_DONE) {
        return status;
    }
    status = cli_placement_apply();
    if (status != CLI_DONE) {
        return status;
    }
    run r = {0};
    const char *family = NULL;
    bool ready = open_all(&r, argv[0]);
    ready = ready && (!option.chat || cli_chat_family(r.tokenizer, option.template, !asked, &family));
    status = !ready ? CLI_FAILED : talks ? talk(&r, family) : run_prompt(&r, family);
    status = keep_session(&r, status);
    close_all(&r);
    return status;
}
