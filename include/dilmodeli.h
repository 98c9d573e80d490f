/*
 * DilModeli: small, balanced and fast language models on ordinary CPUs.
 *
 * The only installed header. Handles are opaque; every function that can fail
 * returns a dm_status, and dm_error_message() then says in words what failed.
 * Strings are UTF-8 and NUL-terminated unless a length is given beside them.
 * A handle may be used by one thread at a time; different handles by different
 * threads. No function exits, aborts or prints.
 */
#ifndef DILMODELI_H
#define DILMODELI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define DM_API __attribute__((visibility("default")))
#else
#define DM_API
#endif

/* ---- Status ----------------------------------------------------------- */

typedef enum dm_status {
    DM_OK = 0,
    DM_ERR_ARGUMENT,    /* a value that the caller gave cannot be used */
    DM_ERR_IO,          /* the operating system refused a read, write or map */
    DM_ERR_FORMAT,      /* a file is malformed */
    DM_ERR_UNSUPPORTED, /* a file or machine is fine, but not handled here */
    DM_ERR_MEMORY,      /* memory could not be had */
    DM_ERR_INTERRUPTED, /* a callback or dm_interrupt() asked to stop */
    DM_ERR_INTERNAL     /* a defect in this library */
} dm_status;

/* What the last failing call in this thread said. Never NULL; valid until the
 * next failing call in the same thread. */
DM_API const char *dm_error_message(void);

/* "MAJOR.MINOR.PATCH". */
DM_API const char *dm_version(void);

/* ---- Process-wide settings -------------------------------------------- */

/* Number of threads used by all later calls; 0 means one per usable core. */
DM_API void dm_set_threads(int threads);
DM_API int dm_threads(void);

/* Where threads may run that share the work of inference. */
typedef enum dm_binding {
    DM_BIND_AUTO,  /* with several memory nodes each stays on one; else like DM_BIND_NONE */
    DM_BIND_NONE,  /* where the system puts them */
    DM_BIND_CORES, /* each but the calling one on a core of its own, for machines where nothing else runs */
} dm_binding;

/* Binds them, within what the process may use, for dm_threads() as it is now; to be called again after dm_set_threads(). The
 * calling thread, and with it what it starts later, is never bound to less than a node. DM_ERR_MEMORY. */
DM_API dm_status dm_bind_threads(dm_binding binding);
/* DM_ERR_ARGUMENT for what is none of "auto", "none", "cores". */
DM_API dm_status dm_binding_from_name(const char *name, dm_binding *out);

/* Whether huge pages are asked for, from the next model and session on; by default they are. */
DM_API void dm_set_huge_pages(bool on);

/* Name of the instruction set in use: "scalar", "avx2", "avx512" or "neon".
 * The environment variable DILMODELI_ISA picks a lower one. */
DM_API const char *dm_isa(void);

/* Asks long-running calls (training, generation, evaluation) to stop at the
 * next safe point. Async-signal-safe. dm_interrupt_clear() arms again. */
DM_API void dm_interrupt(void);
DM_API void dm_interrupt_clear(void);

/* Highest resident set of this process so far, bytes. */
DM_API uint64_t dm_peak_rss(void);

/* Receives one line of log text without a newline. NULL drops them (default). */
typedef void (*dm_log_fn)(void *user, const char *line);
DM_API void dm_set_log(dm_log_fn fn, void *user);

/* ---- Models ------------------------------------------------------------ */

typedef struct dm_model dm_model;

typedef struct dm_model_info {
    char architecture[32];  /* "llama", "qwen3moe", ... */
    char name[128];         /* general.name, or "" */
    uint64_t params;        /* number of weights */
    uint64_t active_params; /* weights that one token uses */
    int32_t layers;
    int32_t dim;        /* residual stream */
    int32_t heads;      /* query heads */
    int32_t kv_heads;   /* key and value heads */
    int32_t head_dim;   /* width of one head */
    int32_t ffn_dim;    /* dense feed-forward width, 0 if none */
    int32_t experts;    /* per layer, 0 for a dense model */
    int32_t top_k;      /* experts per token */
    int32_t expert_dim; /* width of one expert */
    int32_t shared_dim; /* width of the expert that all tokens use, 0 if none */
    int32_t vocab;
    int32_t context; /* longest trained context, tokens */
    int32_t window;  /* newest positions that a token sees, 0: all */
} dm_model_info;

/* Maps a GGUF model; of one that is split over several files, any of them opens all. On success *out is owned by the caller;
 * close it with dm_model_close(). On failure *out is NULL. The file may be replaced by another one of its name while it is
 * open, but not cut short: reading what is gone raises SIGBUS, for which the library installs no handler. */
DM_API dm_status dm_model_open(const char *path, dm_model **out);
DM_API void dm_model_close(dm_model *model);

/* Keeps the weights on disk as this library's kernels read them, so that later sessions of the model map them instead of
 * repacking them: as PATH.panels beside the model, or below the user's cache folder where that cannot be written. The file is
 * about as large as the model, and is not used once the model's file has changed. *path (of `size` bytes) is where it is,
 * *bytes how many of panels it has. DM_ERR_UNSUPPORTED where nothing is repacked. */
DM_API dm_status dm_model_keep(const dm_model *model, char *path, size_t size, uint64_t *bytes);
/* Where the model's weights are kept, and the file's size; an empty path: nowhere. Fails, saying why, where there is a file
 * that cannot be used. */
DM_API dm_status dm_model_kept(const dm_model *model, char *path, size_t size, uint64_t *bytes);
/* What was wrong with such a file when sessions of this model were made or fed, and made no difference but for time; NULL:
 * nothing. Valid until the next of those calls. */
DM_API const char *dm_model_note(const dm_model *model);
DM_API void dm_model_get_info(const dm_model *model, dm_model_info *out);

/* Writes a freshly initialised model to `path` (atomically). Fields of `shape` that are
 * 0 take the architecture's defaults. `tokenizer_from` is a GGUF file whose
 * vocabulary is used, or NULL for plain bytes, filled up to shape->vocab with
 * tokens that stand for nothing. `type` is "f32", "f16", "bf16", "q8_0", "q4_k_m" or
 * another of llama.cpp's names, by whose rules each tensor gets its type; the message of a failure lists them. On success *info,
 * unless NULL, tells what was made. */
DM_API dm_status dm_model_create(const char *path, const dm_model_info *shape, const char *tokenizer_from, bool tied_output,
                                 const char *type, uint64_t seed, dm_model_info *info);

/* ---- Models larger than memory ------------------------------------------- */

/* How much memory experts get. The others stay in the model's file, and are read when a token wants them. One of the first three
 * is not 0. */
typedef struct dm_stream_options {
    uint64_t ram;      /* bytes for experts' weights, and for reading them */
    double ram_share;  /* the same as a share of what all experts would take, up to 1 */
    uint64_t memory;   /* bytes for the whole process: experts get what the rest leaves when the first token is fed */
    const char *evict; /* which experts go for others: "lru", "lfu:64", ... (docs/commands.md); NULL: "lfu:64"; read once */
    int32_t prefetch;  /* layers whose likely experts are read ahead, up to 4; 0: none */
    double patience;   /* seconds after which a disk that does not answer makes the feed fail, up to 86400; 0: 30 */
} dm_stream_options;

/* Experts of this model are read from its file, past the page cache, into as much memory as is said here, and computed as they
 * come. Results are the same bits as with all of them in memory, unless a router asks what experts cost. To be called once,
 * before the first session. DM_ERR_ARGUMENT where that is too little memory, which says how much is enough, or the model has no
 * experts; too little for a whole process is noticed when the first token is fed. What fails while experts are read, such as a
 * file that was cut short or a disk that does not answer, makes the feed fail (DM_ERR_IO); the session stays as it was, and may
 * be fed again. */
DM_API dm_status dm_model_stream(dm_model *model, const dm_stream_options *options);

typedef struct dm_stream_stats {
    uint64_t slots, experts; /* experts that there is memory for, of so many; 0 slots: none before the first token */
    uint64_t bytes;          /* of that memory */
    uint64_t read;           /* bytes read from files so far, whole blocks of the disk's */
    uint64_t guessed, used;  /* experts read before their layer asked, and those of them that it then used */
    uint64_t missed, ahead;  /* bytes of experts that were used and not in memory; of those of them that were read ahead */
    uint64_t wasted;         /* bytes of experts that were read ahead and not used */
} dm_stream_stats;

/* False where the model is not streamed. */
DM_API bool dm_model_stream_stats(const dm_model *model, dm_stream_stats *out);

