/* What the panels of one matrix share while it is compressed: what errors cost, factored, and who is whose neighbour. */
#ifndef DM_QUANTIZATION_COMPRESS_MOMENTS_H
#define DM_QUANTIZATION_COMPRESS_MOMENTS_H

#include "base/status.h"
#include "kernels/mixed_panels.h"

enum { DM_UNIT_SQUARE = DM_PANEL_UNIT * DM_PANEL_UNIT };

/* H [columns, columns] = L L^T, L below the diagonal. Made by dm_compress_moments_make(), owned until ..._free(). */
typedef struct dm_compress_moments {
    size_t columns, units; /* units of 32 columns */
    float *h;              /* damped; NULL: only the diagonal counts */
    float *lower;          /* [columns, columns] L; NULL with h */
    float *diagonal;       /* [columns] of h */
    float *conditional;    /* [units, 32, 32] diagonal blocks of L: the cost of errors that columns before them compensate */
    float *own;            /* [units, 32, 32] Cholesky factors of the diagonal blocks of h: the cost of errors that nobody does */
    uint16_t *neighbours;  /* [units, n_neighbours] */
    size_t n_neighbours;
} dm_compress_moments;

typedef struct dm_neighbour_choice {
    size_t n;    /* nearest by |H_bb^-1/2 H_bc H_cc^-1/2|; at most units - 1 */
    bool random; /* any instead of the nearest: what the measure is worth */
    uint64_t seed;
} dm_neighbour_choice;

/* h [columns, columns] symmetric or NULL, and its diagonal [columns]. Damping adds a hundredth of the diagonal's mean.
 * DM_ERR_MEMORY. */
dm_status dm_compress_moments_make(dm_compress_moments *out, const float *h, const float *diagonal, size_t columns,
                                   const dm_neighbour_choice *choice);
void dm_compress_moments_free(dm_compress_moments *it);

/* a [n, n], rows ld apart, = its Cholesky factor below the diagonal; what is above it is left as it was. Pivots that rounding
 * made too small are raised. DM_ERR_MEMORY. */
dm_status dm_cholesky(float *a, size_t n, size_t ld);

#endif
