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
/* A conversation as one prompt, with what it says of functions beside its messages. */
dm_status dm_request_read_messages(dm_request_reader *from, const dm_request_rules *rules, dm_chat_functions *functions,
                                   dm_request *request);

/* The functions that a chat may call and whether it must. */
dm_status dm_request_read_tools(dm_request_reader *from, const dm_request_rules *rules, dm_chat_functions *functions,
                                dm_request *request);
/* Calls of message `number`, from 1, and the call that it is the result of. Freed with dm_request_free_extra(), also after a
 * failure. */
dm_status dm_request_read_extra(const json_t *message, const char *role, size_t number, dm_chat_extra *out);
void dm_request_free_extra(dm_chat_extra *extra);

#endif
