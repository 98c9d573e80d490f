/* A vocabulary of bytes and control tokens, the first of which begins a text and the second ends it. */
#ifndef DM_TEST_FUZZ_VOCABULARY_H
#define DM_TEST_FUZZ_VOCABULARY_H

#include "fuzz.h"
#include "model/vocabulary.h"

static inline dm_tokenizer *fuzz_vocabulary(const char *const *control, size_t n) {
    dm_tokenizer *made;
    FUZZ_CHECK(dm_vocabulary_create(&made) == DM_OK && dm_vocabulary_add_bytes(made) == DM_OK);
    for (size_t i = 0; i < n; i++) {
        FUZZ_CHECK(dm_vocabulary_add(made, control[i], strlen(control[i]), DM_TOKEN_CONTROL) == DM_OK);
    }
    made->bos = 256;
    made->eos = 257;
    FUZZ_CHECK(dm_vocabulary_finish(made) == DM_OK);
    return made;
}

#endif
