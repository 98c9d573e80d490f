/* The architectures as data: a row each says what sets one apart. */
#ifndef DM_MODEL_ARCH_H
#define DM_MODEL_ARCH_H

#include "model/config.h"

typedef struct dm_arch_row {
    const char *name;
    uint32_t parts;    /* dm_part: what every such model has */
    uint32_t optional; /* what a file may have besides: its tensors tell */
    dm_rope_kind rope;
    bool dense, experts; /* which kinds of feed-forward layers it may have */
    bool plain_gates;    /* unless the file says otherwise */
    bool expert_key;     /* the width of an expert has a key; else it is that of the feed-forward layer */
} dm_arch_row;

const dm_arch_row *dm_arch_row_of(dm_arch arch);

/* The optional parts that the tensors of a file show. */
uint32_t dm_arch_extra_parts(dm_arch arch, const dm_gguf *file);

/* How many dm_config_tensors() lists. */
size_t dm_config_n_tensors(const dm_config *config);

#endif
