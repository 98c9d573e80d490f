/* Hashes for tables in memory. Values may differ between byte orders; keep them out of portable files. */
#ifndef DM_BASE_HASH_H
#define DM_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Folds the 128-bit product of two words: every input bit reaches every output bit. */
static inline uint64_t dm_hash_mix(uint64_t a, uint64_t b) {
    unsigned __int128 product = (unsigned __int128)(a ^ 0x9e3779b97f4a7c15u) * (b ^ 0xe7037ed1a0b428dbu);
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static inline uint64_t dm_hash_bytes(const void *data, size_t length, uint64_t seed) {
    const uint8_t *bytes = data;
    uint64_t hash = seed ^ length;
    while (length > 8) {
        uint64_t word;
        memcpy(&word, bytes, 8);
        hash = dm_hash_mix(hash, word);
        bytes += 8;
        length -= 8;
    }
    uint64_t tail = 0;
    if (length > 0) {
        memcpy(&tail, bytes, length);
    }
    return dm_hash_mix(hash, tail);
}

#endif
