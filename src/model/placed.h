/*
 * A model's weights where several groups of threads (base/parallel.h) read them: each group's lie in a stretch of memory of its
 * own, near its node. Of a matrix that every token reads a group has its share of the rows, or all of them where they are
 * mirrored; an expert lies at its home alone. Matrices are copied there, as panels where kernels read such, when the first
 * session is made; experts that are streamed lie in slots instead (moe/expert_store.h). What a token reads a row of, and vectors,
 * stay in the file.
 */
#ifndef DM_MODEL_PLACED_H
#define DM_MODEL_PLACED_H

#include "model/model.h"

typedef struct dm_placed dm_placed;

/* For the groups as they are, which it holds until it is freed. homes [n_layers, n_experts] are copied: the group of each expert.
 * DM_ERR_MEMORY; *out is then NULL. */
dm_status dm_placed_create(const dm_model *model, const int32_t *homes, bool mirrored, dm_placed **out);
/* While the model has no session; NULL is fine. */
void dm_placed_free(dm_placed *it);

/* Copies the weights of a model that is placed, with each group's threads, unless that has been done. After dm_repack(). Several
 * threads may ask at once. */
dm_status dm_placed_fill(const dm_model *model);

/* ---- Of a model that is placed ---- */

bool dm_placed_mirrored(const dm_model *model);
size_t dm_placed_home(const dm_model *model, int32_t layer, int32_t expert);

/* A matrix that every token reads, layer -1 for those outside the layers: [groups]. NULL: it stays as it is. */
const dm_weight_copy *dm_placed_matrix(const dm_model *model, int32_t layer, dm_role role);
/* An expert's; NULL: experts are streamed. */
const dm_weight_copy *dm_placed_expert(const dm_model *model, int32_t layer, dm_role role, int32_t expert);

/* Bytes of weights that a group has; 0 before the first session. Its pages as dm_pages_count() tells. */
uint64_t dm_placed_bytes(const dm_model *model, size_t group);
void dm_placed_pages(const dm_model *model, size_t group, uint64_t *there, uint64_t *elsewhere);

#endif
