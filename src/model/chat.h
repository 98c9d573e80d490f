/*
 * Conversations as the text that a model was trained on. Each family of models marks the turns in its own way; which one a
 * file means is recognised by marks in its tokenizer.chat_template. The template itself, a program in a language of its own,
 * is never run: what is not recognised is refused (CVE-2024-34359).
 */
#ifndef DM_MODEL_CHAT_H
#define DM_MODEL_CHAT_H

#include "model/encoder.h"

/* A rendered conversation. */
typedef struct dm_chat_text {
    char *text; /* malloc; NUL-terminated */
    size_t length, room;
    dm_span *spans; /* malloc; what came from messages */
    size_t n_spans, spans_room;
} dm_chat_text;

/* Name of the family whose template this is; NULL: none that is known. */
const char *dm_chat_recognise(const char *chat_template);

/* Start from {0}; free with dm_chat_text_free() also after a failure. */
dm_status dm_chat_write(const dm_tokenizer *tokenizer, const char *family, const dm_chat_message *messages, size_t n, bool answer,
                        dm_chat_text *out);
void dm_chat_text_free(dm_chat_text *text);

#endif
