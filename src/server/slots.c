/* What the engine does with slots: finding one, reading prompts in pieces, a token for every answer at once. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/parallel.h"
#include "base/threads.h"
#include "server/engine_parts.h"

dm_status dm_engine_reserve(dm_engine *engine, size_t rows) {
    if (rows <= engine->logits_rows) {
        return DM_OK;
    }
    size_t n;
    float *grown = dm_mul_size(rows, dm_engine_vocab(engine), &n) ? dm_alloc(n, sizeof *grown) : NULL;
    if (grown == NULL) {
        return dm_fail(DM_ERR_MEMORY, "out of memory for the logits of %zu tokens", rows);
    }
    dm_free(engine->logits);
    engine->logits = grown;
    engine->logits_rows = rows;
    return DM_OK;
}

static void release(dm_engine *engine, dm_slot *slot) {
    const dm_choice *choice = slot->choice;
    dm_metrics_observe(engine->metrics, &engine->metrics->whole, dm_seconds() - choice->request->arrived);
    dm_free(slot->sum);
    slot->sum = NULL;
    slot->writing = false;
    dm_choice_free(slot->choice);
    slot->choice = NULL;
}

/* The answer of a slot cannot go on; an interruption is no reason. */
static void give_up(dm_engine *engine, dm_slot *slot, dm_status status) {
    if (status != DM_ERR_INTERRUPTED) {
        dm_choice_fail(slot->choice, status == DM_ERR_MEMORY ? 503 : status == DM_ERR_UNSUPPORTED ? 400 : 500);
        release(engine, slot);
    }
}

/* ---- Beginning ---- */

/* Whether all of a prompt's logits are looked at. */
static bool scores_prompt(const dm_request *request) {
    return request->echo && request->odds;
}

/* Tokens of a prompt that a slot need not read again; at least one is left. */
static size_t known_to(const dm_engine *engine, const dm_slot *slot, const dm_choice *choice) {
    const dm_session *session = slot->session;
    size_t n = choice->prompt->n - 1, same = 0;
    if (choice->request->kind == DM_REQUEST_EMBEDDING || scores_prompt(choice->request)) {
        return 0;
    }
    n = (size_t)session->length < n ? (size_t)session->length : n;
    n = !engine->reuse_all && slot->exact < n ? slot->exact : n;
    while (same < n && session->ids[same] == choice->prompt->ids[same]) {
        same++;
    }
    return engine->reuse_all ? same : same - same % engine->piece;
}

static dm_slot *find_slot(dm_engine *engine, const dm_choice *choice, size_t *known) {
    dm_slot *best = NULL;
    for (size_t i = 0; i < engine->n_slots; i++) {
        dm_slot *slot = &engine->slots[i];
        if (slot->choice != NULL) {
            continue;
        }
        size_t here = known_to(engine, slot, choice);
        if (best == NULL || here > *known || (here == *known && slot->used < best->used)) {
            best = slot;
            *known = here;
        }
    }
    return best;
}

/* The prompt as text comes first; its odds come as it is read. */
static dm_status say_prompt(const dm_engine *engine, dm_choice *choice) {
    char *text = NULL;
    size_t length = 0;
    if (!choice->request->echo || choice->request->odds) {
        return DM_OK;
    }
    DM_TRY(dm_tokenizer_decode(engine->tokenizer, choice->prompt->ids, choice->prompt->n, false, &text, &length));
    dm_status status = dm_choice_say(choice, text, length, NULL, 0);
    free(text);
    return status;
}

static dm_status begin(dm_engine *engine, dm_slot *slot) {
    if (slot->choice->request->kind == DM_REQUEST_EMBEDDING) {
        slot->sum = dm_alloc((size_t)engine->model->config.dim, sizeof *slot->sum);
        return slot->sum != NULL ? DM_OK : DM_ERR_MEMORY;
    }
    DM_TRY(dm_choice_begin(slot->choice, &engine->order));
    return say_prompt(engine, slot->choice);
}

