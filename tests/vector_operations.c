#include "vector_operations.h"

#include <math.h>

#include "kernels/vector_tables.h"

#define F(i) ((float *)c->row[i])
#define H(i) ((uint16_t *)c->row[i])
#define CALL(name, ...)                                                                                                          \
    static void run_##name(const dm_vector_table *t, call *c) {                                                                  \
        size_t n = c->n;                                                                                                         \
        __VA_ARGS__;                                                                                                             \
    }

CALL(dot, c->result[0] = t->dot(F(0), F(1), n))
CALL(sum, c->result[0] = t->sum(F(0), n))
CALL(sum_squares, c->result[0] = t->sum_squares(F(0), n))
CALL(max, c->result[0] = t->max(F(0), n))
CALL(axpy, t->axpy(F(0), c->a, F(1), n))
CALL(scale, t->scale(F(0), c->a, F(1), n))
CALL(scale_in_place, t->scale(F(0), c->a, F(0), n))
CALL(add, t->add(F(0), F(1), F(2), n))
CALL(add_in_place, t->add(F(0), F(0), F(1), n))
CALL(dot_f16, c->result[0] = t->dot_f16(H(0), F(1), n))
CALL(dot_bf16, c->result[0] = t->dot_bf16(H(0), F(1), n))
CALL(f16_to_f32, t->f16_to_f32(F(0), H(1), n))
CALL(f32_to_f16, t->f32_to_f16(H(0), F(1), n))
CALL(bf16_to_f32, t->bf16_to_f32(F(0), H(1), n))
CALL(f32_to_bf16, t->f32_to_bf16(H(0), F(1), n))
CALL(round_bf16, t->round_bf16(F(0), F(1), n))
CALL(round_bf16_in_place, t->round_bf16(F(0), F(0), n))
CALL(rmsnorm, c->result[0] = t->rmsnorm(F(0), F(1), F(2), 1e-6f, n))
CALL(rmsnorm_in_place, c->result[0] = t->rmsnorm(F(0), F(0), F(1), 1e-6f, n))
CALL(rmsnorm_backward, t->rmsnorm_backward(F(0), F(1), F(2), F(3), F(4), 0.9f, n))
CALL(layernorm, float mean = 0; float r = 0; t->layernorm(F(0), &mean, &r, F(1), F(2), F(3), 1e-5f, n); c->result[0] = mean;
     c->result[1] = r)
CALL(layernorm_backward, t->layernorm_backward(F(0), F(1), F(2), F(3), F(4), F(5), 0.1f, 1.1f, n))
CALL(exp_sum, c->result[0] = t->exp_sum(F(0), c->a, c->b, n))
CALL(softmax, c->result[0] = t->softmax(F(0), n))
CALL(swiglu, t->swiglu(F(0), F(1), F(2), n))
CALL(swiglu_backward, t->swiglu_backward(F(0), F(1), F(2), F(3), F(4), F(5), n))
CALL(swiglu_backward_without_y, t->swiglu_backward(F(0), F(1), NULL, F(2), F(3), F(4), n))
CALL(gelu, t->gelu(F(0), F(1), n))
CALL(gelu_backward, t->gelu_backward(F(0), F(1), F(2), n))
CALL(gelu_backward_in_place, t->gelu_backward(F(0), F(0), F(1), n))
CALL(rope, t->rope(F(0), F(1), F(2), 1.0f, n))
CALL(rope_back, t->rope(F(0), F(1), F(2), -1.0f, n))
CALL(rope_pairs, t->rope_pairs(F(0), F(1), F(2), 2 * n))
CALL(softmax_backward, t->softmax_backward(F(0), F(1), F(2), c->a, c->b, n))
CALL(softmax_backward_in_place, t->softmax_backward(F(0), F(1), F(0), c->a, c->b, n))
CALL(adamw, dm_adamw step = {1e-2f, 0.9f, 0.95f, 1e-8f, 0.1f, 0.3f, 0.2f, 0.7f}; t->adamw(F(0), F(1), F(2), F(3), &step, n))

