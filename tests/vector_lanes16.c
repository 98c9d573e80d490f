#include "vector_lanes16.h"

#include <math.h>
#include <string.h>

#include "kernels/vector_tables.h"

#define LANES 16
#include "kernels/vector_types.h"

static inline vf v_fma(vf a, vf b, vf c) {
    for (int j = 0; j < LANES; j++) {
        c[j] = fmaf(a[j], b[j], c[j]);
    }
    return c;
}

static inline vf v_min(vf a, vf b) {
    for (int j = 0; j < LANES; j++) {
        b[j] = a[j] < b[j] ? a[j] : b[j];
    }
    return b;
}

static inline vf v_max(vf a, vf b) {
    for (int j = 0; j < LANES; j++) {
        b[j] = a[j] > b[j] ? a[j] : b[j];
    }
    return b;
}

static inline vf v_sqrt(vf a) {
    for (int j = 0; j < LANES; j++) {
        a[j] = sqrtf(a[j]);
    }
    return a;
}

static inline vf v_from_f16(vh halves) {
    uint16_t in[LANES];
    float out[LANES];
    memcpy(in, &halves, sizeof in);
    dm_vector_scalar.f16_to_f32(out, in, LANES);
    vf result;
    memcpy(&result, out, sizeof result);
    return result;
}

static inline vh v_to_f16(vf a) {
    float in[LANES];
    uint16_t out[LANES];
    memcpy(in, &a, sizeof in);
    dm_vector_scalar.f32_to_f16(out, in, LANES);
    vh result;
    memcpy(&result, out, sizeof result);
    return result;
}

#define DM_TABLE dm_vector_lanes16
#define DM_ISA "lanes16"
#include "kernels/vector_impl.h"
