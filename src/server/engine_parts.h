/* What the engine's files share. */
#ifndef DM_SERVER_ENGINE_PARTS_H
#define DM_SERVER_ENGINE_PARTS_H

#include "base/threads.h"
#include "model/session.h"
#include "server/board.h"
#include "server/engine.h"
#include "server/queue.h"

/* A sequence, and the answer that it is for. */
typedef struct dm_slot {
    dm_session *session;
    dm_choice *choice; /* NULL: free */
    size_t read;       /* tokens of its prompt that the session has */
    size_t exact;      /* the session's first positions that were read in whole pieces, as any prompt's would be */
    bool writing;      /* the prompt is read, and `next` is to be fed */
    int32_t next;
    dm_failure drawn; /* how drawing it went */
    uint64_t used;    /* when it was last taken, in answers begun */
    double *sum;      /* [dim] of an embedding's states; NULL: none */
} dm_slot;

struct dm_engine {
    const dm_model *model;
    const dm_tokenizer *tokenizer;
    dm_metrics *metrics;
    dm_vocabulary_order order;
    dm_slot *slots; /* [n_slots] */
    size_t n_slots, piece;
    size_t turn; /* the slot that reads next */
    bool reuse_all;
    int32_t max_queue;
    uint64_t begun; /* answers */

    dm_session **sessions; /* [n_slots] all of them */
    dm_session **fed;      /* [n_slots] those of a step, */
    size_t *fed_slots;     /* whose slots they are, */
    int32_t *counts, *ids; /* 1 each, and the tokens */
    float *logits;         /* [n_slots, vocab], or [piece, vocab] where all of a prompt's are asked for */
    size_t logits_rows;
    uint64_t steps, step_rows, step_experts; /* of steps that decode */
    double told;                             /* when metrics were */

    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    dm_queue queue; /* under lock */
    bool stopping;  /* under lock: no more requests */
    double cut_at;  /* under lock, once it stops: when what is under way is cut */
    dm_board board;
};

static inline size_t dm_engine_vocab(const dm_engine *engine) {
    return (size_t)engine->model->config.vocab;
}

/* ---- Work on slots; each answer that cannot go on is ended with the reason ---- */

/* Finds a free slot for an answer, which it takes over. There is one. */
void dm_engine_begin(dm_engine *engine, dm_choice *choice);
/* The next piece of one prompt. False: none is being read. */
bool dm_engine_read(dm_engine *engine);
/* The next token of all answers whose prompts are read. False: there are none. */
bool dm_engine_write(dm_engine *engine);
/* Ends a slot's answer, which frees the slot; without a reason it is cut where it is. */
void dm_engine_end(dm_engine *engine, dm_slot *slot, dm_finish finish);
/* Room for logits of so many rows. */
dm_status dm_engine_reserve(dm_engine *engine, size_t rows);

/* Reads the slot's next piece of a text whose embedding is wanted; with the last, puts the embedding. */
dm_status dm_engine_embed(dm_engine *engine, dm_slot *slot, size_t n);

/* Positions of each slot, of `each` bytes, in `usable` bytes (0: nobody knows) for a model of `known` positions. Memory is taken
 * as slots fill, so what could not be had then is refused now; where no number was asked for, there are as many as fit. */
dm_status dm_engine_choose_context(const dm_server_options *options, int32_t known, size_t each, uint64_t usable, int32_t *out);

/* Posts what is going on. */
void dm_engine_post(dm_engine *engine, int32_t waiting, double now);

#endif
