/*
 * Cuts text into the words that BPE works within, by the rules of pretokenizer.h.
 *
 * PCRE2 with its JIT decides; cases that need only ASCII go through an equal path of our own, several times as fast. A byte
 * that is not part of valid UTF-8 counts as one character that is neither letter, number, sign nor space.
 */
#ifndef DM_MODEL_SPLIT_H
#define DM_MODEL_SPLIT_H

#include "model/pretokenizer.h"

/* For one thread. */
typedef struct dm_splitter dm_splitter;
dm_status dm_splitter_create(const dm_pretokenizer *rules, dm_splitter **out);
void dm_splitter_free(dm_splitter *splitter);

/* Starts a text, which must stay until the last word was taken. */
dm_status dm_splitter_start(dm_splitter *splitter, const char *text, size_t length);
/* Bytes in the next word, which starts where the last one ended; 0 after the last. */
dm_status dm_splitter_next(dm_splitter *splitter, size_t *length);

/* Turns the ASCII path off or on (the default): tests compare the two. */
void dm_splitter_set_fast(dm_splitter *splitter, bool fast);

/* Where text may be cut without changing GPT-2's words: the first place in [from, to) between a printable ASCII character and
 * white space after it; `to` if there is none. from > 0. */
size_t dm_split_point(const char *text, size_t from, size_t to);

#endif
