/*
 * Learning a byte-level BPE (Sennrich et al. 2016): join the pair of neighbouring tokens that is most frequent within words,
 * over and over. Counts are kept up to date with each merge, and for every pair the words in which it may occur, so that a
 * merge looks at those words only. Equal counts are decided by the lower ids: the result depends on the text alone.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "base/heap.h"
#include "base/threads.h"
#include "model/vocabulary.h"
#include "model/word_counts.h"

/* A pair seen once says nothing about the language. */
enum { FEWEST_OCCURRENCES = 2 };

typedef struct learned_pair {
    uint64_t pair;  /* dm_pair() */
    uint64_t count; /* in the whole text, as the words are cut into tokens now */
    uint32_t words; /* first of its occurrences; DM_TABLE_NONE: none */
    size_t raised;  /* number of the merge that raised the count last, from 1 */
} learned_pair;

/* A list of words in which a pair occurs, or did before other merges. */
typedef struct occurrence {
    uint32_t word, next; /* next: DM_TABLE_NONE ends the list */
} occurrence;

typedef struct learner {
    const dm_word_counts *words;
    dm_tokenizer *tokenizer;
    int32_t *symbols;  /* word w is symbols[words.starts[w]...], first its bytes, then fewer and longer tokens */
    uint16_t *lengths; /* [words] in symbols */
    learned_pair *pairs;
    size_t n_pairs, pairs_room;
    dm_table index; /* dm_pair() to its place in pairs */
    occurrence *occurrences;
    size_t n_occurrences, occurrences_room;
    size_t merge;     /* number of the current merge, 0 before the first */
    uint32_t *raised; /* pairs whose counts it raised */
    size_t n_raised, raised_room;
    dm_heap queue; /* key ~count, value dm_pair(); entries whose count has fallen since are put right when they come up */
} learner;

static void free_learner(learner *state) {
    dm_tokenizer_close(state->tokenizer);
    dm_table_free(&state->index);
    free(state->symbols);
    free(state->lengths);
    free(state->pairs);
    free(state->occurrences);
    free(state->raised);
    free(state->queue.entries);
}

static dm_status find_or_add(learner *state, uint64_t pair, uint32_t *at) {
    *at = dm_table_get(&state->index, pair);
    if (*at != DM_TABLE_NONE) {
        return DM_OK;
    }
    if (state->n_pairs >= DM_TABLE_NONE) {
        return dm_fail(DM_ERR_UNSUPPORTED, "the text has more than %zu different pairs of tokens", state->n_pairs);
    }
    *at = (uint32_t)state->n_pairs;
    DM_TRY(dm_reserve(&state->pairs, &state->pairs_room, state->n_pairs + 1, sizeof *state->pairs));
    DM_TRY(dm_table_set(&state->index, pair, *at));
    state->pairs[state->n_pairs++] = (learned_pair){pair, 0, DM_TABLE_NONE, 0};
    return DM_OK;
}

/* One more occurrence of the pair in `word`. */
static dm_status raise_count(learner *state, int32_t left, int32_t right, uint32_t word) {
    uint32_t at;
    DM_TRY(find_or_add(state, dm_pair(left, right), &at));
    learned_pair *pair = &state->pairs[at];
    pair->count += state->words->counts[word];
    if (pair->raised != state->merge) {
        pair->raised = state->merge;
        DM_TRY(dm_reserve(&state->raised, &state->raised_room, state->n_raised + 1, sizeof *state->raised));
        state->raised[state->n_raised++] = at;
    }
    if (pair->words != DM_TABLE_NONE && state->occurrences[pair->words].word == word) {
        return DM_OK;
    }
    if (state->n_occurrences >= DM_TABLE_NONE) {
        return dm_fail(DM_ERR_UNSUPPORTED, "the text has too many different words to learn from");
    }
    DM_TRY(dm_reserve(&state->occurrences, &state->occurrences_room, state->n_occurrences + 1, sizeof *state->occurrences));
    state->occurrences[state->n_occurrences] = (occurrence){word, pair->words};
    pair->words = (uint32_t)state->n_occurrences++;
    return DM_OK;
}

/* One occurrence less; the pair is known. */
static void lower_count(learner *state, int32_t left, int32_t right, uint32_t word) {
    state->pairs[dm_table_get(&state->index, dm_pair(left, right))].count -= state->words->counts[word];
}

static dm_heap_entry entry_of(const learned_pair *pair) {
    return (dm_heap_entry){~pair->count, pair->pair};
}

/* Words as bytes, and their pairs. */
static dm_status start(learner *state) {
    const dm_strings *words = &state->words->words;
    size_t n_symbols = words->starts[words->count];
    DM_TRY(dm_vocabulary_create(&state->tokenizer));
    DM_TRY(dm_vocabulary_add_bytes(state->tokenizer));
    state->symbols = calloc(n_symbols, sizeof *state->symbols);
    state->lengths = calloc(words->count, sizeof *state->lengths);
    if (state->symbols == NULL || state->lengths == NULL) {
        return dm_fail(DM_ERR_MEMORY, "out of memory for %u different words", words->count);
    }
    for (uint32_t word = 0; word < words->count; word++) {
        size_t length;
        const char *bytes = dm_strings_at(words, word, &length);
        int32_t *symbols = state->symbols + words->starts[word];
        state->lengths[word] = (uint16_t)length;
        for (size_t i = 0; i < length; i++) {
            symbols[i] = (uint8_t)bytes[i];
            if (i > 0) {
                DM_TRY(raise_count(state, symbols[i - 1], symbols[i], word));
            }
        }
    }
    for (size_t i = 0; i < state->n_pairs; i++) {
        DM_TRY(dm_heap_append(&state->queue, entry_of(&state->pairs[i])));
    }
    dm_heap_order(&state->queue);
    return DM_OK;
}

