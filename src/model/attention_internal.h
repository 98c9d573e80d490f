/* Sizes of the pieces that attention is cut into. */
#ifndef DM_MODEL_ATTENTION_INTERNAL_H
#define DM_MODEL_ATTENTION_INTERNAL_H

#include "model/attention.h"

enum {
    CHUNK_QUERIES = 64,
    CHUNK_KEYS = 256,
    STEP_BLOCK = 512, /* positions of one task; a fixed grid, so that threads do not change what is summed with what */
    STEP_TILE = 64,   /* rows at a time, which stay in the first-level cache for the whole group of heads */
};

#endif
