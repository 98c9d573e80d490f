/* One price of a byte for whole tensors: which type each takes. */
#ifndef DM_QUANTIZATION_COMPAT_TYPES_H
#define DM_QUANTIZATION_COMPAT_TYPES_H

#include "base/status.h"
#include "quantization/compat_codes.h"

/* What one tensor may be. */
typedef struct dm_compat_offer {
    double cost[DM_COMPAT_TYPES];    /* error in each of dm_compat_types */
    uint64_t bytes[DM_COMPAT_TYPES]; /* 0: not to be had */
    int chosen;                      /* number of a type */
} dm_compat_offer;

/* Chooses for all, with `budget` bytes at most: what the price says that fits best, then the best exchanges that still fit.
 * *price in units of the cost, 0 where all fits. DM_ERR_ARGUMENT where even the smallest do not fit. Each can have a type. */
dm_status dm_compat_settle(dm_compat_offer *offers, size_t n, uint64_t budget, double *price);

#endif
