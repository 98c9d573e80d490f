#include "moe/expert_store.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/page_maker.h"
#include "base/pages.h"
#include "base/parallel.h"

/* What is known of an expert: its slot holds it (a read that failed leaves one that does not); it was noted for the next step; it
 * is of this step and not used up. */
enum { VALID = 1, WANTED = 2, READ = 4 };

typedef struct layer_slots {
    uint8_t **memory; /* [slots] of each */
    size_t bytes;     /* of one; 0: the layer has no experts */
    int32_t slots, taken;
    bool exchanges;    /* slots for buffers of guesses that came true, instead of copying */
    dm_eviction *kept; /* who has a slot */
} layer_slots;

/* The step under way. */
typedef struct step {
    int32_t layer;
    bool in_order;
    int32_t *experts; /* [n] in the order in which they are used */
    size_t n;
    size_t issued, given, used; /* so many are there or being read; were returned; were returned before the last call */
    bool has_slot;              /* the first that is not issued */
    bool gave_up;               /* the disk does not answer */
    int32_t waits_for;          /* but this expert of the step has to be used up before; -1: none */
} step;

struct dm_expert_store {
    pthread_mutex_t lock;
    const dm_expert_files *files;
    dm_expert_loads *loads;
    layer_slots *layers; /* [layers] */
    int32_t *slot_of;    /* [layers, experts] -1: none */
    uint8_t *state;      /* [layers, experts] */
    size_t *offsets;     /* [layers, experts, DM_EXPERT_MATRICES] in a slot */
    size_t groups;       /* that slots were dealt out to */
    dm_pages *memory;    /* [groups] all slots of each */
    uint8_t **slots;     /* [slots of all layers] */
    size_t size;         /* bytes of them */
    dm_page_maker *maker;
    step step;
    size_t spare;                 /* buffers for guesses */
    int32_t ahead;                /* layers */
    dm_expert_store_stats counts; /* of guesses */
};

static size_t at(const dm_expert_store *it, int32_t layer, int32_t expert) {
    return (size_t)layer * (size_t)it->files->experts + (size_t)expert;
}

/* ---- Sizes --------------------------------------------------------------- */

/* Bytes of a slot of a layer: of its largest expert. */
static size_t slot_bytes(const dm_expert_files *files, int32_t layer) {
    size_t largest = 0, offsets[DM_EXPERT_MATRICES];
    for (int32_t e = 0; e < files->experts; e++) {
        size_t bytes = dm_expert_place(files, layer, e, offsets);
        largest = bytes > largest ? bytes : largest;
    }
    return (largest + DM_EXPERT_ALIGNMENT - 1) / DM_EXPERT_ALIGNMENT * DM_EXPERT_ALIGNMENT;
}

static size_t with_slots(const dm_expert_files *files, size_t slots) {
    size_t bytes = dm_expert_loads_bytes(files, 0);
    for (int32_t l = 0; l < files->layers; l++) {
        bytes += slots * slot_bytes(files, l);
    }
    return bytes;
}

size_t dm_expert_store_least(const dm_expert_files *files) {
    return with_slots(files, 1);
}

size_t dm_expert_store_most(const dm_expert_files *files) {
    return with_slots(files, (size_t)files->experts);
}

/* The same number of slots for all layers, and one more for the first ones, as far as the budget goes. */
static void share_out(dm_expert_store *it, size_t budget) {
    size_t left = budget - dm_expert_loads_bytes(it->files, it->spare);
    for (bool gave = true; gave;) {
        gave = false;
        for (int32_t l = 0; l < it->files->layers; l++) {
            layer_slots *of = &it->layers[l];
            if (of->bytes > 0 && of->slots < it->files->experts && of->bytes <= left) {
                of->slots++;
                left -= of->bytes;
                it->size += of->bytes;
                gave = true;
            }
        }
    }
}

size_t dm_expert_store_buffers(const dm_expert_files *files, size_t budget, int32_t ahead) {
    const size_t wanted = (size_t)ahead * DM_EXPERT_AHEAD_A_LAYER, least = dm_expert_store_least(files);
    const size_t most = budget > least ? (budget - least) / 2 / dm_expert_loads_guess_bytes(files) : 0;
    return wanted < most ? wanted : most;
}

/* ---- Making -------------------------------------------------------------- */

