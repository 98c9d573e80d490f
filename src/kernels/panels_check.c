#include "kernels/panels.h"

#include <string.h>

#include "base/hash.h"

/* Four sums that do not wait for one another: about as fast as memory. */
uint64_t dm_panels_check(const uint8_t *panels, size_t bytes) {
    uint64_t sums[4] = {1, 2, 3, 4};
    for (size_t at = 0; at < bytes; at += 64) {
        uint64_t words[8];
        memcpy(words, panels + at, sizeof words);
        for (int i = 0; i < 4; i++) {
            sums[i] = dm_hash_mix(sums[i] ^ words[2 * i], words[2 * i + 1]);
        }
    }
    return dm_hash_bytes(sums, sizeof sums, bytes);
}
