/* One price for all tiles of a model: which width each takes at the prices of a byte and of a kept tile, and which prices bring
 * the model to its size. */
#ifndef DM_QUANTIZATION_COMPRESS_PRICES_H
#define DM_QUANTIZATION_COMPRESS_PRICES_H

#include "quantization/compress_panel.h"

/* Tiles of all matrices, one after another. */
typedef struct dm_market {
    size_t tiles;
    const float *cost; /* [tiles, DM_CHOICES] */
    uint8_t *widths;   /* [tiles] bits: what was chosen */
} dm_market;

typedef struct dm_market_goal {
    uint64_t bytes; /* of all tiles together, as dm_choice_bytes() counts them */
    double pruned;  /* at least this share of the tiles is pruned; 0: as the prices say */
    int forced;     /* a number of a choice: all tiles that are kept take it, whatever the bytes; -1: free */
} dm_market_goal;

/* Chooses all widths and says at which prices. The bytes are met as well as tiles allow: never more, and less than a tile's
 * change of width below. DM_ERR_ARGUMENT where even the narrowest tiles are too many bytes. */
dm_status dm_market_settle(dm_market *it, const dm_market_goal *goal, dm_prices *prices);

#endif