/* ---- Several memory nodes ------------------------------------------------ */

/* Whose memory weights lie in, and who computes with them. Whatever it is, results are the same bits. */
typedef enum dm_numa {
    DM_NUMA_AUTO,   /* with one node DM_NUMA_OFF; with several DM_NUMA_MIRROR where copies take at most a quarter of each node's
                     * memory, and all weights half of what this process may still take; else DM_NUMA_SPREAD; where neither can
                     * be done, DM_NUMA_OFF */
    DM_NUMA_OFF,    /* the system places pages, and any thread computes with any weight */
    DM_NUMA_SPREAD, /* each node has a share of the rows of what every token reads, and some experts, and its threads alone
                     * compute with them */
    DM_NUMA_MIRROR, /* the same of experts; each node has a copy of what every token reads, and any thread computes any row */
} dm_numa;

/* DM_ERR_ARGUMENT for what is none of "auto", "off", "spread", "mirror". */
DM_API dm_status dm_numa_from_name(const char *name, dm_numa *out);
DM_API const char *dm_numa_name(dm_numa how);

/* Places a model's weights for dm_threads() threads as dm_bind_threads() binds them; to be called while the model has no session,
 * and again after dm_set_threads(). Weights are copied to their nodes, as kernels read them, when the first session is made,
 * which panels that are kept on disk do not spare; streamed experts lie in slots, which are dealt out instead. `machine`: NULL,
 * or another machine in the words of hwloc's synthetic topologies, whose nodes work is dealt out by although there is no such
 * memory. Models that are placed at the same time must be for the same threads and machine: DM_ERR_ARGUMENT if not, and for a
 * machine that hwloc does not take; DM_ERR_MEMORY, DM_ERR_UNSUPPORTED. After a failure the model is not placed. */
DM_API dm_status dm_model_place(dm_model *model, dm_numa how, const char *machine);
/* What was done: not DM_NUMA_AUTO. */
DM_API dm_numa dm_model_numa(const dm_model *model);

/* What a node does for a model. */
typedef struct dm_node_use {
    int32_t node;                          /* the system's number; -1: of another machine */
    int32_t threads;                       /* of dm_threads() */
    uint64_t experts;                      /* of all layers that lie there, unless they are streamed */
    uint64_t bytes;                        /* of weights there; 0 before the first session */
    uint64_t own_work, foreign_work;       /* pieces of loops that belong to the node, done by its threads and by others, of all
                                            * models since the threads were grouped so */
    uint64_t pages_there, pages_elsewhere; /* pages of 4 KiB of its weights, as the system tells */
} dm_node_use;

/* Nodes that the model is placed on; 0: it is not. */
DM_API size_t dm_model_nodes(const dm_model *model);
/* Of node number i < dm_model_nodes(). */
DM_API void dm_model_node(const dm_model *model, size_t i, dm_node_use *out);

/* ---- Conversion --------------------------------------------------------- */

/* All zero: the defaults. */
typedef struct dm_convert_options {
    const char *type;     /* of the matrices, to GGUF any of dm_model_create(), to a folder "f32", "f16" or "bf16"; NULL: as they
                           * are, but f16 where a folder is to hold what was quantized; "mixed:4" (2, 3, 4, 5, 6, 8): see below */
    const char *name;     /* the model's in the GGUF file; NULL: the folder's */
    uint64_t shard_bytes; /* of a folder's files of weights; 0: 5 GB */
    const char *layout;   /* of a mixture's experts in a GGUF file: "streaming": each is one aligned read, "standard": stacked;
                           * NULL:   standard */
    bool dry_run;         /* check all, write nothing */
} dm_convert_options;

typedef struct dm_convert_result {
    dm_model_info info;
    bool to_gguf;
    uint64_t tensors; /* written */
    uint64_t bytes;   /* of their weights */
    uint32_t files;   /* they are in */
} dm_convert_result;

/* Told after each piece: bytes of weights written so far and in all. */
typedef void (*dm_convert_fn)(void *user, uint64_t done, uint64_t total);

/*
 * Converts between Hugging Face's folders (config.json, safetensors, tokenizer.json) and GGUF: where `from` is a folder,
 * `to` becomes a GGUF file; where `from` is a GGUF file, `to` becomes a folder. Both appear whole or not at all; a GGUF file is
 * replaced, a folder must not exist or be empty. Models of the architectures that run are converted, others refused by name, as
 * is whatever the other format cannot express. Weights pass through in pieces. Where `from` is a GGUF file and options->layout is
 * set, `to` becomes a GGUF file too, of the same tensors and metadata in that layout, and the other options must not be set; a
 * dense model and one that has the layout already are refused. Where it is one and options->type is "mixed:BITS", `to` becomes
 * a GGUF file whose matrices are mixed-width panels of so many bits (docs/format.md), which runs here alone; name, shard_bytes
 * and layout must not be set then. `options`, `on_piece` and `result` may be NULL.
 */
DM_API dm_status dm_convert(const char *from, const char *to, const dm_convert_options *options, dm_convert_fn on_piece,
                            void *user, dm_convert_result *result);

/* ---- Tokenizer --------------------------------------------------------- */

typedef struct dm_tokenizer dm_tokenizer;

/* Loads the vocabulary in a GGUF file. Owned by the caller. */
DM_API dm_status dm_tokenizer_open(const char *path, dm_tokenizer **out);
DM_API void dm_tokenizer_close(dm_tokenizer *tokenizer);
DM_API int32_t dm_tokenizer_vocab(const dm_tokenizer *tokenizer);
/* -1 where the vocabulary has none. */
DM_API int32_t dm_tokenizer_bos(const dm_tokenizer *tokenizer);
DM_API int32_t dm_tokenizer_eos(const dm_tokenizer *tokenizer);

/* True for every token that ends a text or a turn of a conversation: the end-of-text token and its kin such as
 * <|im_end|>. Generation stops there. */
DM_API bool dm_tokenizer_is_end(const dm_tokenizer *tokenizer, int32_t id);

/* What dm_tokenizer_encode() does beside turning plain text into tokens; any of these together. */
enum {
    DM_ENCODE_SPECIAL = 1, /* the texts of control tokens such as <|endoftext|> become those tokens; else they are text */
    DM_ENCODE_BOS = 2,     /* a beginning-of-text token first, where the vocabulary asks for one and the text has none */
    DM_ENCODE_EOS = 4,     /* an end-of-text token last, where the vocabulary asks for one */
    DM_ENCODE_GOES_ON = 8  /* the text follows other text: vocabularies that put a space before a text put none */
};

/* Encodes `length` bytes of any content. *ids (malloc, *count entries) is the caller's to free(). DM_ERR_UNSUPPORTED for
 * a byte that the vocabulary has no token for; most have one for each. */
DM_API dm_status dm_tokenizer_encode(const dm_tokenizer *tokenizer, const char *text, size_t length, unsigned flags,
                                     int32_t **ids, size_t *count);

/* The text of `n` tokens, exactly what was encoded. *text (malloc, NUL after its *length bytes) is the caller's to free().
 * With `special`, control tokens appear as their texts; else they leave no trace. DM_ERR_ARGUMENT for an id outside the
 * vocabulary. */
DM_API dm_status dm_tokenizer_decode(const dm_tokenizer *tokenizer, const int32_t *ids, size_t n, bool special, char **text,
                                     size_t *length);

/* Bytes of one token; not NUL-terminated, owned by the tokenizer. *length is 0
 * for control tokens and NULL is returned for ids outside the vocabulary. */
DM_API const char *dm_tokenizer_bytes(const dm_tokenizer *tokenizer, int32_t id, size_t *length);

/* ---- Conversations ------------------------------------------------------ */

typedef struct dm_chat_message {
    const char *role;    /* "system", "user" or "assistant" */
    const char *content; /* UTF-8; may be "" */
} dm_chat_message;

/* Names of the families of models whose ways of marking turns are known, in order: "chatml", "llama3" and so on; NULL
 * past the last. The last is "plain", without marks, for models that only go on from a text. */
DM_API const char *dm_chat_family(size_t index);

/* The family of the vocabulary's own chat template; NULL where it has none or none that is recognised. */
DM_API const char *dm_tokenizer_chat_family(const dm_tokenizer *tokenizer);
DM_API bool dm_tokenizer_has_chat_template(const dm_tokenizer *tokenizer);

