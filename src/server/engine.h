/* The thread that owns the model: requests wait in a queue, take turns in slots, and are decoded together. */
#ifndef DM_SERVER_ENGINE_H
#define DM_SERVER_ENGINE_H

#include "server/metrics.h"
#include "server/request.h"
#include "server/server.h"

typedef struct dm_engine dm_engine;

dm_status dm_engine_start(const dm_model *model, const dm_tokenizer *tokenizer, const dm_server_options *options,
                          dm_metrics *metrics, dm_engine **out);
/* Takes one more holder of the request for each answer. DM_ERR_ARGUMENT: the queue is full. DM_ERR_INTERRUPTED: the engine
 * stops. */
dm_status dm_engine_ask(dm_engine *engine, dm_request *request);
/* No more requests are taken; returns when all are answered, those that take longer than `grace_s` cut. */
void dm_engine_drain(dm_engine *engine, double grace_s);
void dm_engine_free(dm_engine *engine);

struct dm_board;
/* Where what it does can be watched. */
struct dm_board *dm_engine_board(dm_engine *engine);

/* Makes an engine that waits look whether it is watched. */
void dm_engine_wake(dm_engine *engine);

/* Positions of a slot. */
int32_t dm_engine_context(const dm_engine *engine);

#endif
