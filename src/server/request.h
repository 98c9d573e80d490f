/* What a client asks for, read from JSON, and what comes of it: pieces of answers that the engine leaves and a connection takes.
 */
#ifndef DM_SERVER_REQUEST_H
#define DM_SERVER_REQUEST_H

#include <pthread.h>
#include <stdatomic.h>

#include "server/grammar.h"

enum {
    DM_REQUEST_STOPS = 16,       /* most stop strings */
    DM_REQUEST_STOP_BYTES = 256, /* of one */
    DM_REQUEST_CHOICES = 128,    /* most answers of a request */
    DM_REQUEST_TOP = 20,         /* most alternatives of a token */
};

typedef enum dm_request_kind {
    DM_REQUEST_CHAT,
    DM_REQUEST_COMPLETION,
    DM_REQUEST_EMBEDDING,
} dm_request_kind;

typedef struct dm_prompt {
    int32_t *ids; /* [n] malloc */
    size_t n;
} dm_prompt;

typedef struct dm_logit_bias {
    int32_t id;
    float bias;
} dm_logit_bias;

/* A token of an answer and how likely it was, with the likeliest ones in its place. */
typedef struct dm_token_odds {
    int32_t id;
    float logprob; /* NaN: nothing came before it */
    size_t start;  /* bytes of the answer before it */
    int32_t n_top;
    struct {
        int32_t id;
        float logprob;
    } top[DM_REQUEST_TOP]; /* [n_top] */
} dm_token_odds;

/* Why an answer ended. */
typedef enum dm_finish {
    DM_FINISH_NONE,   /* it goes on */
    DM_FINISH_STOP,   /* by itself, or at a stop string */
    DM_FINISH_LENGTH, /* as many tokens as were asked for or fit, or the server had no more time for it */
    DM_FINISH_ERROR,  /* `text` says what was wrong */
} dm_finish;

/* A piece of one answer. */
typedef struct dm_piece {
    struct dm_piece *next;
    int32_t choice;
    dm_finish finish;
    int status; /* of an error, as HTTP has it */
    char *text; /* [length] malloc; whole characters, NUL-terminated */
    size_t length;
    dm_token_odds *odds; /* [n_odds] malloc */
    size_t n_odds;
    float *vector; /* [dim] malloc, an embedding */
} dm_piece;

/* Functions that an answer may call. */
typedef struct dm_request_tools {
    const dm_chat_dialect *dialect; /* NULL: it may call none */
    json_t *list;                   /* as they came; its holder */
    dm_function *functions;         /* [n] malloc; their texts and schemas are the list's */
    size_t n;
    bool called;                  /* the prompt has begun the first call */
    int32_t marks[DM_CHAT_MARKS]; /* the control tokens of calls, as dm_chat_mark_tokens() has them */
} dm_request_tools;

typedef struct dm_request {
    dm_request_kind kind;
    bool stream, include_usage, echo;
    int32_t n;          /* answers to each prompt */
    dm_prompt *prompts; /* [n_prompts] malloc */
    size_t n_prompts;
    int32_t max_tokens; /* -1: as many as fit */
    dm_sampling sampling;
    float presence, frequency;
    dm_logit_bias *biases; /* [n_biases] malloc */
    size_t n_biases;
    char *stops[DM_REQUEST_STOPS];
    size_t stop_lengths[DM_REQUEST_STOPS], n_stops;
    bool odds;           /* logprobs were asked for */
    int32_t top;         /* and so many alternatives */
    dm_grammar *grammar; /* what answers must be like; NULL: anything */
    dm_request_tools tools;
    bool base64;     /* embeddings as such */
    bool ignore_end; /* tokens that end a text do not */
    uint64_t client; /* who asks, for turns in the queue */
    double deadline; /* dm_seconds() */
    double arrived;

    /* Shared by the connection and the engine. */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    dm_piece *first, *last;                            /* under lock: pieces that were not taken yet */
    int32_t open;                                      /* under lock: answers that have not ended */
    uint64_t prompt_tokens, made_tokens, known_tokens; /* under lock */
    atomic_bool cancelled;
    atomic_int holders; /* the connection, and each answer that has not ended */
} dm_request;

/* What is read from a request depends on. */
typedef struct dm_request_rules {
    const dm_tokenizer *tokenizer;
    const char *family; /* of the chat; NULL: none is known */
    int32_t vocab, context;
} dm_request_rules;

/* Reads a request of this kind; *param is the field that a failure is about, or NULL. *out is freed with dm_request_drop(). */
dm_status dm_request_read(dm_request_kind kind, const dm_request_rules *rules, const char *body, size_t length, dm_request **out,
                          const char **param);
/* One holder less; the last one frees it. NULL: nothing happens. */
void dm_request_drop(dm_request *request);

/* Puts a piece (taken over) where the connection finds it. */
void dm_request_put(dm_request *request, dm_piece *piece);
/* The oldest piece, the caller's to free, once there is one; NULL after `wait_ms` without. *done: and there will be no more. */
dm_piece *dm_request_take(dm_request *request, int wait_ms, bool *done);
void dm_piece_free(dm_piece *piece);

#endif
