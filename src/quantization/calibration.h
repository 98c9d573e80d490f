/*
 * What calibration text says about each weight matrix: the second moments of what it multiplies, and how much the loss minds
 * errors of what it gives. Read from a file that `dilmodeli calibrate` wrote, or from llama.cpp's importance matrices (diagonals
 * only). docs/compression.md derives the numbers and gives the file's format.
 */
#ifndef DM_QUANTIZATION_CALIBRATION_H
#define DM_QUANTIZATION_CALIBRATION_H

#include "model/model.h"
#include "quantization/imatrix.h"

/*
 * Of one matrix W [rows, columns] of a layer, or of one expert. With E [rows, columns] the change of W,
 * sum over r of d[r] E[r]^T h E[r] estimates the KL divergence per token between the model's predictions before and after, in
 * nats: numbers of different matrices compare, those of experts too.
 */
typedef struct dm_moments {
    size_t rows, columns;
    const float *h; /* [columns, columns] symmetric, mean over all tokens of gate^2 x x^T; NULL: only the diagonal is known */
    const float *diagonal; /* [columns] of h */
    const float *d;        /* [rows] half of the mean squared gradient with respect to the output; NULL: not known */
    double tokens;         /* that h effectively rests on: (sum of gate^2)^2 / sum of gate^4; 0: it is the layer's mean */
    double weight;         /* sum of gate^2 over all tokens; 1 where every token uses the matrix */
} dm_moments;

typedef struct dm_calibration dm_calibration;

/* Opens and checks statistics of `model`, which must outlive them: another model's are DM_ERR_ARGUMENT, damaged ones
 * DM_ERR_FORMAT. On success free *out with dm_calibration_close(). */
dm_status dm_calibration_open(const char *path, const dm_model *model, dm_calibration **out);
void dm_calibration_close(dm_calibration *calibration);

/* Whether there are statistics of a matrix; `expert` is -1 but for the three roles of experts. A tied output projection is
 * DM_OUTPUT of layer -1. */
bool dm_calibration_has(const dm_calibration *calibration, int32_t layer, dm_role role, int32_t expert);
/* Whether they tell what errors cost the predictions. */
bool dm_calibration_has_slopes(const dm_calibration *calibration);

/* Loads those of one matrix; experts with few tokens lean on the mean of their layer's experts. The arrays are the calibration's
 * and hold until the next call. DM_ERR_ARGUMENT where there are none, DM_ERR_FORMAT where a number is not finite. */
dm_status dm_calibration_get(dm_calibration *calibration, int32_t layer, dm_role role, int32_t expert, dm_moments *out);

/* The same as measured, nothing lent. */
dm_status dm_calibration_get_raw(dm_calibration *calibration, int32_t layer, dm_role role, int32_t expert, dm_moments *out);

/* Mean squares of every input as measured, for others' programs; experts' are weighted by the squares of their gates. On success
 * free *out with dm_imatrix_free(). */
dm_status dm_calibration_diagonals(const dm_calibration *calibration, dm_imatrix *out);

/* Tokens of the calibration text. */
uint64_t dm_calibration_tokens(const dm_calibration *calibration);

#endif
