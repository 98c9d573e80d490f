#include "server/choice.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/table.h"
#include "base/utf8.h"
#include "model/special.h"

dm_choice *dm_choice_create(dm_request *request, int32_t index) {
    dm_choice *choice = dm_alloc(1, sizeof *choice);
    if (choice != NULL) {
        atomic_fetch_add(&request->holders, 1);
        choice->request = request;
        choice->index = index;
        choice->prompt = &request->prompts[index / (request->n > 0 ? request->n : 1)];
    }
    return choice;
}

void dm_choice_free(dm_choice *choice) {
    if (choice == NULL) {
        return;
    }
    dm_sampler_free(&choice->sampler);
    dm_masks_free(choice->masks);
    free(choice->ids);
    dm_free(choice->counts);
    dm_free(choice->raw);
    free(choice->text);
    free(choice->odds);
    dm_request_drop(choice->request);
    dm_free(choice);
}

dm_status dm_choice_begin(dm_choice *choice, const dm_vocabulary_order *order) {
    const dm_request *request = choice->request;
    dm_sampling how = request->sampling;
    how.seed += (uint64_t)choice->index; /* answers to the same prompt differ */
    DM_TRY(dm_sampler_init(&choice->sampler, &how, order->vocab));
    size_t vocab = (size_t)order->vocab;
    if (request->presence != 0.0f || request->frequency != 0.0f) {
        choice->counts = dm_alloc(vocab, sizeof *choice->counts);
        DM_TRY(choice->counts != NULL ? DM_OK : DM_ERR_MEMORY);
    }
    if (request->odds) {
        choice->raw = dm_alloc(vocab, sizeof *choice->raw);
        DM_TRY(choice->raw != NULL ? DM_OK : DM_ERR_MEMORY);
    }
    const int32_t *marks = request->tools.dialect != NULL ? request->tools.marks : NULL;
    return request->grammar != NULL ? dm_masks_create(request->grammar, order, marks, &choice->masks) : DM_OK;
}

/* ---- Odds ---- */

static void note_top(dm_token_odds *out, int32_t most, int32_t id, float logit) {
    int32_t at = out->n_top;
    while (at > 0 && out->top[at - 1].logprob < logit) {
        at--;
    }
    if (at >= most) {
        return;
    }
    out->n_top += out->n_top < most;
    for (int32_t i = out->n_top - 1; i > at; i--) {
        out->top[i] = out->top[i - 1];
    }
    out->top[at].id = id;
    out->top[at].logprob = logit;
}

void dm_odds_of(const float *logits, int32_t vocab, int32_t id, int32_t top, dm_token_odds *out) {
    float best = -INFINITY;
    for (int32_t i = 0; i < vocab; i++) {
        best = logits[i] > best ? logits[i] : best; /* NaN is never greater */
    }
    double sum = 0.0;
    out->n_top = 0;
    for (int32_t i = 0; i < vocab; i++) {
        sum += isnan(logits[i]) ? 0.0 : exp((double)logits[i] - (double)best);
        if (top > 0 && !isnan(logits[i])) {
            note_top(out, top, i, logits[i]);
        }
    }
    float level = best + (float)log(sum);
    out->id = id;
    out->logprob = logits[id] - level;
    for (int32_t i = 0; i < out->n_top; i++) {
        out->top[i].logprob -= level;
    }
}

static dm_status note_odds(dm_choice *choice, int32_t id) {
    DM_TRY(dm_reserve(&choice->odds, &choice->odds_room, choice->n_odds + 1, sizeof *choice->odds));
    dm_token_odds *odds = &choice->odds[choice->n_odds++];
    dm_odds_of(choice->raw, choice->sampler.vocab, id, choice->request->top, odds);
    odds->start = choice->length;
    return DM_OK;
}

/* ---- Sending ---- */

/* Odds of tokens that begin before `end`; all of them for SIZE_MAX. */
static size_t odds_before(const dm_choice *choice, size_t end) {
    size_t n = 0;
    while (n < choice->n_odds && choice->odds[n].start < end) {
        n++;
    }
    return n;
}