void dm_engine_begin(dm_engine *engine, dm_choice *choice) {
    size_t known = 0;
    dm_slot *slot = find_slot(engine, choice, &known);
    slot->choice = choice;
    slot->used = ++engine->begun;
    slot->read = known;
    slot->exact = slot->exact < known ? slot->exact : known;
    dm_session_truncate(slot->session, (int32_t)known);
    dm_metrics_count_tokens(engine->metrics, choice->prompt->n, known, 0);
    pthread_mutex_lock(&choice->request->lock);
    choice->request->known_tokens += known;
    pthread_mutex_unlock(&choice->request->lock);
    dm_status status = begin(engine, slot);
    if (status != DM_OK) {
        give_up(engine, slot, status);
    }
}

/* ---- Tokens ---- */

void dm_engine_end(dm_engine *engine, dm_slot *slot, dm_finish finish) {
    dm_request *request = slot->choice->request;
    pthread_mutex_lock(&request->lock);
    request->made_tokens += slot->choice->made;
    pthread_mutex_unlock(&request->lock);
    if (finish == DM_FINISH_NONE) {
        dm_choice_cut(slot->choice);
    } else {
        dm_choice_end(slot->choice, finish);
    }
    release(engine, slot);
}

/* Draws from the logits after all that the slot's session holds. */
static dm_status draw(const dm_engine *engine, dm_slot *slot, float *logits) {
    const dm_session *session = slot->session;
    return dm_choice_draw(slot->choice, engine->tokenizer, logits, session->ids, session->length, &slot->next);
}

/* Goes on with what was drawn, if that went well. */
static void go_on(dm_engine *engine, dm_slot *slot, dm_status status) {
    dm_finish finish = DM_FINISH_NONE;
    const dm_session *session = slot->session;
    bool first = slot->choice->made == 0;
    status = status == DM_OK ? dm_choice_take(slot->choice, engine->tokenizer, &slot->next, &finish) : status;
    if (status != DM_OK) {
        give_up(engine, slot, status);
        return;
    }
    if (first) {
        dm_metrics_observe(engine->metrics, &engine->metrics->first_token, dm_seconds() - slot->choice->request->arrived);
    }
    dm_metrics_count_tokens(engine->metrics, 0, 0, slot->next >= 0);
    slot->writing = true;
    if (finish != DM_FINISH_NONE || session->length == session->context) {
        dm_engine_end(engine, slot, finish);
    }
}

static uint64_t experts_read(const dm_engine *engine) {
    uint64_t read = 0;
    for (size_t i = 0; i < engine->n_slots; i++) {
        read += engine->sessions[i]->experts_read;
    }
    return read;
}

static void count_step(dm_engine *engine, size_t n, uint64_t before, double start) {
    engine->steps++;
    engine->step_rows += n;
    engine->step_experts += experts_read(engine) - before;
    dm_metrics_observe(engine->metrics, &engine->metrics->per_token, dm_seconds() - start);
    pthread_mutex_lock(&engine->metrics->lock);
    engine->metrics->steps++;
    pthread_mutex_unlock(&engine->metrics->lock);
}

/* Of a step's answers, on all threads. */
static void draw_body(void *user, size_t begin, size_t end, int thread) {
    const dm_engine *engine = user;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        dm_slot *slot = &engine->slots[engine->fed_slots[i]];
        slot->drawn = (dm_failure){0};
        dm_failure_note(&slot->drawn, draw(engine, slot, engine->logits + i * dm_engine_vocab(engine)));
    }
}