/* The conversation as `family` marks it; NULL takes the vocabulary's own family. With `answer`, what invites the
 * assistant to speak follows. The beginning-of-text token is not part of it, but where a family repeats it between
 * turns. *text (malloc) is the caller's to free(). DM_ERR_UNSUPPORTED where no family is known, DM_ERR_ARGUMENT for an
 * unknown name or role. Nothing in a file's template is ever run. */
DM_API dm_status dm_chat_render(const dm_tokenizer *tokenizer, const char *family, const dm_chat_message *messages, size_t n,
                                bool answer, char **text);

/* The same as tokens, the beginning-of-text token first where the vocabulary asks for it. Control tokens come from the
 * family's marks alone: a message that spells one out stays text. *ids (malloc, *count entries) is the caller's to
 * free(). */
DM_API dm_status dm_chat_encode(const dm_tokenizer *tokenizer, const char *family, const dm_chat_message *messages, size_t n,
                                bool answer, int32_t **ids, size_t *count);

/* ---- Learning a vocabulary ---------------------------------------------- */

typedef struct dm_tokenizer_train_options {
    const char *const *data; /* files or folders of UTF-8 text */
    size_t n_data;
    int32_t vocab;   /* 257 or more: 256 bytes, merges, <|endoftext|> */
    const char *out; /* GGUF file to write */
} dm_tokenizer_train_options;

typedef struct dm_tokenizer_train_result {
    int32_t vocab;
    uint64_t bytes; /* of text read */
    double seconds;
} dm_tokenizer_train_result;

/* Learns a byte-level BPE (Sennrich et al. 2016, GPT-2's splitting pattern)
 * and writes it as a GGUF file without tensors. Text in which no pair of tokens
 * occurs twice any more gives a smaller vocabulary than asked for:
 * result->vocab tells. The same text gives the same file on any number of threads. */
DM_API dm_status dm_tokenizer_train(const dm_tokenizer_train_options *options, dm_tokenizer_train_result *result);

/* ---- Inference --------------------------------------------------------- */

/* One sequence: its key and value cache and its position. */
typedef struct dm_session dm_session;

/* How keys and values of past positions are kept. */
typedef enum dm_cache_type {
    DM_CACHE_F16, /* 16 bits, the default */
    DM_CACHE_Q8,  /* 8 bits and a scale for each 32: 8.5 bits */
    DM_CACHE_F32  /* as computed */
} dm_cache_type;

/* "f16", "q8" or "f32". */
DM_API dm_status dm_cache_type_from_name(const char *name, dm_cache_type *out);

/* Who chooses a token's experts. */
typedef enum dm_router_policy {
    DM_ROUTER_MODEL, /* the model: its top k by affinity, which is the router's logit plus the expert's selection bias */
    DM_ROUTER_NASH   /* a game: payoff less what an expert costs, and no token gains by changing alone (docs/routing.md) */
} dm_router_policy;

/* What an expert is worth to a token in the game. */
typedef enum dm_router_payoff {
    DM_PAYOFF_GATE,    /* the square root of its probability, as a share of that of the token's best: 0 to 1 */
    DM_PAYOFF_AFFINITY /* its affinity */
} dm_router_payoff;

/* An expert of a layer, or, with a layer of -1, of every layer. */
typedef struct dm_expert_id {
    int32_t layer, expert;
} dm_expert_id;

/*
 * How tokens find their experts. Costs and the number of experts steer the choice alone: gate weights are always those that the
 * model was trained with, over the experts chosen. Tokens of one sequence are routed one after another, each from what earlier
 * ones left, so no token depends on a later one; tokens of different sequences in one step, and those of a prompt's chunk where
 * `chunk` asks for it, play together. Memory that layers share (evict) makes one pass of each token, as in decode.
 */
typedef struct dm_router_options {
    dm_router_policy policy;
    int32_t flock;           /* experts that a token looks at, its best by affinity; 0: max(7, 2k), at most all */
    int32_t flock_resident;  /* and, where experts in memory are told from others (resident, or a budget) and fetching costs, so
                              * many beside these, the best by payoff less that price; 0: as many as a token uses; -1: none */
    dm_router_payoff payoff; /* counts where something costs: without, the game is the model's own choice either way */
    double gamma;            /* price of fetching an expert, as a share of the spread of a token's payoffs; shared by users */
    double beta;             /* price of crowding, at an even load, where tokens play together */
    int32_t keep_top;        /* a token's best by affinity that are always taken */
    int32_t max_experts;     /* most of a token; 0: as many as the model was trained with */
    int32_t min_experts;     /* fewest of a token, with theta; 0: 1 */
    double theta;      /* experts whose router probability is below this share of the best one's are left out; 0: none are */
    int32_t sweeps;    /* most of a game; 0: each token answers once to the prices that the model's own choice makes */
    int32_t resident;  /* experts of a layer that fit into memory: others cost a fetch; 0: all do */
    const char *evict; /* which of them go for others: "lru", "lfu:64", "lru:shared", ... (docs/commands.md); NULL: "lru" */
    double sleep;      /* experts wanted by less than this share of the mean of tokens sleep until wanted again; 0: none do */
    int32_t chunk;     /* tokens of a prompt that play together; 0: none do */
    bool no_bias;      /* leave out the model's selection bias, or the prices that its training left there */
    const dm_expert_id *disabled; /* [n_disabled] never used, by either policy; read once */
    size_t n_disabled;
} dm_router_options;

/* The model's own choice; and, for when the policy is changed, no costs, keep_top 1, sweeps 8. With DM_ROUTER_MODEL only
 * max_experts, resident, evict, sleep, chunk (how much of a prompt is read at a time), no_bias and the disabled experts count. */
DM_API dm_router_options dm_router_default(void);

/* All zero: the defaults. */
typedef struct dm_session_options {
    int32_t context; /* positions to hold; 0 takes the model's */
    dm_cache_type cache;
    const dm_router_options *router; /* NULL: dm_router_default(); read once */
} dm_session_options;

/* The model must outlive the session. `options` may be NULL for the defaults. */
DM_API dm_status dm_session_create_with(const dm_model *model, const dm_session_options *options, dm_session **out);
/* The same with `context` and else the defaults. */
DM_API dm_status dm_session_create(const dm_model *model, int32_t context, dm_session **out);
DM_API void dm_session_free(dm_session *session);
/* Forgets positions from `length` on (0 forgets all). */
DM_API void dm_session_truncate(dm_session *session, int32_t length);
DM_API int32_t dm_session_length(const dm_session *session);
/* Forgets all but the longest beginning that the session's tokens share with ids[n], at most n - 1 so that something
 * is left to feed; returns its length. Feeding the rest of `ids` then costs no more than what is new. */
DM_API int32_t dm_session_keep(dm_session *session, const int32_t *ids, int32_t n);

/* Writes the session's tokens, keys and values to `path`, atomically. */
DM_API dm_status dm_session_save(const dm_session *session, const char *path);
/* Puts a saved session in the place of this one's tokens; it must be of the same model and type of cache, and fit. The file
 * is checked whole first, and on failure the session is as it was. DM_ERR_ARGUMENT when it is of another session's kind. */
DM_API dm_status dm_session_load(dm_session *session, const char *path);

/* Feeds `n` tokens at the session's end. `logits`, unless NULL, receives
 * float32 [n, vocab] if `all`, else [vocab] of the last position. */
DM_API dm_status dm_session_feed(dm_session *session, const int32_t *ids, int32_t n, bool all, float *logits);

/* Feeds n different sessions of one model at once: counts[i] tokens to sessions[i], all of them in `ids`, one session's after
 * another's. `logits`, unless NULL, receives float32 [n, vocab], each session's last position. Sessions beside one another
 * that are fed one token each go through the model together, which reads each weight once for all of them; longer feeds
 * follow one after another. A session's results are the same bits as if it were fed alone, unless the tokens that go together
 * play a game: then the router of the session that lends its memory, as a rule the first, decides for all of them. On failure
 * none has advanced. */
DM_API dm_status dm_session_feed_many(dm_session *const *sessions, const int32_t *counts, size_t n, const int32_t *ids,
                                      float *logits);

typedef struct dm_routing_stats {
    uint64_t tokens;             /* token-layer routing decisions divided by layers */
    double experts_per_token;    /* mean experts used per token and layer */
    double experts_per_step;     /* different experts of a layer that a forward pass read, in the mean */
    double maxvio;               /* max load / mean load - 1, mean over layers */
    double changed;              /* share of the chosen experts that the model would not have chosen */
    uint64_t games;              /* played; the figures below are 0 where there were none */
    double sweeps;               /* of a game, the median */
    double mean_sweeps;          /* and the mean */
    double max_regret;           /* most that a token could have gained by changing alone where a game ended */
    double hit_rate;             /* share of the experts' bytes asked for that were resident; NaN: all are */
    double bytes_read_per_token; /* of experts' weights: those that were not resident, or, where all are, that passes read */
    double asleep;               /* share of experts that sleep now */
} dm_routing_stats;

