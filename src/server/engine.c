#include <math.h>
#include <stdlib.h>

#include "base/memory.h"
#include "base/threads.h"
#include "model/repack.h"
#include "optimization/memory_limit.h"
#include "server/engine_parts.h"
#include "server/waiting.h"

enum { IDLE_MS = 250 };
static const double telling_period = 0.1; /* seconds between two looks at what routers did */

int32_t dm_engine_context(const dm_engine *engine) {
    return engine->sessions[0]->context;
}

dm_board *dm_engine_board(dm_engine *engine) {
    return &engine->board;
}

void dm_engine_wake(dm_engine *engine) {
    pthread_mutex_lock(&engine->lock);
    pthread_cond_signal(&engine->wake);
    pthread_mutex_unlock(&engine->lock);
}

/* ---- Telling ---- */

static void tell(dm_engine *engine, int32_t waiting, double now) {
    dm_gauges gauges = {.slots = (int32_t)engine->n_slots, .waiting = waiting};
    for (size_t i = 0; i < engine->n_slots; i++) {
        gauges.busy += engine->slots[i].choice != NULL;
    }
    dm_sessions_routing(engine->sessions, engine->n_slots, &gauges.routing);
    double steps = engine->steps > 0 ? (double)engine->steps : 1.0;
    gauges.decode_rows = (double)engine->step_rows / steps;
    gauges.decode_experts = (double)engine->step_experts / steps / engine->model->config.n_layers;
    if (!dm_model_stream_stats(engine->model, &gauges.stream)) {
        gauges.stream = (dm_stream_stats){0};
    }
    dm_metrics_set(engine->metrics, &gauges);
    engine->told = now;
}

/* ---- The loop ---- */

static bool any_busy(const dm_engine *engine) {
    for (size_t i = 0; i < engine->n_slots; i++) {
        if (engine->slots[i].choice != NULL) {
            return true;
        }
    }
    return false;
}

static bool any_free(const dm_engine *engine) {
    for (size_t i = 0; i < engine->n_slots; i++) {
        if (engine->slots[i].choice == NULL) {
            return true;
        }
    }
    return false;
}

static void count_cancelled(dm_engine *engine) {
    pthread_mutex_lock(&engine->metrics->lock);
    engine->metrics->cancelled++;
    pthread_mutex_unlock(&engine->metrics->lock);
}

/* An answer that never got a slot. */
static void turn_away(dm_engine *engine, dm_choice *choice, bool stopping) {
    if (atomic_load(&choice->request->cancelled)) {
        count_cancelled(engine);
    }
    dm_fail(DM_ERR_INTERRUPTED, stopping ? "the server is being stopped" : "no slot came free in time; try again later");
    dm_choice_fail(choice, 503);
    dm_choice_free(choice);
}

/* Takes what waits while there are slots; *waiting: what is left. */
static void admit(dm_engine *engine, int32_t *waiting) {
    for (;;) {
        pthread_mutex_lock(&engine->lock);
        double now = dm_seconds();
        bool late = engine->stopping && now >= engine->cut_at;
        dm_choice *stale = dm_queue_take_stale(&engine->queue, late ? INFINITY : now);
        dm_choice *choice = stale == NULL && any_free(engine) ? dm_queue_take(&engine->queue) : NULL;
        *waiting = engine->queue.count;
        pthread_mutex_unlock(&engine->lock);
        if (stale != NULL) {
            turn_away(engine, stale, late);
        } else if (choice != NULL) {
            dm_engine_begin(engine, choice);
        } else {
            return;
        }
    }
}

/* Ends answers that nobody waits for, and those whose time is up. */
static void end_late(dm_engine *engine) {
    double now = dm_seconds();
    pthread_mutex_lock(&engine->lock);
    bool cut = engine->stopping && now >= engine->cut_at;
    pthread_mutex_unlock(&engine->lock);
    for (size_t i = 0; i < engine->n_slots; i++) {
        dm_slot *slot = &engine->slots[i];
        if (slot->choice == NULL) {
            continue;
        }
        bool gone = atomic_load(&slot->choice->request->cancelled);
        if (gone || cut || now > slot->choice->request->deadline) {
            if (gone) {
                count_cancelled(engine);
            }
            dm_engine_end(engine, slot, DM_FINISH_NONE);
        }
    }
}

