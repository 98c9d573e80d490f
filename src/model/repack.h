/*
 * A model's quantized matrices as panels (kernels/panels.h), made once for all of its sessions: those that every token
 * uses when the first session is made, an expert's when a token first chooses it. Where they are kept on disk, they are
 * checked then instead.
 */
#ifndef DM_MODEL_REPACK_H
#define DM_MODEL_REPACK_H

#include "base/file.h"
#include "model/model.h"

typedef struct dm_repacked dm_repacked;

dm_status dm_repacked_create(dm_repacked **out);
void dm_repacked_free(dm_repacked *repacked);

/* Finds places for the panels of all matrices whose types have a format and packs those that are not experts', with all
 * threads, unless that has been done; the pages of the file behind them are given back. Does nothing on a machine whose
 * kernels gain nothing from it. Of a model that is placed (model/placed.h) only the formats are found. Several threads may ask at
 * once. */
dm_status dm_repack(const dm_model *model);
/* As if nothing had been packed, while the model has no session. */
void dm_repack_forget(const dm_model *model);

/* The format in which a matrix, or each of a stack of experts, is read by kernels, layer -1 for those outside the layers. NULL:
 * it stays as it is. */
const dm_panel_format *dm_repacked_format(const dm_model *model, int32_t layer, dm_role role);
/* Panels of it; of a stack of experts all, one after another. NULL: none here. */
const void *dm_repacked_panels(const dm_model *model, int32_t layer, dm_role role);

/* Where one of a layer's expert matrices is kept on disk as panels. */
typedef struct dm_kept_place {
    uint64_t offset; /* in the file */
    size_t bytes;
    uint64_t check; /* of them, as by dm_panels_check() */
} dm_kept_place;

/* The file that the model's panels are kept in, and its map; NULL: none is. */
const char *dm_repacked_file(const dm_model *model, const dm_map **map);
/* Of a matrix that has panels, where they are kept. */
dm_kept_place dm_repacked_kept(const dm_model *model, int32_t layer, dm_role role, int32_t expert);

/* Packs what is missing of the n experts of a layer: to be called, outside of loops that are shared out, before their
 * panels are read. Costs one load once all of the layer's are there. Several threads may ask at once, for the same too. */
void dm_repack_experts(const dm_model *model, int32_t layer, const int32_t *experts, size_t n);
/* All of them, where speed is to be the same from now on. */
void dm_repack_all_experts(const dm_model *model);

#endif
