#include "quantization/compress_prices.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* The best choice at the prices, first..last. */
static int best_choice(const float *cost, const dm_prices *prices, int forced) {
    int best = forced > 0 ? forced : 1;
    double least = INFINITY;
    for (int i = 0; i < DM_CHOICES; i++) {
        if (forced >= 0 && i != 0 && i != forced) {
            continue;
        }
        const double total = (double)cost[i] + prices->byte * (double)dm_choice_bytes(i) + (i > 0 ? prices->kept : 0.0);
        if (total < least) {
            least = total;
            best = i;
        }
    }
    return best;
}

typedef struct outcome {
    uint64_t bytes;
    size_t pruned;
} outcome;

static outcome choose(const dm_market *it, const dm_prices *prices, int forced) {
    outcome o = {0};
    for (size_t t = 0; t < it->tiles; t++) {
        const int choice = best_choice(it->cost + t * DM_CHOICES, prices, forced);
        it->widths[t] = (uint8_t)dm_choice_bits(choice);
        o.bytes += dm_choice_bytes(choice);
        o.pruned += choice == 0;
    }
    return o;
}

static double largest_cost(const dm_market *it) {
    size_t at = 0; /* gcc 12 for aarch64 crashes on a loop that keeps the largest itself */
    for (size_t t = 1; t < it->tiles; t++) {
        at = it->cost[t * DM_CHOICES] > it->cost[at * DM_CHOICES] ? t : at;
    }
    return it->tiles > 0 ? fmax(it->cost[at * DM_CHOICES], 1e-30) : 1e-30;
}

/* The least mu, to a thousandth, at which enough tiles are pruned; at the price of a byte. */
static outcome settle_kept(const dm_market *it, const dm_market_goal *goal, dm_prices *prices, double most) {
    const size_t wanted = (size_t)ceil(goal->pruned * (double)it->tiles);
    prices->kept = 0.0;
    outcome o = choose(it, prices, goal->forced);
    if (o.pruned >= wanted) {
        return o;
    }
    double low = log(most * 1e-15), high = log(most * 2.0 + 1e-30);
    while (high - low > 1e-3) {
        prices->kept = exp(0.5 * (low + high));
        o = choose(it, prices, goal->forced);
        if (o.pruned < wanted) {
            low = log(prices->kept);
        } else {
            high = log(prices->kept);
        }
    }
    prices->kept = exp(high);
    return choose(it, prices, goal->forced);
}

/* What is left of the budget goes to tiles in order, each to what it would choose at a price a little lower. */
static void spend(const dm_market *it, const dm_market_goal *goal, const dm_prices *cheaper, uint64_t bytes) {
    for (size_t t = 0; t < it->tiles; t++) {
        const int now = dm_choice_of(it->widths[t]), choice = best_choice(it->cost + t * DM_CHOICES, cheaper, goal->forced);
        const uint64_t after = bytes - dm_choice_bytes(now) + dm_choice_bytes(choice);
        if (choice > now && now > 0 && after <= goal->bytes) {
            it->widths[t] = (uint8_t)dm_choice_bits(choice);
            bytes = after;
        }
    }
}

dm_status dm_market_settle(dm_market *it, const dm_market_goal *goal, dm_prices *prices) {
    const double most = largest_cost(it);
    *prices = (dm_prices){0};
    outcome o = settle_kept(it, goal, prices, most);
    if (o.bytes <= goal->bytes || goal->forced >= 0) {
        return DM_OK;
    }
    double low = log(most * 1e-18), high = log(most);
    prices->byte = exp(high);
    o = settle_kept(it, goal, prices, most);
    if (o.bytes > goal->bytes) {
        return dm_fail(DM_ERR_ARGUMENT, "the budget is too small: expected at least %" PRIu64 " bytes of tiles, found %" PRIu64,
                       o.bytes, goal->bytes);
    }
    while (high - low > 1e-3) {
        prices->byte = exp(0.5 * (low + high));
        o = settle_kept(it, goal, prices, most);
        if (o.bytes > goal->bytes) {
            low = log(prices->byte);
        } else {
            high = log(prices->byte);
        }
    }
    prices->byte = exp(high);
    o = settle_kept(it, goal, prices, most);
    const dm_prices cheaper = {exp(low - 0.05), prices->kept};
    spend(it, goal, &cheaper, o.bytes);
    return DM_OK;
}