/* Routing since the session was created; all zero for dense models. */
DM_API void dm_session_routing(const dm_session *session, dm_routing_stats *out);

typedef struct dm_sampling {
    float temperature;        /* 0: greedy */
    int32_t top_k;            /* 0: off */
    float top_p;              /* 1: off */
    float min_p;              /* 0: off */
    float repetition_penalty; /* 1: off; over the last `penalty_window` tokens */
    int32_t penalty_window;
    uint64_t seed;
} dm_sampling;

/* Defaults: temperature 0.8, top-k 40, top-p 0.95, min-p 0.05, no penalty, window 64, seed 0. */
DM_API dm_sampling dm_sampling_default(void);

/* Receives each piece of text as it is made (whole UTF-8 characters wherever
 * the bytes allow it). Returning false stops cleanly. */
typedef bool (*dm_text_fn)(void *user, const char *bytes, size_t length);

typedef struct dm_generate_result {
    int32_t prompt_tokens;
    int32_t tokens;   /* generated */
    double prompt_s;  /* prefill */
    double decode_s;  /* all generated tokens after the first */
    bool interrupted; /* by dm_interrupt() or the callback */
} dm_generate_result;

/* Feeds `prompt`, then generates up to `n` tokens, ending early at the
 * end-of-text token or a full context. `ids`, unless NULL, receives the
 * generated ids [n]. */
DM_API dm_status dm_generate(dm_session *session, const int32_t *prompt, size_t n_prompt, int32_t n, const dm_sampling *sampling,
                             dm_text_fn on_text, void *user, int32_t *ids, dm_generate_result *result);

/* ---- Evaluation -------------------------------------------------------- */

typedef struct dm_evaluate_options {
    int32_t context;     /* tokens per window; 0: the model's */
    int32_t overlap;     /* each window but the first starts with this many tokens of the one before, which are context only */
    dm_cache_type cache; /* of the model; a base keeps the default */
    const dm_router_options *router; /* of the model; NULL: its own choice. With a chunk, tokens that are context only play so */
    int32_t sequences; /* parts of the text that are read side by side, a token of each at a time as in decode, and route
                        * together; 0: one, many tokens at a time */
    const char *trace; /* file for the experts that each token asked for (docs/commands.md), written atomically; NULL: none */
} dm_evaluate_options;

typedef struct dm_evaluate_result {
    uint64_t tokens;       /* predicted */
    uint64_t bytes;        /* of text that they stand for; 0 without a tokenizer */
    double nll;            /* mean negative log-likelihood, nats per token */
    double perplexity;     /* exp(nll) */
    double bits_per_byte;  /* of that text, comparable between tokenizers; 0 without a tokenizer */
    double kl_mean;        /* with a base: mean KL(base || model), nats */
    double top1_agreement; /* with a base: share of positions with the same best token, 0 to 1 */
    double seconds;        /* that it took */
    dm_routing_stats routing;
    bool interrupted; /* by dm_interrupt(); the figures are of what was done */
} dm_evaluate_result;

/* Told after each window: tokens predicted so far and in all, and their mean nats. */
typedef void (*dm_evaluate_fn)(void *user, uint64_t done, uint64_t total, double nll);

/* How well `model` predicts ids[1..n-1], each from those before it in its window; every token is predicted exactly once.
 * Where the vocabulary of `tokenizer` asks for a beginning-of-text token, it stands in for the first of each later window.
 * `base`, unless NULL, is a model with the same vocabulary to compare with. `tokenizer`, unless NULL, tells how many
 * bytes a token stands for. n is 2 or more. */
DM_API dm_status dm_evaluate(const dm_model *model, const dm_model *base, const dm_tokenizer *tokenizer, const int32_t *ids,
                             size_t n, const dm_evaluate_options *options, dm_evaluate_fn on_window, void *user,
                             dm_evaluate_result *result);

/* What dm_evaluate_max_loss() came to. */
typedef enum dm_max_loss_end {
    DM_MAX_LOSS_FOUND, /* a gamma: one greater by 5% was seen to lose more than the limit */
    DM_MAX_LOSS_ALL,   /* even the largest gamma stays within: the smallest one, to 5%, that is the same to each token */
    DM_MAX_LOSS_NONE   /* even the smallest exceeds, or what else the options ask for does: 0 */
} dm_max_loss_end;

/* One reading of the whole text. */
typedef struct dm_max_loss_pass {
    double gamma;  /* NaN: the model's own choice */
    double change; /* its perplexity over that of the model's own choice, less 1 */
    dm_evaluate_result result;
} dm_max_loss_pass;

enum { DM_MAX_LOSS_PASSES = 11 }; /* the most that a search takes */

typedef struct dm_max_loss_result {
    dm_max_loss_end end;
    int32_t passes;                             /* made, the model's own choice included */
    int32_t chosen;                             /* which of them has the gamma looked for */
    bool interrupted;                           /* by dm_interrupt(): the gamma is within, a larger one may be too */
    dm_max_loss_pass tried[DM_MAX_LOSS_PASSES]; /* [passes] in this order; the first is the model's own choice */
} dm_max_loss_result;

/* Where a search is: in pass number `pass` from 1, which has predicted `done` tokens of `total` at `nll` nats each. */
typedef struct dm_max_loss_progress {
    int32_t pass;
    double gamma;  /* NaN: the model's own choice */
    double change; /* of what dm_max_loss_pass says, when done is total; NaN: not known yet */
    uint64_t done, total;
    double nll;
} dm_max_loss_progress;

typedef void (*dm_max_loss_fn)(void *user, const dm_max_loss_progress *progress);

/*
 * The largest gamma (dm_router_options) with which the perplexity of `ids` is at most 1 + limit times that of the model's own
 * choice on the same windows; limit is 0 to below 1. Looks at 8, then from 1/8 on up or down by 4 to 1/512, then by bisection of
 * its logarithm until the bounds are within 5%: DM_MAX_LOSS_PASSES passes at most. Perplexity need not rise everywhere with
 * gamma: the one returned was measured, others beyond it may be within the limit as well. Its digits are four, so that printed
 * by "%.4g" it is the same.
 *
 * options->router is for DM_ROUTER_NASH with a gamma of 0, and has something that gamma prices: resident experts, sequences side
 * by side, a chunk with an overlap that it reads, or theta. The model's own choice is taken with what counts for it beside the
 * policy, so the hit rate of its pass is that of its own choice. Without a trace. Interrupted before any gamma was found, it
 * fails with DM_ERR_INTERRUPTED. `tokenizer` and `n` as for dm_evaluate(); `on_window` may be NULL.
 */
DM_API dm_status dm_evaluate_max_loss(const dm_model *model, const dm_tokenizer *tokenizer, const int32_t *ids, size_t n,
                                      const dm_evaluate_options *options, double limit, dm_max_loss_fn on_window, void *user,
                                      dm_max_loss_result *result);

/* Writes the logits of `ids`, fed as one sequence, to `path` as float32 [n, vocab] in NumPy's format, atomically. */
DM_API dm_status dm_evaluate_logits(const dm_model *model, const int32_t *ids, size_t n, dm_cache_type cache, const char *path);

/* ---- Speed -------------------------------------------------------------- */

/* What a forward pass consists of. */
typedef enum dm_operation {
    DM_OPERATION_EMBEDDING,     /* rows of the embedding, and the rotary tables of the positions */
    DM_OPERATION_NORMS,         /* before sublayers, and the residual stream's additions */
    DM_OPERATION_PROJECTIONS,   /* of attention: queries, keys and values, and its output */
    DM_OPERATION_ATTENTION,     /* norms and turns of heads, the cache, scores and sums */
    DM_OPERATION_ROUTER,        /* its product, and the choice of experts */
    DM_OPERATION_EXPERTS,       /* of a mixture, sorting tokens by them and mixing their results included */
    DM_OPERATION_SHARED_EXPERT, /* that every token uses */
    DM_OPERATION_FEED_FORWARD,  /* where there are no experts */
    DM_OPERATION_OUTPUT,        /* logits, with the norm before them */
    DM_OPERATIONS
} dm_operation;

