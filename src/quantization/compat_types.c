#include "quantization/compat_types.h"

#include <inttypes.h>
#include <math.h>

enum { BISECTIONS = 200 };

static int best_at(const dm_compat_offer *offer, double price) {
    int best = -1;
    double least = INFINITY;
    for (int k = 0; k < DM_COMPAT_TYPES; k++) {
        const double value = offer->cost[k] + price * (double)offer->bytes[k];
        if (offer->bytes[k] > 0 && (best < 0 || value < least || (value == least && offer->bytes[k] < offer->bytes[best]))) {
            best = k;
            least = value;
        }
    }
    return best;
}

static uint64_t choose(dm_compat_offer *offers, size_t n, double price) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < n; i++) {
        offers[i].chosen = best_at(&offers[i], price);
        bytes += offers[i].bytes[offers[i].chosen];
    }
    return bytes;
}

static uint64_t choose_smallest(dm_compat_offer *offers, size_t n) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < n; i++) {
        dm_compat_offer *o = &offers[i];
        o->chosen = -1;
        for (int k = 0; k < DM_COMPAT_TYPES; k++) {
            const bool smaller = o->bytes[k] > 0 && (o->chosen < 0 || o->bytes[k] < o->bytes[o->chosen]);
            o->chosen = smaller ? k : o->chosen;
        }
        bytes += o->bytes[o->chosen];
    }
    return bytes;
}

/* The exchange of one tensor's type that saves most for each byte more, with up to `spare` bytes more; false if there is none. */
static bool exchange(dm_compat_offer *offers, size_t n, uint64_t *spare) {
    double best = 0.0;
    size_t tensor = 0;
    int type = -1;
    for (size_t i = 0; i < n; i++) {
        const dm_compat_offer *o = &offers[i];
        const uint64_t now = o->bytes[o->chosen];
        for (int k = 0; k < DM_COMPAT_TYPES; k++) {
            const double gain = o->cost[o->chosen] - o->cost[k];
            if (o->bytes[k] == 0 || !(gain > 0.0) || o->bytes[k] > now + *spare) {
                continue;
            }
            const double rate = o->bytes[k] > now ? gain / (double)(o->bytes[k] - now) : INFINITY;
            if (rate > best) {
                best = rate;
                tensor = i;
                type = k;
            }
        }
    }
    if (type < 0) {
        return false;
    }
    *spare = *spare + offers[tensor].bytes[offers[tensor].chosen] - offers[tensor].bytes[type];
    offers[tensor].chosen = type;
    return true;
}

dm_status dm_compat_settle(dm_compat_offer *offers, size_t n, uint64_t budget, double *price) {
    const uint64_t least = choose_smallest(offers, n);
    if (least > budget) {
        return dm_fail(DM_ERR_ARGUMENT,
                       "the budget is too small: expected %" PRIu64 " bytes of quantized tensors or more, found %" PRIu64, least,
                       budget);
    }
    double low = 1e-40, high = 1e40; /* bisected in ratios: units of the cost are anybody's */
    *price = 0.0;
    uint64_t bytes = choose(offers, n, 0.0);
    if (bytes <= budget) {
        return DM_OK;
    }
    for (int i = 0; i < BISECTIONS; i++) {
        const double middle = sqrt(low * high);
        if (choose(offers, n, middle) <= budget) {
            high = middle;
        } else {
            low = middle;
        }
    }
    *price = high;
    bytes = choose(offers, n, high);
    if (bytes > budget) { /* costs beyond all prices */
        bytes = choose_smallest(offers, n);
    }
    uint64_t spare = budget - bytes;
    while (exchange(offers, n, &spare)) {
    }
    return DM_OK;
}
