/*
 * What the fuzz targets share. Each defines LLVMFuzzerTestOneInput() and fuzz_seeds(), which writes its seeds by
 * fuzz_seed(): the folder is DM_FUZZ_SEEDS.
 */
#ifndef DM_TEST_FUZZ_H
#define DM_TEST_FUZZ_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "dilmodeli.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);
static void fuzz_seeds(void);

/* Ends the process where something does not hold, which libFuzzer takes for a finding. */
#define FUZZ_CHECK(holds)                                                                                                        \
    do {                                                                                                                         \
        if (!(holds)) {                                                                                                          \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #holds);                                           \
            abort();                                                                                                             \
        }                                                                                                                        \
    } while (0)

static inline void fuzz_seed(const char *name, const void *bytes, size_t size) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", getenv("DM_FUZZ_SEEDS"), name);
    FILE *stream = fopen(path, "wb");
    FUZZ_CHECK(stream != NULL && fwrite(bytes, 1, size, stream) == size && fclose(stream) == 0);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    dm_set_threads(1);
    if (getenv("DM_FUZZ_SEEDS") != NULL) {
        fuzz_seeds();
    }
    return 0;
}

/* A file in memory with these bytes; *path (of 32) is valid while the descriptor is open, which is the caller's to close. */
static inline int fuzz_file(const void *bytes, size_t size, char *path) {
    int descriptor = memfd_create("fuzz", MFD_CLOEXEC);
    FUZZ_CHECK(descriptor >= 0 && write(descriptor, bytes, size) == (ssize_t)size);
    snprintf(path, 32, "/proc/self/fd/%d", descriptor);
    return descriptor;
}

#endif
