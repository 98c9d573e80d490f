/*
 * An HTTP server in the manner of OpenAI's API over one model: a thread that owns the model decodes for all requests together,
 * and a thread for each connection reads requests and writes answers (docs/serving.md).
 */
#ifndef DM_SERVER_SERVER_H
#define DM_SERVER_SERVER_H

#include "base/status.h"

typedef struct dm_server dm_server;

typedef struct dm_server_options {
    const char *host;                /* an address of this machine to listen on */
    uint16_t port;                   /* 0: any that is free */
    const char *name;                /* of the model, in answers */
    const char *family;              /* how turns of a chat are marked; NULL: as the model's template says */
    const char *const *keys;         /* [n_keys] of which a request must name one; read once */
    size_t n_keys;                   /* 0: anybody may ask */
    const char *cors;                /* an origin whose pages may ask, or "*"; NULL: none */
    int32_t slots;                   /* sequences that are decoded at a time */
    int32_t context;                 /* positions of each; 0: the model's, or as many as fit into memory */
    int32_t piece;                   /* tokens of a prompt that are read between two steps of the others */
    bool reuse_all;                  /* go on from whatever a slot holds; else only from what would be computed in the same way */
    dm_cache_type cache;             /* of keys and values */
    const dm_router_options *router; /* NULL: the model's own choice; read once */
    size_t max_body;                 /* bytes of a request */
    int32_t max_queue;               /* answers that wait for a slot */
    int32_t max_clients;             /* connections */
    int32_t timeout_s;               /* that a request may take in all */
    int32_t idle_s;                  /* that a client may take to send a request, or do nothing */
} dm_server_options;

/* 127.0.0.1:8080, 4 slots, pieces of 128, 1 MiB, 256 waiting, 256 clients, 600 s, 30 s. */
dm_server_options dm_server_defaults(void);

/* Listens and answers until it is stopped. The model, `tokenizer` and `options->name` and `family` must outlive the server; the
 * model must have no sessions that others feed meanwhile. */
dm_status dm_server_start(const dm_model *model, const dm_tokenizer *tokenizer, const dm_server_options *options,
                          dm_server **out);
/* That it listens on. */
uint16_t dm_server_port(const dm_server *server);
/* Positions of each slot. */
int32_t dm_server_context(const dm_server *server);
/* Takes no more requests (503), waits up to `grace_s` seconds for those under way, cuts the others, and frees the server; NULL:
 * none. */
void dm_server_stop(dm_server *server, double grace_s);

#endif