/* Joins the pair wherever it occurs in one word, from the left. */
static dm_status join_in_word(learner *state, uint32_t word, int32_t left, int32_t right, int32_t token) {
    int32_t *symbols = state->symbols + state->words->words.starts[word];
    size_t length = state->lengths[word], n = 0; /* n: symbols written */
    for (size_t i = 0; i < length; i++) {
        if (i + 1 == length || symbols[i] != left || symbols[i + 1] != right) {
            symbols[n++] = symbols[i];
            continue;
        }
        if (n > 0) {
            lower_count(state, symbols[n - 1], left, word);
            DM_TRY(raise_count(state, symbols[n - 1], token, word));
        }
        if (i + 2 < length) {
            lower_count(state, right, symbols[i + 2], word);
            DM_TRY(raise_count(state, token, symbols[i + 2], word));
        }
        lower_count(state, left, right, word);
        symbols[n++] = token; /* and what the next occurrence sees on its left, as just counted */
        i++;
    }
    state->lengths[word] = (uint16_t)n;
    return DM_OK;
}

static dm_status join_everywhere(learner *state, uint32_t at) {
    uint64_t pair = state->pairs[at].pair;
    int32_t left = (int32_t)(pair >> 32), right = (int32_t)(uint32_t)pair, token;
    DM_TRY(dm_vocabulary_merge(state->tokenizer, left, right, true, &token));
    state->n_raised = 0;
    state->merge++;
    uint32_t next = state->pairs[at].words;
    state->pairs[at].words = DM_TABLE_NONE;
    while (next != DM_TABLE_NONE) {
        occurrence here = state->occurrences[next];
        DM_TRY(join_in_word(state, here.word, left, right, token));
        next = here.next;
    }
    for (size_t i = 0; i < state->n_raised; i++) {
        DM_TRY(dm_heap_push(&state->queue, entry_of(&state->pairs[state->raised[i]])));
    }
    return DM_OK;
}

/* Merges until there are `wanted` tokens or no pair is left that occurs often enough. */
static dm_status learn(learner *state, int32_t wanted) {
    while (dm_tokenizer_vocab(state->tokenizer) < wanted && state->queue.count > 0) {
        if (dm_interrupted()) {
            return dm_fail(DM_ERR_INTERRUPTED, "interrupted");
        }
        dm_heap_entry top = dm_heap_pop(&state->queue);
        uint32_t at = dm_table_get(&state->index, top.value);
        const learned_pair *pair = &state->pairs[at];
        if (pair->count < FEWEST_OCCURRENCES || pair->count > ~top.key) {
            continue; /* gone, or waiting further up under its new count */
        }
        if (pair->count == ~top.key) {
            DM_TRY(join_everywhere(state, at));
        } else {
            DM_TRY(dm_heap_push(&state->queue, entry_of(pair)));
        }
    }
    return dm_vocabulary_end(state->tokenizer);
}

static dm_status write_file(const dm_tokenizer *tokenizer, const char *path) {
    dm_gguf_writer *writer = dm_gguf_writer_create();
    if (writer == NULL) {
        return DM_ERR_MEMORY;
    }
    dm_gguf_add_string(writer, "general.architecture", "gpt2"); /* every file has one; this is whose tokenizer it is */
    dm_gguf_add_string(writer, "general.name", "tokenizer");
    dm_tokenizer_write(tokenizer, writer);
    dm_status status = dm_gguf_writer_finish(writer, path);
    dm_gguf_writer_free(writer);
    return status;
}

static dm_status train(const dm_tokenizer_train_options *options, const dm_word_counts *words, learner *state) {
    if (words->words.count == 0) {
        return dm_fail(DM_ERR_ARGUMENT, "%s: no text to learn a vocabulary from", options->data[0]);
    }
    dm_log("learning a vocabulary of %d from %.1f MB of text, %u different words", options->vocab, 1e-6 * (double)words->bytes,
           words->words.count);
    state->words = words;
    DM_TRY(start(state));
    DM_TRY(learn(state, options->vocab - 1));
    int32_t vocab = dm_tokenizer_vocab(state->tokenizer);
    if (vocab < options->vocab) {
        dm_log("the text gives no more than %d tokens: no pair of them occurs twice in its words", vocab);
    }
    return write_file(state->tokenizer, options->out);
}

dm_status dm_tokenizer_train(const dm_tokenizer_train_options *options, dm_tokenizer_train_result *result) {
    *result = (dm_tokenizer_train_result){0};
    if (options->vocab < 257) {
        return dm_fail(DM_ERR_ARGUMENT, "a vocabulary of %d is too small: 256 bytes and %s make 257", options->vocab,
                       DM_END_OF_TEXT);
    }
    double began = dm_seconds();
    dm_word_counts words = {0};
    learner state = {0};
    dm_status status = dm_word_counts_read(&words, options->data, options->n_data);
    if (status == DM_OK) {
        status = train(options, &words, &state);
    }
    if (status == DM_OK) {
        *result = (dm_tokenizer_train_result){dm_tokenizer_vocab(state.tokenizer), words.bytes, dm_seconds() - began};
    }
    free_learner(&state);
    dm_word_counts_free(&words);
    return status;
}
