/*
 * Decode speed of llama.cpp or, compiled with DM_IK, of ik_llama.cpp, measured as `dilmodeli bench --prompt 0 --depth 0 --rounds
 * 1` measures ours: token ids fed one by one from an empty context, so many that are not counted, then as many that are. Their
 * own programs feed one token over and over, read in batches or generate; which experts are wanted, and so what is read, would
 * then be another matter. All else is as their programs have it by default, but that llama.cpp leaves weights as they are in the
 * file (its --no-repack): repacked ones would fill memory that the file's pages do not. Prints one JSON object.
 * bench/streaming.py compiles it. Usage: llama_decode MODEL IDS TOKENS THREADS [prefetch] [defer]: ik_llama.cpp's
 * --prefetch-experts and --defer-experts
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "llama.h"

#ifdef DM_IK

static void start(void) {
    llama_backend_init();
}

static void clear(struct llama_context *context) {
    llama_kv_cache_clear(context);
}

static struct llama_model_params model_options(bool defer) {
    struct llama_model_params how = llama_model_default_params();
    how.defer_experts = defer;
    return how;
}

static struct llama_context_params context_options(bool prefetch) {
    struct llama_context_params how = llama_context_default_params();
    how.prefetch_experts = prefetch;
    return how;
}

static void close_model(struct llama_model *model) {
    llama_free_model(model);
}

#else

#include "ggml-backend.h"

static void start(void) {
    llama_backend_init();
    ggml_backend_load_all_from_path(DM_BACKENDS); /* the processor's, in several versions */
}

static void clear(struct llama_context *context) {
    llama_memory_clear(llama_get_memory(context), true);
}

static struct llama_model_params model_options(bool defer) {
    (void)defer;
    struct llama_model_params how = llama_model_default_params();
    how.use_extra_bufts = false; /* no repacking */
    return how;
}

static struct llama_context_params context_options(bool prefetch) {
    (void)prefetch;
    return llama_context_default_params();
}

static void close_model(struct llama_model *model) {
    llama_model_free(model);
}

#endif

static void log_errors(enum ggml_log_level level, const char *text, void *user) {
    (void)user;
    if (level == GGML_LOG_LEVEL_ERROR) {
        fputs(text, stderr);
    }
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static int fail(const char *path, const char *what) {
    fprintf(stderr, "llama_decode: %s: %s\n", path, what);
    return 1;
}

/* n ids, written in decimal; false where the file has fewer. */
static bool read_ids(const char *path, llama_token *ids, int n) {
    FILE *file = fopen(path, "r");
    int found = 0;
    while (file != NULL && found < n && fscanf(file, "%d", &ids[found]) == 1) {
        found++;
    }
    if (file != NULL) {
        fclose(file);
    }
    return found == n;
}

/* Feeds n tokens from an empty context; seconds, or below 0 where it fails. */
static double feed(struct llama_context *context, struct llama_batch *batch, const llama_token *ids, int n) {
    clear(context);
    double start = now();
    for (int i = 0; i < n; i++) {
        batch->n_tokens = 1;
        batch->token[0] = ids[i];
        batch->pos[0] = i;
        batch->n_seq_id[0] = 1;
        batch->seq_id[0][0] = 0;
        batch->logits[0] = 1;
        if (llama_decode(context, *batch) != 0) {
            return -1;
        }
    }
    return now() - start;
}

static bool asked(const char *option, int argc, char **argv) {
    for (int i = 5; i < argc; i++) {
        if (strcmp(argv[i], option) == 0) {
            return true;
        }
    }
    return false;
}

static struct llama_context *open_context(struct llama_model *model, int n, int threads, bool prefetch) {
    struct llama_context_params how = context_options(prefetch);
    how.n_ctx = (uint32_t)n;
    how.n_batch = how.n_ubatch = 1;
    how.n_threads = how.n_threads_batch = (uint32_t)threads;
    return llama_init_from_model(model, how);
}

/* ids [2n]: those not counted, those counted. */
static int measure(const char *path, struct llama_context *context, const llama_token *ids, int n) {
    struct llama_batch batch = llama_batch_init(1, 0, 1);
    double seconds = feed(context, &batch, ids, n);
    if (seconds >= 0) {
        seconds = feed(context, &batch, ids + n, n);
    }
    llama_batch_free(batch);
    if (seconds < 0) {
        return fail(path, "a token could not be decoded");
    }
    printf("{\"decode_tps\": %.6g, \"tokens\": %d}\n", n / seconds, n);
    return 0;
}

static int run(const char *path, const llama_token *ids, int n, int threads, bool prefetch, bool defer) {
    struct llama_model *model = llama_model_load_from_file(path, model_options(defer));
    if (model == NULL) {
        return fail(path, "it does not open this model");
    }
    struct llama_context *context = open_context(model, n, threads, prefetch);
    int status = context == NULL ? fail(path, "no context; there may not be enough memory") : measure(path, context, ids, n);
    llama_free(context);
    close_model(model);
    return status;
}

int main(int argc, char **argv) {
    int n = argc >= 5 ? atoi(argv[3]) : 0, threads = argc >= 5 ? atoi(argv[4]) : 0;
    if (n < 1 || threads < 1) {
        fprintf(stderr, "usage: llama_decode MODEL IDS TOKENS THREADS [prefetch] [defer]\n");
        return 2;
    }
    llama_token *ids = calloc(2 * (size_t)n, sizeof *ids);
    if (ids == NULL || !read_ids(argv[2], ids, 2 * n)) {
        free(ids);
        return fail(argv[2], "expected numbers of tokens, twice as many as are counted");
    }
    llama_log_set(log_errors, NULL);
    start();
    int status = run(argv[1], ids, n, threads, asked("prefetch", argc, argv), asked("defer", argc, argv));
    llama_backend_free();
    free(ids);
    return status;
}
