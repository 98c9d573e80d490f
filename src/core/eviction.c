#include "core/eviction.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "core/eviction_policies.h"

/* ---- Names ---------------------------------------------------------------- */

typedef struct known_policy {
    const char *name;
    const dm_eviction_methods *methods;
    double usual, most; /* of the parameter, above 0; most 0: there is none */
} known_policy;

enum { HALF = 64 }; /* passes, where none are given */
static const known_policy policies[DM_EVICTION_POLICIES] = {
    [DM_EVICT_LRU] = {"lru", &dm_eviction_lru, 0.0, 0.0},       [DM_EVICT_LFU] = {"lfu", &dm_eviction_lfu, HALF, 1e9},
    [DM_EVICT_LFRU] = {"lfru", &dm_eviction_lfru, 0.25, 1.0},   [DM_EVICT_SLRU] = {"slru", &dm_eviction_slru, 0.5, 1.0},
    [DM_EVICT_STALE] = {"stale", &dm_eviction_stale, 0.0, 0.0}, [DM_EVICT_BELADY] = {"belady", &dm_eviction_belady, 0.0, 0.0},
};

const char *dm_eviction_name(dm_eviction_policy policy) {
    return policies[policy].name;
}

/* The policy that the first bytes of text name; DM_EVICTION_POLICIES: none. */
static int find(const char *text, size_t length) {
    int at = 0;
    while (at < DM_EVICTION_POLICIES && (strlen(policies[at].name) != length || memcmp(policies[at].name, text, length) != 0)) {
        at++;
    }
    return at;
}

static dm_status unknown(const char *text, size_t length) {
    return dm_fail(DM_ERR_ARGUMENT,
                   "'%.*s' is no policy of eviction: expected lru, lfu, lfu:PASSES, lfru, lfru:SHARE, slru, slru:SHARE or stale",
                   (int)(length < 40 ? length : 40), text);
}

dm_status dm_eviction_parse(const char *text, size_t length, dm_eviction_rule *out) {
    const char *colon = memchr(text, ':', length);
    const size_t named = colon != NULL ? (size_t)(colon - text) : length;
    int found = find(text, named);
    if (found == DM_EVICTION_POLICIES || (colon != NULL && policies[found].most == 0.0)) {
        return unknown(text, length);
    }
    *out = (dm_eviction_rule){(dm_eviction_policy)found, policies[found].usual};
    if (colon == NULL) {
        return DM_OK;
    }
    char number[32] = "";
    size_t digits = length - named - 1;
    memcpy(number, colon + 1, digits < sizeof number ? digits : sizeof number - 1);
    char *end;
    out->parameter = strtod(number, &end);
    if (digits == 0 || digits >= sizeof number || *end != '\0' ||
        !(out->parameter > 0.0 && out->parameter <= policies[found].most)) {
        return dm_fail(DM_ERR_ARGUMENT, "'%.*s' is no parameter of %s: expected more than 0, at most %g",
                       (int)(digits < 40 ? digits : 40), colon + 1, policies[found].name, policies[found].most);
    }
    return DM_OK;
}

/* ---- Uses ----------------------------------------------------------------- */

bool dm_eviction_has(const dm_eviction *it, int32_t thing) {
    return it->here[thing];
}

/* Makes room; returns who went. Nobody outside the step is left where it takes all slots. */
static int32_t evict(dm_eviction *it) {
    int32_t gone = it->methods->worst(it);
    if (gone >= 0) {
        it->methods->leave(it, gone);
    } else {
        gone = dm_lru_oldest(&it->step);
        dm_lru_remove(&it->step, gone);
    }
    it->here[gone] = false;
    it->kept--;
    return gone;
}

int32_t dm_eviction_use(dm_eviction *it, int32_t thing) {
    int32_t gone = -1;
    it->again[thing] = it->here[thing];
    if (it->methods->note != NULL) {
        it->methods->note(it, thing);
    }
    if (!it->here[thing]) {
        gone = it->kept == it->slots ? evict(it) : -1;
        it->here[thing] = true;
        it->kept++;
    } else if (!dm_lru_has(&it->step, thing)) {
        it->methods->leave(it, thing);
    }
    dm_lru_use(&it->step, thing);
    return gone;
}

void dm_eviction_release(dm_eviction *it, int32_t thing) {
    if (dm_lru_has(&it->step, thing)) {
        dm_lru_demote(&it->step, thing);
    }
}

void dm_eviction_end_step(dm_eviction *it) {
    for (int32_t thing; (thing = dm_lru_oldest(&it->step)) >= 0;) {
        dm_lru_remove(&it->step, thing);
        it->methods->come(it, thing);
    }
}

void dm_eviction_end_pass(dm_eviction *it) {
    dm_eviction_end_step(it);
    it->passes++;
    if (it->methods->age != NULL) {
        it->methods->age(it);
    }
}

/* ---- Memory ---------------------------------------------------------------- */

/* Slots of the queue that has a share of them, one at least. */
static int32_t share_of(const dm_eviction *it, double share) {
    int32_t slots = (int32_t)lround(share * it->slots);
    return slots > 1 ? slots : 1;
}

static dm_status build(dm_eviction *it, const dm_eviction_rule *rule) {
    const bool lfru = rule->policy == DM_EVICT_LFRU, slru = rule->policy == DM_EVICT_SLRU;
    it->here = dm_alloc((size_t)it->things, sizeof *it->here);
    it->again = dm_alloc((size_t)it->things, sizeof *it->again);
    it->score = dm_alloc((size_t)it->things, sizeof *it->score);
    if (it->here == NULL || it->again == NULL || it->score == NULL) {
        return DM_ERR_MEMORY;
    }
    for (int32_t i = 0; i < it->things; i++) {
        it->score[i] = -INFINITY; /* no use at all */
    }
    it->half = rule->policy == DM_EVICT_LFU ? rule->parameter : HALF;
    DM_TRY(dm_lru_create(it->things, it->slots, &it->step));
    DM_TRY(dm_lru_create(it->things, lfru ? share_of(it, rule->parameter) : it->slots, &it->queues[0]));
    DM_TRY(dm_lru_create(it->things, slru ? share_of(it, rule->parameter) : it->slots, &it->queues[1]));
    return dm_ranking_create(it->things, &it->ranking);
}

dm_status dm_eviction_create(int32_t things, int32_t slots, const dm_eviction_rule *rule, const dm_eviction_future *future,
                             dm_eviction **out) {
    *out = NULL;
    dm_eviction *it = dm_alloc(1, sizeof *it);
    if (it == NULL) {
        return DM_ERR_MEMORY;
    }
    *it = (dm_eviction){.things = things, .slots = slots, .methods = policies[rule->policy].methods};
    dm_status status = build(it, rule);
    if (status == DM_OK && future != NULL) {
        status = dm_eviction_foresee(it, future);
    }
    if (status != DM_OK) {
        dm_eviction_free(it);
        return status;
    }
    *out = it;
    return DM_OK;
}

void dm_eviction_free(dm_eviction *it) {
    if (it == NULL) {
        return;
    }
    dm_free(it->here);
    dm_free(it->again);
    dm_free(it->score);
    dm_free(it->next);
    dm_lru_free(&it->step);
    dm_lru_free(&it->queues[0]);
    dm_lru_free(&it->queues[1]);
    dm_ranking_free(&it->ranking);
    dm_free(it);
}
