/* The exact payoffs of a player as whole numbers. */
#ifndef DM_CORE_EXACT_PAYOFFS_H
#define DM_CORE_EXACT_PAYOFFS_H

#include "base/big.h"
#include "core/normal_form.h"

typedef struct dm_wholes {
    dm_big *values; /* [profiles] payoffs times a common denominator, moved so that the least is 1 */
    uint64_t *limbs;
} dm_wholes;

/* Of a game that has exact payoffs. DM_ERR_UNSUPPORTED where that needs more than 2048 bits. Free also after a failure. */
dm_status dm_wholes_create(const dm_game *game, int32_t player, dm_wholes *out);
void dm_wholes_free(dm_wholes *wholes);

#endif
