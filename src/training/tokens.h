/* The corpus as ids in a memory-mapped file, and the order in which training reads it. */
#ifndef DM_TRAINING_TOKENS_H
#define DM_TRAINING_TOKENS_H

#include "base/file.h"
#include "model/tokenizer.h"

typedef struct dm_tokens {
    dm_map map;
    const void *ids; /* uint16 where the vocabulary fits, else uint32 */
    bool wide;
    uint64_t count;  /* tokens, an end-of-text token after every document */
    uint64_t bytes;  /* of text that they stand for, end-of-text tokens counting 0 */
    uint64_t source; /* fingerprint of the list of files that they were made from */
} dm_tokens;

/*
 * Encodes the documents of `data` into folder/train.tokens and folder/valid.tokens, on all threads, each written
 * atomically, unless files made from the same list (paths, sizes, times) with the same tokenizer are there already.
 * A document is a file, or a part of one between lines of text <|endoftext|>. With `valid` given its files are the
 * validation set and left out of `data`; without, every 60th document by a hash of its content, but none larger than a
 * tenth of the text (never all, never none; where no document can be spared, as with a single one, each gives its last
 * 60th, cut at a line). Files inside `folder`, which is made if need be, are not read. Both sets are opened; close each with
 * dm_tokens_close(). On failure neither is open. The result does not depend on the number of threads.
 */
dm_status dm_tokens_prepare(const char *folder, const char *const *data, size_t n_data, const char *const *valid, size_t n_valid,
                            const dm_tokenizer *tokenizer, dm_tokens *train, dm_tokens *validation);
/* Maps a token file and checks all of it: header, size, checksum, every id within the vocabulary of `tokenizer`, which
 * must be the one it was made with. */
dm_status dm_tokens_open(const char *path, const dm_tokenizer *tokenizer, dm_tokens *out);
void dm_tokens_close(dm_tokens *tokens);

/* Copies ids [start, start + n) to out; the range must lie within count. */
void dm_tokens_copy(const dm_tokens *tokens, uint64_t start, size_t n, int32_t *out);

/*
 * Where training window number `index` (0, 1, 2, ... over all epochs) of `length` + 1 ids starts: the corpus is cut
 * into windows, each epoch visits all of them once in an order of its own (a keyed permutation, no table), and shifts
 * the cuts by an offset of its own, so that less than two windows of the corpus stay unread in an epoch. A pure
 * function, so the position in the data is one number. count > length > 0.
 */
uint64_t dm_tokens_window(const dm_tokens *tokens, uint64_t seed, uint64_t index, size_t length);

/* Windows in an epoch, 1 or more. */
uint64_t dm_tokens_windows(const dm_tokens *tokens, size_t length);

#endif
