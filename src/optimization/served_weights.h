/* How many bytes of a model's weights a token reads, layer by layer, for moe/served.h. */
#ifndef DM_OPTIMIZATION_SERVED_WEIGHTS_H
#define DM_OPTIMIZATION_SERVED_WEIGHTS_H

#include "model/model.h"
#include "moe/served.h"

/* Of a mixture; embeddings are left out: of them a token reads a row. On failure *out is empty; else free it with
 * dm_served_weights_free(). */
dm_status dm_served_weights_of(const dm_model *model, dm_served_weights *out);
void dm_served_weights_free(dm_served_weights *weights);

#endif