#define OPERATION(name, kinds, least_n, tolerance)                                                                               \
    { #name, kinds, run_##name, least_n, tolerance }

const operation operations[] = {
    OPERATION(dot, "ff", 0, 4e-7),
    OPERATION(sum, "f", 0, 4e-7),
    OPERATION(sum_squares, "f", 0, 1e-14),
    OPERATION(max, "f", 0, 0),
    OPERATION(axpy, "ff", 0, 2e-7),
    OPERATION(scale, "ff", 0, 0),
    OPERATION(scale_in_place, "f", 0, 0),
    OPERATION(add, "fff", 0, 0),
    OPERATION(add_in_place, "ff", 0, 0),
    OPERATION(dot_f16, "hf", 0, 4e-7),
    OPERATION(dot_bf16, "bf", 0, 4e-7),
    OPERATION(f16_to_f32, "fh", 0, 0),
    OPERATION(f32_to_f16, "hf", 0, 0),
    OPERATION(bf16_to_f32, "fb", 0, 0),
    OPERATION(f32_to_bf16, "hf", 0, 0),
    OPERATION(round_bf16, "ff", 0, 0),
    OPERATION(round_bf16_in_place, "f", 0, 0),
    OPERATION(rmsnorm, "fff", 0, 6e-7),
    OPERATION(rmsnorm_in_place, "ff", 0, 6e-7),
    OPERATION(rmsnorm_backward, "fffff", 0, 1e-6),
    OPERATION(layernorm, "ffff", 0, 1e-6),
    OPERATION(layernorm_backward, "ffffff", 0, 2e-6),
    OPERATION(exp_sum, "f", 0, 4e-7),
    OPERATION(softmax, "f", 1, 4e-7),
    OPERATION(swiglu, "fff", 0, 4e-7),
    OPERATION(swiglu_backward, "ffffff", 0, 1e-6),
    OPERATION(swiglu_backward_without_y, "fffff", 0, 1e-6),
    OPERATION(gelu, "ff", 0, 4e-7),
    OPERATION(gelu_backward, "fff", 0, 1e-6),
    OPERATION(gelu_backward_in_place, "ff", 0, 1e-6),
    OPERATION(rope, "Fcs", 0, 4e-7),
    OPERATION(rope_back, "Fcs", 0, 4e-7),
    OPERATION(rope_pairs, "FFF", 0, 1e-6),
    OPERATION(softmax_backward, "fff", 0, 4e-7),
    OPERATION(softmax_backward_in_place, "ff", 0, 4e-7),
    OPERATION(adamw, "ffpf", 0, 1e-6),
};

const size_t n_operations = sizeof operations / sizeof *operations;

size_t row_bytes(char kind, size_t n) {
    return kind == 'h' || kind == 'b' ? 2 * n : kind == 'F' ? 8 * n : 4 * n;
}

static float draw(char kind, size_t i, dm_random *random) {
    switch (kind) {
    case 'c':
        return cosf(0.37f * (float)i);
    case 's':
        return sinf(0.37f * (float)i);
    case 'p':
        return 0.01f + (float)dm_random_uniform(random);
    default:
        return (float)dm_random_normal(random);
    }
}

void fill_row(void *bytes, char kind, size_t n, dm_random *random) {
    float *floats = bytes;
    uint16_t *halves = bytes;
    size_t count = kind == 'F' ? 2 * n : n;
    for (size_t i = 0; i < count; i++) {
        float x = draw(kind, i, random);
        if (kind == 'h') {
            dm_vector_scalar.f32_to_f16(halves + i, &x, 1);
        } else if (kind == 'b') {
            dm_vector_scalar.f32_to_bf16(halves + i, &x, 1);
        } else {
            floats[i] = x;
        }
    }
}