static bool fill_piece(dm_choice *choice, size_t end, size_t n_odds, dm_piece *piece) {
    piece->text = malloc(3 * (end - choice->sent) + 1);
    piece->odds = malloc((n_odds + 1) * sizeof *piece->odds);
    if (piece->text == NULL || piece->odds == NULL) {
        return false;
    }
    piece->length = end > choice->sent ? dm_utf8_mend(choice->text + choice->sent, end - choice->sent, piece->text) : 0;
    piece->text[piece->length] = '\0';
    if (n_odds > 0) {
        memcpy(piece->odds, choice->odds, n_odds * sizeof *piece->odds);
        memmove(choice->odds, choice->odds + n_odds, (choice->n_odds - n_odds) * sizeof *choice->odds);
    }
    piece->n_odds = n_odds;
    choice->n_odds -= n_odds;
    choice->sent = end;
    return true;
}

/* Sends the text up to `end`. */
static dm_status send_text(dm_choice *choice, size_t end, bool all_odds) {
    size_t n_odds = odds_before(choice, all_odds ? SIZE_MAX : end);
    if (end <= choice->sent && n_odds == 0) {
        return DM_OK;
    }
    dm_piece *piece = calloc(1, sizeof *piece);
    if (piece == NULL || !fill_piece(choice, end, n_odds, piece)) {
        dm_piece_free(piece);
        return dm_fail(DM_ERR_MEMORY, "out of memory for an answer");
    }
    piece->choice = choice->index;
    dm_request_put(choice->request, piece);
    return DM_OK;
}

static void put_end(dm_choice *choice, dm_finish finish, int status, const char *text) {
    dm_piece *piece = calloc(1, sizeof *piece);
    if (piece == NULL) { /* nobody can be told how it went, but that it is over */
        pthread_mutex_lock(&choice->request->lock);
        choice->request->open--;
        pthread_cond_signal(&choice->request->changed);
        pthread_mutex_unlock(&choice->request->lock);
        return;
    }
    piece->choice = choice->index;
    piece->finish = finish;
    piece->status = status;
    piece->text = strdup(text);
    piece->length = piece->text != NULL ? strlen(piece->text) : 0;
    dm_request_put(choice->request, piece);
}

void dm_choice_end(dm_choice *choice, dm_finish finish) {
    put_end(choice, finish, 0, "");
}

void dm_choice_fail(dm_choice *choice, int status) {
    put_end(choice, DM_FINISH_ERROR, status, dm_error_message());
}

static dm_status append(dm_choice *choice, const char *bytes, size_t length) {
    DM_TRY(dm_reserve(&choice->text, &choice->room, choice->length + length + 1, 1));
    memcpy(choice->text + choice->length, bytes, length);
    choice->length += length;
    return DM_OK;
}

dm_status dm_choice_say(dm_choice *choice, const char *text, size_t length, const dm_token_odds *odds, size_t n_odds) {
    DM_TRY(append(choice, text, length));
    DM_TRY(dm_reserve(&choice->odds, &choice->odds_room, choice->n_odds + n_odds + 1, sizeof *choice->odds));
    if (n_odds > 0) {
        memcpy(choice->odds + choice->n_odds, odds, n_odds * sizeof *odds);
        choice->n_odds += n_odds;
    }
    return send_text(choice, choice->length, true);
}

/* ---- Stop strings ---- */

/* Where the first stop string begins in the text from `from` on; the text's length: nowhere. */
static size_t find_stop(const dm_choice *choice, size_t from) {
    const dm_request *request = choice->request;
    size_t first = choice->length;
    for (size_t s = 0; s < request->n_stops; s++) {
        const char *at = memmem(choice->text + from, choice->length - from, request->stops[s], request->stop_lengths[s]);
        size_t position = at != NULL ? (size_t)(at - choice->text) : first;
        first = position < first ? position : first;
    }
    return first;
}

/* Bytes at the end of what was not sent that may turn out to begin a stop string. */
static size_t held_back(const dm_choice *choice) {
    const dm_request *request = choice->request;
    size_t left = choice->length - choice->sent;
    size_t held = left > 0 ? dm_utf8_unfinished(choice->text + choice->sent, left) : 0;
    for (size_t s = 0; s < request->n_stops; s++) {
        size_t n = request->stop_lengths[s] - 1 < left ? request->stop_lengths[s] - 1 : left;
        while (n > held && memcmp(choice->text + choice->length - n, request->stops[s], n) != 0) {
            n--;
        }
        held = n > held ? n : held;
    }
    return held;
}