/* "embedding", "norms", "projections", "attention", "router", "experts", "shared_expert", "feed_forward", "output". */
DM_API const char *dm_operation_name(dm_operation operation);

typedef struct dm_bench_options {
    const int32_t *ids; /* [n_ids] text to feed, from its beginning again when it ends; each sequence begins elsewhere */
    size_t n_ids;
    int32_t prompt;                  /* tokens read at once; 0: none */
    int32_t decode;                  /* tokens that each sequence is fed one by one; 0: none */
    int32_t depth;                   /* tokens of context before them */
    int32_t sequences;               /* decoded together, 1 or more */
    int32_t rounds;                  /* after one that is not counted */
    dm_cache_type cache;             /* of keys and values */
    const dm_router_options *router; /* NULL: the model's own choice */
    bool limits;                     /* measure the machine's limits too: a few seconds */
} dm_bench_options;

/* Tokens a second of all sequences together: median over rounds, and their range; NaN where nothing was asked for. */
typedef struct dm_bench_speed {
    double tps, slowest, fastest;
    double seconds;              /* that a token took in the mean */
    double times[DM_OPERATIONS]; /* seconds of it by kind of operation; what is missing to the whole is none of them */
} dm_bench_speed;

/* Bytes of memory that the process holds at the end, with all sessions still there. */
typedef struct dm_bench_memory {
    uint64_t resident;  /* in all, the next four included */
    uint64_t file;      /* pages of the model's file */
    uint64_t repacked;  /* weights as the kernels read them */
    uint64_t cache;     /* keys and values of the positions in use */
    uint64_t scratch;   /* of the sessions */
    uint64_t file_size; /* for comparison, resident or not */
    uint64_t huge;      /* of the resident bytes, those on huge pages */
} dm_bench_memory;

typedef struct dm_bench_result {
    double load_s; /* making sessions, the repacking of weights included */
    dm_bench_speed prefill, decode;
    dm_bench_memory memory;
    uint64_t peak_rss;
    double bytes_per_token;       /* of weights that a decoded token reads: of a step, over its sequences */
    double cache_bytes_per_token; /* of keys and values that it reads */
    double experts_per_step;      /* different experts of a layer that a step of all sequences reads, in the mean */
    double decode_operations;     /* additions and multiplications with weights that a decoded token does */
    double prefill_operations;    /* and one of a prompt, whose last token alone is put out */
    /* Limits of the machine with all threads, in 10^9 operations and bytes a second; 0: not measured, or not there. */
    double fp32_gops, bf16_gops, int8_gops, int8_vector_gops, read_gb_s;
    dm_routing_stats routing; /* of the first sequence */
} dm_bench_result;

/* How fast a model runs here. Interrupted, it fails with DM_ERR_INTERRUPTED. */
DM_API dm_status dm_bench(const dm_model *model, const dm_bench_options *options, dm_bench_result *result);

enum { DM_TUNE_POINTS = 40 }; /* the most settings that are measured */

/* One setting, and how fast it was: tokens a second of all its sequences together. */
typedef struct dm_tune_point {
    int32_t threads, sequences;
    double prefill_tps; /* NaN: not measured */
    double decode_tps;
} dm_tune_point;

typedef struct dm_tune_result {
    int32_t threads;   /* fewest that read the prompt and decode after it within 2% of the least time */
    int32_t sequences; /* fewest, decoded together, within 5% of the most tokens a second */
    int32_t points;    /* measured: first one sequence with some threads each, then those threads with more sequences */
    dm_tune_point measured[DM_TUNE_POINTS]; /* [points] */
} dm_tune_result;

/* Told before each point, which is still without its speeds. */
typedef void (*dm_tune_fn)(void *user, const dm_tune_point *point);

/*
 * How many threads and how many sequences at a time serve a model best here: 1, 2, 4, ... threads up to dm_threads(), then 2, 4,
 * ... 16 sequences with the best of them. options->prompt and decode are 1 or more, sequences and limits are not looked at.
 * Leaves the threads that it found set, and bound as DM_BIND_AUTO says. `on_point` may be NULL. Interrupted, it fails with
 * DM_ERR_INTERRUPTED.
 */
DM_API dm_status dm_tune(const dm_model *model, const dm_bench_options *options, dm_tune_fn on_point, void *user,
                         dm_tune_result *result);

/* ---- The machine -------------------------------------------------------- */

/* Memory of one kind: a level of caches, or main memory. Figures are of reading, NaN where they were not measured: where a
 * working set of the tier's own could not be found, between the tier before it and its size, or memory was short. */
typedef struct dm_tier {
    char name[8];                /* "L1", "L2", ..., "RAM" */
    int32_t level;               /* of caches from 1; 0: main memory */
    uint64_t bytes;              /* of one cache of this kind (data or unified); of all memory */
    int32_t shared_by;           /* hardware threads that one serves; 0: unknown */
    int32_t count;               /* of this kind; 0: unknown. Where cores differ, a level has several kinds */
    double bandwidth_gb_s;       /* 10^9 bytes a second, one thread */
    double total_bandwidth_gb_s; /* of all threads together that this kind serves */
    double latency_ns;           /* of a read whose address the one before it told, on one thread */
    bool huge_pages;             /* the latency is of huge pages; else walks through page tables are part of it */
} dm_tier;

typedef struct dm_numa_node {
    int32_t node;    /* the system's number */
    uint64_t bytes;  /* of memory; 0: unknown */
    int32_t threads; /* hardware threads that it is local to */
} dm_numa_node;

/* Where a file or folder lies, and how fast it is read past the page cache, by one thread that waits for each read. */
typedef struct dm_disk {
    char path[4096];       /* of the file or folder; "": there was none */
    char device[24];       /* the file system's, "MAJOR:MINOR" */
    char filesystem[24];   /* "ext4", ...; "unknown" */
    char problem[256];     /* why nothing was measured; "": it was */
    bool direct;           /* O_DIRECT; else pages were dropped before they were read, and some may have come from memory */
    uint64_t file_bytes;   /* of the file that was read */
    double bandwidth_gb_s; /* 10^9 bytes a second, one piece after the other; NaN: not measured, as below */
    uint64_t read_bytes;   /* an expert's size */
    double read_us;        /* that a read of this size at a random place takes, median */
    double page_us;        /* and one of 4 KiB */
} dm_disk;

enum { DM_HUGE_POOLS = 4 };

typedef struct dm_huge_pool {
    uint64_t bytes;       /* of one page */
    uint64_t total, free; /* pages set aside */
} dm_huge_pool;

/* What the system says at the time; "" and 0: nothing. */
typedef struct dm_huge_pages {
    char enabled[16]; /* transparent ones: "always", "madvise" or "never" */
    char defrag[24];  /* how hard the system tries: "always", "defer", "defer+madvise", "madvise" or "never" */
    uint64_t bytes;   /* of a transparent one */
    int32_t n_pools;
    dm_huge_pool pools[DM_HUGE_POOLS]; /* [n_pools] by size */
} dm_huge_pages;

/* Bytes, at the time. 0: unknown, but for usable where there is a limit. */
typedef struct dm_memory {
    uint64_t total;     /* of the machine, as far as its system has it */
    uint64_t available; /* to be had without swapping */
    uint64_t limit;     /* of the control group (of this process, or above it) that leaves the least; 0: none has one */
    uint64_t used;      /* by that group, without the file pages that would make room */
    uint64_t usable;    /* that this process may still take: what is available and what the limit leaves, the lesser */
} dm_memory;

typedef struct dm_topology {
    char processor[128];      /* its name; "": unknown */
    char features[128];       /* instruction sets in use beside dm_isa(), such as "avx512_vnni amx_int8" */
    int32_t packages, cores;  /* 0: unknown */
    int32_t threads;          /* hardware threads, as far as the process's control group shows them */
    int32_t usable_threads;   /* of them those that this process may run on */
    int32_t measured_threads; /* that the figures of all threads are of: as many of the usable ones as dm_threads() asks for */
    size_t n_tiers, n_nodes;
    dm_tier *tiers;      /* [n_tiers] from the nearest; the last is main memory, alone where nobody tells of caches */
    dm_numa_node *nodes; /* [n_nodes] */
    dm_disk disk;
    dm_huge_pages huge_pages;
    dm_memory memory;
    bool measured;       /* now, at least in part; else all figures are those that were kept */
    int64_t measured_at; /* seconds since 1970, of the tiers */
    char kept[4096];     /* the file that keeps the figures; "": none */
    char note[512];      /* what stood in the way of keeping them; "": nothing */
} dm_topology;

