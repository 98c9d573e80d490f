/* A vocabulary of bytes and control tokens, the first of which begins a text and the second ends it. */
#ifndef DM_TEST_FUZZ_VOCABULARY_H
#define DM_TEST_FUZZ_VOCABULARY_H

#include "byte_vocabulary.h"
#include "fuzz.h"

static inline dm_tokenizer *fuzz_vocabulary(const char *const *control, size_t n) {
    dm_tokenizer *made = byte_vocabulary(control, n, NULL);
    FUZZ_CHECK(made != NULL);
    return made;
}

#endif
