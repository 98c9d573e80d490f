/* What the files that read requests share. */
#ifndef DM_SERVER_REQUEST_PARTS_H
#define DM_SERVER_REQUEST_PARTS_H

#include "base/json.h"
#include "base/random.h"
#include "server/request.h"

typedef struct dm_request_reader {
    dm_json_reader json;
    const char *param; /* the field that is being read */
} dm_request_reader;

/* An empty one, which the caller holds; NULL: no memory. */
dm_request *dm_request_create(dm_request_kind kind);

/* The value of `key`, NULL where it is missing or null; messages are about it from here on. */
const json_t *dm_request_get(dm_request_reader *from, const char *key);

/* Texts or ids, one or several, as prompts. */
dm_status dm_request_read_texts(dm_request_reader *from, const dm_request_rules *rules, const char *key, dm_request *request);
/* A conversation as one prompt. */
dm_status dm_request_read_messages(dm_request_reader *from, const dm_request_rules *rules, dm_request *request);

#endif