/* Told what is measured next. */
typedef void (*dm_topology_fn)(void *user, const char *what);

/* All zero: the defaults. */
typedef struct dm_topology_options {
    const char *path; /* measure the disk below this model, or, of a folder, write a file there and remove it again; NULL: the
                       * user's cache folder */
    bool refresh;     /* measure again what is kept */
    bool kept_only;   /* measure nothing: figures that are not kept are NaN */
    dm_topology_fn on_step; /* NULL: tells nobody */
    void *user;
} dm_topology_options;

/*
 * What this machine consists of, and how fast each tier of its memory and the disk is read. That takes up to ten seconds, in
 * which the machine should do nothing else; figures are kept in topology.json in the user's cache folder, and used while
 * hardware, memory, instruction sets, threads and device are the same. A file there that cannot be used is replaced. What the
 * system does not tell stays unknown, and makes no failure. A path that is not there, or a file that is no model, fails like
 * dm_model_open(); DM_ERR_INTERRUPTED after dm_interrupt(). On success free the result with dm_topology_free(); on failure it is
 * empty. `options` may be NULL.
 */
DM_API dm_status dm_topology_measure(const dm_topology_options *options, dm_topology *out);
DM_API void dm_topology_free(dm_topology *topology);

/* ---- Training ---------------------------------------------------------- */

typedef struct dm_train_config dm_train_config;

/* All defaults. Owned by the caller. NULL when memory is short. */
DM_API dm_train_config *dm_train_config_create(void);
DM_API void dm_train_config_free(dm_train_config *config);
/* Sets one value by name, e.g. ("lr", "3e-4"); see `dilmodeli train --help`.
 * "data" and "valid" may be set several times and then add up. */
DM_API dm_status dm_train_config_set(dm_train_config *config, const char *name, const char *value);
/* Reads lines `name = value`; '#' starts a comment. Errors name the line. */
DM_API dm_status dm_train_config_load(dm_train_config *config, const char *path);
/* Name, help and default of option number `index`; false past the last. */
DM_API bool dm_train_config_describe(size_t index, const char **name, const char **help, const char **fallback);

typedef struct dm_train_progress {
    int64_t step, steps; /* done, in all */
    int64_t tokens;      /* trained on so far */
    double loss;         /* cross-entropy of this step's batch, nats per token */
    double val_loss;     /* latest, nats per token; NaN before the first */
    double val_bpb;      /* the same in bits per byte of text */
    double maxvio;       /* this batch, mean over layers; 0 for dense models */
    double lr;
    double grad_norm;
    double tokens_per_s;
    double seconds_left;
    const char *sample; /* text sampled at this step, or NULL */
} dm_train_progress;

typedef void (*dm_train_fn)(void *user, const dm_train_progress *progress);

typedef struct dm_train_result {
    int64_t steps;
    int64_t tokens;
    double loss;
    double val_loss;
    double val_bpb;
    double tokens_per_s; /* of this run, validation and checkpoints excluded */
    double maxvio;       /* over the last validation set, mean over layers */
    bool interrupted;    /* stopped by dm_interrupt(); resumable */
} dm_train_result;

/* Trains, or resumes what lies in the configured folder. */
DM_API dm_status dm_train(const dm_train_config *config, dm_train_fn on_step, void *user, dm_train_result *result);

typedef struct dm_gradcheck_tensor {
    char name[64];
    double relative_error; /* norm of the difference over norm of the reference */
} dm_gradcheck_tensor;

typedef struct dm_gradcheck_result {
    double loss;               /* cross_entropy and, by their weights, the router's losses less its rewards */
    double cross_entropy;      /* predicting ids[1:] from ids[:-1], nats */
    double aux_loss;           /* Switch loss, mean over layers */
    double max_relative_error; /* over tensors */
    size_t n_tensors;
    dm_gradcheck_tensor *tensors; /* malloc; the caller's to free() */
} dm_gradcheck_result;

/* What joins the cross-entropy, as in training: weights of the router's losses and rewards, 0 or more. The Nash loss, whose
 * slope holds a part of it fixed (docs/theory.md), has no differences to be compared with. */
typedef struct dm_gradcheck_options {
    double aux; /* of the Switch loss */
    double balance_loss, cache_reward, swarm_reward;
    const char *reference; /* GGUF file of gradients; NULL: finite differences */
    const char *precision; /* "f32" or "bf16"; NULL: f32 */
} dm_gradcheck_options;

/* One forward and backward pass of `model` over `ids`. The gradients are
 * compared with those in the file, or with central finite differences along
 * random directions per tensor, choices of experts, neighbours and residents
 * held fixed. `options` NULL: all of them 0. */
DM_API dm_status dm_gradcheck(const char *model, const int32_t *ids, size_t n, const dm_gradcheck_options *options,
                              dm_gradcheck_result *result);

/* ---- Calibration ---------------------------------------------------------- */

/* How the model's sensitivity to errors of each matrix is found: the mean squared gradient of its predictions' logarithms with
 * respect to each row of what the matrix gives. */
typedef enum dm_slopes {
    DM_SLOPES_NONE,     /* not at all: compression asks for it only where dm_compress_options.slopes is set */
    DM_SLOPES_AUTO,     /* scaled where the architecture can be trained and its gradients fit into memory, else measured */
    DM_SLOPES_SCALED,   /* by gradients, all rows of a matrix then scaled to what is measured */
    DM_SLOPES_GRADIENT, /* one number a row, by the backward pass */
    DM_SLOPES_MEASURED  /* one number a matrix, by the divergence that noise in it makes */
} dm_slopes;

typedef struct dm_calibrate_progress {
    const char *stage;    /* "inputs" or "slopes" */
    uint64_t done, total; /* tokens to read; a text may be read several times */
    double seconds_left;
} dm_calibrate_progress;

typedef void (*dm_calibrate_fn)(void *user, const dm_calibrate_progress *progress);

/* All zero: the defaults. */
typedef struct dm_calibrate_options {
    int32_t context;       /* tokens per window; 0: 512, at most the model's */
    uint64_t tokens;       /* of the text to read; 0: 32768 */
    uint64_t slope_tokens; /* of them for the slopes; 0: 8192 */
    uint64_t memory;       /* bytes for sums; with less than they need the text is read several times; 0: 1 GB */
    uint64_t seed;         /* of where windows begin, and of what is drawn */
    dm_slopes slopes;
    const char *imatrix; /* also write llama.cpp's importance matrix here, in the older format if it ends in .dat; NULL: none */
    dm_calibrate_fn on_step; /* NULL: tells nobody */
    void *user;
} dm_calibrate_options;

typedef struct dm_calibrate_result {
    uint64_t tokens, slope_tokens; /* read */
    uint64_t windows;
    uint32_t passes;         /* readings of the text */
    const char *slopes;      /* "scaled", "gradient", "measured" or "none" */
    uint64_t resumed_tokens; /* of all readings: what a run before this one had read */
    double seconds;
} dm_calibrate_result;

/*
 * Reads n token ids of a text and writes to `out` what compression wants to know about each matrix: docs/compression.md. Where
 * the work is interrupted, by dm_interrupt() (DM_ERR_INTERRUPTED) or otherwise, parts stay beside `out`, and the same call goes
 * on with them to the same result; where the whole file is there already, there is nothing left to do. `tokenizer`, which may be
 * NULL, tells the token that windows begin with; `options` and `result` may be NULL. DM_ERR_UNSUPPORTED where slopes are asked
 * for in a way that this model does not allow.
 */
DM_API dm_status dm_calibrate(const dm_model *model, const dm_tokenizer *tokenizer, const int32_t *ids, size_t n, const char *out,
                              const dm_calibrate_options *options, dm_calibrate_result *result);

/* Texts to calibrate on where there is none: sequences of `context` tokens (0: 512, at most the model's) that the model draws
 * itself, at temperature 1, n tokens together. *ids (malloc) is the caller's to free(). on_step may be NULL. */
DM_API dm_status dm_calibrate_generate(const dm_model *model, const dm_tokenizer *tokenizer, size_t n, int32_t context,
                                       uint64_t seed, dm_calibrate_fn on_step, void *user, int32_t **ids);

/* ---- Compression --------------------------------------------------------- */

/* How widths and codes are chosen. All but the first are there to be compared with it: they leave out one step after another. */
typedef enum dm_compress_method {
    DM_COMPRESS_GAME,     /* compensation, then the game: docs/compression.md */
    DM_COMPRESS_GPTQ,     /* compensation alone (Frantar et al. 2022, 2023) */
    DM_COMPRESS_RTN,      /* rounding to nearest, errors weighted by the inputs' mean squares and the slopes */
    DM_COMPRESS_WANDA,    /* weights times inputs decide (Sun et al. 2023), slopes do not */
    DM_COMPRESS_MAGNITUDE /* weights alone decide */
} dm_compress_method;