static dm_status take_memory(dm_expert_store *it) {
    const size_t layers = (size_t)it->files->layers, all = layers * (size_t)it->files->experts;
    it->layers = dm_alloc(layers, sizeof *it->layers);
    it->slot_of = dm_alloc(all, sizeof *it->slot_of);
    it->state = dm_alloc(all, sizeof *it->state);
    it->offsets = dm_alloc(all * DM_EXPERT_MATRICES, sizeof *it->offsets);
    it->step.experts = dm_alloc((size_t)it->files->experts, sizeof *it->step.experts);
    it->memory = dm_alloc(it->groups, sizeof *it->memory);
    if (it->memory == NULL || it->layers == NULL || it->slot_of == NULL || it->state == NULL || it->offsets == NULL ||
        it->step.experts == NULL) {
        return DM_ERR_MEMORY;
    }
    memset(it->slot_of, -1, all * sizeof *it->slot_of);
    return DM_OK;
}

/* That a slot belongs to: slots are dealt out as threads are. */
static size_t group_of(const dm_expert_store *it, size_t slot) {
    return it->groups > 1 ? dm_parallel_group((int)slot) : 0;
}

/* Bytes of the slots of a group. */
static size_t group_bytes(const dm_expert_store *it, size_t group) {
    size_t bytes = 0;
    for (int32_t l = 0; l < it->files->layers; l++) {
        for (size_t s = 0; s < (size_t)it->layers[l].slots; s++) {
            bytes += group_of(it, s) == group ? it->layers[l].bytes : 0;
        }
    }
    return bytes;
}

/* Takes memory for each group's slots, and finds their places there, layer after layer. */
static dm_status place_slots(dm_expert_store *it) {
    uint8_t *next[DM_MOST_GROUPS] = {NULL};
    size_t slots = 0;
    for (size_t g = 0; g < it->groups; g++) {
        DM_TRY(dm_pages_map_near(group_bytes(it, g), it->groups > 1 ? dm_parallel_node(g) : -1, &it->memory[g]));
        next[g] = it->memory[g].data;
    }
    for (int32_t l = 0; l < it->files->layers; l++) {
        slots += (size_t)it->layers[l].slots;
    }
    it->slots = dm_alloc(slots, sizeof *it->slots);
    if (it->slots == NULL) {
        return DM_ERR_MEMORY;
    }
    uint8_t **place = it->slots;
    for (int32_t l = 0; l < it->files->layers; l++) {
        layer_slots *of = &it->layers[l];
        of->memory = place;
        for (size_t s = 0; s < (size_t)of->slots; s++) {
            const size_t g = group_of(it, s);
            *place++ = next[g];
            next[g] += of->bytes;
        }
    }
    return DM_OK;
}

/* Slots that may be exchanged have the size of a guess's buffer: those of experts that stay as they are and are about the
 * largest, where that leaves each layer at least one slot. */
static void allow_exchanges(dm_expert_store *it, size_t budget) {
    const size_t guess = dm_expert_loads_guess_bytes(it->files);
    size_t least = dm_expert_loads_bytes(it->files, it->spare);
    for (int32_t l = 0; l < it->files->layers; l++) {
        layer_slots *of = &it->layers[l];
        of->exchanges = of->bytes > 0 && of->bytes <= guess && guess - of->bytes <= guess / 16 && dm_expert_stays(it->files, l);
        least += of->exchanges ? guess : of->bytes;
    }
    for (int32_t l = 0; l < it->files->layers; l++) {
        layer_slots *of = &it->layers[l];
        of->exchanges = of->exchanges && least <= budget;
        of->bytes = of->exchanges ? guess : of->bytes;
    }
}

/* Slots are taken in turns of all layers, so that is how their pages are made. On several nodes who touches them first may decide
 * where they lie. */
static void make_pages(dm_expert_store *it) {
    size_t slots = 0, n = 0;
    for (int32_t l = 0; l < it->files->layers; l++) {
        slots += (size_t)it->layers[l].slots;
    }
    dm_stretch *stretches = it->groups == 1 ? calloc(slots, sizeof *stretches) : NULL;
    for (int32_t s = 0; stretches != NULL && n < slots; s++) {
        for (int32_t l = 0; l < it->files->layers; l++) {
            if (s < it->layers[l].slots) {
                stretches[n++] = (dm_stretch){it->layers[l].memory[s], it->layers[l].bytes};
            }
        }
    }
    it->maker = stretches != NULL ? dm_page_maker_start(stretches, n) : NULL;
    free(stretches);
}

