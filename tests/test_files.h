/* Files that tests make: a folder of their own, and GGUF headers put together byte by byte. */
#ifndef DM_TEST_FILES_H
#define DM_TEST_FILES_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/gguf.h"

/* Path of a file in a folder made for this process, in memory where the system has such a place. One of 4 buffers. */
static inline const char *test_path(const char *name) {
    static char folder[64];
    static char paths[4][256];
    static unsigned next;
    if (folder[0] == '\0') {
        snprintf(folder, sizeof folder, "%s/dilmodeli-test-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
        if (mkdtemp(folder) == NULL) {
            perror(folder);
            exit(1);
        }
    }
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

/* Removes the folder, which must be empty but for `names` (NULL ends them). */
static inline void test_remove(const char *const *names) {
    for (; *names != NULL; names++) {
        unlink(test_path(*names));
    }
    char folder[256];
    snprintf(folder, sizeof folder, "%s", test_path(""));
    folder[strlen(folder) - 1] = '\0';
    rmdir(folder);
}

static inline void test_write(const char *path, const void *bytes, size_t size) {
    FILE *stream = fopen(path, "wb");
    if (stream == NULL || fwrite(bytes, 1, size, stream) != size || fclose(stream) != 0) {
        perror(path);
        exit(1);
    }
}

/* *bytes is the caller's to free(). */
static inline size_t test_read(const char *path, uint8_t **bytes) {
    FILE *stream = fopen(path, "rb");
    struct stat info;
    if (stream == NULL || fstat(fileno(stream), &info) != 0) {
        perror(path);
        exit(1);
    }
    *bytes = malloc((size_t)info.st_size + 1);
    size_t size = *bytes != NULL ? fread(*bytes, 1, (size_t)info.st_size, stream) : 0;
    fclose(stream);
    return size;
}

typedef struct test_bytes {
    uint8_t data[8192];
    size_t size;
} test_bytes;

static inline void put(test_bytes *b, const void *data, size_t size) {
    if (b->size + size > sizeof b->data) {
        abort();
    }
    memcpy(b->data + b->size, data, size);
    b->size += size;
}

static inline void put_u8(test_bytes *b, uint8_t value) {
    put(b, &value, sizeof value);
}

static inline void put_u32(test_bytes *b, uint32_t value) {
    put(b, &value, sizeof value);
}

static inline void put_u64(test_bytes *b, uint64_t value) {
    put(b, &value, sizeof value);
}

static inline void put_string(test_bytes *b, const char *text) {
    put_u64(b, strlen(text));
    put(b, text, strlen(text));
}

static inline void put_header(test_bytes *b, uint64_t n_tensors, uint64_t n_values) {
    b->size = 0;
    put(b, "GGUF", 4);
    put_u32(b, 3);
    put_u64(b, n_tensors);
    put_u64(b, n_values);
}

/* A key and its kind; the value is to follow. */
static inline void put_key(test_bytes *b, const char *key, uint32_t kind) {
    put_string(b, key);
    put_u32(b, kind);
}

/* One tensor's entry, of two dimensions unless the second is 0. */
static inline void put_tensor(test_bytes *b, const char *name, uint32_t type, uint64_t dim0, uint64_t dim1, uint64_t offset) {
    put_string(b, name);
    put_u32(b, dim1 == 0 ? 1 : 2);
    put_u64(b, dim0);
    if (dim1 != 0) {
        put_u64(b, dim1);
    }
    put_u32(b, type);
    put_u64(b, offset);
}

/* Zeros up to a multiple of `alignment`, then `size` more. */
static inline void put_data(test_bytes *b, size_t alignment, size_t size) {
    while (b->size % alignment != 0) {
        put_u8(b, 0);
    }
    for (size_t i = 0; i < size; i++) {
        put_u8(b, 0);
    }
}

#endif
