/*
 * Files of kept panels. Input: such a file, for a model of 3 matrices. One that opens must have its checks and panels within
 * it, and be the one file that a model with these checks has.
 */
#include "fuzz.h"
#include "kernels/panels.h"
#include "model/kept.h"

enum { MATRICES = 3, BYTES = 3 * 128 };

static const dm_kept_header wanted = {.magic = {'D', 'M', 'P', 'A', 'N', 'E', 'L', 'S'},
                                      .version = 1,
                                      .layout = 1,
                                      .model = 77,
                                      .stamp = 99,
                                      .matrices = MATRICES,
                                      .bytes = BYTES};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char path[32];
    int file = fuzz_file(data, size, path);
    dm_kept kept;
    if (dm_kept_open(path, &wanted, &kept) == DM_OK) {
        const uint8_t *end = kept.map.data + kept.map.size;
        FUZZ_CHECK(kept.map.size == size && kept.panels + BYTES == end);
        FUZZ_CHECK((const uint8_t *)(kept.checks + MATRICES) <= kept.panels && (uintptr_t)kept.panels % 64 == 0);
        for (size_t i = 0; i < MATRICES; i++) {
            dm_panels_check(kept.panels + i * BYTES / MATRICES, BYTES / MATRICES);
        }
        FUZZ_CHECK(memcmp(data, &wanted, offsetof(dm_kept_header, hash)) == 0);
        dm_kept_close(&kept);
    }
    close(file);
    return 0;
}

static void fuzz_seeds(void) {
    uint8_t file[DM_KEPT_ALIGNMENT + BYTES] = {0};
    uint64_t checks[MATRICES];
    for (size_t i = 0; i < MATRICES; i++) {
        checks[i] = dm_panels_check(file + DM_KEPT_ALIGNMENT + i * BYTES / MATRICES, BYTES / MATRICES);
    }
    dm_kept_header header = wanted;
    header.hash = dm_kept_hash(&header, checks);
    memcpy(file, &header, sizeof header);
    memcpy(file + sizeof header, checks, sizeof checks);
    fuzz_seed("whole", file, sizeof file);
    fuzz_seed("cut", file, sizeof file - 1);
    fuzz_seed("header", file, sizeof header);
}