enum { DM_COMPRESS_WIDTHS = 7, DM_COMPRESS_SWEEPS = 32 };

/* One matrix as it was compressed. */
typedef struct dm_compress_matrix {
    const char *name; /* of the tensor; valid during the call */
    int32_t layer;    /* -1: outside the layers */
    int32_t expert;   /* -1: not one of a router's */
    uint64_t rows, columns, bytes;
    uint64_t tiles[DM_COMPRESS_WIDTHS]; /* 16 rows of 32 columns each: pruned, of 2, 3, 4, 5, 6, 8 bits */
    double error_before, error_after;   /* after construction, after the game */
    const char *type;                   /* "Q4_K": its blocks', where `compat` was asked for; else NULL */
} dm_compress_matrix;

typedef void (*dm_compress_matrix_fn)(void *user, const dm_compress_matrix *matrix);

/* All zero: the defaults, but for one of bpw and bytes. */
typedef struct dm_compress_options {
    double bpw;        /* bits per weight, all tensors together; 0: `bytes` says */
    bool players;      /* bpw is that of the matrices that play; the token embedding and what is copied come on top */
    uint64_t bytes;    /* of the whole file, at most */
    double pruned;     /* at least this share of the tiles is pruned, below 1; 0: as the prices say */
    bool slopes;       /* errors count by the statistics' slopes (d), not relative to each matrix's output */
    int32_t embedding; /* bits of the token embedding, which is no player: 2, 3, 4, 5, 6 or 8; 0: 6, or 8 where the layers
                          have 4.1 beside it */
    int32_t width;     /* 2, 3, 4, 5, 6 or 8: all tiles that are kept get so many bits, whatever the size; 0: free */
    const char
        *calibration; /* file of dm_calibrate(), or llama.cpp's importance matrix; NULL: only RTN and MAGNITUDE do without */
    dm_compress_method method;
    int32_t neighbours;        /* that a move wakes; 0: everybody looks in every sweep */
    bool compat;               /* only block types that every GGUF program reads, one for each tensor; neither width nor pruned
                                * then, and the game's players are single weights, who all look in every sweep */
    bool random_neighbours;    /* any instead of the nearest: what the measure of nearness is worth */
    int32_t sweeps;            /* of the game at most; 0: 2 */
    uint64_t seed;             /* of random neighbours */
    dm_convert_fn on_progress; /* weights done and to be done, twice each; NULL: tells nobody */
    dm_compress_matrix_fn on_matrix; /* NULL: tells nobody */
    void *user;
} dm_compress_options;

typedef struct dm_compress_result {
    uint64_t bytes_in, bytes_out; /* of the files */
    double bpw_in, bpw;           /* bits per weight, all tensors together, before and after */
    double pruned;                /* share of all matrices' tiles */
    uint64_t tiles[DM_COMPRESS_WIDTHS];
    double error_before, error_after; /* sum over matrices, after construction and after the game: an estimate of the KL
                                       * divergence in nats per token where the calibration has slopes */
    double price;                     /* of a byte, in units of the error */
    double kept_price;                /* of a tile that is not pruned */
    int32_t sweeps;                   /* of the longest game; 0: none was played */
    uint64_t proposals[DM_COMPRESS_SWEEPS], moves[DM_COMPRESS_SWEEPS]; /* per sweep: tiles looked at, and changed */
    double payoff[DM_COMPRESS_SWEEPS + 1];                             /* before each sweep, and at the end; never falls */
    uint64_t panels, panels_at_rest; /* panels, which are games of their own; those where nobody wants another strategy */
    double seconds;
} dm_compress_result;

/*
 * Writes the model `from` to `to` with its matrices as mixed-width panels (docs/format.md), each tile of 16 rows and 32 columns
 * pruned or of 2, 3, 4, 5, 6 or 8 bits, all under one price of a byte. Norms, biases and routers stay as they are; a token
 * embedding has no statistics of its own, and is rounded to 6 or 8 bits. With `compat` matrices become blocks of GGUF's common
 * types instead, and DM_ERR_UNSUPPORTED where `from` is mixed-width or laid out for streaming. `to` is replaced whole or not at
 * all. The same input gives the same file for any number of threads. DM_ERR_ARGUMENT where the budget is too small, or the
 * calibration is another model's.
 */
DM_API dm_status dm_compress(const char *from, const char *to, const dm_compress_options *options, dm_compress_result *result);

/* How a loss is measured, against the model that is compressed. */
typedef enum dm_loss {
    DM_LOSS_PERPLEXITY, /* its perplexity over the original's, less 1 */
    DM_LOSS_KL          /* mean KL divergence from the original, nats per token */
} dm_loss;

/* What a model may lose on a text, which should not be the one that it was calibrated on. */
typedef struct dm_compress_limit {
    dm_loss loss;
    double most;        /* of it; 0 or more, a share of perplexity below 1 */
    const int32_t *ids; /* [n] the text; 2 tokens or more */
    size_t n;
    const dm_tokenizer *tokenizer; /* as for dm_evaluate() */
    int32_t context;               /* tokens per window; 0: the model's */
} dm_compress_limit;

enum { DM_COMPRESS_TRIALS = 16 }; /* the most that a search takes */

/* A size that was tried. */
typedef struct dm_compress_trial {
    double bpw;                /* asked for */
    bool possible;             /* false: it was too small for any file, and there is nothing else to tell */
    double loss;               /* in units of the limit */
    dm_compress_result result; /* bytes_out is that of the file that was evaluated */
    dm_evaluate_result evaluation;
} dm_compress_trial;

typedef struct dm_compress_search {
    int32_t trials;      /* made */
    int32_t chosen;      /* the smallest within the limit so far; -1: none */
    double bound;        /* bits per weight that were seen to lose more than the limit, or are too few; 0: none */
    double perplexity;   /* of the original */
    double seconds_left; /* about, for the trials to come */
    double seconds;      /* that all took */
    dm_compress_trial tried[DM_COMPRESS_TRIALS]; /* [trials] in this order */
} dm_compress_search;

/* Told after each trial, search->tried[search->trials - 1]; its matrices were told of before. */
typedef void (*dm_compress_trial_fn)(void *user, const dm_compress_search *search);

/*
 * dm_compress() to the smallest file that stays within a limit. Looks at 4 bits per weight, from there down by 1, or up to the
 * most that there is, and then halves the distance between what is within and what is not until it is 1/16 bit: some 10
 * trials, each a compression and an evaluation. What does not depend on the size is measured once. Losses need not fall
 * everywhere with the size: the file that is written was measured, smaller ones may be within the limit as well. options->bpw,
 * bytes and width are 0; `on_trial`, which may be NULL, is told options->user.
 *
 * DM_ERR_ARGUMENT where even the largest file loses more. DM_ERR_INTERRUPTED after dm_interrupt(). `to` is written at the end or
 * not at all; *search tells of the trials in any case.
 */
DM_API dm_status dm_compress_within(const char *from, const char *to, const dm_compress_options *options,
                                    const dm_compress_limit *limit, dm_compress_trial_fn on_trial, dm_compress_search *search);

/* ---- Games ---------------------------------------------------------------- */

/* A game in strategic form: players choose a strategy each at the same time, and a table says what each gets. */
typedef struct dm_game dm_game;

/* Reads a game in Gambit's .nfg format, in its version with payoffs or with outcomes. On success *out is owned by the caller;
 * free it with dm_game_free(). DM_ERR_FORMAT names the line and what was expected there; DM_ERR_UNSUPPORTED refuses games of
 * more than 2^24 payoffs (players times combinations of strategies) before memory is asked for. Numbers are whole, decimal,
 * with exponents, or fractions of these such as -7/3; digits past the 18th are rounded away; a payoff is 0 or of magnitude
 * 1e-300 to 1e300. On failure *out is NULL. */
DM_API dm_status dm_game_open(const char *path, dm_game **out);
/* The same from a text of `length` bytes. */
DM_API dm_status dm_game_parse(const char *text, size_t length, dm_game **out);
/* The same from memory: strategies[players] counts, payoffs[combinations, players] with the first player's strategy running
 * fastest. */
DM_API dm_status dm_game_create(int32_t players, const int32_t *strategies, const double *payoffs, dm_game **out);
DM_API void dm_game_free(dm_game *game);

