/* The order in which training reads the windows of the corpus. */
#include "base/random.h"
#include "training/tokens.h"

/* A Feistel network (Luby and Rackoff 1988) permutes the numbers of 2 * half bits; walking on until one falls below n
 * makes it a permutation of 0..n-1 (Black and Rogaway 2002). At most 4 steps are expected. */
static uint64_t permute(uint64_t x, uint64_t n, uint64_t key) {
    unsigned half = 1;
    while (half < 32 && (n - 1) >> (2 * half) != 0) {
        half++;
    }
    const uint64_t mask = (UINT64_C(1) << half) - 1;
    do {
        uint64_t left = x >> half, right = x & mask;
        for (uint64_t round = 0; round < 6; round++) {
            uint64_t next = left ^ (dm_random_mix(key + round * 0x9e3779b97f4a7c15u + (right << 8)) & mask);
            left = right;
            right = next;
        }
        x = left << half | right;
    } while (x >= n);
    return x;
}

/* One fewer than fit, where there are several, to leave room for the shift. */
uint64_t dm_tokens_windows(const dm_tokens *tokens, size_t length) {
    uint64_t windows = (tokens->count - length) / length;
    return windows > 0 ? windows : 1;
}

uint64_t dm_tokens_window(const dm_tokens *tokens, uint64_t seed, uint64_t index, size_t length) {
    uint64_t windows = dm_tokens_windows(tokens, length);
    uint64_t epoch = index / windows;
    uint64_t key = dm_random_mix(dm_random_mix(seed) + epoch);
    uint64_t slack = tokens->count - 1 - windows * length;
    uint64_t shifts = slack < length - 1 ? slack + 1 : length;
    return dm_random_mix(key) % shifts + permute(index % windows, windows, key) * length;
}
