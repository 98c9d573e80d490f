/* dilmodeli run: generate from a prompt, or line by line on a terminal. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

static struct {
    const char *prompt, *ids;
    int64_t n, context, top_k, window, seed;
    double temperature, top_p, min_p, penalty;
    bool print_ids;
} option;

static const cli_option options[] = {
    {"prompt", 'p', CLI_STRING, &option.prompt, "TEXT", "text to go on from; - reads standard input"},
    {"ids", 0, CLI_STRING, &option.ids, "FILE", "token ids to go on from instead of a text"},
    {"tokens", 'n', CLI_INT, &option.n, "N", "most tokens to generate"},
    {"ctx", 'c', CLI_INT, &option.context, "N", "positions to hold; 0: the model's context"},
    {"temp", 0, CLI_FLOAT, &option.temperature, "X", "temperature; 0 takes the best token each time"},
    {"top-k", 0, CLI_INT, &option.top_k, "K", "draw from the K best tokens; 0: off"},
    {"top-p", 0, CLI_FLOAT, &option.top_p, "P", "of these, from the fewest that hold P of the probability; 1: off"},
    {"min-p", 0, CLI_FLOAT, &option.min_p, "P", "of these, from those with P times the best one's or more; 0: off"},
    {"repeat-penalty", 0, CLI_FLOAT, &option.penalty, "X", "make recent tokens less likely; 1: off"},
    {"repeat-window", 0, CLI_INT, &option.window, "N", "how many tokens are recent"},
    {"seed", 's', CLI_INT, &option.seed, "N", "of the random numbers"},
    {"print-ids", 0, CLI_FLAG, &option.print_ids, NULL, "print token ids instead of text"},
};

static const cli_usage usage = {
    .synopsis = "dilmodeli run MODEL [-p TEXT] [-n N] [options]",
    .summary = "Generates text. With a terminal and no prompt it goes on from each line typed, keeping what was said;\n"
               "Ctrl-C stops an answer, and ends the program while it waits for a line.",
    .example = "  dilmodeli run model.gguf -p \"The library\" -n 100\n"
               "  dilmodeli run model.gguf -p \"The library\" -n 64 --temp 0 --json\n"
               "  dilmodeli run model.gguf",
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
    dm_model_close(r->model);
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

static void print_json(const run *r, const dm_generate_result *result) {
    dm_routing_stats routing;
    dm_session_routing(r->session, &routing);
    cli_print_json(json_pack("{s:o, s:i, s:o, s:i, s:f, s:f, s:I, s:o, s:b}", "text", cli_json_text(r->text, r->length), "tokens",
                             (int)result->tokens, "ids", cli_json_ids(r->made, (size_t)result->tokens), "prompt_tokens",
                             (int)result->prompt_tokens, "prompt_tps", per_second(result->prompt_tokens, result->prompt_s),
                             "decode_tps", per_second(result->tokens - 1, result->decode_s), "peak_rss_bytes",
                             (json_int_t)dm_peak_rss(), "routing", cli_json_routing(&routing), "interrupted",
                             (int)result->interrupted));
}

static int run_once(run *r) {
    dm_sampling how = sampling();
    dm_generate_result result;
    r->print = !cli_json() && !option.print_ids;
    if (dm_generate(r->session, r->prompt, r->n_prompt, (int32_t)option.n, &how, on_text, r, r->made, &result) != DM_OK) {
        return cli_fail_status();
    }
    if (cli_json()) {
        print_json(r, &result);
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

/* ---- Line by line ---- */

/* The next prompt: the last token made, which the session has not read yet, and the line. */
static bool take_line(run *r, const char *line, size_t length, const int32_t *last) {
    int32_t *ids;
    size_t n;
    free(r->prompt);
    r->prompt = NULL;
    if (dm_tokenizer_encode(r->tokenizer, line, length, false, &ids, &n) != DM_OK) {
        return false;
    }
    r->prompt = malloc((n + 1) * sizeof *r->prompt);
    r->n_prompt = 0;
    if (r->prompt != NULL) {
        if (last != NULL) {
            r->prompt[r->n_prompt++] = *last;
        }
        memcpy(r->prompt + r->n_prompt, ids, n * sizeof *ids);
        r->n_prompt += n;
    }
    free(ids);
    return r->prompt != NULL;
}

static void forget(run *r, const char *why) {
    dm_session_truncate(r->session, 0);
    fprintf(stderr, "(%s)\n", why);
}