/* Names are "" where the game gives none, and valid as long as the game. */
DM_API const char *dm_game_title(const dm_game *game);
DM_API int32_t dm_game_players(const dm_game *game);
DM_API const char *dm_game_player_name(const dm_game *game, int32_t player);
DM_API int32_t dm_game_strategies(const dm_game *game, int32_t player);
DM_API const char *dm_game_strategy_name(const dm_game *game, int32_t player, int32_t strategy);
/* What `player` gets when each plays profile[players]; NaN outside the game. */
DM_API double dm_game_payoff(const dm_game *game, const int32_t *profile, int32_t player);

typedef enum dm_nash_method {
    DM_NASH_AUTO, /* DM_NASH_ALL where that works; else the pure equilibria, or one that is mixed where there are none */
    DM_NASH_PURE, /* all pure equilibria, of any game */
    DM_NASH_ALL,  /* all equilibria of a small game for two players, components by their extreme points; exact */
    DM_NASH_ONE   /* one equilibrium of any game; exact for small games for two players */
} dm_nash_method;

/* All zero: the defaults. */
typedef struct dm_nash_options {
    dm_nash_method method;
    uint64_t seed; /* of DM_NASH_ONE; the same seed finds the same equilibrium */
} dm_nash_options;

/*
 * The regret of a player is what the best strategy alone would gain over the mixture played, the others' play given: 0 for all
 * players at an equilibrium. `regret` is the largest over players of regret divided by the player's range of payoffs (largest
 * minus smallest in the game; a player whose payoff is constant has none), so it does not depend on the unit of payoffs.
 * `absolute_regret` is the largest in the payoffs' own units.
 */
typedef struct dm_equilibrium {
    const double *probabilities; /* one player's strategies after the other's */
    const double *payoffs;       /* [players] expected */
    double regret, absolute_regret;
    bool pure;
    int32_t component; /* of DM_NASH_ALL: equilibria that hang together have the same, from 0 */
} dm_equilibrium;

typedef struct dm_nash_result {
    dm_nash_method method;      /* what was done: never DM_NASH_AUTO */
    size_t count;               /* of equilibria listed; may be 0 for DM_NASH_PURE */
    uint64_t found;             /* more than `count` where the list would have more than 2^22 probabilities */
    dm_equilibrium *equilibria; /* [count] */
    double max_regret, max_absolute_regret;
    double *numbers; /* what the equilibria point into */
} dm_nash_result;

/* Finds equilibria. DM_ERR_UNSUPPORTED: DM_NASH_ALL of a game that is not for two players or has too many strategies or
 * vertices; DM_NASH_ONE where nothing with a regret of 1e-6 or less was found. DM_ERR_INTERRUPTED after dm_interrupt(). On
 * success free the result with dm_nash_result_free(); on failure it is empty. `options` may be NULL for the defaults. */
DM_API dm_status dm_nash_solve(const dm_game *game, const dm_nash_options *options, dm_nash_result *result);
DM_API void dm_nash_result_free(dm_nash_result *result);

/* ---- The swarm: routing without a model ----------------------------------- */

/*
 * The joined decision for anybody who has experts' keys (rows of a router's matrix) and tokens' vectors: each token looks at
 * its flock, the experts whose keys it scores highest (Ballerini et al. 2008); the tokens of a call play the routing game over
 * what experts cost (Rosenthal 1973), which stops where nobody gains by changing alone; and the gates weigh what was chosen.
 * docs/theory.md says more; examples/route.c is an example.
 */
typedef struct dm_swarm dm_swarm;

/* Copies keys [experts, dim], row-major. On success *out is owned by the caller; free it with dm_swarm_free(). On failure *out
 * is NULL: DM_ERR_ARGUMENT where a size is below 1 or a number is not finite, saying which; DM_ERR_MEMORY. */
DM_API dm_status dm_swarm_create(const float *keys, int32_t experts, int32_t dim, dm_swarm **out);
DM_API void dm_swarm_free(dm_swarm *swarm);

/* How flocks are found. */
typedef enum dm_swarm_search {
    DM_SWARM_AUTO,  /* by the scan below 400 experts and for flocks of more than an eighth of them, else by the graph */
    DM_SWARM_EXACT, /* all keys are scanned */
    DM_SWARM_GRAPH  /* a graph of keys, built by the first call that wants it, is walked from the flock of the token before
                     * (Malkov and Yashunin 2018; Morozov and Babenko 2018). Finds most of the nearest where keys have
                     * neighbourhoods; where prices differ, the best of those near by affinity. A token for which it finds
                     * fewer than top_k experts that may be chosen is scanned. The same keys give the same graph. */
} dm_swarm_search;

/* Arrays are read during the call only. */
typedef struct dm_swarm_options {
    int32_t top_k;       /* most experts of a token, 1 to all */
    int32_t min_experts; /* fewest, 1 to top_k */
    double theta;        /* with min_experts below top_k: experts whose gate would be below this share of the best one's, costs
                          * included, are left out; in (0, 1] */
    int32_t flock;       /* experts that a token looks at, top_k to all; 0: max(7, 2 top_k), at most all */
    int32_t keep_top;    /* a token's best by affinity that are always taken, 0 to min_experts */
    double beta;         /* price of crowding, at an even load; 0 or more */
    double gamma;        /* price of fetching an expert, as a share of `spread`; shared by its users; 0 or more */
    double spread;       /* range of affinities; 0: from the best to the last of a flock, mean over tokens */
    const float *tau;    /* [experts] seconds to fetch each, 0 in cache, with gamma; NULL: all the same */
    double tau_slowest;  /* seconds, of an expert of the slowest tier; > 0 with tau */
    const float *price;  /* [experts] what each costs whatever its load, such as prices persisted in training; the flock is taken
                          * by affinity less price, the keep_top best by affinity always among it; or NULL */
    const bool *off;     /* [experts] may not be chosen; or NULL */
    int32_t sweeps;      /* most of the game; 0: each token answers once to the prices that everybody's best by affinity make */
    dm_swarm_search search;
    bool goes_on;   /* the tokens go on where the call before ended: the graph is walked from its last token's flock */
    bool alignment; /* measure it: takes inner products of all pairs of the tokens */
} dm_swarm_options;

/* The top_k best by affinity, whatever they cost: min_experts top_k, keep_top 1, sweeps 8 and else zeros. */
DM_API dm_swarm_options dm_swarm_default(int32_t top_k);

typedef struct dm_swarm_result {
    double potential_before, potential_after; /* Rosenthal's, of everybody's best by affinity and of the end; it never falls */
    double max_regret;                        /* most that a token would gain by changing alone; at most 1e-9 at rest */
    size_t sweeps;                            /* begun; the last one, at rest, found nobody to change */
    size_t moves;                             /* of tokens that changed */
    bool at_rest;                             /* an equilibrium; else `sweeps` were too few */
    bool graph;                               /* whether flocks were found by the graph */
    double maxvio;                            /* max load / mean load - 1, over all experts */
    double alignment;   /* mean over tokens of the cosine between a token's router distribution and the mean of those of its 7
                         * nearest earlier tokens, 1 where there are none (Reynolds 1987); a distribution is the softmax over
                         * the flock. NaN: not asked for, or no tokens */
    double evaluations; /* inner products with keys that finding a token's flock took, in the mean */
    double experts_per_token;
} dm_swarm_result;

/*
 * Decides for tokens [n, dim], which play one game; n may be 0. The affinity of an expert is the inner product of its key with
 * the token; one that is beyond what a float holds is never chosen. experts [n, top_k] receives ids, best affinity first and
 * -1 after a token's last, which is also where everything is off; gates [n, top_k] the softmax of the chosen experts'
 * affinities (prices steer the choice only), 0 after the last; *result, unless NULL, the figures.
 *
 * Results do not depend on the number of threads, nor, but for goes_on, on earlier calls. Earlier tokens' choices depend on
 * later ones' where beta or gamma is above 0: for causal choices call once a token. DM_ERR_ARGUMENT where options do not go
 * together or something is not finite, saying which; the outputs are then as they were. Scanning takes O(experts dim) a token,
 * walking some hundred inner products, the game O(flock) a sweep; flocks of thousands take time as their square.
 */
DM_API dm_status dm_swarm_decide(dm_swarm *swarm, const float *tokens, size_t n, const dm_swarm_options *options,
                                 int32_t *experts, float *gates, dm_swarm_result *result);

#ifdef __cplusplus
}
#endif

#endif
