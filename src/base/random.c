#include "base/random.h"

#include <math.h>

uint64_t dm_random_mix(uint64_t x) {
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

void dm_random_seed(dm_random *random, uint64_t seed) {
    for (int i = 0; i < 4; i++) {
        random->state[i] = dm_random_mix(seed + (uint64_t)i * 0x9e3779b97f4a7c15u);
    }
}

static uint64_t rotate_left(uint64_t x, int k) {
    return (x << k) | (x >> (64 - k));
}

uint64_t dm_random_next(dm_random *random) {
    uint64_t *s = random->state;
    uint64_t result = rotate_left(s[1] * 5, 7) * 9;
    uint64_t shifted = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= shifted;
    s[3] = rotate_left(s[3], 45);
    return result;
}

double dm_random_uniform(dm_random *random) {
    return (double)(dm_random_next(random) >> 11) * 0x1p-53;
}

double dm_random_normal(dm_random *random) {
    double radius = sqrt(-2.0 * log(1.0 - dm_random_uniform(random)));
    return radius * cos(6.283185307179586 * dm_random_uniform(random));
}