/* Sleeps until something was asked for; false: there is nothing more to do, ever. */
static bool wait_for_work(dm_engine *engine) {
    pthread_mutex_lock(&engine->lock);
    bool watched = dm_board_watched(&engine->board); /* under the lock, so that a watcher who comes now is not missed */
    const struct timespec until = dm_time_after(IDLE_MS);
    if (engine->queue.count == 0 && !engine->stopping) {
        if (watched) {
            pthread_cond_timedwait(&engine->wake, &engine->lock, &until);
        } else {
            pthread_cond_wait(&engine->wake, &engine->lock);
        }
    }
    bool more = engine->queue.count > 0 || !engine->stopping;
    pthread_mutex_unlock(&engine->lock);
    return more;
}

static void *run(void *user) {
    dm_engine *engine = user;
    bool more = true;
    while (more) {
        int32_t waiting;
        admit(engine, &waiting);
        end_late(engine);
        bool wrote = dm_engine_write(engine), read = dm_engine_read(engine);
        double now = dm_seconds();
        bool idle = !wrote && !read && !any_busy(engine);
        if (idle || now - engine->told >= telling_period) {
            tell(engine, waiting, now);
        }
        if (dm_board_due(&engine->board, now)) {
            dm_engine_post(engine, waiting, now);
        }
        more = !idle || wait_for_work(engine);
    }
    return NULL;
}

/* ---- Asking ---- */

static dm_status make_choices(dm_request *request, dm_choice **list) {
    dm_choice **end = list;
    for (int32_t i = 0; i < request->open; i++) {
        *end = dm_choice_create(request, i);
        if (*end == NULL) {
            return DM_ERR_MEMORY;
        }
        end = &(*end)->next;
    }
    return DM_OK;
}

static void free_choices(dm_choice *list) {
    while (list != NULL) {
        dm_choice *next = list->next;
        dm_choice_free(list);
        list = next;
    }
}

dm_status dm_engine_ask(dm_engine *engine, dm_request *request) {
    dm_choice *list = NULL;
    dm_status status = make_choices(request, &list);
    int32_t n = request->open;
    pthread_mutex_lock(&engine->lock);
    if (status == DM_OK && engine->stopping) {
        status = dm_fail(DM_ERR_INTERRUPTED, "the server is being stopped");
    } else if (status == DM_OK && engine->queue.count + n > engine->max_queue + (int32_t)engine->n_slots) {
        status = dm_fail(DM_ERR_ARGUMENT, "too many answers are being waited for (%d); try again later", engine->queue.count);
    }
    while (status == DM_OK && list != NULL) {
        dm_choice *next = list->next;
        dm_queue_put(&engine->queue, list);
        list = next;
    }
    pthread_cond_signal(&engine->wake);
    pthread_mutex_unlock(&engine->lock);
    free_choices(list);
    return status;
}

/* ---- Beginning and end ---- */

/* What a position of a sequence keeps. */
static dm_status position_bytes(const dm_model *model, dm_cache_type type, size_t *out) {
    dm_kv_cache one;
    dm_status status = dm_kv_cache_create(&model->config, 1, type, &one);
    *out = status == DM_OK ? dm_kv_cache_position_bytes(&one) : 0;
    dm_kv_cache_free(&one);
    return status;
}

dm_status dm_engine_choose_context(const dm_server_options *options, int32_t known, size_t each, uint64_t usable, int32_t *out) {
    uint64_t fits = usable / ((uint64_t)options->slots * each);
    *out = options->context > 0 ? options->context : known;
    if (usable == 0 || (uint64_t)*out <= fits) {
        return DM_OK;
    }
    if (options->context > 0 || fits < 1) {
        return dm_fail(
            DM_ERR_MEMORY,
            "%d slots of %d positions need %.1f GB for keys and values, and %.1f GB of memory are free, enough for %llu "
            "positions each; ask for a shorter context, fewer slots or a smaller cache type",
            options->slots, *out, (double)options->slots * (double)*out * (double)each * 1e-9, (double)usable * 1e-9,
            (unsigned long long)fits);
    }
    *out = (int32_t)fits;
    return DM_OK;
}

