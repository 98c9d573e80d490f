#include "model/special.h"

#include <stdlib.h>
#include <string.h>

#include "model/vocabulary.h"

enum { LONGEST = 255 };

static bool is_special(uint8_t type) {
    return type == DM_TOKEN_CONTROL || type == DM_TOKEN_USER || type == DM_TOKEN_UNKNOWN;
}

typedef struct special_text {
    const char *text;
    size_t length;
    int32_t id;
} special_text;

static int by_text(const void *a, const void *b) {
    const special_text *x = a, *y = b;
    int order = memcmp(x->text, y->text, x->length < y->length ? x->length : y->length);
    return order != 0 ? order : (x->length > y->length) - (x->length < y->length);
}

dm_status dm_special_sort(dm_tokenizer *tokenizer) {
    dm_special_tokens *special = &tokenizer->special;
    uint32_t vocab = tokenizer->texts.count;
    size_t n = 0;
    for (uint32_t id = 0; id < vocab; id++) {
        n += is_special(tokenizer->types[id]);
        special->has_user |= tokenizer->types[id] == DM_TOKEN_USER;
    }
    special_text *sorted = calloc(n + 1, sizeof *sorted);
    special->ids = calloc(n + 1, sizeof *special->ids);
    if (sorted == NULL || special->ids == NULL) {
        free(sorted);
        return dm_fail(DM_ERR_MEMORY, "out of memory for %zu special tokens", n);
    }
    n = 0;
    for (uint32_t id = 0; id < vocab; id++) {
        size_t length;
        const char *text = dm_strings_at(&tokenizer->texts, id, &length);
        if (is_special(tokenizer->types[id]) && length <= LONGEST) {
            sorted[n++] = (special_text){text, length, (int32_t)id};
        }
    }
    qsort(sorted, n, sizeof *sorted, by_text);
    for (size_t i = 0; i < n; i++) {
        special->ids[i] = sorted[i].id;
        special->starts[(uint8_t)sorted[i].text[0] + 1]++;
    }
    for (int byte = 0; byte < 256; byte++) {
        special->starts[byte + 1] += special->starts[byte];
    }
    free(sorted);
    return DM_OK;
}

/* First place in [low, high) whose token has a byte of `least` or more at `depth`; all of them are longer than that. */
static size_t first_with(const dm_tokenizer *tokenizer, size_t low, size_t high, size_t depth, int least) {
    while (low < high) {
        size_t middle = low + (high - low) / 2, length;
        const char *text = dm_strings_at(&tokenizer->texts, (uint32_t)tokenizer->special.ids[middle], &length);
        if ((uint8_t)text[depth] < least) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

int32_t dm_special_find(const dm_tokenizer *tokenizer, const char *text, size_t n, size_t control) {
    const dm_special_tokens *special = &tokenizer->special;
    uint8_t first = (uint8_t)text[0];
    size_t low = special->starts[first], high = special->starts[first + 1];
    int32_t found = -1;
    for (size_t depth = 1; low < high; depth++) { /* those in [low, high) begin with text[0..depth) */
        size_t length;
        int32_t id = special->ids[low];
        dm_strings_at(&tokenizer->texts, (uint32_t)id, &length);
        if (length == depth) {
            found = tokenizer->types[id] == DM_TOKEN_USER || length <= control ? id : found;
            low++;
        }
        if (depth == n) {
            break;
        }
        uint8_t byte = (uint8_t)text[depth];
        low = first_with(tokenizer, low, high, depth, byte);
        high = first_with(tokenizer, low, high, depth, byte + 1);
    }
    return found;
}

/* ---- Ends ---- */

/* By text, as files name one end at most. Those that no text contains by chance count whatever their type. */
static const char *const ends[] = {
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|eot|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|EOT|>",
    "<|end_of_turn|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
    "<\357\275\234end\xe2\x96\x81of\xe2\x96\x81sentence\xef\xbd\x9c>",
    "<end_of_turn>",
    "<end_of_utterance>",
    "</s>",
    "<eos>",
    "<EOT>",
    "[EOT]",
    "[EOS]",
};
enum { N_ENDS = sizeof ends / sizeof *ends };

static bool unmistakable(const char *text) {
    return strncmp(text, "<|", 2) == 0 || strncmp(text, "<\xef\xbd\x9c", 4) == 0 || strncmp(text, "<end_of_", 8) == 0;
}

static int by_id(const void *a, const void *b) {
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

dm_status dm_special_find_ends(dm_tokenizer *tokenizer) {
    const int32_t named[] = {tokenizer->eos, tokenizer->eot, tokenizer->eom};
    size_t n = sizeof named / sizeof *named;
    int32_t *ids = calloc(N_ENDS + n, sizeof *ids);
    if (ids == NULL) {
        return dm_fail(DM_ERR_MEMORY, "out of memory for a vocabulary");
    }
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        if (named[i] >= 0) {
            ids[count++] = named[i];
        }
    }
    for (size_t i = 0; i < N_ENDS; i++) {
        uint32_t id = dm_strings_find(&tokenizer->texts, ends[i], strlen(ends[i]));
        if (id != DM_TABLE_NONE && (is_special(tokenizer->types[id]) || unmistakable(ends[i]))) {
            tokenizer->types[id] = DM_TOKEN_CONTROL;
            ids[count++] = (int32_t)id;
        }
    }
    qsort(ids, count, sizeof *ids, by_id);
    free(tokenizer->ends.ids);
    tokenizer->ends = (dm_end_tokens){.ids = ids};
    for (size_t i = 0; i < count; i++) {
        if (i == 0 || ids[i] != ids[i - 1]) {
            ids[tokenizer->ends.count++] = ids[i];
        }
    }
    return DM_OK;
}

const dm_end_tokens *dm_special_ends(const dm_tokenizer *tokenizer) {
    return &tokenizer->ends;
}

bool dm_tokenizer_is_end(const dm_tokenizer *tokenizer, int32_t id) {
    const dm_end_tokens *ends_of = &tokenizer->ends;
    return ends_of->count > 0 && bsearch(&id, ends_of->ids, ends_of->count, sizeof id, by_id) != NULL;
}
