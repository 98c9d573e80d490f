/* Telling models apart. */
#ifndef DM_MODEL_FINGERPRINT_H
#define DM_MODEL_FINGERPRINT_H

#include "model/model.h"

/* A number that differs between models that compute differently, but for changes deep inside a tensor: it covers the
 * shape, every tensor's type, and the first and last weights of each, so that a large file is not read for it. It is of
 * this machine's byte order. */
uint64_t dm_model_fingerprint(const dm_model *model);

#endif