static dm_status take_slots(dm_expert_store *it, const dm_residency_rule *rule, size_t budget) {
    for (int32_t l = 0; l < it->files->layers; l++) {
        it->layers[l].bytes = slot_bytes(it->files, l);
        for (int32_t e = 0; e < it->files->experts; e++) {
            dm_expert_place(it->files, l, e, it->offsets + at(it, l, e) * DM_EXPERT_MATRICES);
        }
    }
    if (it->spare > 0 && it->groups == 1) {
        allow_exchanges(it, budget);
    }
    share_out(it, budget);
    DM_TRY(place_slots(it));
    for (int32_t l = 0; l < it->files->layers; l++) {
        layer_slots *of = &it->layers[l];
        if (of->slots > 0) {
            DM_TRY(dm_eviction_create(it->files->experts, of->slots, &rule->evict, NULL, &of->kept));
        }
    }
    make_pages(it);
    return DM_OK;
}

dm_status dm_expert_store_check(const dm_expert_files *files, const dm_residency_rule *rule, size_t budget) {
    if (rule->shared) {
        return dm_fail(DM_ERR_ARGUMENT, "slots that all layers share are only simulated: leave \":shared\" out");
    }
    if (budget < dm_expert_store_least(files)) {
        return dm_fail(
            DM_ERR_ARGUMENT, "%.1f MB for experts is too little: the least that works is %.1f MB, all of them take %.1f MB",
            (double)budget / 1e6, (double)dm_expert_store_least(files) / 1e6, (double)dm_expert_store_most(files) / 1e6);
    }
    return DM_OK;
}

dm_status dm_expert_store_create(const dm_expert_files *files, const dm_residency_rule *rule, size_t budget,
                                 const dm_expert_ahead *ahead, double patience, bool placed, dm_expert_store **out) {
    *out = NULL;
    DM_TRY(dm_expert_store_check(files, rule, budget - ahead->buffers * dm_expert_loads_guess_bytes(files)));
    dm_expert_store *it = dm_alloc(1, sizeof *it);
    if (it == NULL) {
        return DM_ERR_MEMORY;
    }
    it->files = files;
    it->groups = placed ? dm_parallel_groups() : 1;
    it->spare = ahead->buffers;
    it->ahead = ahead->buffers > 0 ? ahead->layers : 0;
    if (pthread_mutex_init(&it->lock, NULL) != 0) {
        dm_free(it);
        return dm_fail(DM_ERR_MEMORY, "out of memory for experts");
    }
    dm_status status = take_memory(it);
    status = status == DM_OK ? take_slots(it, rule, budget) : status;
    status = status == DM_OK ? dm_expert_loads_create(files, it->spare, patience, &it->loads) : status;
    if (status != DM_OK) {
        dm_expert_store_free(it);
        return status;
    }
    *out = it;
    return DM_OK;
}

void dm_expert_store_free(dm_expert_store *it) {
    if (it == NULL) {
        return;
    }
    dm_page_maker_stop(it->maker);
    const bool idle = dm_expert_loads_free(it->loads); /* before the slots that it reads into */
    for (size_t g = 0; idle && it->memory != NULL && g < it->groups; g++) {
        dm_pages_unmap(&it->memory[g]);
    }
    for (int32_t l = 0; it->layers != NULL && l < it->files->layers; l++) {
        dm_eviction_free(it->layers[l].kept);
    }
    void *const owned[] = {it->memory, it->slots, it->layers, it->slot_of, it->state, it->offsets, it->step.experts};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) {
        dm_free(owned[i]);
    }
    pthread_mutex_destroy(&it->lock);
    dm_free(it);
}

void dm_expert_store_enter(dm_expert_store *it) {
    pthread_mutex_lock(&it->lock);
}

void dm_expert_store_leave(dm_expert_store *it) {
    pthread_mutex_unlock(&it->lock);
}

/* ---- For the router ------------------------------------------------------ */

void dm_expert_store_times(const dm_expert_store *it, int32_t layer, float *tau) {
    for (int32_t e = 0; e < it->files->experts; e++) {
        tau[e] = (it->state[at(it, layer, e)] & (VALID | WANTED)) != 0 ? 0.0f : 1.0f;
    }
}

size_t dm_expert_store_want(dm_expert_store *it, int32_t layer, const int32_t *experts, size_t n) {
    size_t there = 0;
    for (size_t i = 0; i < n; i++) {
        uint8_t *state = &it->state[at(it, layer, experts[i])];
        there += (*state & (VALID | WANTED)) != 0;
        *state |= WANTED;
    }
    return there;
}

/* ---- Guesses ------------------------------------------------------------- */

int32_t dm_expert_store_ahead(const dm_expert_store *it) {
    return it->ahead;
}

