/*
 * A forward pass as the papers write it, in double and without any cleverness, to compare the library with. It shares
 * nothing with it but the description of the shape.
 */
#ifndef DM_TESTS_REFERENCE_FORWARD_H
#define DM_TESTS_REFERENCE_FORWARD_H

#include "dilmodeli.h"
#include "model/config.h"

/* The weights of a model in memory: weights[i], float32, belongs to specs[i]. */
typedef struct reference_model {
    dm_config config;
    dm_tensor_spec *specs;
    float **weights;
    size_t count;
    /* Shown x[n] before the matrices that share it multiply it, with what their result is multiplied with; roles as in
     * dm_observation. NULL, as reference_make() leaves it: nobody. */
    void (*see)(void *user, int32_t layer, dm_role role, int32_t expert, const double *x, int32_t n, double gate);
    void *user;
} reference_model;

/* A small shape with grouped heads of a width of their own, everything odd that may be; the same with experts. */
dm_config reference_shape(dm_arch arch, int32_t vocab, int32_t context);
dm_config reference_expert_shape(dm_arch arch, int32_t vocab, int32_t context);

/* All weights random, norms and biases too, of sizes that make every part matter. Freed with reference_free(). */
void reference_make(reference_model *model, const dm_config *config, uint64_t seed);
void reference_free(reference_model *model);
/* Writes it as a GGUF file; a failure ends the process. */
void reference_write(const reference_model *model, const char *path);

/* Logits [rows, vocab] of the last `rows` of n tokens. */
void reference_forward(const reference_model *model, const int32_t *ids, int32_t n, int32_t rows, double *logits);

/* n ids below `vocab`; each seed gives others. */
void reference_ids(int32_t *ids, int32_t n, int32_t vocab, uint32_t seed);
/* Writes it and opens the file; a failure ends the process. */
dm_model *reference_open(const reference_model *model, const char *path);
/* The largest difference of n logits; NaN if there is one. */
double reference_difference(const float *logits, const double *expected, size_t n);

#endif
