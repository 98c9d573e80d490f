/* A small random generator whose whole state travels in a checkpoint:
 * xoshiro256** (Blackman and Vigna 2018), seeded by splitmix64. */
#ifndef DM_BASE_RANDOM_H
#define DM_BASE_RANDOM_H

#include <stdint.h>

typedef struct dm_random {
    uint64_t state[4];
} dm_random;

void dm_random_seed(dm_random *random, uint64_t seed);
uint64_t dm_random_next(dm_random *random);
/* Uniform in [0, 1), 53 bits. */
double dm_random_uniform(dm_random *random);
/* Mean 0, variance 1 (Box and Muller; draws two numbers, keeps no state). */
double dm_random_normal(dm_random *random);
/* Mixes the bits of x so that neighbours are unrelated (splitmix64's finisher). */
uint64_t dm_random_mix(uint64_t x);

#endif