void dm_expert_store_guess(dm_expert_store *it, int32_t layer, const int32_t *experts, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if ((it->state[at(it, layer, experts[i])] & VALID) == 0) {
            it->counts.guessed += dm_expert_loads_guess(it->loads, layer, experts[i]);
        }
    }
    dm_expert_loads_flush(it->loads);
}

/* ---- Steps --------------------------------------------------------------- */

static uint8_t *state_of(const dm_expert_store *it, int32_t expert) {
    return &it->state[at(it, it->step.layer, expert)];
}

void dm_expert_store_count(const dm_expert_store *it, uint64_t *asked, uint64_t *hit) {
    const step *s = &it->step;
    for (size_t i = 0; i < s->n; i++) {
        const uint64_t bytes = dm_expert_bytes(it->files, s->layer, s->experts[i]);
        *asked += bytes;
        *hit += (*state_of(it, s->experts[i]) & READ) == 0 ? bytes : 0;
    }
}

/* The slot of one that goes becomes that of another expert of the step's layer. */
static void hand_over(dm_expert_store *it, int32_t gone, int32_t expert) {
    int32_t *from = &it->slot_of[at(it, it->step.layer, gone)];
    it->slot_of[at(it, it->step.layer, expert)] = *from;
    *from = -1;
    *state_of(it, gone) &= (uint8_t)~VALID;
}

/* Gives an expert of the step a slot. One that is in use, or on its way, has to be waited for. */
static void find_slot(dm_expert_store *it, int32_t expert) {
    step *s = &it->step;
    layer_slots *of = &it->layers[s->layer];
    int32_t *slot = &it->slot_of[at(it, s->layer, expert)];
    if (s->in_order && (*state_of(it, expert) & VALID) != 0) {
        return; /* it was used when the step began */
    }
    const int32_t gone = dm_eviction_use(of->kept, expert);
    for (size_t i = s->used; i < s->issued; i++) {
        s->waits_for = s->experts[i] == gone ? gone : s->waits_for;
    }
    if (gone >= 0 && s->waits_for < 0) {
        hand_over(it, gone, expert);
    } else if (gone < 0 && *slot < 0) {
        *slot = of->taken++;
    }
}

static uint8_t **slot_memory(const dm_expert_store *it, int32_t layer, int32_t expert) {
    return &it->layers[layer].memory[it->slot_of[at(it, layer, expert)]];
}

size_t dm_expert_store_home(const dm_expert_store *it, int32_t layer, int32_t expert) {
    return dm_parallel_group(it->slot_of[at(it, layer, expert)]);
}

/* Reads an expert of the step into its slot, or goes on with a guess; false where there is no room. */
static dm_status bring(dm_expert_store *it, int32_t expert, bool *began) {
    step *s = &it->step;
    uint8_t **place = slot_memory(it, s->layer, expert);
    const uint64_t bytes = dm_expert_bytes(it->files, s->layer, expert);
    *began = true;
    if (dm_expert_loads_adopt(it->loads, s->layer, expert, it->layers[s->layer].exchanges, place)) {
        it->counts.came_true++;
        it->counts.ahead += bytes;
    } else if (dm_expert_loads_has_room(it->loads)) {
        DM_TRY(dm_expert_loads_start(it->loads, s->layer, expert, *place));
    } else {
        *began = false;
        return DM_OK;
    }
    it->counts.missed += bytes;
    *state_of(it, expert) |= READ;
    return DM_OK;
}

/* Issues as many as can be: those that are there, and reads of others into slots that nobody uses. */
static dm_status issue(dm_expert_store *it) {
    step *s = &it->step;
    while (s->issued < s->n && s->waits_for < 0) {
        const int32_t expert = s->experts[s->issued];
        if (!s->has_slot) {
            find_slot(it, expert);
            s->has_slot = true;
            continue; /* the slot may have to be waited for */
        }
        if ((*state_of(it, expert) & VALID) == 0) {
            bool began;
            DM_TRY(bring(it, expert, &began));
            if (!began) {
                return DM_OK;
            }
        }
        s->has_slot = false;
        s->issued++;
    }
    return DM_OK;
}

