/*
 * Models whose experts stay on disk as far as memory has no room: what was asked for, where the experts lie in the model's files,
 * and the store, which is made when the first token is fed, as only then it is known what the sessions take.
 */
#ifndef DM_MODEL_STREAMING_H
#define DM_MODEL_STREAMING_H

#include "model/model.h"
#include "moe/expert_store.h"

typedef struct dm_streaming dm_streaming;

void dm_streaming_free(dm_streaming *it);

/* A session of the model takes so many bytes, or gives them back (negative). */
void dm_streaming_note_session(const dm_model *model, int64_t bytes);

/* *out is the model's store; NULL where it is not streamed. */
dm_status dm_streaming_start(const dm_model *model, dm_expert_store **out);

/* So many tokens were fed. */
void dm_streaming_note_tokens(const dm_model *model, size_t n);

/* What experts cost, for routers; good once a store was started. */
dm_residency dm_streaming_residency(const dm_model *model);

#endif