static dm_status make_slots(dm_engine *engine, const dm_server_options *options) {
    size_t n = (size_t)options->slots;
    dm_session_options how = {.cache = options->cache, .router = options->router};
    dm_memory memory;
    size_t each;
    dm_memory_limit("", &memory);
    DM_TRY(position_bytes(engine->model, options->cache, &each));
    DM_TRY(dm_engine_choose_context(options, engine->model->config.context, each, memory.usable, &how.context));
    engine->slots = dm_alloc(n, sizeof *engine->slots);
    engine->sessions = dm_alloc(n, sizeof(dm_session *));
    engine->fed = dm_alloc(n, sizeof(dm_session *));
    engine->fed_slots = dm_alloc(n, sizeof *engine->fed_slots);
    engine->counts = dm_alloc(n, sizeof *engine->counts);
    engine->ids = dm_alloc(n, sizeof *engine->ids);
    if (engine->slots == NULL || engine->sessions == NULL || engine->fed == NULL || engine->fed_slots == NULL ||
        engine->counts == NULL || engine->ids == NULL) {
        return DM_ERR_MEMORY;
    }
    for (; engine->n_slots < n; engine->n_slots++) {
        dm_slot *slot = &engine->slots[engine->n_slots];
        DM_TRY(dm_session_create_with(engine->model, &how, &slot->session));
        engine->sessions[engine->n_slots] = slot->session;
        engine->counts[engine->n_slots] = 1;
    }
    size_t most = (size_t)engine->sessions[0]->batch;
    engine->piece = (size_t)options->piece < most ? (size_t)options->piece : most;
    if (engine->model->streaming == NULL) {
        dm_repack_all_experts(engine->model);
    }
    return dm_engine_reserve(engine, n);
}

static dm_status start(dm_engine *engine, const dm_server_options *options) {
    DM_TRY(dm_vocabulary_order_init(engine->tokenizer, engine->model->config.vocab, &engine->order));
    DM_TRY(make_slots(engine, options));
    tell(engine, 0, 0.0);
    return pthread_create(&engine->thread, NULL, run, engine) == 0 ? DM_OK : dm_fail(DM_ERR_MEMORY, "no thread could be started");
}

/* Without its thread. */
static void free_engine(dm_engine *engine) {
    for (size_t i = 0; i < engine->n_slots; i++) {
        dm_session_free(engine->slots[i].session);
    }
    dm_free(engine->slots);
    dm_free(engine->sessions);
    dm_free(engine->fed);
    dm_free(engine->fed_slots);
    dm_free(engine->counts);
    dm_free(engine->ids);
    dm_free(engine->logits);
    dm_vocabulary_order_free(&engine->order);
    dm_board_free(&engine->board);
    pthread_mutex_destroy(&engine->lock);
    pthread_cond_destroy(&engine->wake);
    dm_free(engine);
}

dm_status dm_engine_start(const dm_model *model, const dm_tokenizer *tokenizer, const dm_server_options *options,
                          dm_metrics *metrics, dm_engine **out) {
    *out = NULL;
    dm_engine *engine = dm_alloc(1, sizeof *engine);
    if (engine == NULL) {
        return DM_ERR_MEMORY;
    }
    engine->model = model;
    engine->tokenizer = tokenizer;
    engine->metrics = metrics;
    engine->reuse_all = options->reuse_all;
    engine->max_queue = options->max_queue;
    pthread_mutex_init(&engine->lock, NULL);
    dm_condition_init(&engine->wake);
    dm_board_init(&engine->board);
    dm_status status = start(engine, options);
    if (status != DM_OK) {
        free_engine(engine);
        return status;
    }
    *out = engine;
    return DM_OK;
}

void dm_engine_drain(dm_engine *engine, double grace_s) {
    pthread_mutex_lock(&engine->lock);
    engine->stopping = true;
    engine->cut_at = dm_seconds() + grace_s;
    pthread_cond_signal(&engine->wake);
    pthread_mutex_unlock(&engine->lock);
    pthread_join(engine->thread, NULL);
}

void dm_engine_free(dm_engine *engine) {
    free_engine(engine);
}