dm_status dm_expert_store_begin(dm_expert_store *it, int32_t layer, const int32_t *experts, size_t n, bool in_order) {
    step *s = &it->step;
    int32_t *const list = s->experts;
    *s = (step){.layer = layer, .in_order = in_order, .experts = list, .n = n, .waits_for = -1};
    size_t listed = 0;
    for (int32_t e = 0; e < it->files->experts; e++) {
        *state_of(it, e) &= VALID;
    }
    for (int turn = in_order ? 1 : 0; turn < 2; turn++) {
        for (size_t i = 0; i < n; i++) {
            bool there = !in_order && (*state_of(it, experts[i]) & VALID) != 0;
            if (there == (turn == 0)) {
                list[listed++] = experts[i];
            }
        }
    }
    for (size_t i = n; in_order && i-- > 0;) { /* of those that are there, the last one waits longest, so it goes first */
        if ((*state_of(it, experts[i]) & VALID) != 0) {
            dm_eviction_use(it->layers[layer].kept, experts[i]);
        }
    }
    DM_TRY(dm_expert_loads_settle(it->loads)); /* what a step that failed left may still be coming */
    DM_TRY(issue(it));
    dm_expert_loads_flush(it->loads);
    return DM_OK;
}

/* Takes what has been read, and begins what then has room; waits for one if asked to. */
static dm_status collect(dm_expert_store *it, bool wait) {
    for (;;) {
        int32_t layer, expert;
        dm_status status = dm_expert_loads_await(it->loads, wait);
        it->step.gave_up = status != DM_OK;
        DM_TRY(status);
        DM_TRY(issue(it)); /* before this one is packed */
        dm_expert_loads_flush(it->loads);
        status = dm_expert_loads_finish(it->loads, &layer, &expert);
        if (expert < 0) {
            return DM_OK;
        }
        it->state[at(it, layer, expert)] |= status == DM_OK ? VALID : 0;
        DM_TRY(status);
        DM_TRY(issue(it)); /* its buffer is free again */
        dm_expert_loads_flush(it->loads);
        wait = false;
    }
}

/* What was given is used up: its slots may go. */
static void release(dm_expert_store *it) {
    step *s = &it->step;
    for (; s->used < s->given; s->used++) {
        if (s->in_order) {
            dm_eviction_release(it->layers[s->layer].kept, s->experts[s->used]);
        }
        if (s->experts[s->used] == s->waits_for) {
            hand_over(it, s->waits_for, s->experts[s->issued]);
            s->waits_for = -1;
        }
    }
}

dm_status dm_expert_store_next(dm_expert_store *it, const int32_t **experts, size_t *n) {
    step *s = &it->step;
    *experts = NULL;
    *n = 0;
    release(it);
    for (bool wait = false; s->given < s->n; wait = true) {
        DM_TRY(issue(it));
        DM_TRY(collect(it, wait));
        size_t end = s->given;
        while (end < s->issued && (*state_of(it, s->experts[end]) & VALID) != 0) {
            end++;
        }
        if (end > s->given) {
            *experts = s->experts + s->given;
            *n = end - s->given;
            s->given = end;
            DM_TRY(issue(it)); /* reads go on while these are computed */
            dm_expert_loads_flush(it->loads);
            return DM_OK;
        }
    }
    return DM_OK;
}

void dm_expert_store_end(dm_expert_store *it) {
    step *s = &it->step;
    bool under_way = true;
    while (under_way) {
        int32_t layer, expert;
        dm_expert_loads_await(it->loads, !s->gave_up); /* where the disk does not answer, none is read */
        dm_status status = dm_expert_loads_finish(it->loads, &layer, &expert);
        under_way = expert >= 0;
        if (under_way) {
            it->state[at(it, layer, expert)] |= status == DM_OK ? VALID : 0;
        }
    }
    dm_expert_loads_abandon(it->loads); /* where the disk does not answer */
    s->given = s->issued;               /* after a failure, some were not; they count as used up too */
    release(it);
    dm_eviction_end_pass(it->layers[s->layer].kept);
    it->counts.wasted += dm_expert_loads_drop(it->loads, s->layer);
}

const uint8_t *dm_expert_store_matrix(const dm_expert_store *it, int32_t layer, int32_t expert, int matrix) {
    return *slot_memory(it, layer, expert) + it->offsets[at(it, layer, expert) * DM_EXPERT_MATRICES + (size_t)matrix];
}

void dm_expert_store_forget(const dm_expert_store *it, size_t file, uint64_t offset, uint64_t bytes) {
    dm_expert_loads_forget(it->loads, file, offset, bytes);
}

void dm_expert_store_stats_of(const dm_expert_store *it, dm_expert_store_stats *out) {
    *out = it->counts;
    out->bytes = it->size + dm_expert_loads_bytes(it->files, it->spare);
    out->read = dm_expert_loads_read(it->loads);
    for (int32_t l = 0; l < it->files->layers; l++) {
        out->slots += (size_t)it->layers[l].slots;
        out->experts += it->layers[l].bytes > 0 ? (size_t)it->files->experts : 0;
    }
}