/* Answers one line; *made tells how many tokens came. */
static bool answer(run *r, const char *line, size_t length, int32_t *made, uint64_t turn) {
    bool open_ended = *made > 0 && dm_session_length(r->session) > 0;
    if (!take_line(r, line, length, open_ended ? &r->made[*made - 1] : NULL)) {
        return false;
    }
    dm_sampling how = sampling();
    how.seed += turn; /* the same line twice may get another answer */
    dm_interrupt_clear();
    cli_catch_signals();
    dm_generate_result result;
    dm_status status = dm_generate(r->session, r->prompt, r->n_prompt, (int32_t)option.n, &how, on_text, r, r->made, &result);
    *made = result.tokens;
    printf("\n");
    dm_interrupt_clear();
    cli_catch_signals();
    return status == DM_OK;
}

static int chat(run *r) {
    char *line = NULL;
    size_t capacity = 0;
    int32_t made = 0;
    int status = CLI_DONE;
    dm_model_info info;
    dm_model_get_info(r->model, &info);
    int32_t room = option.context > 0 ? (int32_t)option.context : info.context;
    fprintf(stderr, "Type a line to go on from; /reset forgets, Ctrl-D ends.\n");
    r->print = true;
    for (uint64_t turn = 0;; turn++) {
        printf("> ");
        fflush(stdout);
        ssize_t length = getline(&line, &capacity, stdin);
        if (length < 0) { /* end of input, or Ctrl-C */
            printf("\n");
            break;
        }
        if (strcmp(line, "/reset\n") == 0) {
            forget(r, "forgotten");
            continue;
        }
        if (dm_session_length(r->session) + (int32_t)(length < INT32_MAX / 2 ? length : 0) >= room - 1) {
            forget(r, "the context is full; starting anew");
        }
        length -= line[length - 1] == '\n' ? 1 : 0;
        if (length > 0 && !answer(r, line, (size_t)length, &made, turn)) {
            status = cli_fail_status();
            break;
        }
    }
    free(line);
    return status;
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
    bool open = dm_model_open(path, &r->model) == DM_OK;
    open = open && dm_session_create(r->model, (int32_t)option.context, &r->session) == DM_OK;
    open = open && (dm_tokenizer_open(path, &r->tokenizer) == DM_OK || option.ids != NULL);
    if (!open) {
        cli_fail_status();
        return false;
    }
    dm_model_info info;
    dm_model_get_info(r->model, &info);
    int64_t room = (option.context > 0 ? option.context : info.context) + 1; /* a full context predicts one more */
    option.n = option.n < room ? option.n : room;
    r->made = malloc(((size_t)option.n + 1) * sizeof *r->made);
    if (r->made == NULL) {
        cli_fail("out of memory for %lld tokens", (long long)option.n);
        return false;
    }
    return true;
}

static int check_options(bool interactive) {
    if (option.prompt != NULL && option.ids != NULL) {
        return cli_usage_error("expected either -p TEXT or --ids FILE");
    }
    if (interactive && cli_json()) {
        return cli_usage_error("--json needs a prompt: give -p TEXT or --ids FILE");
    }
    if (option.n < 0 || option.n > INT32_MAX || option.context < 0 || option.context > INT32_MAX) {
        return cli_usage_error("-n and --ctx expect 0 or more");
    }
    if (option.top_k < 0 || option.top_k > INT32_MAX || option.window < 0 || option.window > INT32_MAX) {
        return cli_usage_error("--top-k and --repeat-window expect 0 or more");
    }
    return CLI_DONE;
}

static void set_defaults(void) {
    const dm_sampling usual = dm_sampling_default();
    option.n = 256;
    option.temperature = (double)usual.temperature;
    option.top_k = usual.top_k;
    option.top_p = (double)usual.top_p;
    option.min_p = (double)usual.min_p;
    option.penalty = (double)usual.repetition_penalty;
    option.window = usual.penalty_window;
    option.seed = (int64_t)usual.seed;
}

int cmd_run(int argc, char **argv) {
    int n, status;
    set_defaults();
    if (!cli_parse(&usage, argc, argv, &n, &status)) {
        return status;
    }
    bool interactive = option.prompt == NULL && option.ids == NULL && isatty(STDIN_FILENO);
    status = check_options(interactive);
    if (status != CLI_DONE) {
        return status;
    }
    run r = {0};
    bool ready = open_all(&r, argv[0]);
    if (ready && !interactive) {
        ready = option.ids != NULL ? cli_read_ids(option.ids, &r.prompt, &r.n_prompt) : encode_prompt(&r);
    }
    status = !ready ? CLI_FAILED : interactive ? chat(&r) : run_once(&r);
    close_all(&r);
    return status;
}