bool dm_engine_write(dm_engine *engine) {
    size_t n = 0;
    for (size_t i = 0; i < engine->n_slots; i++) {
        if (engine->slots[i].writing) {
            engine->fed[n] = engine->slots[i].session;
            engine->ids[n] = engine->slots[i].next;
            engine->fed_slots[n++] = i;
        }
    }
    if (n == 0) {
        return false;
    }
    double start = dm_seconds();
    uint64_t before = experts_read(engine);
    dm_status status = dm_session_feed_many(engine->fed, engine->counts, n, engine->ids, engine->logits);
    if (status == DM_OK) {
        count_step(engine, n, before, start);
        dm_parallel(dm_threads(), n, 1, draw_body, engine);
    }
    for (size_t i = 0; i < n; i++) {
        dm_slot *slot = &engine->slots[engine->fed_slots[i]];
        if (status == DM_OK) {
            go_on(engine, slot, dm_failure_raise(&slot->drawn));
        } else {
            give_up(engine, slot, status);
        }
    }
    return true;
}

/* ---- Prompts ---- */

/* A piece whose tokens are told with their odds, each by what stood before it. */
static dm_status read_scored(dm_engine *engine, dm_slot *slot, size_t n) {
    dm_choice *choice = slot->choice;
    const int32_t *ids = choice->prompt->ids + slot->read;
    size_t vocab = dm_engine_vocab(engine), left = choice->prompt->n - slot->read;
    dm_token_odds first = {.id = ids[0], .logprob = NAN};
    DM_TRY(dm_engine_reserve(engine, engine->piece));
    DM_TRY(dm_session_feed(slot->session, ids, (int32_t)n, true, engine->logits));
    for (size_t i = 0; i <= n; i++) {
        if ((i == 0 && slot->read > 0) || i == left) {
            continue; /* told with the piece before; after the last one comes the answer */
        }
        dm_token_odds odds = first;
        size_t length = 0;
        if (i > 0) {
            dm_odds_of(engine->logits + (i - 1) * vocab, (int32_t)vocab, ids[i], choice->request->top, &odds);
        }
        odds.start = choice->length;
        const char *bytes = dm_tokenizer_bytes(engine->tokenizer, ids[i], &length);
        DM_TRY(dm_choice_say(choice, bytes != NULL ? bytes : "", length, &odds, 1));
    }
    memmove(engine->logits, engine->logits + (n - 1) * vocab, vocab * sizeof *engine->logits);
    return DM_OK;
}

static dm_status read_piece(dm_engine *engine, dm_slot *slot, size_t n) {
    const dm_prompt *prompt = slot->choice->prompt;
    if (slot->sum != NULL) {
        return dm_engine_embed(engine, slot, n);
    }
    if (scores_prompt(slot->choice->request)) {
        return read_scored(engine, slot, n);
    }
    bool last = slot->read + n == prompt->n;
    return dm_session_feed(slot->session, prompt->ids + slot->read, (int32_t)n, false, last ? engine->logits : NULL);
}

static void read_more(dm_engine *engine, dm_slot *slot) {
    size_t left = slot->choice->prompt->n - slot->read, n = engine->piece - slot->read % engine->piece;
    n = n < left ? n : left;
    dm_status status = read_piece(engine, slot, n);
    if (status != DM_OK) {
        give_up(engine, slot, status);
        return;
    }
    bool whole = slot->exact == slot->read && n == engine->piece && slot->sum == NULL;
    slot->read += n;
    slot->exact = whole ? slot->read : slot->exact;
    if (n < left) {
        return;
    }
    if (slot->sum != NULL || slot->choice->request->max_tokens == 0) {
        dm_engine_end(engine, slot, DM_FINISH_LENGTH);
    } else {
        go_on(engine, slot, draw(engine, slot, engine->logits));
    }
}

bool dm_engine_read(dm_engine *engine) {
    for (size_t i = 0; i < engine->n_slots; i++) {
        dm_slot *slot = &engine->slots[(engine->turn + i) % engine->n_slots];
        if (slot->choice != NULL && !slot->writing) {
            engine->turn = (engine->turn + i + 1) % engine->n_slots;
            read_more(engine, slot);
            return true;
        }
    }
    return false;
}
