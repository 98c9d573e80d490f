/* How often each word of a corpus occurs: all that learning a BPE needs to know of it. */
#ifndef DM_MODEL_WORD_COUNTS_H
#define DM_MODEL_WORD_COUNTS_H

#include "base/table.h"

typedef struct dm_word_counts {
    dm_strings words;
    uint64_t *counts; /* [words.count] */
    size_t room;
    uint64_t bytes; /* of text read */
} dm_word_counts;

/* A longer word is counted as pieces of this many bytes, so that a run without spaces costs no more than other text. */
#define DM_LONGEST_COUNTED_WORD 256

/* Counts the words of files and folders on all threads; counts and the set of words do not depend on how many there are
 * (the order of the words does). DM_END_OF_TEXT separates documents and is counted nowhere. Files are mapped, so memory
 * grows with the number of different words. Start from {0}; free in any case. */
dm_status dm_word_counts_read(dm_word_counts *counts, const char *const *data, size_t n_data);
void dm_word_counts_free(dm_word_counts *counts);

#endif