/* Sends what may be sent of the text after a token; with `last`, all of it. *stopped: a stop string was found. */
static dm_status send_more(dm_choice *choice, bool last, bool *stopped) {
    size_t stop = choice->length > choice->sent ? find_stop(choice, choice->sent) : choice->length;
    *stopped = stop < choice->length;
    if (*stopped) {
        return send_text(choice, stop, false);
    }
    return send_text(choice, choice->length - (last ? 0 : held_back(choice)), last);
}

void dm_choice_cut(dm_choice *choice) {
    bool stopped;
    if (send_more(choice, true, &stopped) == DM_OK) {
        dm_choice_end(choice, DM_FINISH_LENGTH);
    } else {
        dm_choice_fail(choice, 500);
    }
}

/* ---- The next token ---- */

static void penalize(const dm_choice *choice, float *logits) {
    const dm_request *request = choice->request;
    for (size_t i = 0; i < request->n_biases; i++) {
        logits[request->biases[i].id] += request->biases[i].bias;
    }
    for (size_t i = 0; choice->counts != NULL && i < choice->made; i++) {
        int32_t id = choice->ids[i];
        logits[id] -= request->frequency + request->presence / (float)choice->counts[id];
    }
}

/* Until then a text goes on that should. */
static void forbid_ends(const dm_choice *choice, const dm_tokenizer *tokenizer, float *logits) {
    const dm_end_tokens *ends = dm_special_ends(tokenizer);
    for (size_t i = 0; i < ends->count; i++) {
        if (ends->ids[i] < choice->sampler.vocab) {
            logits[ends->ids[i]] = -INFINITY;
        }
    }
}

dm_status dm_choice_draw(dm_choice *choice, const dm_tokenizer *tokenizer, float *logits, const int32_t *known, int32_t n_known,
                         int32_t *id) {
    if (choice->raw != NULL) {
        memcpy(choice->raw, logits, (size_t)choice->sampler.vocab * sizeof *logits);
    }
    penalize(choice, logits);
    if (choice->request->ignore_end) {
        forbid_ends(choice, tokenizer, logits);
    }
    if (choice->masks != NULL) {
        DM_TRY(dm_masks_apply(choice->masks, logits));
    }
    return dm_sampler_next(&choice->sampler, logits, known, n_known, id);
}

static dm_status keep_token(dm_choice *choice, const dm_tokenizer *tokenizer, int32_t id) {
    size_t length = 0;
    const char *bytes = dm_tokenizer_bytes(tokenizer, id, &length);
    const dm_request_tools *tools = &choice->request->tools;
    for (size_t i = 0; tools->dialect != NULL && i < DM_CHAT_MARKS; i++) {
        if (id == tools->marks[i]) { /* whoever reads the answer must see it */
            bytes = tools->dialect->marks[i];
            length = strlen(bytes);
        }
    }
    DM_TRY(dm_reserve(&choice->ids, &choice->ids_room, choice->made + 1, sizeof *choice->ids));
    choice->ids[choice->made++] = id;
    if (choice->counts != NULL) {
        choice->counts[id]++;
    }
    if (choice->raw != NULL) {
        DM_TRY(note_odds(choice, id));
    }
    return bytes != NULL ? append(choice, bytes, length) : DM_OK;
}

dm_status dm_choice_take(dm_choice *choice, const dm_tokenizer *tokenizer, int32_t *id, dm_finish *finish) {
    const dm_request *request = choice->request;
    bool stopped = false;
    *finish = DM_FINISH_NONE;
    if (dm_tokenizer_is_end(tokenizer, *id)) {
        *id = -1;
        *finish = DM_FINISH_STOP;
        return send_more(choice, true, &stopped);
    }
    DM_TRY(keep_token(choice, tokenizer, *id));
    if (choice->masks != NULL) {
        DM_TRY(dm_masks_take(choice->masks, *id));
    }
    bool complete = choice->masks != NULL && dm_masks_complete(choice->masks);
    bool full = request->max_tokens >= 0 && choice->made >= (size_t)request->max_tokens;
    DM_TRY(send_more(choice, complete || full, &stopped));
    *finish = stopped || complete ? DM_FINISH_STOP : full ? DM_FINISH_LENGTH : DM_FINISH_NONE;
    return DM_OK;
}
