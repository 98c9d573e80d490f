/* Every entry of a vector table as a call on plain rows, for the test that compares tables and for the bench. */
#ifndef DM_TESTS_VECTOR_OPERATIONS_H
#define DM_TESTS_VECTOR_OPERATIONS_H

#include "base/random.h"
#include "kernels/vector.h"

enum { MAX_ROWS = 6 };

/* What one call works on. `kinds` has a letter per row: f n floats, F 2n floats, p n positive floats, c and s
 * cosines and sines, h n float16, b n bfloat16. Values returned go to `result`. */
typedef struct call {
    void *row[MAX_ROWS];
    size_t n;
    float a, b;
    double result[2];
} call;

typedef struct operation {
    const char *name;
    const char *kinds;
    void (*run)(const dm_vector_table *table, call *c);
    size_t least_n;
    double tolerance; /* of x: times 1 + |x|; of results: also times 1 + sqrt(n) */
} operation;

extern const operation operations[];
extern const size_t n_operations;

size_t row_bytes(char kind, size_t n);
void fill_row(void *bytes, char kind, size_t n, dm_random *random);

#endif
