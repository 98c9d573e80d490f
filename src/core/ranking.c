#include "core/ranking.h"

#include "base/memory.h"

dm_status dm_ranking_create(int32_t things, dm_ranking *out) {
    *out = (dm_ranking){0};
    out->heap = dm_alloc((size_t)things, sizeof *out->heap);
    out->place = dm_alloc((size_t)things, sizeof *out->place);
    out->key = dm_alloc((size_t)things, sizeof *out->key);
    out->arrival = dm_alloc((size_t)things, sizeof *out->arrival);
    if (out->heap == NULL || out->place == NULL || out->key == NULL || out->arrival == NULL) {
        dm_ranking_free(out);
        return DM_ERR_MEMORY;
    }
    for (int32_t i = 0; i < things; i++) {
        out->place[i] = -1;
    }
    return DM_OK;
}

void dm_ranking_free(dm_ranking *it) {
    dm_free(it->heap);
    dm_free(it->place);
    dm_free(it->key);
    dm_free(it->arrival);
    *it = (dm_ranking){0};
}

static bool is_less(const dm_ranking *it, int32_t a, int32_t b) {
    return it->key[a] < it->key[b] || (it->key[a] == it->key[b] && it->arrival[a] < it->arrival[b]);
}

static void put(dm_ranking *it, int32_t thing, int32_t place) {
    it->heap[place] = thing;
    it->place[thing] = place;
}

static void rise(dm_ranking *it, int32_t thing, int32_t place) {
    for (int32_t above = (place - 1) / 2; place > 0 && is_less(it, thing, it->heap[above]); above = (place - 1) / 2) {
        put(it, it->heap[above], place);
        place = above;
    }
    put(it, thing, place);
}

static void sink(dm_ranking *it, int32_t thing, int32_t place) {
    for (;;) {
        int32_t below = 2 * place + 1;
        below += below + 1 < it->count && is_less(it, it->heap[below + 1], it->heap[below]);
        if (below >= it->count || !is_less(it, it->heap[below], thing)) {
            break;
        }
        put(it, it->heap[below], place);
        place = below;
    }
    put(it, thing, place);
}

void dm_ranking_add(dm_ranking *it, int32_t thing, double key) {
    it->key[thing] = key;
    it->arrival[thing] = it->came++;
    rise(it, thing, it->count++);
}

void dm_ranking_remove(dm_ranking *it, int32_t thing) {
    const int32_t place = it->place[thing], last = it->heap[--it->count];
    it->place[thing] = -1;
    if (last != thing) { /* the last one takes the place, and moves from there to where it belongs */
        rise(it, last, place);
        sink(it, last, it->place[last]);
    }
}
