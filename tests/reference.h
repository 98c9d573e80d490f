/* Reading the reference files that tests compare with. */
#ifndef DM_TESTS_REFERENCE_H
#define DM_TESTS_REFERENCE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define MODELS DM_SHARED_DIR "/models/"

/* Ends the test as skipped where a file beside the checkout is missing. */
static inline void need(const char *path) {
    if (access(path, R_OK) != 0) {
        print_message("skipped: %s is not here\n", path);
        skip();
    }
}

/* ids [*n], to be freed. */
static inline int32_t *read_ids(const char *path, int32_t *n) {
    FILE *stream = fopen(path, "r");
    assert_non_null(stream);
    int32_t *ids = malloc(4096 * sizeof *ids);
    assert_non_null(ids);
    *n = 0;
    while (*n < 4096 && fscanf(stream, "%d", &ids[*n]) == 1) {
        ++*n;
    }
    fclose(stream);
    return ids;
}

/* float32 [rows, columns] of a NumPy file, to be freed. */
static inline float *read_npy(const char *path, size_t rows, size_t columns) {
    FILE *stream = fopen(path, "rb");
    assert_non_null(stream);
    unsigned char start[10];
    char header[1024];
    char shape[64];
    assert_int_equal(fread(start, 1, sizeof start, stream), sizeof start);
    assert_memory_equal(start, "\x93NUMPY\x01\x00", 8);
    size_t length = start[8] + 256u * start[9];
    assert_true(length < sizeof header);
    assert_int_equal(fread(header, 1, length, stream), length);
    header[length] = '\0';
    snprintf(shape, sizeof shape, "(%zu, %zu)", rows, columns);
    assert_non_null(strstr(header, "'<f4'"));
    assert_non_null(strstr(header, "'fortran_order': False"));
    assert_non_null(strstr(header, shape));
    float *data = malloc(rows * columns * sizeof *data);
    assert_non_null(data);
    assert_int_equal(fread(data, sizeof *data, rows * columns, stream), rows * columns);
    assert_int_equal(fgetc(stream), EOF);
    fclose(stream);
    return data;
}

#endif
