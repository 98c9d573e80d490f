/* Evaluation of several parts of a text side by side: a step feeds a token of each, so that their experts are read, and with
 * a game between tokens chosen, together. */
#include "base/memory.h"
#include "base/threads.h"
#include "model/evaluation.h"

/* The part of the text that a sequence feeds: ids begin .. end - 1. */
static size_t part_of(const dm_evaluation *e, size_t sequence) {
    size_t each = (e->n - 1) / e->sequences, left = (e->n - 1) % e->sequences;
    return each * sequence + left * sequence / e->sequences;
}

/* Makes room in a full session: a new window begins, with the tokens that it repeats. */
static dm_status turn_window(const dm_evaluation *e, dm_session *session, size_t at, size_t context, size_t overlap) {
    if ((size_t)dm_session_length(session) < context) {
        return DM_OK;
    }
    dm_session_truncate(session, 0);
    return overlap > 0 ? dm_evaluation_feed(e, session, at - overlap, overlap, NULL) : DM_OK;
}

/* Step number `step` of all parts that are that long. `room` holds their sessions, counts, tokens and targets. */
typedef struct side_by_side {
    dm_session **sessions;
    int32_t *counts, *tokens, *targets; /* [sequences] */
} side_by_side;

static dm_status evaluate_step(dm_evaluation *e, const side_by_side *room, size_t step, size_t context, size_t overlap) {
    size_t m = 0;
    for (size_t i = 0; i < e->sequences; i++) {
        size_t at = part_of(e, i) + step;
        if (at < part_of(e, i + 1)) {
            DM_TRY(turn_window(e, e->sessions[i], at, context, overlap));
            room->sessions[m] = e->sessions[i];
            room->counts[m] = 1;
            room->tokens[m] = *dm_evaluation_token(e, e->sessions[i], at);
            room->targets[m++] = e->ids[at + 1];
        }
    }
    DM_TRY(dm_session_feed_many(room->sessions, room->counts, m, room->tokens, e->logits));
    dm_evaluation_score(e, room->targets, m);
    return DM_OK;
}

static dm_status evaluate_steps(dm_evaluation *e, const side_by_side *room, size_t context, size_t overlap,
                                dm_evaluate_fn on_window, void *user) {
    size_t steps = (e->n - 1 + e->sequences - 1) / e->sequences; /* of the longest part */
    for (size_t step = 0; step < steps; step++) {
        if (dm_interrupted()) {
            e->result->interrupted = true;
            break;
        }
        DM_TRY(evaluate_step(e, room, step, context, overlap));
        if (on_window != NULL && ((step + 1) % context == 0 || step + 1 == steps)) {
            on_window(user, e->result->tokens, e->n - 1, e->nll / (double)e->result->tokens);
        }
    }
    return DM_OK;
}

dm_status dm_evaluate_side_by_side(dm_evaluation *e, size_t context, size_t overlap, dm_evaluate_fn on_window, void *user) {
    size_t n = e->sequences;
    side_by_side room = {dm_alloc(n, sizeof(dm_session *)), dm_alloc(n, sizeof *room.counts), dm_alloc(n, sizeof *room.tokens),
                         dm_alloc(n, sizeof *room.targets)};
    dm_status status = room.sessions != NULL && room.counts != NULL && room.tokens != NULL && room.targets != NULL
                           ? evaluate_steps(e, &room, context, overlap, on_window, user)
                           : DM_ERR_MEMORY;
    dm_free(room.sessions);
    dm_free(room.counts);
    dm_free(room.tokens);
    dm_free(room.targets);
    return status;
}
